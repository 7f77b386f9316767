"""The Range and Content-Range headers (RFC 9110 sections 14.1, 14.2 and 14.4).

The law of this file:

- Section 14.2: a Range is optional. What is not understood (another unit, bad syntax, far too many ranges) is
  ignored and the whole file sent; an error is for one case alone, a valid set of which nothing overlaps the file.
- Section 14.1.1: positions are ASCII digits, without sign, and may be larger than any file: a last position past
  the end is cut (14.1.2), so numbers are compared by length before they become `int`.
- Section 17.15: a request may ask for the same bytes over and over. The number of ranges has a limit, and those that
  overlap or touch are joined (15.3.7.2 allows it), so that no byte is sent twice. What goes around the parts may still
  be more than the file; `file_answer` sends the file then.
- Positions on the wire are inclusive. Everywhere in Python they are a half-open `(start, stop)`, so that the
  length is `stop - start` and a range of one byte is nothing special.

A Range counts for GET alone (14.2); the caller sees to that, and to If-Range first (`if_range_matches`).
"""

import re

from streamkit.errors import RangeNotSatisfiable

__all__ = ["content_range", "parse_range", "unsatisfied_content_range"]

MAX_RANGES = 100
"""More ranges than this in one request are ignored and the whole file sent (section 17.15; Starlette's limit)."""

_MAX_DIGITS = 19
"""Digits of the largest file offset, 2**63 - 1. `int()` of a whole header full of digits would be an attack."""

_RANGES = re.compile(r"bytes=(.*)", re.IGNORECASE)  # 14.1: unit names are case-insensitive
_SPEC = re.compile(r"([0-9]*)-([0-9]*)")


def parse_range(header: str, size: int) -> list[tuple[int, int]] | None:
    """The ranges of a file that a Range header asks for, as `(start, stop)` with stop exclusive.

    header: the value of the header. size: the length of the file in bytes.

    They come in the order of the header. Ranges that overlap or touch are joined, at the place of the first of them,
    so together they are never more than the file. Ranges outside the file are left out if another fits. A suffix
    longer than the file is the whole file.

    None means ignore the header and send everything: another unit than bytes, invalid syntax, an empty file
    (416 would be legal, but trips clients that send a Range with every request), or more than `MAX_RANGES` ranges.

    Raises `RangeNotSatisfiable` if the set is valid and none fits; ValueError if `size` is negative.
    """
    if size < 0:
        raise ValueError(f"size is {size}; give the length of the file in bytes, 0 or more")
    match = _RANGES.fullmatch(header.strip(" \t"))
    if not match or size == 0:
        return None
    specs = [spec for spec in (part.strip(" \t") for part in match.group(1).split(",")) if spec]
    if not specs or len(specs) > MAX_RANGES:
        return None
    ranges: list[tuple[int, int]] = []
    for spec in specs:
        positions = _SPEC.fullmatch(spec)
        if not positions or spec == "-":
            return None
        first, last = (digits.lstrip("0") or digits[:1] for digits in positions.groups())
        if first and last and (len(first), first) > (len(last), last):
            return None  # 14.1.1: an int-range whose last position is less than its first is invalid
        start, stop = _half_open(first, last, size)
        if start < stop:
            ranges.append((start, stop))
    if not ranges:
        raise RangeNotSatisfiable(header[:100], size)
    return _joined(ranges)


def _joined(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same bytes without any of them twice; each joined range at the place of its first part."""
    joined: list[tuple[int, int, int]] = []  # place, start, stop
    for start, stop, place in sorted((start, stop, place) for place, (start, stop) in enumerate(ranges)):
        if joined and start <= joined[-1][2]:
            first_place, first_start, last_stop = joined[-1]
            joined[-1] = (min(place, first_place), first_start, max(stop, last_stop))
        else:
            joined.append((place, start, stop))
    return [(start, stop) for _, start, stop in sorted(joined)]


def _half_open(first: str, last: str, size: int) -> tuple[int, int]:
    """One range within the file; empty (start == stop) if it does not overlap it."""
    if not first:  # 14.1.2: the last so many bytes
        return size - min(_position(last, size), size), size
    start = min(_position(first, size), size)
    stop = min(_position(last, size) + 1, size) if last else size
    return start, stop


def _position(digits: str, size: int) -> int:
    return int(digits) if len(digits) <= _MAX_DIGITS else size


def content_range(start: int, stop: int, size: int) -> str:
    """The Content-Range of a 206 for the half-open range `(start, stop)` (section 14.4): `bytes 0-499/1234`.

    Raises ValueError unless `0 <= start < stop <= size`.
    """
    if not 0 <= start < stop <= size:
        raise ValueError(f"the range {start} to {stop} is empty or not within a file of {size} bytes")
    return f"bytes {start}-{stop - 1}/{size}"


def unsatisfied_content_range(size: int) -> str:
    """The Content-Range of a 416 (sections 14.4 and 15.5.17): `bytes */1234`."""
    return f"bytes */{size}"
