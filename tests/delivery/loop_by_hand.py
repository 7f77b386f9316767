"""A loop that a test turns by hand, with a clock of its own, and a client of it over a real socket pair."""

from __future__ import annotations

import selectors
import socket
import threading
from contextvars import copy_context
from typing import Any

from streamkit import streams
from streamkit.delivery import outflow as outflow_module
from streamkit.delivery.detached import DetachedConnection
from streamkit.delivery.event_loop import EventLoop
from streamkit.delivery.outflow import Limits, Outflow
from streamkit.flow.pushed_chunks import PushedChunks
from streamkit.flow.stream import Stream
from tests.flow.by_hand import ByHand, Words

OPENING = b"HTTP/1.1 200 OK\r\n\r\n<"


class Patient(selectors.DefaultSelector):
    """Never waits: the test turns the loop when it wants to."""

    def select(self, timeout: float | None = None) -> Any:
        return super().select(0)


class ByHandLoop(EventLoop):
    """A loop without a thread; `turn()` is one turn of it, at the time that `now` says."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self._selector = Patient()
        self._running = True

    def clock(self) -> float:
        return self.now

    def turn(self, seconds: float = 0.0, times: int = 3) -> None:
        self.now += seconds
        assert self._selector is not None
        for _ in range(times):
            self._turn(self._selector)


class Client:
    """A stream on a loop, its source, and the client's end of its connection."""

    def __init__(
        self,
        loop: EventLoop,
        *items: object,
        limits: Limits | None = None,
        framing: Any = None,
        chunked: bool = True,
        source: ByHand | None = None,
        fill: bool = False,
    ) -> None:
        self.source = source or ByHand(*items)
        server, self.socket = socket.socketpair()
        # Small buffers, so that a client that does not read is felt soon.
        server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        server.setblocking(False)
        self.socket.settimeout(30)
        self.filled = 0
        while fill:
            try:
                self.filled += server.send(b"#" * 1000)
            except BlockingIOError:
                break
        context = copy_context()
        self.stream = Stream("test", {}, context)
        self.ended: list[str] = []
        self.stream.call_on_close(lambda: self.ended.append(threading.current_thread().name))
        streams._add(self.stream)
        framing = framing or Words()
        chunks = PushedChunks(self.source, framing, self.stream, context, flush_bytes=1, flush_seconds=None)
        chunks.start()
        outflow = Outflow(self.stream, chunks, framing, limits or Limits(), None)
        assert outflow.step(0.0) == b"<"
        outflow.sent(1, outflow_module.monotonic())
        loop.start()
        loop.adopt(DetachedConnection(loop, server, outflow, OPENING, chunked=chunked))
        opened.append(self)

    def read(self) -> bytes:
        """All that is there now; ends with b"|" where the connection has ended, with b"RESET" where it was reset."""
        self.socket.setblocking(False)
        data = b""
        try:
            while more := self.socket.recv(65536):
                data += more
            return data + b"|"
        except BlockingIOError:
            return data
        except ConnectionError:
            return data + b"RESET"

    def read_until(self, marker: bytes) -> bytes:
        data = b""
        while marker not in data:
            more = self.socket.recv(65536)
            assert more, data
            data += more
        return data


opened: list[Client] = []


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)
