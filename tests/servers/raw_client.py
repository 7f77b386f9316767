"""A raw socket client, a server with short limits, and a count of what they left behind."""

from __future__ import annotations

import gc
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from streamkit.servers.http_server import StreamServer

WAIT_SECONDS = 20.0
"""A bound for what should happen at once, wide enough for a busy machine."""


@contextmanager
def running(app: Any, **options: Any) -> Iterator[StreamServer]:
    options = {"port": 0, "grace": 0.2, **options}
    with StreamServer(app, **options).start() as server:
        yield server


@contextmanager
def connected(server: StreamServer) -> Iterator[socket.socket]:
    host, port = server.address
    with socket.create_connection((host, port), timeout=WAIT_SECONDS) as sock:
        yield sock


def ask(server: StreamServer, request: bytes) -> bytes:
    """Everything the server says until it closes."""
    with connected(server) as sock:
        sock.sendall(request)
        return read_all(sock)


def read_all(sock: socket.socket) -> bytes:
    data = b""
    while piece := sock.recv(65536):
        data += piece
    return data


def read_until(sock: socket.socket, end: bytes) -> bytes:
    data = b""
    while end not in data:
        piece = sock.recv(65536)
        assert piece, f"the connection ended after {data[:500]!r}"
        data += piece
    return data


def read_answer(sock: socket.socket, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    """One answer off a kept connection, read byte by byte where that avoids reading beyond it."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        piece = sock.recv(1)
        assert piece, f"the connection ended after {head!r}"
        head += piece
    lines = head.decode("latin-1").split("\r\n")
    status = int(lines[0].split(" ")[1])
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:-2])}
    body = b""
    if method == "HEAD" or status in (204, 304):
        pass
    elif "content-length" in headers:
        while len(body) < int(headers["content-length"]):
            body += sock.recv(int(headers["content-length"]) - len(body))
    elif headers.get("transfer-encoding") == "chunked":
        while True:
            size_line = b""
            while not size_line.endswith(b"\r\n"):
                size_line += sock.recv(1)
            size = int(size_line, 16)
            chunk = b""
            while len(chunk) < size + 2:
                chunk += sock.recv(size + 2 - len(chunk))
            if not size:
                break
            body += chunk[:-2]
    return status, headers, body


def get(path: str = "/", *, method: str = "GET", version: str = "1.1", headers: str = "") -> bytes:
    return f"{method} {path} HTTP/{version}\r\nHost: here\r\n{headers}\r\n".encode("latin-1")


def wait_until(condition: Any) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


def open_descriptors() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


@contextmanager
def nothing_left_behind() -> Iterator[None]:
    threads, descriptors = threading.active_count(), open_descriptors()
    yield
    wait_until(lambda: threading.active_count() <= threads and open_descriptors() <= descriptors)
