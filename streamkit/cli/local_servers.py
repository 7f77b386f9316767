"""The WSGI servers that are installed here, each started on a free port of 127.0.0.1 with an application of the user.

Nothing is imported from them: a server runs in a process of its own, in a session of its own, and is ended with it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from streamkit.cli.failures import CommandFailed
from streamkit.servers.reserved_port import reserved_port

START_SECONDS: Final = 20.0
"""For a server and the application that it imports."""

STOP_SECONDS: Final = 8.0
"""After SIGTERM; what then still runs is killed."""

_WERKZEUG: Final = """
import sys
from importlib import import_module
from werkzeug.serving import run_simple
module, _, name = sys.argv[1].partition(":")
found = import_module(module)
for part in name.split("."):
    found = getattr(found, part)
run_simple("127.0.0.1", int(sys.argv[2]), found, threaded=True)
"""

SERVERS: Final = ("streamkit", "gunicorn sync", "gunicorn gthread", "werkzeug", "waitress", "uwsgi")
"""The names that `--server` takes."""


def installed(name: str) -> bool:
    """Whether the server of that name can be started here."""
    if name == "streamkit":
        return True
    if name == "uwsgi":
        return _uwsgi() is not None
    return find_spec(name.split()[0]) is not None


def _uwsgi() -> str | None:
    beside = Path(sys.executable).with_name("uwsgi")
    return str(beside) if beside.exists() else shutil.which("uwsgi")


def _command(name: str, app: str, port: int) -> list[str]:
    address = f"127.0.0.1:{port}"
    python = [sys.executable]
    gunicorn = [*python, "-m", "gunicorn", "--bind", address, "--graceful-timeout", "2", app]
    return {
        "streamkit": [*python, "-m", "streamkit", "serve", app, "--port", str(port)],
        "gunicorn sync": gunicorn,
        "gunicorn gthread": [*gunicorn, "--threads", "4"],
        "werkzeug": [*python, "-c", _WERKZEUG, app, str(port)],
        "waitress": [*python, "-m", "waitress", "--listen", address, app],
        "uwsgi": [
            *[_uwsgi() or "uwsgi", "--http-socket", address, "--master", "--threads", "4", "--die-on-term"],
            *["--need-app", "--disable-logging", "--module", app, "--pythonpath", os.getcwd()],
        ],
    }[name]


@contextlib.contextmanager
def running(name: str, app: str) -> Iterator[str]:
    """Start the server with `app` (module:name, importable from the working folder); its URL, without a path.

    Raises CommandFailed where it does not listen within `START_SECONDS`, with the last lines that it has printed.
    """
    package_place = str(Path(__file__).resolve().parent.parent.parent)
    paths = [os.getcwd(), package_place, *filter(None, [os.environ.get("PYTHONPATH")])]
    with reserved_port(("127.0.0.1", 0)) as port, tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            _command(name, app, port),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            deadline = time.monotonic() + START_SECONDS
            while not _listens(port):
                if process.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    lines = log.read()[-4000:].decode("utf-8", "replace").strip().splitlines()
                    raise CommandFailed(
                        f"{name} does not start: {lines[-1] if lines else 'it has printed nothing'}"
                    )
                time.sleep(0.05)
            yield f"http://127.0.0.1:{port}"
        finally:
            _end(process)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
