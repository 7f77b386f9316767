"""The chunks of an answer, taken apart as they arrive (RFC 9112 section 7.1).

The law: what came before a fault is given before the fault is raised, because the events in it are whole; and the
beginning of a chunk is given before its end has come. `formats.chunked` has the decoder for requests, which are
refused as a whole; this one is for streams of many small chunks, and takes all that are whole in one turn of a loop.
"""

from __future__ import annotations

import re
from typing import Final

from streamkit.errors import DecodeError

MAX_LINE_BYTES: Final = 1024
"""Bytes of one size line with its extensions, as in `formats.chunked`."""

MAX_TRAILER_BYTES: Final = 8192
"""Bytes of all trailer fields together, as there."""

# 15 digits are 2**60 - 1 bytes. `int(x, 16)` alone would take "0x5", "+5" and "5_0".
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?\r\n")


class ChunkedBody:
    """Takes a chunked body piece by piece, however it was cut, and gives the data in it. For one thread."""

    __slots__ = ("_fault", "_line", "_rest", "_trailer", "finished")

    finished: bool
    """Whether the last chunk and the end of the trailer section have been read."""

    def __init__(self) -> None:
        self.finished = False
        self._line = b""  # what came of a size line, or of the end of a chunk, that is not whole yet
        self._rest = -1  # bytes of the current chunk and its CRLF that are still to come; -1 between two
        self._trailer = False  # the last chunk has been read
        self._fault: str | None = None

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes of the wire, and return the bytes of the body in them, perhaps none.

        Raises `DecodeError` for what the grammar does not allow, at the call after the one that still returned bytes
        of the body; a call with `b""` raises it too. Bytes after the end of the body are dropped.
        """
        if self._fault is not None:
            raise DecodeError(self._fault)
        if self._line and data:
            data = self._line + data
            self._line = b""
        out: list[bytes] = []
        position, size = 0, len(data)
        while position < size and not self.finished:
            if self._trailer:
                self._end(data[position:])
                break
            if self._rest < 0:
                match = _SIZE_LINE.match(data, position)
                if match is None:
                    self._unfinished_line(data[position:])
                    break
                self._rest = int(match[1], 16) + 2
                position = match.end()
                if self._rest == 2:
                    self._trailer = True
                    self._rest = -1
                    continue
            stop = position + self._rest
            if stop <= size:
                if data[stop - 2 : stop] != b"\r\n":
                    self._fault = "the data of a chunk is longer than its size line says"
                out.append(data[position : stop - 2])
                position = stop
                self._rest = -1
                if self._fault is not None:
                    break
                continue
            # The chunk goes on in the next piece; its CRLF stays together.
            cut = min(size, stop - 2)
            out.append(data[position:cut])
            self._line = data[cut:]
            self._rest = stop - cut
            break
        body = b"".join(out)
        if self._fault is not None and not body:
            raise DecodeError(self._fault)
        return body

    def _unfinished_line(self, line: bytes) -> None:
        if b"\n" in line or len(line) > MAX_LINE_BYTES:
            self._fault = f"{line[:40]!r} is not the size line of a chunk"
        self._line = line

    def _end(self, fields: bytes) -> None:
        """Trailer fields mean nothing here; they are skipped to the blank line that ends the body."""
        end = 0 if fields.startswith(b"\r\n") else fields.find(b"\r\n\r\n")
        if 0 <= end <= MAX_TRAILER_BYTES:
            self.finished = True
        elif len(fields) > MAX_TRAILER_BYTES:
            self._fault = f"the trailer fields have more than {MAX_TRAILER_BYTES} bytes"
        else:
            self._line = fields
