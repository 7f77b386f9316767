"""The README and the FAQ run: every recipe is started as a user would, every command shown gives the output shown."""

from __future__ import annotations

import configparser
import contextlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.live_server import BIN, GUNICORN, LiveServer
from tests.ports import free_port
from tests.services import program
from tests.test_examples import patient, started

README = (ROOT / "README.md").read_text()
BLOCKS = [
    block
    for page in ("README.md", "docs/faq.md")
    for block in re.findall(r"```(\w+)\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
]
RECIPE = re.compile(r"# recipe: (\w+)\.py\n")
RECIPES = {
    name[1]: text for language, text in BLOCKS if language == "python" and (name := RECIPE.match(text))
}
SESSIONS = [text for language, text in BLOCKS if language == "console" and not text.startswith("$ make")]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

NEEDS = re.compile(r"^(?:from|import) (flask)", re.MULTILINE)
MEASURES = re.compile(r"python -m (?:pytest|streamkit doctor)\b")
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


def shell(commands: list[str], folder: Path, port: int | None) -> list[str]:
    """What each of these documented commands gives, typed into one shell, with the server's port in them."""
    end = "--- the end of a command ---"
    script = "".join(f"{command}\nprintf %s '{end}'\n" for command in commands)
    script = re.sub(r"\bcurl ", "curl --silent --show-error ", patient(script))
    if port is not None:
        script = script.replace("8000", str(port))
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{BIN}:{os.environ['PATH']}", "NO_COLOR": "1"}
    environ.pop("PYTEST_ADDOPTS", None)  # of this run
    done = subprocess.run(["bash", "-c", script], cwd=folder, env=environ, capture_output=True, timeout=60)
    failed = {int(code) for code in re.findall(rb"curl: \((\d+)\)", done.stderr)} - {28}  # its own time limit
    assert failed <= ({18} if b"event: error" in done.stdout else set()), done.stderr  # 18: no proper end
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    output = done.stdout.decode().replace("\r\n", "\n").replace(f":{port}", ":8000")
    return output.split(end)[:-1]


def steps_of(session: str) -> list[tuple[str, str]]:
    """The commands of a session, but for the one that starts its server, and the output shown for each."""
    steps = [step.partition("\n") for step in re.split(r"^\$ ", session, flags=re.MULTILINE)[1:]]
    return [(command, expected) for command, _, expected in steps if command != f"{server_of(session)} &"]


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
    if "mypy" in session:
        pytest.importorskip("mypy")
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
        steps = steps_of(session)
        # Whoever types it again, with the logs on disk, sees the same.
        for turn in ("the first", "the second"):
            outputs = shell(
                [command for command, _ in steps], tmp_path, server.port if server is not None else None
            )
            for (command, expected), output in zip(steps, outputs, strict=True):
                wanted = pattern(expected, measured=bool(MEASURES.match(command)))
                assert re.fullmatch(wanted, output), f"{turn} {command} gave\n{output}\nnot\n{expected}"
        if server is not None and not re.search(r"doctor|event: error", session):  # which let a stream fail
            assert "Traceback" not in server.log()


def test_sessions_typed_one_after_another_with_the_server_stopped_in_between(tmp_path: Path) -> None:
    """In one folder, on one port, in one shell with job control: `kill %1` is enough before the next server."""
    pytest.importorskip("gunicorn")
    pytest.importorskip("flask")
    program("curl")
    assert "stop it with `kill %1` before the next" in README
    port = free_port()
    sessions = [session for session in SESSIONS if re.search(r"(?:answer|news|resumable):app", session)]
    assert len(sessions) == 3
    for name, code in RECIPES.items():
        (tmp_path / f"{name}.py").write_text(code)
    gunicorn = shlex.join(["timeout", "30", sys.executable, *GUNICORN])
    script = "set -m\n"
    for session in sessions:
        run = f"{gunicorn} --bind 127.0.0.1:{port} " + str(server_of(session)).removeprefix("gunicorn ")
        script += f"{run} >>log 2>&1 &\nuntil curl -o /dev/null 127.0.0.1:{port}/ 2>/dev/null; do sleep 0.02; done\n"
        # By the next prompt it has gone.
        script += "\n".join(command for command, _ in steps_of(session)) + "\nkill %1; wait\n"
    (output,) = shell([script], tmp_path, port)
    wanted = "".join(expected for session in sessions for _, expected in steps_of(session))
    assert re.fullmatch(pattern(wanted, measured=False), output), output
    assert "in use" not in (tmp_path / "log").read_text()


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
                (printed,) = shell([f"python -m streamkit config {programs[language]}"], tmp_path, None)
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


def test_what_the_documentation_installs_exists() -> None:
    known = configparser.ConfigParser()
    known.read(ROOT / "setup.cfg")
    named = [extra for page in PAGES for extra in re.findall(r"pip install '\.\[(\w+)\]'", page.read_text())]
    assert "server" in named
    assert set(named) <= set(known["options.extras_require"])


def test_the_documentation_names_files_that_exist() -> None:
    for page in PAGES:
        for name in re.findall(
            r"`(?:python\s)?((?:tests|examples|streamkit|benchmarks)/[\w/.]+\.\w+)`", page.read_text()
        ):
            assert (ROOT / name).exists(), f"{page.name} names {name}"
