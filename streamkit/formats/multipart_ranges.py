"""Several ranges in one answer: `multipart/byteranges` (RFC 9110 sections 14.6 and 15.3.7.2).

The law of this file:

- Every part has its own Content-Range and the Content-Type that the whole would have; the answer itself has no
  Content-Range (15.3.7.2).
- One range is never sent as multipart to a client that asked for one (15.3.7.2); the caller sees to that.
- The length is known before anything is read, so the answer has an exact Content-Length.
- RFC 2046 section 5.1.1: CRLF before a delimiter belongs to the delimiter. The boundary must not occur in the content;
  128 random bits that nobody knows beforehand make sure of that without looking at it.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from streamkit.formats.byte_ranges import content_range

__all__ = ["MultipartRanges"]


class MultipartRanges:
    """The body of a 206 with several ranges, as a plan: text in between and ranges of the file.

    content_type: of the answer, with the boundary. length: of the body in bytes.
    pieces: in order, either bytes to send or a half-open `(start, stop)` of the file.
    """

    def __init__(
        self, ranges: Sequence[tuple[int, int]], size: int, content_type: str, boundary: str | None = None
    ) -> None:
        """`ranges` of a file of `size` bytes, whose own Content-Type is `content_type`.

        boundary: 1 to 70 characters that need no quotes; None makes a random one. Raises ValueError for a range that
        is empty or not within the file.
        """
        boundary = secrets.token_hex(16) if boundary is None else boundary
        self.content_type = f"multipart/byteranges; boundary={boundary}"
        self.pieces: list[bytes | tuple[int, int]] = []
        self.length = 0
        delimiter = f"--{boundary}\r\nContent-Type: {content_type}\r\nContent-Range: "
        for start, stop in ranges:
            head = f"{delimiter}{content_range(start, stop, size)}\r\n\r\n".encode("latin-1")
            delimiter = delimiter if delimiter.startswith("\r\n") else "\r\n" + delimiter
            self.pieces += [head, (start, stop)]
            self.length += len(head) + stop - start
        tail = f"\r\n--{boundary}--\r\n".encode("latin-1")
        self.pieces.append(tail)
        self.length += len(tail)
