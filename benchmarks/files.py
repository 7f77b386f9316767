"""Files through gunicorn: whole ones against nginx' `sendfile`, ranges against Werkzeug's `send_file`, and the memory
that a file of 2 GiB takes.

The client is on the same machine, has the kernel discard what arrives (MSG_TRUNC) and never sleeps, or its own copying
and waking up would be what is measured. In wall time. A transfer takes three times as long where the server's processor
fell asleep while it waited for room, nginx' too: the lower quartile of many is taken.
"""

from __future__ import annotations

import http.client
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.gunicorn_server import ANSWER_SECONDS, gunicorn
from benchmarks.measure import Figure, lower_quartiles, must_agree
from streamkit import FileResponse
from tests.ports import free_port

MEBIBYTE = 1 << 20
SIZE = 256 * MEBIBYTE
START, STOP = 3 * MEBIBYTE + 17, 131 * MEBIBYTE + 17
RANGE = f"bytes={START}-{STOP - 1}"
LARGE = 2048 * MEBIBYTE
RANGE_ROUNDS = 25

_NGINX = """
daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log; worker_processes 1;
events {{ worker_connections 64; }}
http {{
  access_log off; sendfile on; tcp_nopush on;
  client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
  uwsgi_temp_path {folder}; scgi_temp_path {folder};
  server {{ listen 127.0.0.1:{port}; root {files}; }}
}}
"""


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """What gunicorn runs: the same file by both sides, and what this process has held at most."""
    path = environ["PATH_INFO"]
    if path in ("/bare", "/peak"):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [_status("VmHWM" if path == "/peak" else "VmRSS")]
    side, name = path.strip("/").split("/")
    file = os.path.join(os.environ["BENCHMARK_FILES"], name)
    if side == "werkzeug":
        from werkzeug.utils import send_file

        response: Any = send_file(file, environ, conditional=True, etag=False)
        return response(environ, start_response)  # type: ignore[no-any-return]
    # max_bytes: each block passes through the process, as it has to on servers without a file wrapper
    options: Any = {"max_bytes": 1 << 40} if side == "blocks" else {}
    return FileResponse(file, **options)(environ, start_response)


def _status(field: str) -> bytes:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return str(int(line.split()[1]) * 1024).encode()
    raise LookupError(field)


def read(port: int, path: str, header: str = "") -> int:
    """Receive the whole answer and discard it. Returns the length of its body."""
    buffer = bytearray(MEBIBYTE)
    discard = socket.MSG_TRUNC if sys.platform == "linux" else 0  # tcp(7); elsewhere it is copied
    with socket.create_connection(("127.0.0.1", port), timeout=ANSWER_SECONDS) as connection:
        fields = f"Host: 127.0.0.1\r\nConnection: close\r\n{header}\r\n"
        connection.sendall(f"GET {path} HTTP/1.1\r\n{fields}".encode())
        head = b""
        while b"\r\n\r\n" not in head:
            piece = connection.recv(4096)
            if not piece:
                raise AssertionError(f"{path}: {head!r}")
            head += piece
        if not head.startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 206 ")):
            raise AssertionError(f"{path}: {head!r}")
        total = len(head.partition(b"\r\n\r\n")[2])
        connection.setblocking(False)
        until = time.monotonic() + ANSWER_SECONDS
        while True:
            try:
                size = connection.recv_into(buffer, MEBIBYTE, discard)
            except BlockingIOError:
                if time.monotonic() > until:
                    raise
                continue
            if not size:
                break
            total += size
    return total


def number(port: int, path: str) -> int:
    """The number that this path answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_SECONDS)
    try:
        connection.request("GET", path)
        return int(connection.getresponse().read() or b"0")
    finally:
        connection.close()


@contextmanager
def nginx(program: str, files: str) -> Iterator[int]:
    """One nginx worker that serves `files` with sendfile. Gives the port."""
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        Path(folder, "nginx.conf").write_text(_NGINX.format(folder=folder, files=files, port=port))
        os.chmod(folder, 0o755)
        server = subprocess.Popen([program, "-p", folder, "-c", f"{folder}/nginx.conf", "-g", "user root;"])
        try:
            _await(port)
            yield port
        finally:
            server.terminate()
            server.wait(10)


def _await(port: int) -> None:
    for _ in range(500):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            subprocess.run(["sleep", "0.02"], check=True)
    raise AssertionError("nginx did not start")


def figures() -> Iterator[Figure]:
    """Five figures, four where nginx is missing."""
    program = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    with tempfile.TemporaryDirectory() as files:
        os.chmod(files, 0o755)
        block = os.urandom(MEBIBYTE)
        with open(f"{files}/data", "wb") as file:
            file.writelines(block for _ in range(SIZE // MEBIBYTE))
        with open(f"{files}/large", "wb") as file:
            file.truncate(LARGE)
        os.environ["BENCHMARK_FILES"] = files
        with gunicorn("benchmarks.files:app") as port:
            if program is not None:
                with nginx(program, files) as peer:
                    yield _whole(port, peer)
            yield from _ranges(port)
            for side in ("streamkit", "blocks"):
                yield _memory(port, side)


def _whole(port: int, peer: int) -> Figure:
    must_agree("the file", {"nginx": read(peer, "/data"), "streamkit": read(port, "/streamkit/data")})
    taken = lower_quartiles(
        {"nginx": lambda: read(peer, "/data"), "streamkit": lambda: read(port, "/streamkit/data")}
    )
    return _speed("whole file: streamkit / nginx sendfile", taken["streamkit"], taken["nginx"], SIZE, 0.9)


def _ranges(port: int) -> Iterator[Figure]:
    header = f"Range: {RANGE}\r\n"
    paths = {side: f"/{side}/data" for side in ("werkzeug", "streamkit", "blocks")}
    must_agree("the range", {side: read(port, path, header) for side, path in paths.items()})
    taken = lower_quartiles(
        {side: lambda path=path: read(port, path, header) for side, path in paths.items()},  # type: ignore[misc]
        rounds=RANGE_ROUNDS,
    )
    for side, how in (("streamkit", "sendfile"), ("blocks", "blocks")):
        name = f"range of 128 MiB: streamkit by {how} / Werkzeug"
        yield _speed(name, taken[side], taken["werkzeug"], STOP - START, 3.0)


def _speed(name: str, own: float, peer: float, size: int, wanted: float) -> Figure:
    return Figure(name, peer / own, wanted, True, f"{size / own / 1e9:.2f} / {size / peer / 1e9:.2f} GB/s")


def _memory(port: int, side: str) -> Figure:
    idle = number(port, "/bare")
    sent = read(port, f"/{side}/large")
    peak = number(port, "/peak")
    how = "sendfile" if side == "streamkit" else "blocks"
    return Figure(
        f"2 GiB by {how}: peak of the worker over idle",
        (peak - idle) / MEBIBYTE,
        16.0,
        False,
        f"{idle / MEBIBYTE:.1f} to {peak / MEBIBYTE:.1f} MiB, {sent / MEBIBYTE:.0f} MiB sent",
        unit="MiB",
    )
