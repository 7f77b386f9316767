"""The README runs: every recipe is started as a user would, and every command shown gives the output shown."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.live_server import BIN, LiveServer
from tests.services import program
from tests.test_examples import started

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)
RECIPE = re.compile(r"# recipe: (\w+)\.py\n")
RECIPES = {
    name[1]: text for language, text in BLOCKS if language == "python" and (name := RECIPE.match(text))
}
SESSIONS = [text for language, text in BLOCKS if language == "console" and not text.startswith("$ make")]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

NEEDS = re.compile(r"^(?:from|import) (flask)", re.MULTILINE)
MEASURES = re.compile(r"python -m (?:pytest|streamkit (?:doctor|bench))\b")
"""Programs whose figures are those of the day."""


def server_of(session: str) -> str | None:
    """The command that a session leaves in the background: its server."""
    found = re.search(r"^\$ (.*) &$", session, re.MULTILINE)
    return found[1] if found else None


def name_of(session: str) -> str:
    words = (server_of(session) or session.splitlines()[0].removeprefix("$ ")).split()
    return (
        next(word for word in reversed(words) if re.search(r"\w[:.]\w+$", word)).rpartition(".py")[0]
        or words[-1]
    )


def shell(command: str, folder: Path, port: int | None) -> str:
    """The output of a documented command, with the server's port in it."""
    command = re.sub(r"\bcurl ", "curl --silent --show-error ", command)
    if port is not None:
        command = command.replace("8000", str(port))
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{BIN}:{os.environ['PATH']}", "NO_COLOR": "1"}
    done = subprocess.run(command, shell=True, cwd=folder, env=environ, capture_output=True, timeout=30)
    assert not re.search(rb"curl: \((?!28\))", done.stderr), done.stderr  # 28: its own time limit
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    return done.stdout.decode().replace("\r\n", "\n").replace(f":{port}", ":8000")


def pattern(expected: str, *, measured: bool) -> str:
    """A regular expression for what is shown: `…` is anything up to the end of its line."""
    if not measured:
        return re.escape(expected).replace("…", ".*")
    words = re.split(r"(\d[\d,.]*(?: (?:ms|s)\b|s\b)?|\s+)", expected)
    number = r"\d[\d,.]*(?: ?m?s\b)?"
    return "".join(
        number if word[:1].isdigit() else r"\s+" if word.isspace() else re.escape(word) for word in words
    )


@pytest.mark.parametrize("session", SESSIONS, ids=name_of)
def test_session(session: str, tmp_path: Path) -> None:
    run = server_of(session)
    if "gunicorn" in (run or ""):
        pytest.importorskip("gunicorn")
    if "curl" in session:
        program("curl")
    for name, code in RECIPES.items():
        (tmp_path / f"{name}.py").write_text(code)
    shown = [code for name, code in RECIPES.items() if re.search(rf"\b{name}\b", session)]
    imported = re.findall(r"^import (\w+)$", "".join(shown), re.MULTILINE)
    shown += [RECIPES[name] for name in imported if name in RECIPES]
    if NEEDS.search("".join(shown)):
        pytest.importorskip("flask")
    with contextlib.ExitStack() as stack:
        server: LiveServer | None = None
        if run is not None:
            server = stack.enter_context(started(run, tmp_path, cwd=tmp_path))
            for name, code in RECIPES.items():  # a client knows where its server is
                (tmp_path / f"{name}.py").write_text(code.replace("8000", str(server.port)))
        for step in re.split(r"^\$ ", session, flags=re.MULTILINE)[1:]:
            command, _, expected = step.partition("\n")
            if command == f"{run} &":
                continue
            output = shell(command, tmp_path, server.port if server is not None else None)
            wanted = pattern(expected, measured=bool(MEASURES.match(command)))
            assert re.fullmatch(wanted, output), f"{command} gave\n{output}\nnot\n{expected}"
        if server is not None and "doctor" not in session:  # which asks for a stream that fails
            assert "Traceback" not in server.log()


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_short_and_shown_at_work(name: str) -> None:
    lines = [line for line in RECIPES[name].splitlines()[1:] if line.strip()]
    assert len(lines) < 20, "a recipe has less than 20 lines, its name and blank ones aside"
    assert any(re.search(rf"\b{name}\b", session) for session in SESSIONS), f"nothing is shown of {name}"


def test_configuration_lines_are_those_that_the_command_prints(tmp_path: Path) -> None:
    """The tests of `config` run the programs over them."""
    programs = {"nginx": "nginx", "caddy": "caddy", "apache": "apache", "ini": "systemd"}
    seen = set()
    for page in PAGES:
        for language, text in re.findall(r"```(\w+)\n(.*?)```", page.read_text(), re.DOTALL):
            if language in programs:
                printed = shell(f"python -m streamkit config {programs[language]}", tmp_path, None)
                lines = {line.strip() for line in printed.splitlines()}
                assert set(text.splitlines()) <= lines, f"{page.name}, {language}"
                seen.add(language)
    assert seen == set(programs)


def test_the_two_commands_exist_and_make_run_serves_the_demo(tmp_path: Path) -> None:
    pytest.importorskip("gunicorn")
    commands = re.findall(r"^\$ (make \w+)", README, re.MULTILINE)
    assert commands == ["make run", "make test"]
    for command in commands:
        subprocess.run([*shlex.split(command), "--dry-run"], cwd=ROOT, check=True, capture_output=True)
    dry = subprocess.run(["make", "run", "--dry-run"], cwd=ROOT, check=True, capture_output=True, text=True)
    (run,) = (line for line in dry.stdout.splitlines() if line.startswith(".venv/bin/gunicorn "))
    assert "--threads 4 --bind 127.0.0.1:8000 " in run
    with started(run.removeprefix(".venv/bin/").replace("--bind 127.0.0.1:8000 ", ""), tmp_path) as server:
        response, body = server.get("/")
        assert response.status == 200
        assert b"<html" in body


def headings(page: Path) -> set[str]:
    """The anchors of a page, as GitHub makes them."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_link_leads_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text()):
            path, _, anchor = target.partition("#")
            linked = page.parent / path if path else page
            assert linked.exists(), f"{page.name} links to {target}"
            assert not anchor or anchor in headings(linked), f"{page.name} links to {target}"


def test_the_documentation_names_files_that_exist() -> None:
    for page in PAGES:
        for name in re.findall(
            r"`(?:python\s)?((?:tests|examples|streamkit|benchmarks)/[\w/.]+\.\w+)`", page.read_text()
        ):
            assert (ROOT / name).exists(), f"{page.name} names {name}"
