"""What a file answers to one request: status, headers and which bytes, before anything is read (RFC 9110).

The law of this file: section 13.2.2. Preconditions decide first, then the method (14.2: a range is for GET alone), then
If-Range, then Range. Nothing here touches a file or a framework.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from streamkit.errors import RangeNotSatisfiable
from streamkit.formats.byte_ranges import content_range, parse_range, unsatisfied_content_range
from streamkit.formats.conditional import HeaderGetter, evaluate_preconditions, if_range_matches
from streamkit.formats.multipart_ranges import MultipartRanges

__all__ = ["FileAnswer", "Representation", "file_answer"]

Piece = bytes | tuple[int, int]
"""Bytes to send, or a half-open range of the file to send."""

_OF_THE_CONTENT = ("Content-Disposition", "Content-Encoding", "Repr-Digest")

# A 412 or 416 that says how long it is fresh may be stored, and be given to those who ask without a condition or range
# (RFC 9111 section 3). That was said of the file, and so were its validators.
_OF_THE_FILE = (
    *_OF_THE_CONTENT,
    "Cache-Control",
    "CDN-Cache-Control",
    "ETag",
    "Expires",
    "Last-Modified",
)


@dataclass(frozen=True)
class Representation:
    """What a plain GET would send.

    size: bytes. content_type: the whole header value. etag, last_modified: its validators, or None.
    exact_dates: whether Last-Modified is a strong validator (8.8.2.2): older than a change that may still come, and
        another one for each of the variants that may be sent under this URL. If not, an If-Range date proves nothing.
    """

    size: int
    content_type: str
    etag: str | None
    last_modified: int | None
    exact_dates: bool = True


@dataclass(frozen=True)
class FileAnswer:
    """status: 200, 206, 304, 412 or 416. pieces: the body. length: of the body in bytes; None for 304.

    headers: to be set. without: names of headers that the 200 would have and this answer must not.
    """

    status: int
    pieces: Sequence[Piece] = ()
    length: int | None = 0
    headers: Sequence[tuple[str, str]] = ()
    without: Sequence[str] = field(default=())


def file_answer(method: str, headers: HeaderGetter, file: Representation) -> FileAnswer:
    """The answer to a request with this method (upper case) and these headers. Never raises."""
    whole = FileAnswer(200, [(0, file.size)], file.size)
    status = evaluate_preconditions(method, headers, file.etag, file.last_modified)
    if status == 304:
        # 15.4.5: the headers that the 200 would have, but those that describe content that is not sent
        return FileAnswer(304, length=None, without=("Content-Length", "Content-Type", *_OF_THE_CONTENT))
    if status != 200:
        return FileAnswer(status, without=_OF_THE_FILE)
    header, condition = headers.get("Range"), headers.get("If-Range")
    if header is None or method != "GET":  # 14.2: ranges are defined for GET only
        return whole
    date = file.last_modified if file.exact_dates else None
    if condition is not None and not if_range_matches(condition, file.etag, date):
        return whole
    try:
        ranges = parse_range(header, file.size)
    except RangeNotSatisfiable:
        return FileAnswer(
            416, headers=[("Content-Range", unsatisfied_content_range(file.size))], without=_OF_THE_FILE
        )
    if ranges is None:
        return whole
    if len(ranges) == 1:  # 15.3.7.2: one range that is left of several is sent plainly too
        start, stop = ranges[0]
        return FileAnswer(
            206, ranges, stop - start, [("Content-Range", content_range(start, stop, file.size))]
        )
    parts = MultipartRanges(ranges, file.size, file.content_type)
    if parts.length > file.size:  # 17.15: some 100 bytes go around each part
        return whole
    return FileAnswer(206, parts.pieces, parts.length, [("Content-Type", parts.content_type)])
