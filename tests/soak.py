"""A soak: one stock gunicorn worker, clients that come and go at random, and afterwards every count is back.

    python -m tests.soak --seconds 300

Exits with 1 and says what is left over if anything is. Client threads read, leave, stall, reset and half-close streams
of every kind; a control stream stays open all the time and must not miss a tick.
"""

from __future__ import annotations

import argparse
import errno
import os
import random
import re
import socket
import struct
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

from tests.live_server import LiveServer, running

APP: Final = "tests.apps.detached_app:app"
PATHS: Final = [
    "/ticks",
    "/quiet",
    "/beating",
    "/flood",
    "/numbers",
    "/failing",
    "/endless",
    "/rows",
    "/slow-rows",
]
ENDING: Final = {"/numbers": b"0\r\n\r\n", "/rows": b"0\r\n\r\n", "/failing": b"event: error\n"}
MOST_SECONDS: Final = 1.0  # of one visit
CONTROL: Final = re.compile(rb'data: {"n":(\d+)}\n\n')


class Visitors:
    """Threads of clients, each with one connection at a time. `problems` is what no client should see."""

    def __init__(self, server: LiveServer, count: int, seed: int) -> None:
        self.server = server
        self.visits: Counter[str] = Counter()
        self.problems: list[str] = []
        self.done = threading.Event()
        self._lock = threading.Lock()  # owned for one count
        self._threads = [
            threading.Thread(target=self._visit_on, args=(random.Random(seed + n),)) for n in range(count)
        ]
        self._threads.append(threading.Thread(target=self._control))
        self._threads.append(threading.Thread(target=self._pages))

    def run(self, seconds: float) -> None:
        for thread in self._threads:
            thread.start()
        self.done.wait(seconds)
        self.done.set()
        for thread in self._threads:
            thread.join()

    def _visit_on(self, dice: random.Random) -> None:
        while not self.done.is_set():
            manner = dice.choice([self.leave, self.stall, self.reset, self.half_close, self.read_all])
            path = dice.choice(PATHS)
            try:
                with self.server.connect(path, dice.choice(["1.1", "1.1", "1.0"])) as sock:
                    manner(sock, path, dice)
            except OSError as error:
                self.problems.append(f"{manner.__name__} {path}: {error!r}")
            with self._lock:
                self.visits[manner.__name__] += 1

    def leave(self, sock: socket.socket, path: str, dice: random.Random) -> None:
        """At once, or after some bytes."""
        time.sleep(dice.choice([0, 0, 0.001, 0.01, 0.1]))
        if dice.random() < 0.7:
            sock.recv(dice.randrange(1, 10_000))

    def stall(self, sock: socket.socket, path: str, dice: random.Random) -> None:
        """Reads nothing for longer than the server waits."""
        self.done.wait(dice.uniform(0.1, 3 * MOST_SECONDS))

    def reset(self, sock: socket.socket, path: str, dice: random.Random) -> None:
        time.sleep(dice.choice([0, 0.001, 0.05]))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def half_close(self, sock: socket.socket, path: str, dice: random.Random) -> None:
        sock.recv(100)
        try:
            sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            if error.errno != errno.ENOTCONN:  # the server has reset it meanwhile
                raise
            return
        self._read_on(sock)

    def read_all(self, sock: socket.socket, path: str, dice: random.Random) -> None:
        """To the end, where there is one: then nothing may be missing."""
        data, ended = self._read_on(sock)
        if not ended or path not in ENDING:
            return
        if path == "/numbers":
            numbers = [int(n) for n in CONTROL.findall(unchunked(data))]
            if numbers != list(range(3000)):
                self.problems.append(f"read_all {path}: {len(numbers)} of 3000 events arrived")
        elif path == "/rows" and unchunked(data).count(b"\r\n") != 5000:
            self.problems.append(
                f"read_all {path}: {unchunked(data).count(bytes([13, 10]))} of 5000 rows arrived"
            )
        elif ENDING[path] not in data and b"chunked" in data:
            self.problems.append(f"read_all {path}: ended with {data[-60:]!r}")

    def _read_on(self, sock: socket.socket) -> tuple[bytes, bool]:
        """What comes within a second, and whether the server ended it."""
        data = b""
        sock.settimeout(MOST_SECONDS)
        until = time.monotonic() + MOST_SECONDS
        try:
            while time.monotonic() < until and not self.done.is_set() and len(data) < 5_000_000:
                more = sock.recv(65536)
                if not more:
                    return data, True
                data += more
        except (ConnectionError, TimeoutError):  # a reset, or a quiet stream
            pass
        return data, False

    def _control(self) -> None:
        """One stream beside all this."""
        with self.server.connect("/ticks") as sock:
            sock.settimeout(20)
            data, seen = b"", 0
            while not self.done.is_set():
                more = sock.recv(65536)
                if not more:
                    self.problems.append("the control stream ended")
                    return
                data += more
                for found in CONTROL.finditer(data):
                    if int(found[1]) != seen:
                        self.problems.append(f"the control stream missed tick {seen}")
                        return
                    seen += 1
                data = data[data.rfind(b"data: ") :] if not data.endswith(b"\n\n\r\n") else b""
            self.visits["control ticks"] = seen

    def _pages(self) -> None:
        """Pages are answered all the time."""
        slowest = 0.0
        while not self.done.wait(0.05):
            began = time.monotonic()
            self.server.state()
            slowest = max(slowest, time.monotonic() - began)
            self.visits["pages"] += 1
        self.visits["slowest page, ms"] = round(slowest * 1000)


def unchunked(data: bytes) -> bytes:
    head, _, body = data.partition(b"\r\n\r\n")
    if b"chunked" not in head.lower():
        return body
    content = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        if not size or not int(size, 16):
            break
        content, body = content + body[: int(size, 16)], body[int(size, 16) + 2 :]
    return content


def settled(server: LiveServer, before: dict[str, Any], seconds: float = 20) -> dict[str, Any]:
    """The state when every count is back, or as it is after that time."""
    until = time.monotonic() + seconds
    while True:
        state = server.state()
        back = not state["live"] and state["descriptors"] <= before["descriptors"] and not state["working"]
        if back or time.monotonic() > until:
            return state
        time.sleep(0.1)


def left_over(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What was taken and not given back."""
    found = []
    if after["live"]:
        found.append(f"live streams: {after['live']}")
    if after["descriptors"] > before["descriptors"]:
        found.append(f"descriptors: {before['open']} before, {after['open']} after")
    if after["working"]:
        found.append(f"stream threads at work: {after['working']}")
    loops = [name for name in after["threads"] if "loop" in name or "abandoned" in name]
    if len(loops) > 2:
        found.append(f"threads: {after['threads']}")
    # The allocator keeps what the busiest moment needed; a leak of a stream a visit would be many times this.
    if after["rss"] > before["rss"] + 40_000_000:
        found.append(f"memory: {before['rss']} before, {after['rss']} after")
    if before["pid"] != after["pid"]:
        found.append("the worker was replaced")
    return found


def soak(seconds: float, clients: int, seed: int, folder: Path) -> list[str]:
    """Run it; print the counts, return what is wrong."""
    with running("gunicorn-gthread", folder, APP) as server:
        Visitors(server, clients, seed).run(min(2.0, seconds / 2))  # what is made once, is made
        time.sleep(0.5)
        before = settled(server, {"descriptors": 1 << 20})
        visitors = Visitors(server, clients, seed)
        visitors.run(seconds)
        after = settled(server, before)
        print(f"visits {dict(visitors.visits)}")
        print(f"outcomes {dict(sorted(after['outcomes'].items()))}")
        for name in ("descriptors", "working", "rss"):
            print(f"{name}: {before[name]} before, {after[name]} after")
        print(f"live streams: {len(after['live'])}, threads: {len(after['threads'])}")
        problems = visitors.problems + left_over(before, after)
        log = server.log()
        for text in log.split("Traceback (most recent call last):")[1:]:
            if "secret detail" not in text:
                problems.append(f"in the log: {text[:1500]}")
        return problems


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument(
        "--clients", type=int, default=24, help="connections at a time (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        problems = soak(arguments.seconds, arguments.clients, arguments.seed, Path(folder))
    for problem in problems[:20]:
        print(f"WRONG {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    os.environ.setdefault("WRITE_SECONDS", str(MOST_SECONDS))
    sys.exit(main())
