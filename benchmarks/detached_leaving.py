"""A client leaves a stream that says nothing: how long until its producer is closed and its place in the limiter free.

Direct and behind nginx (buffering on, as it comes), a pushed source and a generator that waits, beside 500 other idle
streams, on stock gunicorn `--threads 4`. From the client's close to the answer of a page that says that both have
happened; so the page's own time, about 2 ms, is part of it. The worst of 50 that leave one after another.
"""

from __future__ import annotations

import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from benchmarks.detached_rig import Server, crowd, gunicorn, serving
from benchmarks.measure import Figure
from tests.ports import free_port

OTHERS = 500
TIMES = 50
LIMIT_SECONDS = 10.0
PATHS = {"a pushed source": "/pushed", "a generator that waits": "/generator"}

CONFIGURATION = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 256; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{port};
    location / {{ proxy_pass http://127.0.0.1:{upstream}; }}
  }}
}}
"""


@contextmanager
def nginx(program: str, upstream: Server) -> Iterator[Server]:
    """nginx before `upstream`, with its defaults."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # its worker may run as another user
        configuration = Path(folder) / "nginx.conf"
        configuration.write_text(CONFIGURATION.format(folder=folder, port=port, upstream=upstream.port))
        command = [program, "-p", folder, "-e", "stderr", "-c", str(configuration)]
        with serving(command, port) as server:
            yield server


def seconds_until_noticed(upstream: Server, front: Server, path: str) -> float:
    """Open a stream through `front`, leave it, and ask `upstream` until it has noticed."""
    closed, taken = map(int, upstream.get("/state").split())
    with socket.create_connection(("127.0.0.1", front.port), timeout=LIMIT_SECONDS) as client:
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        answer = b""
        while not answer.partition(b"\r\n\r\n")[2]:
            piece = client.recv(4096)
            if not piece:
                raise AssertionError(f"{path} ends with {answer!r}")
            answer += piece
        if int(upstream.get("/state").split()[1]) != taken + 1:
            raise AssertionError(f"{path} has taken no place: {answer!r}")
    start = time.perf_counter()
    while time.perf_counter() < start + LIMIT_SECONDS:
        if upstream.get("/state").split() == [b"%d" % (closed + 1), b"%d" % taken]:
            return time.perf_counter() - start
        time.sleep(0.001)
    raise AssertionError(f"{path}: nobody has noticed after {LIMIT_SECONDS:g} s")


def figures() -> Iterator[Figure]:
    """A figure for each way and each producer."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    with (
        gunicorn("--threads", "4", app="benchmarks.detached_leaving_app:app") as server,
        crowd(server, OTHERS, "/pushed") as others,
    ):
        yield from _figures_through(server, server, "direct")
        if program is None:
            print("detached_leaving: behind nginx is left out: nginx is not installed", file=sys.stderr)
        else:
            with nginx(program, server) as front:
                yield from _figures_through(server, front, "behind nginx")
        others.leave().must_be_whole("the other streams")


def _figures_through(server: Server, front: Server, way: str) -> Iterator[Figure]:
    for producer, path in PATHS.items():
        taken = [seconds_until_noticed(server, front, path) * 1e3 for _ in range(TIMES)]
        yield Figure(
            f"{way}, {producer}: the worst of {TIMES}",
            max(taken),
            100,
            False,
            f"median {median(taken):.1f} ms",
            unit="ms",
        )
