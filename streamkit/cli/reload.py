"""`serve --reload`: the application runs in a child process, which ends itself when the code it has loaded changes.

Who owns what: the parent owns the child, starts it again after exit code `CHANGED`, and passes the signals on. The
child's watcher is one daemon thread that only looks at files; it holds nothing, so it may die with the process.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

from streamkit.cli.failures import FINE, CommandFailed
from streamkit.cli.output import complain
from streamkit.servers.reserved_port import reserved_port

CHANGED: Final = 75
"""The exit code of a child whose code has changed (EX_TEMPFAIL of sysexits.h: try again)."""

LOOK_SECONDS: Final = 0.5
"""Between two looks at the files: soon enough for who switches to the browser, and next to no work."""

STOP_SECONDS: Final = 8.0
"""What a child gets to end its streams: the server's grace of 5 s, and some."""

_MARK: Final = "STREAMKIT_RELOAD_CHILD"


def is_child() -> bool:
    """Whether this process is the one that is ended and started again."""
    return os.environ.get(_MARK) == "1"


def supervise(arguments: argparse.Namespace) -> int:
    """Run the child until it ends for another reason than changed code; returns its exit code, 0 after a signal.

    A child that failed (a syntax error) is started again when a file changes, so the port is kept the same. Raises
    CommandFailed where the host has no port.
    """
    if arguments.port:
        return _supervise(arguments, arguments.port)
    with _free_port(arguments.host) as port:
        return _supervise(arguments, port)


def _supervise(arguments: argparse.Namespace, port: int) -> int:
    command = [sys.executable, *_this_program(), "serve", arguments.target, "--reload"]
    command += ["--host", arguments.host, "--port", str(port), *(["--json"] if arguments.json else [])]
    stopping = threading.Event()

    def stop(number: int, frame: object) -> None:
        stopping.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        while not stopping.is_set():
            # A session of its own: Ctrl-C reaches the parent alone, which passes it on.
            child = subprocess.Popen(command, env={**os.environ, _MARK: "1"}, start_new_session=True)
            code = _ended(child, stopping)
            if code != CHANGED and not stopping.is_set():
                return code
        return FINE
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _ended(child: subprocess.Popen[bytes], stopping: threading.Event) -> int:
    """Wait for the child, and end it at a stop: the signal may have come while it was being started."""
    while not stopping.is_set():
        try:
            return child.wait(0.2)
        except subprocess.TimeoutExpired:
            pass
    child.terminate()
    try:
        return child.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        return child.wait()


_changed: Final = threading.Event()


def watch() -> None:
    """Start the watcher in the child: it sends SIGTERM to its own process, which then exits with `CHANGED`.

    What is imported next may fail, and its file is not among the loaded modules then; so every file of the working
    folder that ends in `.py` is watched too. To be called by the main thread.
    """
    # Outside of `serve`, which has its own handler while it serves, the signal ends the process at once.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(exit_code()))
    threading.Thread(target=_watch, name="streamkit-reload", daemon=True).start()


def wait_for_change() -> None:
    """Wait until the signal of a change, or that of the parent, ends the process: for a module that fails."""
    complain("waiting for a change")
    threading.Event().wait()


def exit_code() -> int:
    """What the child has to return to its parent, where it was told to stop."""
    return CHANGED if _changed.is_set() else FINE


def _watch() -> None:
    seen = dict(_times())
    parent = os.getppid()
    while True:
        time.sleep(LOOK_SECONDS)
        if os.getppid() != parent:  # it was killed, and nobody else would ever end this process
            os.kill(os.getpid(), signal.SIGTERM)
            return
        now = dict(_times())
        for path in [path for path, when in now.items() if seen.get(path, when) != when]:
            complain(f"{os.path.relpath(path)} has changed; starting again")
            _changed.set()
            os.kill(os.getpid(), signal.SIGTERM)
            return
        seen = {**now, **{path: when for path, when in seen.items() if path in now}}


def _times() -> Iterator[tuple[str, float]]:
    """The files of the loaded modules and of the working folder, with their times of change."""
    modules: list[Any] = list(sys.modules.values())
    paths = {getattr(module, "__file__", None) for module in modules}
    paths.update(entry.path for entry in os.scandir() if entry.name.endswith(".py"))
    for path in paths:
        if path:
            try:
                yield os.path.abspath(path), os.stat(path).st_mtime
            except OSError:  # in a zip file, or deleted
                pass


def _this_program() -> list[str]:
    """How this program was started: `-m streamkit`, or a zipapp."""
    main_file = getattr(sys.modules["__main__"], "__file__", None) or ""
    archive = os.path.dirname(main_file)
    return [archive] if archive and os.path.isfile(archive) else ["-m", "streamkit"]


@contextmanager
def _free_port(host: str) -> Iterator[int]:
    """A port of the host for the children, kept for them meanwhile. Raises CommandFailed where there can be none."""
    with ExitStack() as stack:
        try:
            found = socket.getaddrinfo(host.strip("[]") or "0.0.0.0", 0, type=socket.SOCK_STREAM)
            family, _, _, _, address = found[0]
            port = stack.enter_context(reserved_port(address, family))
        except UnicodeError:  # of the encoding of host names, IDNA
            raise CommandFailed(f"cannot listen on {host!r}, which is not a host name") from None
        except OSError as error:
            raise CommandFailed(f"cannot listen on {host}: {error.strerror or error}") from None
        yield port
