"""`download`: a URL to a file that is whole or absent, resumed where an earlier attempt ended (RFC 9110 section 14).

The law:

- Bytes are added only to bytes of the same representation: `If-Range` carries the strong validator that came with the
  first of them, and what comes back is checked again. A file that has changed starts over.
- A body that broke off is never taken for a whole one. Where the framing cannot tell, a digest must, or the caller.
- What came is kept through time-outs, restarts and a full disk; only bytes that are known to be wrong are removed.
"""

from __future__ import annotations

import base64
import binascii
import errno
import http.client
import logging
import random
import re
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256 as sha256_of
from os import PathLike
from pathlib import Path
from typing import Final

from streamkit.client.http_exchange import HTTPExchange
from streamkit.client.http_request import HTTPRequest, new_request
from streamkit.client.parameters import check_callback, check_connection, check_limit
from streamkit.client.partial_file import Note, PartialFile
from streamkit.client.proxies import FROM_ENVIRONMENT
from streamkit.client.response_body import ResponseBody
from streamkit.client.response_head import status_words
from streamkit.client.retry_after import retry_after_seconds
from streamkit.client.stoppable_connection import StopSignal
from streamkit.errors import DecodeError, DigestMismatch, DownloadError, EventSourceError
from streamkit.formats.header_fields import parse_http_date

log: Final = logging.getLogger("streamkit")

FIRST_WAIT: Final = 1.0
"""Seconds before the first retry; doubled at each in a row."""

LONGEST_WAIT: Final = 30.0
"""Seconds that doubling ends at, and the longest `Retry-After` that is waited for."""

PASSING: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses that may be different the next time (RFC 9110 section 15, RFC 6585, RFC 8470)."""

_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)", re.IGNORECASE)
_UNSATISFIED = re.compile(r"bytes \*/([0-9]{1,18})", re.IGNORECASE)
# RFC 9530 section 2: a dictionary of byte sequences. Weaker algorithms are not looked at.
_DIGEST = re.compile(r"(?:^|,)[ \t]*(sha-256|sha-512)=:([A-Za-z0-9+/=]*):")
_DISK_IS_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@dataclass(frozen=True)
class Downloaded:
    """What `download` did."""

    path: Path
    size: int
    """Bytes of the file."""
    resumed_from: int
    """Bytes that an earlier call had left; 0 where there were none, or they were of no use."""
    verified: bool
    """Whether a digest, and not the length alone, says that it is right."""


def download(
    url: str,
    path: str | PathLike[str],
    *,
    headers: Mapping[str, str] | None = None,
    auth: tuple[str, str] | None = None,
    sha256: str | None = None,
    max_bytes: int | None = None,
    timeout: float | None = 60,  # seconds without a byte, and for each step of opening; None waits for ever
    max_retries: int | None = 5,
    allow_unknown_length: bool = False,
    ssl_context: ssl.SSLContext | None = None,
    proxy: str | None = FROM_ENVIRONMENT,
    progress: Callable[[int, int | None], object] | None = None,
) -> Downloaded:
    """Load `url` into the file `path`, and return what was done.

    Bytes go to `path` + `.part`; the file appears under its name when all of it is there and right, in place of an
    older one. A call that fails or is interrupted leaves the part, and the next call asks for the rest of it.

    - `sha256`: what the file must have, in hexadecimal. Without it `Repr-Digest` and `Content-Digest` of the answer are
      checked where the server sends them (RFC 9530; SHA-256 and SHA-512).
    - `max_bytes`: the most that is accepted; None is without limit.
    - `max_retries`: how often in a row it asks again without having come further, after 1, 2, 4, ... 30 s; None is
      without limit.
    - `allow_unknown_length`: also accept a body that only the end of the connection ends, where nothing tells whether
      it is whole. With `sha256` it is accepted anyway.
    - `progress(done, total)`: called after each read, with bytes; `total` is None while unknown. What it raises ends
      the download; the part stays.
    - `headers`, `auth`, `timeout`, `ssl_context`, `proxy`: as of `EventSource`.

    Raises `DownloadError` for a status that says no, retries used up, a full disk, a part that another process writes;
    `DigestMismatch`, a kind of it, for bytes that are not the right ones, which are removed. Other `OSError`s of the
    file as they are; `ValueError` or `TypeError` for parameters out of range.

    For one thread and one file; two downloads into one path exclude each other, also between processes.
    """
    check_connection(timeout, ssl_context, proxy)
    check_limit("max_retries", max_retries, 0)
    check_limit("max_bytes", max_bytes, 1)
    check_callback("progress", progress, "the bytes that are there and those of the whole")
    if not isinstance(sha256, (str, type(None))):
        raise TypeError(f"sha256 must be str, 64 hexadecimal digits, or None, not {type(sha256).__name__}")
    if sha256 is not None and not re.fullmatch("[0-9A-Fa-f]{64}", sha256):
        raise ValueError(f"sha256 must be 64 hexadecimal digits, not {sha256!r:.80}")
    if not isinstance(allow_unknown_length, bool):
        raise TypeError(f"allow_unknown_length must be True or False, not {allow_unknown_length!r:.80}")
    if not isinstance(path, (str, PathLike)):
        raise TypeError(f"path must be str or a path, such as 'folder/file', not {type(path).__name__}")
    request = new_request(url, "GET", headers, None, auth)
    for name in request.headers:
        if name.lower() in ("range", "if-range", "accept-encoding"):
            raise ValueError(f"the header {name!r} belongs to download itself: it asks for what is missing")
    target = Path(path)
    if target.is_dir():
        raise IsADirectoryError(
            errno.EISDIR, "the target of a download is a folder; name a file in it", str(target)
        )
    stop = StopSignal()
    exchange = HTTPExchange(stop, timeout=timeout, context=ssl_context, proxy=proxy)
    part = PartialFile(target)
    try:
        expected = None if sha256 is None else bytes.fromhex(sha256)
        one = _Download(request, exchange, part, expected, max_bytes, allow_unknown_length, progress)
        return one.run(stop, max_retries)
    finally:
        exchange.close()
        part.close()


class _TryAgain(Exception):
    """This attempt brought not all of it; `wait` is what the server asked for, in seconds."""

    def __init__(self, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait


class _Download:
    """One call of `download`: attempts, one after the other, until the part is whole."""

    def __init__(
        self,
        request: HTTPRequest,
        exchange: HTTPExchange,
        part: PartialFile,
        sha256: bytes | None,
        max_bytes: int | None,
        allow_unknown_length: bool,
        progress: Callable[[int, int | None], object] | None,
    ) -> None:
        self._request = request
        self._exchange = exchange
        self._part = part
        self._sha256 = sha256
        self._max_bytes = max_bytes
        self._allow_unknown_length = allow_unknown_length
        self._progress = progress
        # As a digest: the query of a URL is where secrets travel, and the note stays on the disk.
        self._source = sha256_of(request.url.geturl().encode()).hexdigest()
        self._note = part.note(self._source)
        self._resumed_from = 0 if self._note is None else part.size
        self._digests: list[tuple[str, bytes, int]] = []  # algorithm, digest, from which byte on
        self._more_may_follow = False  # the last answer was a range that did not tell how long the whole is

    def run(self, stop: StopSignal, max_retries: int | None) -> Downloaded:
        """Try until it is done. Raises what `download` raises."""
        failures = 0
        furthest = self._part.size
        while True:
            try:
                self._attempt()
                if self._note is None or self._note.size in (None, self._part.size):
                    return self._completed()
                self._exchange.close()  # and ask for more: a range may be shorter than what was asked for
            except _TryAgain as again:
                # Only bytes beyond all before are progress: a server that always starts over and always fails is not.
                failures = 0 if self._part.size > furthest else failures
                furthest = max(furthest, self._part.size)
                failures += 1
                if max_retries is not None and failures > max_retries:
                    raise DownloadError(
                        f"{self._request} could not be loaded: {again}; {self._kept()}"
                    ) from again.__cause__
                wait = min(FIRST_WAIT * 2 ** min(failures - 1, 16), LONGEST_WAIT) * random.uniform(1, 1.25)
                wait = max(wait, again.wait or 0)
                self._exchange.close()
                log.warning("%s: %s; trying again in %.1f s", self._request, again, wait)
                stop.wait(wait)
            except EventSourceError as error:  # redirects, certificates and proxies have their own words
                raise DownloadError(str(error), error.status) from error
            except OSError as error:
                if error.errno not in _DISK_IS_FULL:
                    raise
                message = f"no space is left for {self._part.part} ({error.strerror}); {self._kept()}"
                raise DownloadError(message) from error

    def _kept(self) -> str:
        if self._note is None or not self._part.size:
            return "nothing of it is kept"
        if self._note.validator is None:
            return "the server names no strong validator, so the next call starts over"
        return f"{self._part.size} bytes are kept in {self._part.part}, and the next call goes on from there"

    def _attempt(self) -> None:
        """Ask once for what is missing, and write it down."""
        extra: dict[str, str | bytes] = {"Accept-Encoding": "identity"}
        if self._note is None or self._note.validator is None:
            self._start_over()
        elif self._part.size:
            extra["Range"] = f"bytes={self._part.size}-"
            extra["If-Range"] = self._note.validator
        try:
            request, response = self._exchange.open(self._request, extra)
        except (OSError, http.client.HTTPException) as error:
            raise _TryAgain(f"the connection failed: {error!r}") from error
        if response.status == 416 and "Range" in extra:
            self._already_whole(response)
            return
        if response.status not in (200, 206):
            self._refused(request, response)
        try:
            body = ResponseBody(response)
        except DecodeError as error:
            raise DownloadError(f"{request}: {error}", response.status) from error
        if body.compressed:
            raise DownloadError(
                f"{request} came compressed, though it was asked for as it is", response.status
            )
        if response.status == 206:
            if "Range" not in extra:
                raise DownloadError(f"{request} answered 206, but no range was asked for", 206)
            end: int | None = self._take_up(response, body)
        else:
            self._begin(response, body)
            end = body.length
        self._read(body, end)

    def _refused(self, request: HTTPRequest, response: http.client.HTTPResponse) -> None:
        message = f"{request} answered {status_words(response)}"
        wait = retry_after_seconds(response.headers.get("Retry-After"))
        if response.status in PASSING and (wait is None or wait <= LONGEST_WAIT):
            raise _TryAgain(message, wait)
        raise DownloadError(f"{message}; {self._kept()}" if self._part.size else message, response.status)

    def _start_over(self) -> None:
        self._note = None
        self._resumed_from = 0
        self._part.begin(Note(self._source, None, None))

    def _already_whole(self, response: http.client.HTTPResponse) -> None:
        """416: with `If-Range` it means that the file is the same, and has no byte after those that are here."""
        found = _UNSATISFIED.fullmatch(response.headers.get("Content-Range", ""))
        note = self._note
        if (
            note is None
            or found is None
            or int(found[1]) != self._part.size
            or note.size not in (None, self._part.size)
            or _is_of_another(note, response.headers)
        ):
            self._start_over()
            raise _TryAgain("the part is not the beginning of the file")
        self._digests = _digests(response.headers.get_all("Repr-Digest"), 0)
        self._more_may_follow = False

    def _take_up(self, response: http.client.HTTPResponse, body: ResponseBody) -> int:
        """206: see that it goes on with what is here, by position, length and validator; return where it ends.

        That may be before the end of the file (RFC 9110 section 15.3.7).
        """
        note, headers = self._note, response.headers
        found = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", ""))
        if note is None or note.validator is None or found is None:
            raise self._another_part()
        start, end = int(found[1]), int(found[2]) + 1
        told = None if found[3] == "*" else int(found[3])
        size = note.size if told is None else told
        if (
            start != self._part.size
            or end <= start
            or (size is not None and end > size)
            or (note.size is not None and size != note.size)
            or (body.length is not None and body.length != end - start)
            # "*": the server does not know the length (RFC 9110 section 14.4), and only `sha256` tells that it is all.
            or (size is None and self._sha256 is None)
            # Section 15.3.7 demands the ETag that a 200 would have; Last-Modified it should leave out.
            or (note.validator.startswith('"') and "ETag" not in headers)
            or _is_of_another(note, headers)
        ):
            raise self._another_part()
        self._note = Note(note.source, note.validator, size)
        self._more_may_follow = size is None
        self._check_size()
        # What an earlier answer told of the whole still holds: this is the same representation.
        whole = _digests(headers.get_all("Repr-Digest"), 0) or [one for one in self._digests if one[2] == 0]
        self._digests = whole + _digests(headers.get_all("Content-Digest"), self._part.size)
        return end

    def _another_part(self) -> _TryAgain:
        self._start_over()
        return _TryAgain("the server answered with another part than was asked for")

    def _begin(self, response: http.client.HTTPResponse, body: ResponseBody) -> None:
        """200: the whole file, from its first byte."""
        if not body.framed and not (self._allow_unknown_length or self._sha256):
            raise DownloadError(
                f"{self._request} sends no length and no chunks, so a body that breaks off looks whole; give its "
                "sha256, or allow_unknown_length=True",
                200,
            )
        self._resumed_from = 0
        self._more_may_follow = False
        self._note = Note(self._source, _validator(response.headers), body.length)
        self._part.begin(self._note)
        self._check_size()
        for name in ("Repr-Digest", "Content-Digest"):
            self._digests = _digests(response.headers.get_all(name), 0)
            if self._digests:
                break

    def _check_size(self) -> None:
        size = None if self._note is None else self._note.size
        known = self._part.size if size is None else size
        if self._max_bytes is not None and known > self._max_bytes:
            raise DownloadError(f"{self._request} has {known} bytes or more; max_bytes is {self._max_bytes}")

    def _read(self, body: ResponseBody, end: int | None) -> None:
        """Write down what comes, up to byte `end` of the file; None where only the framing tells its end."""
        total = None if self._note is None else self._note.size
        self._report(total)
        while True:
            try:
                data = body.read()
            except (OSError, http.client.HTTPException, DecodeError) as error:
                raise _TryAgain(
                    f"the connection was lost after {self._part.size} bytes: {error!r}"
                ) from error
            if not data:
                break
            self._part.append(data)
            self._check_size()
            self._report(total)
        if end is not None and self._part.size != end:
            message = f"the body ended after {self._part.size} of {end} bytes"
            if self._part.size > end:
                self._start_over()
            raise _TryAgain(message)

    def _report(self, total: int | None) -> None:
        if self._progress is not None:
            self._progress(self._part.size, total)

    def _completed(self) -> Downloaded:
        """Check the digests and put the file in its place."""
        digests = self._digests if self._sha256 is None else [("sha-256", self._sha256, 0)]
        for algorithm, digest, start in digests:
            found = self._part.digest(algorithm.replace("-", ""), start)
            if found != digest:
                if self._more_may_follow:
                    raise _TryAgain("the range that came is not the end of the file")
                size = self._part.size
                self._part.remove()
                raise DigestMismatch(
                    f"{self._request} is not what its {algorithm} says: {size} bytes with {found.hex()} instead of "
                    f"{digest.hex()}; they were removed"
                )
        self._part.complete()
        return Downloaded(self._part.path, self._part.size, self._resumed_from, bool(digests))


def _validator(headers: http.client.HTTPMessage) -> str | None:
    """Return what `If-Range` may carry (RFC 9110 section 13.1.5): a strong ETag, else a strong date, else None."""
    etag = headers.get("ETag", "")
    if etag:
        return etag if re.fullmatch('"[\x21\x23-\x7e\x80-\xff]*"', etag) else None
    modified = parse_http_date(headers.get("Last-Modified"))
    answered = parse_http_date(headers.get("Date"))
    # Section 8.8.2.2: strong where it is at least one second before the Date of the same answer.
    if modified is not None and answered is not None and answered - modified >= 1:
        return headers["Last-Modified"]
    return None


def _is_of_another(note: Note, headers: http.client.HTTPMessage) -> bool:
    """Tell whether an answer has another validator than the bytes that are here (RFC 9110 section 15.3.7.3).

    Looked at is the field that theirs came from; one that is missing says nothing.
    """
    validator = note.validator or ""
    if validator.startswith('"'):
        return headers.get("ETag", validator) != validator
    modified = headers.get("Last-Modified", validator)
    return parse_http_date(modified) != parse_http_date(validator)


def _digests(values: list[str] | None, start: int) -> list[tuple[str, bytes, int]]:
    """Return the digests of a header, those that can be read."""
    found = []
    for algorithm, text in _DIGEST.findall(", ".join(values or [])):
        with suppress(binascii.Error):
            digest = base64.b64decode(text, validate=True)
            if len(digest) == (32 if algorithm == "sha-256" else 64):
                found.append((algorithm, digest, start))
    return found
