"""The body of an answer as it arrives: framing and content coding taken off (RFC 9112 section 6, RFC 9110 section 8.4).

The law:

- A body ends as its framing says: after its Content-Length, with its last chunk, or else with the connection. Whatever
  breaks off before is `http.client.IncompleteRead`, and nothing is read past the end. Framing that says two things, or
  none that can be read, is refused before the first byte: any guess would take a piece of the body for all of it.
- One call waits for the network at most until some bytes come, and gives what they hold: a stream has no time to lose.
- What a few compressed bytes blow up to is given in pieces of 64 KiB, each when it is asked for, so a body that is a
  bomb costs the memory of one piece.
"""

from __future__ import annotations

import http.client
import re
import zlib
from typing import Final

from streamkit.client.chunked_body import ChunkedBody
from streamkit.errors import DecodeError

READ_BYTES: Final = 65536
"""Bytes that one read asks for, and of one piece of a body that was compressed."""

# `int` would take "1_0", "+5" and the digits of other scripts. 18 of them are less than 2**63.
_LENGTH = re.compile("[0-9]{1,18}")


class ResponseBody:
    """The bytes of one answer, from `response` whose head has been read. One thread reads it.

    Raises `DecodeError` for a content coding other than gzip and deflate, for a Transfer-Encoding other than `chunked`,
    and for a Content-Length that is no number or several different ones (RFC 9112 section 6.3).
    """

    length: int | None
    """Bytes of the body before its content coding is taken off; None where the head does not say."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self._response = response
        self._chunks = ChunkedBody() if _is_chunked(response.headers) else None
        self.length = _content_length(response.headers) if self._chunks is None else None
        if response.length == 0:  # 204, 304 and the answer to HEAD have no body, whatever their fields say
            self.length = 0
        self._rest = self.length  # what is still to come of it
        coding = ", ".join(response.headers.get_all("Content-Encoding", ["identity"])).lower()
        if coding not in ("", "identity", "gzip", "x-gzip", "deflate"):
            raise DecodeError(
                f"the answer came with Content-Encoding {coding[:80]!a}, which was not asked for"
            )
        self._inflate = (
            None if coding in ("", "identity") else Inflate("deflate" if coding == "deflate" else "gzip")
        )

    @property
    def compressed(self) -> bool:
        """Whether a content coding is taken off."""
        return self._inflate is not None

    @property
    def framed(self) -> bool:
        """Whether the end of the body can be told from the end of the connection."""
        return self._chunks is not None or self.length is not None

    def read(self) -> bytes:
        """Return the next bytes, of any number; `b""` is the end of the body.

        Raises `http.client.IncompleteRead` for a body that broke off, `DecodeError` for bytes that are not what
        their coding allows, `OSError` for the network and for the time-out.
        """
        inflate = self._inflate
        if inflate is None:
            return self._unframed()
        while True:
            if data := inflate.read():
                return data
            arrived = self._unframed()
            if not arrived:
                if not inflate.complete:
                    raise http.client.IncompleteRead(b"")
                return b""
            inflate.feed(arrived)

    def _unframed(self) -> bytes:
        """Return the next bytes without their framing; `b""` is the end."""
        stream = self._response.fp
        if stream is None or self._rest == 0:
            return b""
        chunks = self._chunks
        while chunks is not None:
            if chunks.finished:
                return b""
            arrived = stream.read1(READ_BYTES)
            if not arrived:
                raise http.client.IncompleteRead(b"")
            if data := chunks.feed(arrived):
                return data
        data = stream.read1(READ_BYTES if self._rest is None else min(READ_BYTES, self._rest))
        if self._rest is not None:
            if not data:
                raise http.client.IncompleteRead(b"", self._rest)
            self._rest -= len(data)
        return data


def _is_chunked(headers: http.client.HTTPMessage) -> bool:
    """Tell whether the body comes in chunks. `HTTPResponse.chunked` is False for any coding that it does not know."""
    fields = headers.get_all("Transfer-Encoding")
    if fields is not None and [field.lower() for field in fields] != ["chunked"]:
        raise DecodeError(
            f"the answer came with Transfer-Encoding {', '.join(fields)[:80]!a}; only chunked can be read"
        )
    return fields is not None


def _content_length(headers: http.client.HTTPMessage) -> int | None:
    """Return the Content-Length; the same number several times is one (RFC 9112 section 6.3, number 5)."""
    fields = headers.get_all("Content-Length")
    if fields is None:
        return None
    lengths = {length.strip(" \t") for field in fields for length in field.split(",")}
    length = lengths.pop()
    if lengths or not _LENGTH.fullmatch(length):
        raise DecodeError(
            f"the answer came with Content-Length {', '.join(fields)[:80]!a}, which is no length"
        )
    return int(length)


class Inflate:
    """What `gzip` (RFC 1952) or `deflate` bytes hold, in pieces of bounded size and as soon as they can be told.

    `deflate` is the format of RFC 1950 by the standard; many servers send that of RFC 1951, which is taken too.
    """

    def __init__(self, coding: str) -> None:
        self._gzip = coding == "gzip"
        self._input = b""
        self._full = False  # the last piece was as large as it may be: there may be more without more input
        self._machine = zlib.decompressobj(wbits=31) if self._gzip else None

    @property
    def complete(self) -> bool:
        """Whether the data ends here rather than breaks off."""
        return self._machine is None or self._machine.eof

    def feed(self, data: bytes) -> None:
        """Take the next bytes; to be called when `read` has nothing more."""
        self._input += data

    def read(self) -> bytes:
        """Return up to 64 KiB; `b""` asks for more input. Raises `DecodeError` for what is not compressed data."""
        while self._input or self._full:
            if self._machine is None:
                if len(self._input) < 2:
                    return b""
                zlib_head = self._input[0] & 15 == 8 and int.from_bytes(self._input[:2], "big") % 31 == 0
                self._machine = zlib.decompressobj(wbits=15 if zlib_head else -15)
            elif self._machine.eof:
                if not self._input:
                    break
                if not self._gzip:
                    raise DecodeError("bytes follow the end of the deflate data")
                # RFC 1952 section 2.2: members "simply appear one after another".
                self._machine = zlib.decompressobj(wbits=31)
            try:
                data = self._machine.decompress(self._input, READ_BYTES)
            except zlib.error as error:
                raise DecodeError(
                    f"the answer is not the compressed data that it says it is: {error}"
                ) from error
            self._input = self._machine.unused_data if self._machine.eof else self._machine.unconsumed_tail
            self._full = len(data) == READ_BYTES
            if data:
                return data
        self._full = False
        return b""
