"""The head of an answer: status line and fields, after the interim answers that may come before them.

The law: a head is bounded in bytes, with all that comes before it. It is read line by line off the stream
that the body is then read from, so no byte behind it is lost.
"""

from __future__ import annotations

import http.client
import io
from typing import Final

MAX_HEAD_BYTES: Final = 300 * 1024
"""Bytes of a head, interim answers included: the limit of curl. That of `http.client` alone is 6.5 MB for each."""


class FinalResponse(http.client.HTTPResponse):
    """A `response_class` that also skips 102, 103 and the other interim answers, as many as come.

    RFC 9110 section 15.2: a client must be able to take one or more of them before the final one; `http.client` knows
    100 alone. 101 is final, as it ends the talk in HTTP. Raises `http.client.HTTPException` for a head beyond
    `MAX_HEAD_BYTES`, and what `HTTPResponse` raises.
    """

    def begin(self) -> None:
        """Read the head. Called by `getresponse`, or once by who made this object."""
        stream = self.fp
        self.fp = _Head(stream)  # type: ignore[assignment]  # it has what begin() calls
        try:
            super().begin()
            while 100 <= self.status < 200 and self.status != 101:
                self.headers = self.msg = None  # type: ignore[assignment]  # else it takes the head for read
                super().begin()
        finally:
            if self.fp is not None:  # it is where what came is no HTTP: closed, and to be closed no more
                self.fp = stream


class _Head:
    """The lines of a head, off the stream that goes on with the body."""

    def __init__(self, stream: io.BufferedReader) -> None:
        self._stream = stream
        self._left = MAX_HEAD_BYTES

    def readline(self, limit: int) -> bytes:
        line = self._stream.readline(min(limit, self._left + 1))
        self._left -= len(line)
        if self._left < 0:
            raise http.client.HTTPException(f"the head of the answer has more than {MAX_HEAD_BYTES} bytes")
        return line

    def close(self) -> None:
        self._stream.close()
