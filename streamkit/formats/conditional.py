"""Validators and conditional requests (RFC 9110 sections 8.8 and 13).

The law of this file:

- Section 13.2.2 fixes the order: If-Match, else If-Unmodified-Since; then If-None-Match, else If-Modified-Since;
  only then Range with If-Range. 412 and 304 are decided before a range is looked at.
- Section 8.8.3.2: If-Match and If-Range compare strongly, If-None-Match weakly.
- What cannot be read does no harm: an invalid date is ignored (13.1.3, 13.1.4), an invalid list of tags matches
  nothing (so that If-None-Match sends the whole answer and If-Match refuses to overwrite).

Entity tags are `str` as they stand in the header, quotes and `W/` included: `"abc"`, `W/"abc"`. Dates are whole
seconds since the epoch. Every function is pure and may be called from any thread.
"""

import os
import re
from hashlib import blake2b
from typing import Literal, Protocol

from streamkit.formats.header_fields import parse_http_date

__all__ = [
    "evaluate_preconditions",
    "file_validators",
    "if_range_matches",
    "is_strong_date",
    "parse_etag",
    "parse_etags",
    "strong_match",
    "weak_match",
]

STILL_SECONDS = 2
"""Seconds that a file has to lie still before its ETag is strong: RFC 9110 section 8.8.1 warns of two changes
within one tick of a clock, and file systems keep ticks of up to 2 s (FAT)."""

_ETAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')  # section 8.8.3; W/ is case-sensitive
_BETWEEN = re.compile(r"[ \t]*(?:,[ \t]*)*")  # section 5.6.1.2: empty elements of a list are ignored


class HeaderGetter(Protocol):
    """Where request headers are read from: werkzeug's Headers, an `email` message, or a dict with these names."""

    def get(self, name: str, /) -> str | None:
        """The value of `If-Match`, `If-None-Match`, `If-Modified-Since` or `If-Unmodified-Since`, or None."""
        ...


def parse_etag(text: str) -> str | None:
    """The one entity tag that a header value is, without whitespace around it; None if it is none (8.8.3)."""
    text = text.strip(" \t")
    return text if _ETAG.fullmatch(text) else None


def parse_etags(text: str) -> tuple[str, ...]:
    """The entity tags of If-Match or If-None-Match in order; `("*",)` for the asterisk.

    Empty where the value is neither (section 13.1.1): a list with one bad element is no list.
    """
    if text.strip(" \t") == "*":
        return ("*",)
    tags: list[str] = []
    place = _end_of_gap(text, 0)
    while place < len(text):
        match = _ETAG.match(text, place)
        if not match:
            return ()
        tags.append(match.group())
        place = _end_of_gap(text, match.end())
        if place < len(text) and "," not in text[match.end() : place]:
            return ()
    return tuple(tags)


def _end_of_gap(text: str, place: int) -> int:
    match = _BETWEEN.match(text, place)
    return match.end() if match else place


def strong_match(one: str, other: str) -> bool:
    """Section 8.8.3.2: both are strong and their opaque tags are the same, character by character."""
    return one == other and not one.startswith("W/")


def weak_match(one: str, other: str) -> bool:
    """Section 8.8.3.2: their opaque tags are the same, weak or not."""
    return one.removeprefix("W/") == other.removeprefix("W/")


def file_validators(stat_result: os.stat_result, now: float) -> tuple[str, int]:
    """ETag and Last-Modified of a file.

    stat_result: of the *opened* descriptor (`os.fstat`), so that they speak of the bytes that are sent.
    now: seconds since the epoch.

    The tag is made from the modification time in nanoseconds, the size and the inode, hashed because an inode
    number is nobody's business. It is weak while the file is younger than 2 s (`STILL_SECONDS`), or from the
    future: it may change again without a trace (8.8.1). Last-Modified is never in the future (8.8.2.1).
    """
    nanoseconds = stat_result.st_mtime_ns
    source = f"{nanoseconds:x}-{stat_result.st_size:x}-{stat_result.st_ino:x}"
    etag = f'"{blake2b(source.encode("ascii"), digest_size=12).hexdigest()}"'
    if now * 1_000_000_000 - nanoseconds < STILL_SECONDS * 1_000_000_000:
        etag = f"W/{etag}"
    return etag, min(nanoseconds // 1_000_000_000, int(now))


def is_strong_date(last_modified: int, now: float) -> bool:
    """Whether a Last-Modified can tell two states of a file apart (section 8.8.2.2): its second is over for good.

    last_modified, now: seconds since the epoch. Over for good means for 2 s (`STILL_SECONDS`).
    """
    return now - (last_modified + 1) >= STILL_SECONDS


def evaluate_preconditions(
    method: str,
    headers: HeaderGetter,
    etag: str | None,
    last_modified: int | None,
    exists: bool = True,
) -> Literal[200, 304, 412]:
    """What the If-* headers of a request ask for: 200 go on, 304 nothing new, 412 refuse (section 13.2.2).

    method: the request method, upper case.
    etag, last_modified: the validators of what a GET would send, or None where there is none.
    exists: whether there is a current representation; False for a PUT that would create one.

    Call it only where the plain answer would be 2xx (13.2.1). Methods that neither select nor change a
    representation ignore the headers. Never raises.
    """
    if method in {"CONNECT", "OPTIONS", "TRACE"}:
        return 200
    if not _may_proceed(headers, etag, last_modified, exists):
        return 412
    reads = method in {"GET", "HEAD"}
    if_none_match = headers.get("If-None-Match")
    if if_none_match is not None:
        if not _any_match(if_none_match, etag, exists, strong=False):
            return 200
        return 304 if reads else 412
    # 13.1.3: ignored with If-None-Match, for other methods, with an invalid date, and without one to compare.
    since = parse_http_date(headers.get("If-Modified-Since")) if reads else None
    if since is not None and last_modified is not None and last_modified <= since:
        return 304
    return 200


def _may_proceed(headers: HeaderGetter, etag: str | None, last_modified: int | None, exists: bool) -> bool:
    """Steps 1 and 2 of section 13.2.2."""
    if_match = headers.get("If-Match")
    if if_match is not None:
        return _any_match(if_match, etag, exists, strong=True)
    # 13.1.4: ignored with an invalid date, and where the resource has no modification date.
    unmodified_since = parse_http_date(headers.get("If-Unmodified-Since"))
    return unmodified_since is None or last_modified is None or last_modified <= unmodified_since


def _any_match(value: str, etag: str | None, exists: bool, *, strong: bool) -> bool:
    tags = parse_etags(value)
    if tags == ("*",):
        return exists  # 13.1.1, 13.1.2: any current representation
    if etag is None or not exists:
        return False
    compare = strong_match if strong else weak_match
    return any(compare(tag, etag) for tag in tags)


def if_range_matches(value: str, etag: str | None, last_modified: int | None) -> bool:
    """Whether a range may be served under this If-Range value; if not, the whole file is (section 13.1.5).

    last_modified: None where it is no strong validator (8.8.2.2): where it is too young (`is_strong_date`), or where
        several representations have it.

    True for a strong tag that matches strongly, and for a date that is exactly Last-Modified, unless the current ETag
    is weak: the file may then change without another date. Never raises.
    """
    tag = parse_etag(value)
    if tag is not None:
        return etag is not None and strong_match(tag, etag)
    if etag is not None and etag.startswith("W/"):
        return False
    date = parse_http_date(value)
    return date is not None and date == last_modified
