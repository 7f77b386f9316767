"""A crowd of clients of this very server: a hundred more streams, so that one can see what they cost.

They are real connections over the loopback interface, each reading the same events as a page. They are opened in small
groups: where a group is not answered, because the server keeps a thread for each stream and has none left, all are
closed again. One crowd at a time, for all pages and processes, and it closes by itself.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
import selectors
import socket
import time
from collections.abc import Iterator
from typing import Any

from streamkit import ServerSentEvent

STREAMS = 100
GROUP = 10
ANSWER_SECONDS = 2.0  # for a group; a thousand times what it takes
HOLD_SECONDS = 12.0
REPORT_SECONDS = 0.25
READ_BYTES = 65536

_TIME = re.compile(rb'"time":(\d+\.\d+)')


class NoAddress(LookupError):
    """The server cannot be reached by a connection of its own."""


def own_address(environ: dict[str, Any]) -> tuple[str, int]:
    """Where this server listens, as its clients on this machine reach it. Raises NoAddress."""
    if not (environ.get("REMOTE_ADDR") and environ["SERVER_PORT"].isdecimal()):
        raise NoAddress("This server listens on no port that its clients could be told.")
    port = int(environ["SERVER_PORT"])
    try:
        host = ipaddress.ip_address(environ["SERVER_NAME"])
    except ValueError:
        return "127.0.0.1", port  # the name of the machine, or what the server calls itself
    if host.is_unspecified:
        return ("127.0.0.1" if host.version == 4 else "::1"), port
    return str(host), port


class Crowd:
    """Up to `wanted` streams of `path`. Used by one thread; `close()` closes them all."""

    def __init__(self, address: tuple[str, int], path: str, wanted: int) -> None:
        self._address = address
        self._request = f"GET {path} HTTP/1.1\r\nHost: {address[0]}:{address[1]}\r\n\r\n".encode("latin-1")
        self._selector = selectors.DefaultSelector()
        self._answered: set[int] = set()
        self.wanted = wanted
        self.opened = 0
        self.lost = 0
        self.events = 0
        self.bytes = 0
        self._sample = 0.0  # the last that has arrived anywhere
        self._slowest = 0.0
        self.spread: float | None = None
        """Seconds from a measurement until the last of the crowd has read it; of the last that all have had."""

    @property
    def answered(self) -> int:
        """Streams that have brought bytes, and are open."""
        return len(self._answered) - self.lost

    def open_group(self) -> bool:
        """Open some more; whether all of them have been answered in time."""
        for _ in range(min(GROUP, self.wanted - self.opened)):
            sock = socket.create_connection(self._address, timeout=ANSWER_SECONDS)
            self.opened += 1
            self._selector.register(sock, selectors.EVENT_READ, self.opened)
            sock.sendall(self._request)
            sock.setblocking(False)
        deadline = time.monotonic() + ANSWER_SECONDS
        while len(self._answered) < self.opened and time.monotonic() < deadline:
            self.read(0.05)
        return len(self._answered) == self.opened

    def read(self, seconds: float) -> None:
        """Read what arrives within `seconds`; it returns earlier when something has."""
        for key, _ in self._selector.select(seconds):
            assert isinstance(key.fileobj, socket.socket)
            with contextlib.suppress(BlockingIOError):
                self._take(key.fileobj, key.data)

    def _take(self, sock: socket.socket, number: int) -> None:
        try:
            data = sock.recv(READ_BYTES)
        except ConnectionError:
            data = b""
        refused = number not in self._answered and not data.startswith(b"HTTP/1.1 200 ")
        self._answered.add(number)
        if refused or not data:
            self.lost += 1
            self._selector.unregister(sock)
            sock.close()
            return
        self.bytes += len(data)
        for found in _TIME.findall(data):
            self._saw(float(found))

    def _saw(self, sample: float) -> None:
        self.events += 1
        if sample > self._sample:
            if self._sample:
                self.spread = self._slowest
            self._sample, self._slowest = sample, 0.0
        self._slowest = max(self._slowest, time.time() - sample)

    def report(self, **more: object) -> ServerSentEvent:
        """An event `crowd` with how it is."""
        words = {
            "time": time.time(),
            "open": self.answered,
            "wanted": self.wanted,
            "events": self.events,
            "bytes": self.bytes,
            "spread": None if self.spread is None else round(self.spread, 4),
            **more,
        }
        return ServerSentEvent(words, event="crowd")

    def close(self) -> None:
        """Close all connections."""
        for key in list(self._selector.get_map().values()):
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.close()
        self._selector.close()


def crowd(
    address: tuple[str, int], path: str, *, wanted: int = STREAMS, seconds: float = HOLD_SECONDS
) -> Iterator[ServerSentEvent]:
    """Open the crowd, hold it for `seconds`, close it; events `crowd` all the while. The last has `over` or `stuck`."""
    with contextlib.closing(Crowd(address, path, wanted)) as clients:
        yield clients.report()
        while clients.opened < wanted:
            if not clients.open_group():
                yield clients.report(stuck=True)
                return
            yield clients.report()
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            pause = time.monotonic() + min(REPORT_SECONDS, left)
            while (rest := pause - time.monotonic()) > 0:
                clients.read(rest)
            yield clients.report(left=round(max(0.0, until - time.monotonic())))
        yield clients.report(over=True)
