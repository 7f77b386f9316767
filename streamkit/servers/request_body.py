"""The body of a request, read from the connection as the application asks for it (PEP 3333, `wsgi.input`).

The body ends where its framing says so, never at the end of the connection: a client that leaves before that
raises. What the application does not read belongs to nobody; the server drains a little of it, or closes the
connection. After the exchange the body is cut off from the connection, so that a forgotten reference to
`wsgi.input` cannot eat the next request.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Protocol

from streamkit.errors import DecodeError
from streamkit.formats.chunked import ChunkedDecoder

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

MAX_DRAIN_BYTES = 65536
"""Bytes of an unread body that are read away to keep the connection; beyond that a new connection is cheaper."""

_READ_BYTES = 65536  # one read of the socket; also what the application's small reads are buffered by


class BodySource(Protocol):
    """Where body bytes come from: a connection and what was read ahead of it."""

    def peek(self) -> bytes:
        """Wait for bytes and return some without taking them; b"" at the end of the connection.

        Raises OSError, TimeoutError among them.
        """
        ...

    def read(self, size: int) -> bytes:
        """Wait for bytes and take 1 to `size` of them; b"" at the end of the connection. Raises OSError."""
        ...


class RequestBody(io.RawIOBase):
    """The body of one request, framed by `length` bytes or, where that is None, by the chunked coding.

    Reads raise ConnectionResetError where the client leaves before the end, TimeoutError where it stalls,
    DecodeError where the chunked coding is broken; `error` then holds that exception.
    """

    def __init__(self, source: BodySource, length: int | None) -> None:
        super().__init__()
        self._source: BodySource | None = source
        self._remaining = length
        self._decoder = ChunkedDecoder() if length is None else None
        self._decoded = b""
        # Held by whoever reads: a producer or a thread of the application, and the server, which does not wait for it.
        self._reading = threading.Lock()
        self.error: OSError | DecodeError | None = None
        self.before_first_read: Callable[[], None] | None = None
        """Called once before the first byte is waited for: where `100 Continue` is sent."""

    @property
    def complete(self) -> bool:
        """Whether all bytes of the body have left the connection."""
        return self._decoder.finished if self._decoder is not None else self._remaining == 0

    def wsgi_input(self) -> IO[bytes]:
        """What the application gets: a buffered binary file that ends where the body ends."""
        return io.BytesIO() if self.complete else io.BufferedReader(self, _READ_BYTES)

    def readable(self) -> bool:
        """True, as the io module asks."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Fill the front of `buffer`; 0 at the end of the body. Raises as the class says."""
        with self._reading:
            return self._fill(memoryview(buffer).cast("B"))

    def _fill(self, view: memoryview) -> int:
        if self.error is not None:
            raise self.error
        if not self._decoded and not self.complete:
            if self._source is None:
                raise ValueError("the request is over: its body cannot be read any more")
            if self.before_first_read is not None:
                announce, self.before_first_read = self.before_first_read, None
                announce()
            try:
                self._receive(self._source, len(view))
            except (OSError, DecodeError) as error:
                self.error = error
                raise
        data, self._decoded = self._decoded[: len(view)], self._decoded[len(view) :]
        view[: len(data)] = data
        return len(data)

    def _receive(self, source: BodySource, size: int) -> None:
        if self._decoder is None:
            assert self._remaining is not None
            self._decoded = source.read(min(size, self._remaining))
            self._remaining -= len(self._decoded)
            ended = not self._decoded
        else:
            ended = False
            while not (self._decoded or self._decoder.finished or ended):
                data = source.peek()
                ended = not data
                self._decoded = self._decoder.feed(data)
                # What follows the body is the next request: it stays where it is.
                taken = len(data) - len(self._decoder.unused)
                while taken:
                    taken -= len(source.read(taken))
        if ended:
            raise ConnectionResetError("the client closed the connection before the end of its request body")

    @property
    def can_be_drained(self) -> bool:
        """Whether `drain` would try; how long a chunked body still is, nobody knows."""
        return self.error is None and (self._remaining is None or self._remaining <= MAX_DRAIN_BYTES)

    def drain(self) -> bool:
        """Read away what is left, at most `MAX_DRAIN_BYTES`; whether the connection now stands at a new request."""
        if not self.can_be_drained or not self._reading.acquire(blocking=False):
            return False  # who reads at this moment may get bytes of the next request
        try:
            scratch = memoryview(bytearray(_READ_BYTES))
            drained = 0
            while not self.complete and drained <= MAX_DRAIN_BYTES:
                drained += self._fill(scratch)
        except (OSError, DecodeError):
            return False
        finally:
            self._reading.release()
        return self.complete

    def detach_source(self) -> None:
        """Cut the body off from the connection; later reads raise ValueError."""
        self._source = None
        self.error = None  # its traceback refers to this object
