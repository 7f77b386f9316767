"""Every example runs as its own first lines say: its run line starts it, its curl lines answer."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.live_server import BIN, GUNICORN, LiveServer, _await_port
from tests.ports import free_port
from tests.services import program

EXAMPLES = sorted((ROOT / "examples").glob("[0-9][0-9]_*.py"))
NEEDS = re.compile(r"^(?:from|import) (flask|django|werkzeug)", re.MULTILINE)

EXPECTED = {
    "01": ["event: tick", 'data: {"hello":"Ada","tick":4}'],
    "02": ['{"name":"decoder","bytes":'],
    "03": ['"load":['],
    "04": ["event: connected", "data: 1 seconds", "event: complete"],
    "05": ['data: {"beat":4}', "<h1>"],
    "06": ["i,square", "5,25"],
    "07": ['data: {"percent":100}', "event: result", "event: done"],
    "08": ['"content":" lists"', "data: [DONE]"],
    "09": ["200 application/zip"],
    "10": ["data: ", "data: Filesystem"],
    "11": ["event: gap", "data: hello"],
    "12": ["data:  lists", "event: complete", "event: over", '"stopped":false'],
}


def lines_of(path: Path, name: str) -> list[str]:
    return re.findall(rf"^{name}: +(.*)$", path.read_text(), re.MULTILINE)


@contextlib.contextmanager
def started(command: str, tmp_path: Path, cwd: Path = ROOT) -> Iterator[LiveServer]:
    """Run a documented command, with a free port in place of 8000 and this environment's programs."""
    port = free_port()
    words = shlex.split(command)
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{BIN}:{os.environ['PATH']}"}
    while "=" in words[0]:
        name, _, value = words.pop(0).partition("=")
        environ[name] = value
    if words[0] == "gunicorn":
        words[:1] = [sys.executable, *GUNICORN, "--bind", f"127.0.0.1:{port}"]
    elif words[0] == "python":
        words = [sys.executable, *words[1:], str(port)]
    log_path = tmp_path / "server.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            words, cwd=cwd, env=environ, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        _await_port(process, port, log_path)
        yield LiveServer(process, port, log_path)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def patient(command: str) -> str:
    """A documented curl command with time enough for a busy machine to give what is looked for."""
    return re.sub(r"--max-time \d+", "--max-time 6", command)


def curl(command: str, port: int) -> str:
    """The output of a documented curl command. 28 is curl's own time limit, which endless streams need."""
    command = patient(command)
    command = command.replace("8000", str(port)).replace("curl ", "curl --silent --show-error ", 1)
    done = subprocess.run(shlex.split(command), capture_output=True, timeout=30)
    assert done.returncode in (0, 28), done.stderr
    return done.stdout.decode()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example(path: Path, tmp_path: Path) -> None:
    for module in NEEDS.findall(path.read_text()):
        pytest.importorskip(module)
    (run,) = lines_of(path, "run")
    if run.split()[0] != "python":
        pytest.importorskip("gunicorn")
    program("curl")
    with started(run, tmp_path) as server:
        output = "".join(curl(line, server.port) for line in lines_of(path, "curl"))
        log = server.log()
    for expected in EXPECTED[path.stem[:2]]:
        assert expected in output
    assert "Traceback" not in log


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) < 40


def test_every_example_is_expected() -> None:
    assert [path.stem[:2] for path in EXAMPLES] == sorted(EXPECTED)
