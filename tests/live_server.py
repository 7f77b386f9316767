"""Real servers in processes of their own, on free ports of 127.0.0.1."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.ports import free_port

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent

_WERKZEUG = """
import sys
from importlib import import_module
from werkzeug.serving import run_simple
module, name = sys.argv[1].split(":")
run_simple("127.0.0.1", int(sys.argv[2]), getattr(import_module(module), name), threaded=True)
"""

_FALLBACK = """
import sys
from importlib import import_module
from streamkit import serve
module, name = sys.argv[1].split(":")
serve(getattr(import_module(module), name), port=int(sys.argv[2]))
"""


def _gunicorn() -> list[str]:
    """gunicorn as a module; releases that open a control socket of their own must not share one between tests."""
    try:
        from gunicorn.config import KNOWN_SETTINGS
    except ImportError:
        return []
    newer = any(setting.name == "control_socket_disable" for setting in KNOWN_SETTINGS)
    return ["-m", "gunicorn", *(["--no-control-socket"] if newer else [])]


GUNICORN = _gunicorn()


def _command(server: str, app: str, port: int) -> list[str]:
    python = [sys.executable, "-X", "dev"]
    address = f"127.0.0.1:{port}"
    gunicorn = [*python, *GUNICORN, "--bind", address, app]
    graceful = ["--graceful-timeout", os.environ.get("GRACEFUL_SECONDS", "5")]
    return {
        "gunicorn-gthread": [*gunicorn, "--threads", "4", *graceful],
        "gunicorn-sync": [*gunicorn, *graceful],
        "werkzeug": [*python, "-c", _WERKZEUG, app, str(port)],
        "fallback": [*python, "-c", _FALLBACK, app, str(port)],
        "waitress": [
            *[*python, "-m", "waitress", "--listen", address, "--threads", "4"],
            *["--channel-request-lookahead", "1", app],
        ],
        "uwsgi": [
            *[str(BIN / "uwsgi"), "--http-socket", address, "--master", "--threads", "4", "--die-on-term"],
            *["--need-app", "--disable-logging", "--module", app, "--pythonpath", str(ROOT)],
        ],
    }[server]


SERVERS = ["fallback", "gunicorn-gthread", "gunicorn-sync", "uwsgi", "waitress", "werkzeug"]
CHUNKING = [name for name in SERVERS if name != "uwsgi"]  # uWSGI's http-socket ends bodies by closing
MODULES = {
    "gunicorn-gthread": "gunicorn",
    "gunicorn-sync": "gunicorn",
    "werkzeug": "werkzeug",
    "waitress": "waitress",
    "uwsgi": "pyuwsgi",
}


class LiveServer:
    """One running server. `log()` is what it has printed so far."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log_path: Path) -> None:
        self.process = process
        self.port = port
        self._log_path = log_path

    def log(self) -> str:
        return self._log_path.read_text(errors="replace")

    def get(
        self, path: str, headers: dict[str, str] | None = None, method: str = "GET"
    ) -> tuple[http.client.HTTPResponse, bytes]:
        """The whole answer. Raises http.client.IncompleteRead or ConnectionError for one that breaks off."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, headers=headers or {})
            response = connection.getresponse()
            return response, response.read()
        finally:
            connection.close()

    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = json.loads(self.get("/state")[1])
        return state

    def connect(self, path: str, version: str = "1.1") -> socket.socket:
        """A raw socket that has sent a GET and read nothing."""
        sock = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        sock.sendall(f"GET {path} HTTP/{version}\r\nHost: localhost\r\n\r\n".encode())
        return sock


@contextlib.contextmanager
def running(server: str, tmp_path: Path, app: str = "tests.apps.streams_app:app") -> Iterator[LiveServer]:
    """Start `server` with `app`, stop it at the end; its exit must not need force."""
    port = free_port()
    log_path = tmp_path / f"{server}.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            _command(server, app, port),
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "default"},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _await_port(process, port, log_path)
        yield LiveServer(process, port, log_path)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(8)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(5)


def _await_port(process: subprocess.Popen[bytes], port: int, log_path: Path) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            failed = process.poll() is not None or time.monotonic() > deadline
            assert not failed, f"the server did not start:\n{log_path.read_text(errors='replace')}"
            time.sleep(0.02)
