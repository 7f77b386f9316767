"""Many streams held by one thread, for `bench`: non-blocking sockets, one selector, and what came through them.

The law: `Crowd` owns every socket and closes them; a member is registered from its connect to its end. Each turn
handles what is ready and never waits for one member. Memory a member: its decoders, and what a head or an event leaves
unfinished, bounded by `MAX_HEAD_BYTES` and the decoder's limit. Figures are kept as histograms, not as samples.
"""

from __future__ import annotations

import errno
import math
import os
import re
import selectors
import socket
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from streamkit.errors import DecodeError
from streamkit.formats.chunked import ChunkedDecoder
from streamkit.formats.event_stream import ServerSentEvent
from streamkit.formats.event_stream_decoder import EventStreamDecoder

CONNECTING: Final = 128
"""Connections that are opened at the same time: the backlog of most servers (net.core.somaxconn before Linux 5.4)."""

ANSWER_SECONDS: Final = 30.0
"""From the connect to the end of the head; a server that has no thread left for it answers later, or never."""

MAX_HEAD_BYTES: Final = 65536
MAX_EVENT_BYTES: Final = 1024 * 1024
_READ_BYTES: Final = 65536

_SENT = re.compile(r'"sent": ?([0-9]{9,11}(?:\.[0-9]+)?)', re.ASCII)
_INTERIM = re.compile(rb"HTTP/1\.[01] 1(?!01)[0-9]{2}(?![0-9])")  # RFC 9110 section 15.2; 101 is final
_NUMBER = re.compile(r"(.*?)([0-9]{1,18})", re.ASCII | re.DOTALL)


class Histogram:
    """Times in buckets that grow by 2 %: percentiles to 2 % in constant memory, from a microsecond to a day."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self.count = 0
        self.longest = 0.0

    def add(self, seconds: float) -> None:
        """Count one time, in seconds; what is below a microsecond counts as one."""
        self._counts[int(math.log(max(seconds, 1e-6) * 1e6) / _LOG_STEP)] += 1
        self.count += 1
        self.longest = max(self.longest, seconds)

    def percentile(self, percent: float) -> float | None:
        """Seconds that `percent` % of the times do not exceed; None where nothing was counted."""
        if not self.count:
            return None
        wanted = max(1, math.ceil(self.count * percent / 100))
        for bucket in sorted(self._counts):
            wanted -= self._counts[bucket]
            if wanted <= 0:
                return min(math.exp((bucket + 1) * _LOG_STEP) / 1e6, self.longest)
        return self.longest


_LOG_STEP: Final = math.log(1.02)


@dataclass
class Second:
    """What came in one second of the run."""

    events: int = 0
    delays: Histogram = field(default_factory=Histogram)


class _Member:
    """One stream: its socket, and where in the answer it stands."""

    __slots__ = ("begun", "chunks", "decoder", "head", "number", "prefix", "sock", "state")

    def __init__(self, sock: socket.socket, begun: float) -> None:
        self.sock = sock
        self.begun = begun
        self.state = "connecting"
        self.head = b""
        self.chunks: ChunkedDecoder | None = None
        self.decoder = EventStreamDecoder(max_event_bytes=MAX_EVENT_BYTES)
        self.prefix: str | None = None
        self.number = 0


class Crowd:
    """`wanted` streams of one URL. `turn(seconds)` does what is ready; `close()` ends them all.

    address: as `socket.connect` takes it, of `family`. request: the bytes that each member sends.
    """

    def __init__(self, family: int, address: object, request: bytes, wanted: int) -> None:
        self._family, self._address, self._request = family, address, request
        self.wanted = wanted
        self.tried = 0
        self.open = 0
        self.opened = 0
        self.ended: Counter[str] = Counter()
        """Why streams that were open have ended."""
        self.failed: Counter[str] = Counter()
        """Why streams did not open."""
        self.opening = Histogram()
        self.delays = Histogram()
        self.events = 0
        self.numbered = 0
        self.lost = 0
        self.repeated = 0
        self.received = 0
        self.seconds: dict[int, Second] = {}
        self.start = time.monotonic()
        self._connecting: dict[_Member, None] = {}  # in the order of their beginning: the first is the oldest
        self._selector = selectors.DefaultSelector()

    @property
    def settled(self) -> bool:
        """Whether each stream has been tried, and has opened or failed."""
        return self.tried == self.wanted and not self._connecting

    def turn(self, seconds: float) -> None:
        """Open what may be opened, then handle what is ready within `seconds`."""
        while self.tried < self.wanted and len(self._connecting) < CONNECTING:
            self._begin()
        now = time.monotonic()
        for key, _ in self._selector.select(seconds):
            member: _Member = key.data
            if member.state == "connecting":
                self._connected(member)
            else:
                self._readable(member)
        for member in list(self._connecting):
            if now - member.begun < ANSWER_SECONDS:
                break
            self._end(member, f"no answer within {ANSWER_SECONDS:g} s")

    def close(self) -> None:
        """Close every connection; the figures stay."""
        for key in list(self._selector.get_map().values()):
            key.data.sock.close()
        self._selector.close()

    def _begin(self) -> None:
        self.tried += 1
        try:
            sock = socket.socket(self._family, socket.SOCK_STREAM)
        except OSError as error:
            self.failed[error.strerror or str(error)] += 1
            return
        member = _Member(sock, time.monotonic())
        sock.setblocking(False)
        code = sock.connect_ex(self._address)  # type: ignore[arg-type]  # as getaddrinfo gave it
        if code not in (0, errno.EINPROGRESS):
            sock.close()
            self.failed[os.strerror(code)] += 1
            return
        self._connecting[member] = None
        self._selector.register(sock, selectors.EVENT_WRITE, member)

    def _connected(self, member: _Member) -> None:
        code = member.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._end(member, os.strerror(code))
            return
        try:
            member.sock.send(self._request)  # a new socket takes these few bytes whole
        except OSError as error:
            self._end(member, error.strerror or str(error))
            return
        member.state = "head"
        self._selector.modify(member.sock, selectors.EVENT_READ, member)

    def _readable(self, member: _Member) -> None:
        try:
            data = member.sock.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._end(member, error.strerror or str(error))
            return
        clock = time.time()
        if not data:
            self._end(member, "cut off" if member.chunks is not None else "closed by the server")
            return
        self.received += len(data)
        if member.state == "head":
            data = self._head(member, data)
            if not data:
                return
        try:
            if member.chunks is not None:
                data = member.chunks.feed(data)
            events = member.decoder.feed(data)
        except DecodeError as error:
            self._end(member, str(error))
            return
        if events:
            self._count(member, events, clock)
        if member.chunks is not None and member.chunks.finished:
            self._end(member, "ended by the server")

    def _head(self, member: _Member, data: bytes) -> bytes:
        """Take more of the head; what follows it, once it is complete and says that a stream begins."""
        member.head += data
        head, end, rest = member.head.partition(b"\r\n\r\n")
        while end and _INTERIM.match(head):
            head, end, rest = rest.partition(b"\r\n\r\n")
        if not end:
            if len(member.head) > MAX_HEAD_BYTES:
                self._end(member, "a head without an end")
            return b""
        member.head = b""
        status = head.split(b"\r\n", 1)[0].split(b" ")[1:2]
        fields = head.lower().split(b"\r\n")[1:]
        kind = next((line for line in fields if line.startswith(b"content-type:")), b"content-type: none")
        if status != [b"200"]:
            self._end(member, f"status {status[0].decode('ascii', 'replace') if status else 'missing'}")
            return b""
        if b"text/event-stream" not in kind:
            self._end(member, f"not an event stream, but {kind[13:].strip().decode('ascii', 'replace')}")
            return b""
        if any(line.startswith(b"transfer-encoding:") and b"chunked" in line for line in fields):
            member.chunks = ChunkedDecoder()
        member.state = "body"
        del self._connecting[member]
        self.open += 1
        self.opened += 1
        self.opening.add(time.monotonic() - member.begun)
        return rest

    def _count(self, member: _Member, events: list[ServerSentEvent], clock: float) -> None:
        second = self.seconds.setdefault(int(time.monotonic() - self.start), Second())
        self.events += len(events)
        second.events += len(events)
        for event in events:
            stamp = _SENT.search(event.data or "", 0, 200)
            if stamp is not None:
                delay = clock - float(stamp[1])
                self.delays.add(delay)
                second.delays.add(delay)
            if event.id:
                self._number(member, event.id)

    def _number(self, member: _Member, name: str) -> None:
        """Compare the number at the end of an id with the one before it; what is before the number must stay."""
        match = _NUMBER.fullmatch(name)
        if match is None:
            return
        number = int(match[2])
        if member.prefix == match[1]:
            step = number - member.number
            self.numbered += 1
            if step > 1:
                self.lost += step - 1
            elif step < 1:
                self.repeated += 1
        member.prefix, member.number = match[1], number

    def _end(self, member: _Member, why: str) -> None:
        if member in self._connecting:
            del self._connecting[member]
            self.failed[why] += 1
        else:
            self.open -= 1
            self.ended[why] += 1
        self._selector.unregister(member.sock)
        member.sock.close()
