"""`serve` in its other forms: with --reload, of a folder, and for programs."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streamkit.cli import reload
from tests.conftest import ROOT, eventually

SITE = """
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"{text}"]
"""


@contextlib.contextmanager
def serving(folder: Path, *arguments: str, stop: bool = True) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "streamkit", "serve", *arguments, "--port", "0"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield process
        if stop:
            process.send_signal(signal.SIGINT)
        assert process.wait(15) == 0
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def address(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    found = re.search(r"http://[^\s\"]+", process.stdout.readline())
    assert found
    return found[0]


def read(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            body: bytes = response.read()
            return body
    except (urllib.error.URLError, ConnectionError) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        return b""


def write(path: Path, text: str, age: float) -> None:
    """Write a file whose time of change is `age` seconds ago, so that no clock's coarseness hides the change."""
    path.write_text(text)
    now = path.stat().st_mtime
    os.utime(path, (now - age, now - age))


def test_code_that_changes_is_loaded_again_and_a_mistake_waits_for_its_cure(tmp_path: Path) -> None:
    module = tmp_path / "changing_site.py"
    write(module, SITE.format(text="one"), 100)
    with serving(tmp_path, "changing_site:app", "--reload") as process:
        url = address(process)
        assert read(url) == b"one"
        write(module, SITE.format(text="two"), 90)
        eventually(lambda: read(url) == b"two", 20)
        write(module, "this is no Python\n", 80)
        eventually(lambda: read(url) == b"", 20)
        assert process.poll() is None
        write(module, SITE.format(text="three"), 70)
        eventually(lambda: read(url) == b"three", 20)


def test_a_child_does_not_outlive_a_parent_that_was_killed(tmp_path: Path) -> None:
    write(tmp_path / "changing_site.py", SITE.format(text="one"), 100)
    process = subprocess.Popen(
        [sys.executable, "-m", "streamkit", "serve", "changing_site:app", "--reload", "--port", "0"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with process:
        url = address(process)
        assert read(url) == b"one"
        process.kill()
    eventually(lambda: read(url) == b"", 20)


def test_a_stop_reaches_a_child_that_is_just_being_started(monkeypatch: pytest.MonkeyPatch) -> None:
    real = subprocess.Popen

    def start(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        child = real([sys.executable, "-c", "import time; time.sleep(60)"], **options)
        signal.raise_signal(signal.SIGINT)
        return child

    monkeypatch.setattr(reload.subprocess, "Popen", start)
    begun = time.monotonic()
    assert reload.supervise(argparse.Namespace(target="a:b", host="127.0.0.1", port=1, json=False)) == 0
    assert time.monotonic() - begun < reload.STOP_SECONDS / 2


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the child would be refused it too")
def test_nobody_is_given_the_port_while_a_child_is_being_started(monkeypatch: pytest.MonkeyPatch) -> None:
    real = subprocess.Popen

    def start(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", int(command[command.index("--port") + 1])))
        signal.raise_signal(signal.SIGINT)
        return real([sys.executable, "-c", "import time; time.sleep(60)"], **options)

    monkeypatch.setattr(reload.subprocess, "Popen", start)
    assert reload.supervise(argparse.Namespace(target="a:b", host="127.0.0.1", port=0, json=False)) == 0


def test_a_folder_for_programs(tmp_path: Path) -> None:
    (tmp_path / "page.txt").write_text("a page")
    with serving(tmp_path, ".", "--json", stop=False) as process:
        url = address(process)
        assert read(f"{url}/page.txt") == b"a page"
        process.send_signal(signal.SIGTERM)
        assert process.stdout is not None
        assert json.loads(process.stdout.readline()) == {"stopped": True, "cut": 0}


def test_what_is_neither_a_folder_nor_an_application(tmp_path: Path) -> None:
    (tmp_path / "file.txt").write_text("")
    for target in ("no/such/folder", "file.txt"):
        done = subprocess.run(
            [sys.executable, "-m", "streamkit", "serve", target],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert done.returncode == 2
        assert "is not a folder" in done.stderr
        assert "Traceback" not in done.stderr
