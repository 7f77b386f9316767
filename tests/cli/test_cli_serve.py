"""`python -m streamkit serve`: what it serves, and how it tells a user's mistake."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
import zipapp
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamkit.cli import main

ROOT = Path(__file__).resolve().parent.parent.parent

HELLO = """
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "5")])
    return [b"hello"]

class Site:
    app = staticmethod(app)

number = 3
"""


@contextlib.contextmanager
def serving(*command: str, folder: Path, path: str = str(ROOT)) -> Iterator[str]:
    """Start `command` in `folder`; the address that it prints. It must stop by itself, with exit code 0."""
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, "STREAMKIT_DEMO_VAR": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    try:
        address = re.search(r"http://\S+", process.stdout.readline())
        assert address
        yield address[0]
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture
def hello(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "hello_site.py").write_text(HELLO)
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    yield tmp_path
    sys.path[:] = before
    sys.modules.pop("hello_site", None)


@pytest.mark.parametrize("target", ["hello_site:app", "hello_site:Site.app"])
def test_a_module_of_the_working_directory_is_served(hello: Path, target: str) -> None:
    with (
        serving("-m", "streamkit", "serve", target, "--port", "0", folder=hello) as address,
        urllib.request.urlopen(address, timeout=10) as response,
    ):
        assert response.read() == b"hello"


@pytest.mark.parametrize("options", [[], ["--json"], ["--reload"]])
def test_a_reader_that_has_the_address_may_leave(hello: Path, options: list[str]) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "streamkit", "serve", "hello_site:app", "--port", "0", *options],
        cwd=hello,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        address = re.search(r"http://[^\s\"]+", process.stdout.readline())
        assert address
        process.stdout.close()
        with urllib.request.urlopen(address[0], timeout=10) as response:
            assert response.read() == b"hello"
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert "rror" not in process.stderr.read()


SLOW = """
import threading
from streamkit.servers.http_server import StreamServer
StreamServer.__init__.__kwdefaults__["grace"] = 3600  # so that only a second Ctrl-C ends the request

def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield b"begun"
    threading.Event().wait()
"""


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_second_ctrl_c_leaves_at_once(tmp_path: Path, options: list[str]) -> None:
    (tmp_path / "slow_site.py").write_text(SLOW)
    process = subprocess.Popen(
        [sys.executable, "-m", "streamkit", "serve", "slow_site:app", "--port", "0", *options],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with process:
        try:
            assert process.stdout is not None
            address = re.search(r"http://[\d.]+:(\d+)", process.stdout.readline())
            assert address
            where = ("127.0.0.1", int(address[1]))
            with (
                socket.create_connection(where, timeout=15) as idle,
                socket.create_connection(where, timeout=15) as sock,
            ):
                sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                assert sock.recv(1)
                process.send_signal(signal.SIGINT)
                assert idle.recv(1) == b""  # the stop has begun
                process.send_signal(signal.SIGINT)
                told, _ = process.communicate(timeout=15)
        finally:
            process.kill()
    assert process.returncode == 0
    assert ('"cut": 1' if options else "1 request was cut") in told


@pytest.mark.usefixtures("hello")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["serve", "hello_site"], "give module:name"),
        (["serve", ":app"], "give module:name"),
        (["serve", "no_such_module:app"], "no module 'no_such_module'"),
        (["serve", "no_such.module:app"], "no module 'no_such'"),
        (["serve", "hello_site:missing"], "has no 'missing'"),
        (["serve", "hello_site:number"], "is of type int"),
        (["serve", "./hello_site.py:app"], "write hello_site:app"),
        (["serve", "hello_site.py:app"], "write hello_site:app"),
        (["serve", "hello_site.py"], "write hello_site:app"),
        (["serve", "shop/web.py"], "write shop.web:app"),
        (["serve", "shop/web.py:"], "write shop.web:app"),
        (["serve", ""], "give module:name"),
        (["serve", "a" * 300], "give module:name"),
        (["doctor", "hello_site.py"], "write hello_site:app"),
        (["serve", ".hello_site:app"], "give module:name"),
        (["serve", "/srv/app.py:app"], "give module:name"),
        (["serve", "a\0b:app"], "give module:name"),
        (["serve", "--port", "65536"], "not a port"),
        (["serve", "--port", "http"], "not a port"),
        (["nothing"], "invalid choice"),
        ([], "required"),
    ],
)
def test_a_command_line_that_makes_no_sense_is_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert words in error
    assert "Traceback" not in error


def test_help_is_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--help"]) == 0
    assert "module:name" in capsys.readouterr().out
    assert main(["--version"]) == 0


@pytest.mark.usefixtures("hello")
def test_a_port_in_use_is_1_and_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["serve", "hello_site:app", "--port", str(port)]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert str(port) in error


@pytest.mark.usefixtures("hello")
@pytest.mark.parametrize("host", ["nonsense.invalid", "192.0.2.1", "a" * 70, "::ffff:192.0.2.1"])
@pytest.mark.parametrize("options", [[], ["--reload"]])
def test_a_host_that_cannot_be_listened_on_is_1_and_one_line(
    capsys: pytest.CaptureFixture[str], host: str, options: list[str]
) -> None:
    assert main(["serve", "hello_site:app", "--port", "0", "--host", host, *options]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("error: cannot listen on")
    assert host in error


@pytest.mark.parametrize("command", ["serve", "doctor"])
def test_a_module_that_fails_shows_its_own_traceback(
    hello: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    (hello / "failing_site.py").write_text("import json\n1 / 0\n")
    assert main([command, "failing_site:app"]) == 1
    error = capsys.readouterr().err
    assert "ZeroDivisionError" in error
    assert error.count("error: ") == 1


def test_a_module_that_lacks_another_names_it(hello: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (hello / "lacking_site.py").write_text("import no_such_thing\n")
    assert main(["serve", "lacking_site:app"]) == 1
    assert "no_such_thing" in capsys.readouterr().err


def test_a_zipapp_serves_its_own_demo(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for folder, name in ((ROOT / "streamkit", "streamkit"), (ROOT / "examples" / "demo", "demo")):
        for path in folder.rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts and "var" not in path.parts:
                target = source / name / path.relative_to(folder)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())
    (source / "__main__.py").write_text("import sys\nfrom streamkit.cli import main\nsys.exit(main())\n")
    archive = tmp_path / "streamkit.pyz"
    zipapp.create_archive(source, archive)
    with serving(str(archive), "serve", "--port", "0", folder=tmp_path, path="") as address:
        with urllib.request.urlopen(address, timeout=10) as response:
            assert b"<title>streamkit" in response.read()
        with urllib.request.urlopen(f"{address}/live", timeout=10) as response:
            assert response.readline() == b":\n"


def test_without_a_demo_it_says_so(tmp_path: Path) -> None:
    target = tmp_path / "installed" / "streamkit"
    for path in (ROOT / "streamkit").rglob("*.py"):
        copy = target / path.relative_to(ROOT / "streamkit")
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    done = subprocess.run(
        [sys.executable, "-m", "streamkit", "serve"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(target.parent)},
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert done.returncode == 2
    assert "source checkout" in done.stderr
    assert "Traceback" not in done.stderr
