"""The README runs: every recipe is started as a user would, and every command shown gives the output shown."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.services import program
from tests.test_examples import curl, started

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)
RECIPE = re.compile(r"# recipe: (\w+)\.py\n")


def recipes() -> list[tuple[str, str, str]]:
    """Name, code and console session of every recipe; the session is the block that follows the code."""
    found = []
    for index, (language, text) in enumerate(BLOCKS):
        if language == "python" and (name := RECIPE.match(text)):
            assert BLOCKS[index + 1][0] == "console", f"the recipe {name[1]} is not followed by what it shows"
            found.append((name[1], text, BLOCKS[index + 1][1]))
    return found


@pytest.mark.parametrize(("name", "code", "session"), recipes(), ids=lambda value: value[:20].split("\n")[0])
def test_recipe(name: str, code: str, session: str, tmp_path: Path) -> None:
    if "flask" in code:
        pytest.importorskip("flask")
        pytest.importorskip("gunicorn")
        run = f"gunicorn --threads 4 {name}:app"
    else:
        run = f"python {name}.py"
    program("curl")
    lines = [line for line in code.splitlines()[1:] if line.strip()]
    assert len(lines) <= 20, "a recipe is at most 20 lines, its name and blank ones aside"
    (tmp_path / f"{name}.py").write_text(code)
    commands = re.split(r"^\$ ", session, flags=re.MULTILINE)[1:]
    with started(run, tmp_path, cwd=tmp_path) as server:
        for command in commands:
            line, _, expected = command.partition("\n")
            assert curl(line, server.port).replace("\r\n", "\n") == expected
        assert "Traceback" not in server.log()


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


def test_every_link_leads_somewhere() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_documentation_names_files_that_exist() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for name in re.findall(r"`((?:tests|examples|streamkit|benchmarks)/[\w/.]+\.\w+)`", page.read_text()):
            assert (ROOT / name).exists(), f"{page.name} names {name}"
