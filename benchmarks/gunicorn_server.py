"""A real gunicorn on a free port of 127.0.0.1, and a client that reads the wire."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

ROOT = Path(__file__).resolve().parent.parent
ANSWER_SECONDS = 30.0  # for anything that the server does; a run that hangs must end


@contextmanager
def gunicorn(app: str, *, threads: int = 4) -> Iterator[int]:
    """Run `app` ("module:name") under stock gunicorn, gthread, one worker. Gives the port; stops it afterwards."""
    with (
        socket.create_server(("127.0.0.1", 0), backlog=128) as listener,
        tempfile.TemporaryDirectory() as folder,
    ):
        port: int = listener.getsockname()[1]
        options = ["--worker-class=gthread", "--workers=1", f"--threads={threads}", "--log-level=warning"]
        server = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", f"--bind=fd://{listener.fileno()}", *options, app],
            pass_fds=[listener.fileno()],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        try:
            first_byte(port, "/bare")  # the listener queues this until a worker is up
            yield port
        finally:
            server.terminate()
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def _request(port: int, path: str) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=ANSWER_SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
    return connection


def first_byte(port: int, path: str) -> float:
    """Seconds from the connect to the first byte of the body; the rest of the answer is read too.

    Raises AssertionError for an answer that is not 200.
    """
    start = perf_counter()
    with _request(port, path) as connection:
        taken = 0.0
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
            if not taken and answer.partition(b"\r\n\r\n")[2]:
                taken = perf_counter() - start
    _check_status(path, answer)
    if not taken:
        raise AssertionError(f"{path} has no body")
    return taken


def read_all(port: int, path: str) -> int:
    """Read the whole answer as fast as it comes. Returns its bytes on the wire."""
    buffer = bytearray(1 << 20)
    with _request(port, path) as connection:
        size = connection.recv_into(buffer)
        _check_status(path, buffer[:64])
        total = size
        while size:
            size = connection.recv_into(buffer)
            total += size
        return total


def read_body(port: int, path: str) -> bytes:
    """The whole body, without its chunked framing."""
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_SECONDS)
    try:
        connection.request("GET", path)
        return connection.getresponse().read()
    finally:
        connection.close()


def _check_status(path: str, answer: bytes | bytearray) -> None:
    if not answer.startswith(b"HTTP/1.1 200 "):
        raise AssertionError(f"{path} answers {bytes(answer[:200])!r}")
