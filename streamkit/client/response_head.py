"""The head of an answer: status line and fields, after the interim answers that may come before them.

The law: a head is bounded, with all that comes before it: in bytes, and in the time that the socket has for one of its
reads, however few bytes arrive at a time. One that breaks off says nothing, not even by its status. It is taken off the
stream that the body is then read from, so no byte behind it is lost.
"""

from __future__ import annotations

import http.client
import io
import re
import socket
from time import monotonic
from typing import Final

MAX_HEAD_BYTES: Final = 300 * 1024
"""Bytes of a head, interim answers included: the limit of curl. That of `http.client` alone is 6.5 MB for each."""

# A field, the end of the fields, or a line that goes on with the one before: what `http.client` reads on behind.
_FIELD_LINE = re.compile(rb"[\x21-\x39\x3b-\x7e]+:|\r\n|[ \t]")


class FinalResponse(http.client.HTTPResponse):
    """A `response_class` that also skips 102, 103 and the other interim answers, as many as come.

    RFC 9110 section 15.2: a client must be able to take one or more of them before the final one; `http.client` knows
    100 alone. 101 is final, as it ends the talk in HTTP. Raises `http.client.HTTPException` for a head that breaks off
    or exceeds `MAX_HEAD_BYTES`, `TimeoutError` for one that is not there within the time-out of the socket, and what
    `HTTPResponse` raises.
    """

    def __init__(
        self, sock: socket.socket, debuglevel: int = 0, method: str | None = None, url: str | None = None
    ) -> None:
        super().__init__(sock, debuglevel, method, url)
        self._socket = sock

    def begin(self) -> None:
        """Read the head. Called by `getresponse`, or once by who made this object."""
        stream, seconds = self.fp, self._socket.gettimeout()
        self.fp = _Head(stream, self._socket)  # type: ignore[assignment]  # it has what begin() calls
        try:
            super().begin()
            while 100 <= self.status < 200 and self.status != 101:
                self.headers = self.msg = None  # type: ignore[assignment]  # else it takes the head for read
                super().begin()
        finally:
            if self.fp is not None:  # it is where what came is no HTTP: closed, and to be closed no more
                self.fp = stream
            self._socket.settimeout(seconds)


def status_words(response: http.client.HTTPResponse) -> str:
    """Return status and reason for a message, such as `503 Service Unavailable`, in ASCII."""
    return f"{response.status} {ascii(response.reason)[1:-1]}".rstrip()


class _Head:
    """The lines of a head, off the stream that goes on with the body.

    Each is given as RFC 9112 wants it read: without white space behind it (section 5.1), and with a space for a CR that
    ends no line (section 2.2). What is no field is passed over, as browsers do. `http.client` would keep the white
    space, take the CR for the end of a line, and what is no field for the end of the head.
    """

    def __init__(self, stream: io.BufferedReader, sock: socket.socket) -> None:
        self._stream = stream
        self._socket = sock
        self._bytes_left = MAX_HEAD_BYTES
        self._seconds = sock.gettimeout()
        self._until = None if self._seconds is None else monotonic() + self._seconds
        self._in_fields = False  # the status line has been read, and the blank line has not

    def readline(self, limit: int) -> bytes:
        line = self._next_line(limit)
        while self._in_fields and not _FIELD_LINE.match(line):
            line = self._next_line(limit)
        self._in_fields = line != b"\r\n"
        return line

    def _next_line(self, limit: int) -> bytes:
        line = bytearray()
        while not line.endswith(b"\n"):
            arrived = self._peek()
            if not arrived:
                if line or self._bytes_left < MAX_HEAD_BYTES:  # RFC 9112 section 8
                    raise http.client.HTTPException("the head of the answer breaks off")
                return b""
            line += self._stream.read(arrived.find(b"\n") + 1 or len(arrived))
            if len(line) >= limit:
                raise http.client.LineTooLong("head")
        self._bytes_left -= len(line)
        if self._bytes_left < 0:
            raise http.client.HTTPException(f"the head of the answer has more than {MAX_HEAD_BYTES} bytes")
        text = line[:-1].removesuffix(b"\r").replace(b"\r", b" ")
        # White space alone is no blank line, which would end the head, but goes on with the line before (section 5.2).
        return bytes(text.rstrip(b" \t") or text[:1]) + b"\r\n"

    def _peek(self) -> bytes:
        """Return what has arrived, after one read at most: `readline` of the stream would grant each its own time."""
        try:
            if self._until is not None:
                left = self._until - monotonic()
                if left <= 0:
                    raise TimeoutError
                self._socket.settimeout(left)
            return self._stream.peek(1)
        except TimeoutError:
            raise TimeoutError(f"the head of the answer did not come within {self._seconds} s") from None

    def close(self) -> None:
        self._stream.close()
