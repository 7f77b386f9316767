"""The chunked transfer coding, bytes in and bytes out (RFC 9112 section 7.1).

A chunk is its size in hexadecimal, CRLF, the data, CRLF. **An empty chunk is the end of the message**, so an empty
piece of data has no encoding: `encode_chunk(b"")` gives nothing at all. A message without the last chunk is
incomplete (section 8), which is the one sign that tells a receiver of a cut stream.

The decoder is for request bodies, where two readings of the same bytes are a security hole (request smuggling):
it takes exactly what the grammar says, and nothing that other parsers are lenient about.
"""

from __future__ import annotations

import re

from streamkit.errors import DecodeError

LAST_CHUNK = b"0\r\n\r\n"
"""The end of a chunked message without trailer fields."""

MAX_SIZE_LINE = 1024
"""Bytes of one size line with its extensions. 16 digits are enough; nobody is known to send extensions."""

MAX_TRAILER_BYTES = 8192
"""Bytes of all trailer fields together; the limit that Apache and gunicorn set for one header line."""

# chunk-size [ BWS ";" ... ]: 15 digits are 2**60 - 1 bytes. `int(x, 16)` alone would take "0x5", "+5" and "5_0".
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?")
_TRAILER_LINE = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*")

_SIZE, _DATA, _DATA_END, _TRAILER, _DONE = range(5)


def encode_chunk(data: bytes) -> bytes:
    """One chunk that holds `data`; `b""` for empty data, since an empty chunk would end the message."""
    if not data:
        return b""
    return b"%x\r\n%b\r\n" % (len(data), data)


class ChunkedDecoder:
    """Takes a chunked body piece by piece, however it was cut, and gives the data in it.

    Extensions are ignored, trailer fields checked and dropped; both are bounded. Memory is bounded by the piece
    that was fed. Not thread-safe.
    """

    __slots__ = ("_line", "_remaining", "_state", "_trailer_bytes", "unused")

    def __init__(self) -> None:
        self._state = _SIZE
        self._line = bytearray()
        self._remaining = 0
        self._trailer_bytes = 0
        self.unused = b""
        """What followed the end of the body in the last piece: the beginning of the next message."""

    @property
    def finished(self) -> bool:
        """Whether the last chunk and the end of the trailer section have been read."""
        return self._state == _DONE

    def feed(self, data: bytes) -> bytes:
        """The next bytes of the wire; returns the body bytes in them, perhaps none.

        After the end of the body everything goes to `unused`. Raises DecodeError for bytes that the grammar does
        not allow and for lines beyond their limit; the decoder is of no use after that.
        """
        if self._state == _DONE:
            self.unused += data
            return b""
        out: list[bytes] = []
        position = 0
        while position < len(data) and self._state != _DONE:
            if self._state == _DATA:
                piece = data[position : position + self._remaining]
                out.append(piece)
                position += len(piece)
                self._remaining -= len(piece)
                if not self._remaining:
                    self._state = _DATA_END
                continue
            end = data.find(b"\n", position)
            cut = len(data) if end < 0 else end + 1
            self._line += data[position:cut]
            position = cut
            self._check_length()
            if end >= 0:
                if not self._line.endswith(b"\r\n"):
                    raise DecodeError("a line of the chunked body ends in a bare LF; RFC 9112 asks for CRLF")
                line = bytes(self._line[:-2])
                self._line.clear()
                self._take_line(line)
        if self._state == _DONE:
            self.unused = data[position:]
        return b"".join(out)

    def end(self) -> None:
        """Say that no more bytes will come. Raises DecodeError where the last chunk is missing (section 8)."""
        if self._state != _DONE:
            raise DecodeError("the chunked body ended without its last chunk: it is incomplete")

    def _check_length(self) -> None:
        if self._state == _DATA_END:
            if not b"\r\n".startswith(self._line):
                raise DecodeError("the data of a chunk is longer than its size line says")
        elif self._state == _SIZE:
            if len(self._line) > MAX_SIZE_LINE:
                raise DecodeError(f"a chunk's size line has more than {MAX_SIZE_LINE} bytes")
        elif self._trailer_bytes + len(self._line) > MAX_TRAILER_BYTES:
            raise DecodeError(f"the trailer fields have more than {MAX_TRAILER_BYTES} bytes")

    def _take_line(self, line: bytes) -> None:
        if self._state == _DATA_END:
            self._state = _SIZE
        elif self._state == _SIZE:
            match = _SIZE_LINE.fullmatch(line)
            if match is None:
                raise DecodeError(f"{line[:40]!r} is not the size line of a chunk")
            self._remaining = int(match[1], 16)
            self._state = _DATA if self._remaining else _TRAILER
        elif not line:
            self._state = _DONE
        else:
            if _TRAILER_LINE.fullmatch(line) is None:
                raise DecodeError(f"{line[:40]!r} is not a trailer field")
            self._trailer_bytes += len(line) + 2
