"""What the subjects of detached delivery share: servers in processes of their own, a crowd of clients, and a meter.

Law of this file
- Whoever starts a process ends it, also on the way out of an exception; every wait has an end.
- Clients are a program in C (`load_generator.c`), so that they cost the machine little; it ends by itself as well.
- Processor time is the kernel's own count in nanoseconds, for each thread of the process that serves.
"""

from __future__ import annotations

import functools
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.ports import free_port

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
START_SECONDS = 20.0
OPEN_SECONDS = 60.0  # for 10,000 connections of the slowest peer
CROWD_SECONDS = 170.0  # a crowd leaves after that by itself
ANSWER_SECONDS = 60.0
EVENT_CHANNEL = "/events"
GUNICORN = (sys.executable, "-m", "gunicorn", "--no-control-socket", "--log-level", "warning")
"""The stock server. Its control socket, a file beside it, is off: several servers run at once."""


# -- programs in C -------------------------------------------------------------------------------------------------


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="streamkit-bench-")  # removed when this process ends


@functools.cache
def compiled(name: str) -> str:
    """The path of the program made from `name`.c, compiled once a run. Raises RuntimeError without a C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise RuntimeError(f"{name}.c needs a C compiler (cc, gcc or clang) on the path: install gcc")
    target = str(Path(_folder().name) / name)
    done = subprocess.run(
        [compiler, "-O2", "-o", target, str(HERE / f"{name}.c")], capture_output=True, text=True, timeout=60
    )
    if done.returncode:
        raise RuntimeError(f"{compiler} does not compile {name}.c: {done.stderr[:500]}")
    return target


# -- servers -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Server:
    """A server that answers on `port`. `pid` is the process that serves: gunicorn's worker, not its arbiter."""

    port: int
    pid: int

    def get(self, path: str) -> bytes:
        """The body of an answer. Raises AssertionError unless it is 200."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_SECONDS)
        try:
            connection.request("GET", path, headers={"Connection": "close"})
            response = connection.getresponse()
            body = response.read()
        finally:
            connection.close()
        if response.status != 200:
            raise AssertionError(f"{path} answers {response.status}: {body[:200]!r}")
        return body

    def publish(self, count: int, gap: float) -> None:
        """Send `count` events to all streams, and pause for `gap` seconds after each."""
        self.get(f"/publish?count={count}&gap={gap}")

    def memory(self) -> int:
        """Resident bytes."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def cpu(self, thread: int | None = None) -> float:
        """Processor seconds of all threads that live now, or of one, by its native id."""
        total = 0
        for task in [str(thread)] if thread else os.listdir(f"/proc/{self.pid}/task"):
            try:
                total += int(Path(f"/proc/{self.pid}/task/{task}/schedstat").read_text().split()[0])
            except FileNotFoundError:
                pass  # it has just ended
        return total / 1e9


@contextmanager
def serving(command: Sequence[str], port: int, **environment: str) -> Iterator[Server]:
    """Run `command`, which listens on `port`, until the block ends."""
    process = subprocess.Popen(
        command,
        cwd=_folder().name,
        env={**os.environ, "PYTHONPATH": str(ROOT), "STREAMKIT_DELIVERY": "auto", **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    complaints: list[str] = []
    reader = threading.Thread(target=_keep_last, args=(process.stderr, complaints))
    reader.start()
    try:
        _await_answer(process, port, complaints)
        yield Server(port, _serving_process(process.pid))
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            for child in _children(process.pid):
                os.kill(child, 9)
            process.kill()
            process.wait()
        reader.join(10)
        process.stderr.close()


def _keep_last(stream: Iterator[str], lines: list[str]) -> None:
    """Read what a server complains of, so that it never waits for a reader; the last 20 lines are kept."""
    for line in stream:
        lines.append(line)
        del lines[:-20]


def _await_answer(process: subprocess.Popen[str], port: int, complaints: list[str]) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} has ended: {''.join(complaints)}")
        try:
            Server(port, process.pid).get("/page")
            return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"{process.args!r} does not answer within {START_SECONDS:g} s: {''.join(complaints)}")


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _serving_process(pid: int) -> int:
    children = _children(pid)
    return children[0] if children else pid


@contextmanager
def gunicorn(*options: str, app: str = "benchmarks.fan_out_app:app", **environment: str) -> Iterator[Server]:
    """Stock gunicorn with one worker, on a free port; without options that is a sync worker."""
    port = free_port()
    with serving([*GUNICORN, *options, "--bind", f"127.0.0.1:{port}", app], port, **environment) as server:
        yield server


# -- clients -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Arrivals:
    """What a crowd has received. Delays are from the publication of an event to its arrival, in milliseconds."""

    opened: int
    failed: int
    closed: int
    events: int
    lost: int
    doubled: int
    least: int
    most: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float

    def must_be_whole(self, what: str, events: int | None = None) -> None:
        """Raise AssertionError where anything is missing; `events` is what each stream was sent, if that is known."""
        whole = not (self.lost or self.doubled or self.failed or self.closed)
        if not whole or (events is not None and (self.least, self.most) != (events, events)):
            raise AssertionError(f"{what}: {events} events were sent to each, and this arrived: {self}")


class Crowd:
    """`count` clients that hold a stream each. `open_seconds` is what it took until all had their first byte."""

    def __init__(self, process: subprocess.Popen[str], count: int) -> None:
        self.count = count
        self._process = process
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line.startswith("open "):
            raise AssertionError(f"{count} streams do not open: {line!r}")
        self.open_seconds = float(line.split()[1])

    def leave(self) -> Arrivals:
        """Close all streams, and say what they have received."""
        output, _ = self._process.communicate(timeout=30)
        return Arrivals(**json.loads(output))


@contextmanager
def crowd(server: Server, count: int, path: str = EVENT_CHANNEL, stalled: int = 0) -> Iterator[Crowd]:
    """Open `count` streams, the first `stalled` of which never read. They leave when the block ends, at the latest."""
    command = [
        compiled("load_generator"),
        str(server.port),
        path,
        str(count),
        str(CROWD_SECONDS),
        str(stalled),
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        late = threading.Timer(OPEN_SECONDS, process.kill)
        late.start()
        try:
            clients = Crowd(process, count)
            late.cancel()
            yield clients
        finally:
            late.cancel()
            process.kill()


def page_seconds(server: Server, count: int, gap: float, path: str = "/page") -> list[float]:
    """Ask for a page `count` times, on a new connection each, begun `gap` seconds apart (or when the last is read).

    Gives seconds from the connect to the last byte, sorted.
    """
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode()
    taken = []
    due = time.perf_counter()
    for _ in range(count):
        start = time.perf_counter()
        with socket.create_connection(("127.0.0.1", server.port), timeout=ANSWER_SECONDS) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.sendall(request)
            answer = b""
            while piece := connection.recv(65536):
                answer += piece
        taken.append(time.perf_counter() - start)
        if not answer.startswith(b"HTTP/1.1 200 "):
            raise AssertionError(f"{path} answers {answer[:200]!r}")
        due += gap
        time.sleep(max(0.0, due - time.perf_counter()))
    return sorted(taken)


def percentile(sorted_values: Sequence[float], part: float) -> float:
    """The value below which `part` (0 to 1) of them are."""
    return sorted_values[int((len(sorted_values) - 1) * part)]


def in_milliseconds(sorted_seconds: Sequence[float]) -> str:
    """p50, p99 and the worst, to be printed."""
    p50, p99, worst = (percentile(sorted_seconds, part) * 1e3 for part in (0.5, 0.99, 1.0))
    return f"p50 {p50:.1f}, p99 {p99:.1f}, worst {worst:.1f} ms"
