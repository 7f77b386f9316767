"""A real server in a with-block, on a free port of 127.0.0.1: streamkit's own, or any other that is installed.

The law: what is pure Python and can be stopped from outside runs on a thread of this process, so a test may look into
the application's variables. gunicorn and uWSGI fork and own their process, so they get one of their own, and the
application is named by its module. At the end of the block the server is gone: threads are joined, processes are
asked, then killed with everything that they started.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, Final

from streamkit.servers.reserved_port import reserved_port
from streamkit.testing.client import Client
from streamkit.testing.in_process import WSGIApplication

HOST: Final = "127.0.0.1"
START_SECONDS: Final = 20.0  # a bound for a busy machine; gunicorn needs about half a second
STOP_SECONDS: Final = 8.0
_LOOK_SECONDS: Final = 0.02

_MODULES: Final = {
    "streamkit": "streamkit",
    "werkzeug": "werkzeug",
    "waitress": "waitress",
    "gunicorn": "gunicorn",
    "gunicorn-gthread": "gunicorn",
    "uwsgi": "pyuwsgi",
}
# Settings that a release does not know are ignored. Newer ones open a control socket, which two servers would share.
_GUNICORN_SETTINGS: Final = """
control_socket_disable = True

def post_worker_init(worker):
    worker.log.info("streamkit.testing: ready")
"""
_READY: Final = ("streamkit.testing: ready", "spawned uWSGI worker 1 ")
_INSIDE: Final = "STREAMKIT_TESTING_SERVER"
"""Set in the environment of a server's process. A module that starts a server of itself when it is imported would
otherwise start one in each, without end."""
_PROCESSES: Final = ("gunicorn", "gunicorn-gthread", "uwsgi")


class RunningServer:
    """A server that runs. `url` is `http://127.0.0.1:port`; `name` is what `running` was asked for."""

    def __init__(self, name: str, port: int, log: Path | None = None) -> None:
        self.name = name
        self.port = port
        self.url = f"http://{HOST}:{port}"
        self._log = log

    def client(self, *, timeout: float = 10.0) -> Client:
        """A new client of this server; use it in a with-block, or call its `leave()`."""
        return Client(self.url, timeout=timeout)

    def log(self) -> str:
        """What the server's process has printed so far; empty for one in this process, which uses `logging`."""
        return "" if self._log is None else self._log.read_text(errors="replace")


def installed_servers() -> list[str]:
    """The names that `running` can be given here, sorted: for `pytest.mark.parametrize`."""
    return sorted(name for name in _MODULES if _is_installed(name))


def running(
    app: WSGIApplication | str, server: str = "streamkit", *, threads: int = 4
) -> AbstractContextManager[RunningServer]:
    """Start `server` with `app`, give a `RunningServer`, and stop it at the end of the with-block.

    app: a WSGI application, or `"module:name"` of one; gunicorn and uWSGI need the latter, for they run in a process of
    their own (with this one's `sys.path` and working folder).
    server: `streamkit`, `werkzeug`, `waitress` (on a thread of this process), `gunicorn` (a sync worker),
    `gunicorn-gthread` or `uwsgi`. threads: of a gthread worker, waitress and uWSGI; the others take one a connection.

    Raises ValueError for another name, ModuleNotFoundError where the server is not installed, TypeError for an app that
    the server cannot be given, and RuntimeError, with what the server printed, where it does not start, or where this
    is called while such a server imports the application.
    """
    if server not in _MODULES:
        raise ValueError(f"server is {server!r}; it is one of {', '.join(sorted(_MODULES))}")
    if not _is_installed(server):
        raise ModuleNotFoundError(f"{server} is not installed; pip install {_MODULES[server]}")
    if _INSIDE in os.environ:
        raise RuntimeError(
            f"running({app!r}) is called by a server that running() has started, while it imports the application; "
            "call it inside a function"
        )
    if server in _PROCESSES and not isinstance(app, str):
        raise TypeError(
            f'app is {app!r}; {server} runs in a process of its own: name the application, as "module:name"'
        )
    if not (callable(app) or isinstance(app, str)):
        raise TypeError(f'app is {app!r}; give a WSGI application, or "module:name" of one')
    if threads < 1:
        raise ValueError(f"threads is {threads!r}; give 1 or more")
    return _started(app, server, threads)


def _is_installed(server: str) -> bool:
    if server == "uwsgi":
        return _uwsgi() is not None
    return importlib.util.find_spec(_MODULES[server]) is not None


def _uwsgi() -> str | None:
    """The program: beside this Python where it came as a wheel, else wherever the system has it."""
    return shutil.which(
        "uwsgi", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    )


@contextmanager
def _started(app: WSGIApplication | str, server: str, threads: int) -> Iterator[RunningServer]:
    if isinstance(app, str) and server in _PROCESSES:
        with _process(server, app, threads) as running_server:
            yield running_server
        return
    application = _load(app) if isinstance(app, str) else app
    with ExitStack() as stack:
        if server == "streamkit":
            port = _streamkit(application, stack)
        elif server == "werkzeug":
            port = _werkzeug(application, stack)
        else:
            port = _waitress(application, threads, stack)
        yield RunningServer(server, port)


def _load(target: str) -> Any:
    module, colon, name = target.partition(":")
    if not (module and colon and name):
        raise TypeError(f'app is {target!r}; give "module:name", such as "app:app"')
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found


# -- on threads of this process ---------------------------------------------------------------------------------


def _streamkit(app: WSGIApplication, stack: ExitStack) -> int:
    from streamkit.servers.http_server import StreamServer

    return stack.enter_context(StreamServer(app, HOST, 0, grace=0.2).start()).address[1]


def _werkzeug(app: WSGIApplication, stack: ExitStack) -> int:
    from werkzeug.serving import make_server

    server = make_server(HOST, 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, name="werkzeug-accept", daemon=True)
    thread.start()
    stack.callback(server.server_close)
    stack.callback(thread.join)
    stack.callback(server.shutdown)  # the last one in is the first one called
    return int(server.server_port)


def _waitress(app: WSGIApplication, threads: int, stack: ExitStack) -> int:
    from waitress import wasyncore  # type: ignore[import-untyped,unused-ignore]
    from waitress.server import create_server  # type: ignore[import-untyped,unused-ignore]

    sockets: dict[int, Any] = {}
    # Only with a look-ahead does waitress know that a client has left.
    server: Any = create_server(
        app,
        sockets,
        host=HOST,
        port=0,
        threads=threads,
        channel_request_lookahead=1,
        clear_untrusted_proxy_headers=True,
    )
    stop = threading.Event()

    def loop() -> None:
        while not stop.is_set():
            wasyncore.loop(timeout=1.0, map=sockets, count=1)

    def close() -> None:
        """Once the loop has ended. Its wake-up pipe goes last: a thread writes to it, and its number is used again."""
        for channel in list(server.active_channels.values()):
            channel.handle_close()  # also wakes a thread that waits for its client to read
        server.task_dispatcher.shutdown()
        server.close()

    thread = threading.Thread(target=loop, name="waitress-loop", daemon=True)
    thread.start()
    stack.callback(close)
    stack.callback(thread.join)
    stack.callback(server.pull_trigger)
    stack.callback(stop.set)
    return int(server.effective_port)


# -- in processes of their own ----------------------------------------------------------------------------------


@contextmanager
def _process(server: str, app: str, threads: int) -> Iterator[RunningServer]:
    with (
        reserved_port((HOST, 0)) as port,
        tempfile.TemporaryDirectory(prefix="streamkit-testing-") as folder,
    ):
        log_path = Path(folder, "log")
        settings = Path(folder, "gunicorn.conf.py")
        settings.write_text(_GUNICORN_SETTINGS)
        with log_path.open("wb") as log:
            process = _start(_command(server, app, port, threads, settings), log)
        try:
            _await_ready(process, log_path)
            yield RunningServer(server, port, log_path)
        finally:
            _stop(process)


def _command(server: str, app: str, port: int, threads: int, settings: Path) -> list[str]:
    address = f"{HOST}:{port}"
    if server == "uwsgi":
        return [
            *[_uwsgi() or "uwsgi", "--http-socket", address, "--master", "--threads", str(threads)],
            *["--die-on-term", "--need-app", "--disable-logging", "--module", app],
        ]
    command = [sys.executable, "-m", "gunicorn", "--config", str(settings), "--bind", address]
    command += ["--graceful-timeout", "1"]
    if server == "gunicorn-gthread":
        command += ["--threads", str(threads)]
    return [*command, app]


def _start(command: list[str], log: IO[bytes]) -> subprocess.Popen[bytes]:
    path = os.pathsep.join([os.getcwd(), *filter(None, sys.path)])
    return subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": path, _INSIDE: "1"},
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # so that its workers can be killed with it
    )


def _await_ready(process: subprocess.Popen[bytes], log_path: Path) -> None:
    """Wait until a worker has imported the application. The port says nothing: it is bound before that."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        ended = process.poll() is not None
        printed = log_path.read_text(errors="replace")
        if not ended and any(sign in printed for sign in _READY):
            return
        if ended or time.monotonic() > deadline:
            raise RuntimeError(f"the server did not start; it printed:\n{printed}")
        time.sleep(_LOOK_SECONDS)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        pass
    try:
        os.killpg(process.pid, signal.SIGKILL)  # what is left of its group, workers included
    except ProcessLookupError:
        pass
    process.wait()
