"""One command line, `gunicorn --threads 4`, twice: dead at four open tabs with a plain generator, alive at thousands.

run: python examples/four_tabs.py
run: python examples/four_tabs.py --streams 10000

Opens four event streams that a plain WSGI generator sends and asks for a page; then opens many that streamkit sends, on
the same command line, and asks for 200 pages. Needs gunicorn and streamkit; takes some seconds, on 127.0.0.1 alone,
and stops everything that it has started.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from streamkit import EventSourceResponse, Hub

PAGES = 200
PAGE_SECONDS = 3.0  # a page that takes longer is as good as none
START_SECONDS = 15.0
DESCRIPTORS_BESIDE = 100  # files that a process has open for itself
HERE = Path(__file__).resolve()

WSGIAnswer = Iterable[bytes]
StartResponse = Callable[..., Any]


# -- the two applications ------------------------------------------------------------------------------------------


def generator_app(environ: dict[str, Any], start_response: StartResponse) -> WSGIAnswer:
    """As it is often written: the generator keeps one of the server's threads for as long as the tab is open."""
    if environ["PATH_INFO"] != "/events":
        return page(start_response)

    def events() -> Iterator[bytes]:
        while True:
            yield b"data: tick\n\n"
            time.sleep(1)

    start_response("200 OK", [("Content-Type", "text/event-stream")])
    return events()


hub = Hub()


def streamkit_app(environ: dict[str, Any], start_response: StartResponse) -> WSGIAnswer:
    """With streamkit: the stream leaves the server's thread, which answers the next request."""
    if environ["PATH_INFO"] != "/events":
        return page(start_response)
    return EventSourceResponse(hub.subscribe("ticks"))(environ, start_response)


def page(start_response: StartResponse) -> WSGIAnswer:
    body = b"<h1>Alive</h1>"
    start_response("200 OK", [("Content-Type", "text/html"), ("Content-Length", str(len(body)))])
    return [body]


# -- what is done with them ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def gunicorn(app: str) -> Iterator[tuple[int, int]]:
    """Run gunicorn with `app`; gives its port and the process id of its worker."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    beside = ["--chdir", str(HERE.parent), "--bind", f"127.0.0.1:{port}", "--log-level", "error"]
    beside += ["--graceful-timeout", "1"]  # the generators never end; this script does not wait for them
    print(f"\n$ gunicorn --threads 4 {HERE.stem}:{app}", flush=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "gunicorn", "--threads", "4", *beside, f"{HERE.stem}:{app}"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    try:
        end = time.monotonic() + START_SECONDS
        while ask(port, 1.0) is None:
            if process.poll() is not None or time.monotonic() > end:
                raise SystemExit("gunicorn does not start: is it installed? (pip install gunicorn)")
            time.sleep(0.05)
        yield port, worker_of(process.pid)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def worker_of(arbiter: int) -> int:
    """The process id of gunicorn's only worker; 0 where the system does not say."""
    try:
        return int(Path(f"/proc/{arbiter}/task/{arbiter}/children").read_text().split()[0])
    except (OSError, IndexError):
        return 0


def memory_of(process: int) -> int:
    """Resident bytes; 0 where the system does not say."""
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def request(port: int, path: str, timeout: float, host: str) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout, source_address=(host, 0))
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
    return connection


def ask(port: int, timeout: float = PAGE_SECONDS) -> float | None:
    """Seconds until a page has arrived, or None if none does in time."""
    start = time.perf_counter()
    answer = b""
    try:
        with request(port, "/", timeout, "127.0.0.1") as connection:
            while piece := connection.recv(4096):
                answer += piece
    except OSError:
        return None
    return time.perf_counter() - start if answer.endswith(b"Alive</h1>") else None


def open_stream(port: int, number: int) -> socket.socket:
    """A tab: a connection that holds an event stream, whose head has arrived."""
    # Each address has ports of its own.
    host = f"127.0.0.{1 + number % 8}" if sys.platform == "linux" else "127.0.0.1"
    connection = request(port, "/events", 10.0, host)
    head = connection.recv(4096)
    if not head.startswith(b"HTTP/1.1 200 "):
        raise SystemExit(f"stream {number} is not open: {head!r:.200}")
    return connection


def allow_descriptors(wanted: int) -> int:
    """Raise this process' limit of open files, and thereby its children's, as far as it goes; how many there may be."""
    try:
        import resource
    except ImportError:
        return wanted
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


def try_it(app: str, streams: int, pages: int) -> bool:
    """Open `streams` streams of `app` and ask for `pages` pages; prints what happens. Whether all were answered."""
    with gunicorn(app) as (port, worker), contextlib.ExitStack() as tabs:
        before = memory_of(worker)
        start = time.perf_counter()
        for number in range(streams):
            tabs.enter_context(open_stream(port, number))
        print(f"{streams:,} streams open after {time.perf_counter() - start:.1f} s", flush=True)
        taken = []
        for _ in range(pages):
            seconds = ask(port)
            if seconds is None:
                print(f"a page: no answer in {PAGE_SECONDS:g} s. The site is down.", flush=True)
                return False
            taken.append(seconds * 1e3)
        taken.sort()
        p50, p99 = taken[len(taken) // 2], taken[int((len(taken) - 1) * 0.99)]
        print(f"{pages} pages: p50 {p50:.1f} ms, p99 {p99:.1f} ms", flush=True)
        if before:
            print(f"memory of a stream: {(memory_of(worker) - before) / streams / 1024:.1f} KiB", flush=True)
        return True


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--streams", type=int, default=1_000, help="for streamkit (default: 1000)")
    streams = parser.parse_args().streams
    if streams < 1:
        parser.error(f"--streams is {streams}; give a whole number above 0")
    most = allow_descriptors(streams + DESCRIPTORS_BESIDE) - DESCRIPTORS_BESIDE
    if most < streams:
        print(f"this system allows {most:,} streams (ulimit -Hn)")
        streams = most
    plain = try_it("generator_app", 4, 1)
    kept = try_it("streamkit_app", streams, PAGES)
    return 0 if kept and not plain else 1


if __name__ == "__main__":
    sys.exit(main())
