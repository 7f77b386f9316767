"""Files: conditional requests (RFC 9110 section 13), byte ranges (section 14), constant memory.

The law of this file: the file is opened when the response is made, and everything that is said about it (size, tags,
dates) is of that open file. What is sent is decided when the request is known, in the call: first the variant
(precompressed or not), then the answer (`file_answer`), then the way (the server's own `sendfile`, or blocks).
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Iterable, Mapping
from contextvars import Context
from http import HTTPStatus
from io import BytesIO
from typing import TYPE_CHECKING, Any, BinaryIO, Final, cast

from streamkit.delivery.file_wrapper import SentFile, file_wrapper
from streamkit.flow.byte_sources import ByteSource, FetchedRanges, FileObject, OpenFile, source_of_file
from streamkit.flow.chunks import Chunks
from streamkit.flow.file_chunks import FileChunks
from streamkit.flow.file_digests import file_digests
from streamkit.flow.file_range import FileParts
from streamkit.flow.framing import Framing
from streamkit.flow.growing_file import GrowingFile
from streamkit.flow.open_file import NotServed
from streamkit.flow.producer import Producer
from streamkit.flow.pump import Pump
from streamkit.flow.stream import Stream
from streamkit.formats.conditional import (
    file_validators,
    if_range_matches,
    is_strong_date,
    parse_etag,
    parse_etags,
    strong_match,
    weak_match,
)
from streamkit.formats.digest_fields import ALGORITHMS, repr_digest, wanted_digest
from streamkit.formats.file_answer import Representation, file_answer
from streamkit.formats.header_fields import http_date, parse_http_date
from streamkit.responses.compression import vary_by_encoding
from streamkit.responses.directory import PathPlace, Refusal, open_variant, place_of
from streamkit.responses.file_parameters import (
    check_switches,
    check_validators,
    checked_digests,
    content_type_of,
    disposition_of,
    own_name,
)
from streamkit.responses.options import StreamOptions, whole
from streamkit.responses.streamed import StreamedResponse
from streamkit.responses.streaming import ChunkFraming, generated_headers

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from streamkit.flow.byte_sources import RangeReader

log: Final = logging.getLogger("streamkit")

_LEFT_TO_SERVERS: Final = {"on_close", "limiter", "limit_key", "delivery", "status", "headers"}
"""Options that hold for a file that the server sends by itself; every other one needs each block to pass here."""


class FileResponse(StreamedResponse):
    """A file: whole, the ranges that were asked for, or nothing where the client has it already.

    path_or_file: the path of a regular file, opened at once; a seekable binary file object, sent from its first byte
        and closed by the response; or a function `read_range(start, stop)` that fetches bytes from a store (see
        `FetchedRanges`), together with `size`.
    size: bytes; for a function, or for a file object that cannot tell.
    filename: the name in Content-Disposition. as_attachment: saved by a browser instead of shown, under `filename`
        or the path's own name.
    mimetype: None guesses it from the name, else application/octet-stream.
    etag: an entity tag with its quotes, perhaps weak (`W/"1"`). None makes one from the file's time, size and
        inode, False sends none.
    last_modified: seconds since the epoch, cut to now. None takes the file's, False sends none.
    directory: `path_or_file` is a name from a client beneath this directory, and cannot lead out of it; a name that
        leads nowhere is answered with 404, one that may not be read with 403 (`status_code` says so at once).
    follow_symlinks: whether links beneath `directory` are followed, wherever they lead. dotfiles: whether names that
        begin with a dot are served.
    precompressed: `page.html.br`, `.zst` or `.gz` beside `page.html` is sent to clients that accept it, unless it is
        older. Not to a request for a range, whose positions are mostly meant in the file itself, unless its If-Range or
        If-Match names the variant.
    repr_digest: True answers Want-Repr-Digest (RFC 9530) with the SHA-256 or SHA-512 of the file, which reads it
        once more the first time; a mapping such as `{"sha-256": b"..."}` gives digests that are known already.
    follow: True streams a file that is still being written, on and on; a function says whether it still grows, and
        the stream is complete when it says no. No length, no ranges, no validators.
    options: see StreamOptions.

    Preconditions decide before ranges: 304 and 412 come first. A body that a hook has read (`get_data`) or replaced is
    sent whole, whatever range was asked for. A file that shrinks while it is sent ends as an abort, one that grows is
    sent as long as was promised, one that is replaced or deleted as it was. Raises FileNotFoundError, PermissionError,
    IsADirectoryError (for a path without `directory`, and for a directory that is not there); ValueError for what is no
    regular file, and for parameters that do not go together.
    """

    def __init__(
        self,
        path_or_file: str | os.PathLike[str] | BinaryIO | RangeReader,
        *,
        size: int | None = None,
        filename: str | None = None,
        as_attachment: bool = False,
        mimetype: str | None = None,
        etag: str | bool | None = None,
        last_modified: float | bool | None = None,
        directory: str | os.PathLike[str] | None = None,
        follow_symlinks: bool = False,
        dotfiles: bool = False,
        precompressed: bool = False,
        repr_digest: bool | Mapping[str, bytes] = False,
        follow: bool | Callable[[], object] = False,
        **options: Unpack[StreamOptions],
    ) -> None:
        check_switches(as_attachment, follow_symlinks, dotfiles, precompressed, follow)
        check_validators(etag, last_modified)
        self._given_etag = etag
        self._given_time = last_modified
        self._digests = checked_digests(repr_digest)
        self._place = place_of(path_or_file, directory, follow_symlinks, dotfiles)
        self._precompressed = precompressed
        self._follows = follow is not False
        source = self._opened(path_or_file, size)
        try:
            name = own_name(path_or_file) if self._place is None else self._place.name
            disposition = disposition_of(filename, name, as_attachment)
            content_type = content_type_of(filename or name, mimetype)
            if self._refusal is not None:
                options = {**options, "status": self._refusal.status.value, "headers": None}
                disposition, content_type = None, "text/plain; charset=utf-8"
            self._check_combination(source)
            self._start(source, content_type, follow, options)
            check_validators(self.headers.get("ETag"), None)
            if disposition is not None:
                self.headers["Content-Disposition"] = disposition
        except BaseException:
            source.close()
            raise
        if self._follows:
            generated_headers(self)
        elif self._refusal is not None:
            self.headers["Content-Length"] = str(source.size)
        else:
            self.headers.setdefault("Accept-Ranges", "bytes")
            self._take_validators()
            self._describe()

    def _opened(self, path_or_file: object, size: int | None) -> ByteSource:
        self._refusal: Refusal | None = None
        if size is not None:
            whole("size", size, least=0)
        if self._place is not None:
            if size is not None:
                raise ValueError("size is for a function or a file object; a path has its own")
            try:
                return self._place.open()
            except NotServed:
                self._refusal = Refusal(HTTPStatus.NOT_FOUND)
            except PermissionError as error:
                if isinstance(self._place, PathPlace):
                    raise
                log.warning("may not read %s beneath the directory that is served", ascii(error.filename))
                self._refusal = Refusal(HTTPStatus.FORBIDDEN)
            return FileObject(BytesIO(self._refusal.body), None)
        if callable(path_or_file) and not hasattr(path_or_file, "read"):
            if size is None:
                raise ValueError("a function read_range(start, stop) needs size=, in bytes")
            return FetchedRanges(path_or_file, size)
        return source_of_file(path_or_file, size)

    def _check_combination(self, source: ByteSource) -> None:
        if self._refusal is not None:
            return
        if self._precompressed and self._place is None:
            raise ValueError("precompressed looks for files beside a path; give the path")
        if self._follows and not isinstance(source, OpenFile):
            raise ValueError("follow needs a path, or a file that the operating system opened")
        if self._follows and self._precompressed:
            raise ValueError(
                "a file that grows has no precompressed variant: leave out precompressed or follow"
            )
        if self._digests == ALGORITHMS and isinstance(source, FetchedRanges):
            raise ValueError("repr_digest=True would fetch the whole object; give the digests that are known")

    def _start(
        self,
        source: ByteSource,
        content_type: str,
        follow: bool | Callable[[], object],
        options: StreamOptions,
    ) -> None:
        self._parts = FileParts(source)
        self._coding: str | None = None
        self._etag: str | None = None
        self._modified: int | None = None
        given = {name for name, value in options.items() if value not in (None, False)}
        detached = options.get("delivery") == "detached"
        self._left_to_server = given <= _LEFT_TO_SERVERS and not (self._follows or detached)
        items: object = self._parts
        if self._follows:
            items = GrowingFile(cast("OpenFile", source), follow if callable(follow) else None)
        super().__init__(
            "file",
            ChunkFraming(),
            items,
            "chunks",
            content_type=content_type,
            thread="own" if self._follows else "request",
            wait_first=None if self._follows else float("inf"),
            flush_bytes=1,
            flush_seconds=None,
            make_chunks=self._detached_chunks if detached and not self._follows else None,
            options=options,
        )

    def _detached_chunks(self, framing: Framing[Any], stream: Stream, context: Context) -> Chunks[Any]:
        """Chunks that need no thread, where the kernel can copy from the file; else on a thread of their own."""
        plain = isinstance(framing, ChunkFraming)  # else compressed
        if plain and self._parts.source.descriptor() is not None and hasattr(os, "sendfile"):
            return FileChunks(self._parts, framing, stream, context)
        producer = Producer(self._parts, "chunks")
        return Pump(producer, framing, stream, context, flush_bytes=1, flush_seconds=None)

    # -- what is sent -------------------------------------------------------------------------------------------

    def _take_validators(self) -> bool:
        """Compare conditions with what the headers say of the file, if something else than this class wrote it there.

        Returns whether that is so.
        """
        etag, modified = self.headers.get("ETag"), self.headers.get("Last-Modified")
        other_etag = etag != self._etag
        other_time = modified != (None if self._modified is None else http_date(self._modified))
        if other_etag:
            self._given_etag = False if etag is None else parse_etag(etag)
        if other_time:
            self._given_time = False if modified is None else parse_http_date(modified)
        return other_etag or other_time

    def _describe(self) -> None:
        """The headers of the whole file, or of its variant, whichever is the source now."""
        source, now = self._parts.source, time.time()
        self._etag = self._modified = None
        if source.facts is not None:
            self._etag, self._modified = file_validators(source.facts, now)
        etag, modified = self._given_etag, self._given_time
        if etag is not None:
            self._etag = _with_coding(str(etag), self._coding) if etag else None
        if modified is not None:
            # 8.8.2.1: never in the future, from where a client could not tell later states apart
            self._modified = None if modified is False else min(math.floor(modified), int(now))
        self.headers["Content-Length"] = str(source.size)
        if self._etag is not None:
            self.headers["ETag"] = self._etag
        if self._modified is not None:
            self.headers["Last-Modified"] = http_date(self._modified)
        if self._precompressed:
            vary_by_encoding(self.headers)
        if self._coding is not None:
            self.headers["Content-Encoding"] = self._coding

    def _has_exact_dates(self) -> bool:
        """Whether nothing but these very bytes can have been sent with this Last-Modified."""
        one_coding = not (self._precompressed or self._compress)
        return one_coding and self._modified is not None and is_strong_date(self._modified, time.time())

    def _choose_variant(self, method: str, request: _RequestFields) -> None:
        """Switch to the precompressed neighbour that this client wants, if there is one."""
        assert self._place is not None
        found = open_variant(self._place, self._parts.source, request.get("Accept-Encoding"))
        if found is None:
            return
        original = self._parts.source
        self._parts.source, self._coding = found
        self._describe()
        if request.get("Range") is None or method != "GET" or self._is_named(request):
            original.close()
            return
        # A client that asks for a range while accepting codings mostly means positions in the file itself.
        self._parts.source.close()
        self._parts.source, self._coding = original, None
        del self.headers["Content-Encoding"]
        self._describe()

    def _is_named(self, request: _RequestFields) -> bool:
        """Whether the client goes on with a download of this very variant."""
        etag, condition, wanted = self._etag, request.get("If-Range"), request.get("If-Match")
        if etag is None:
            return False
        known = request.get("If-None-Match")
        if known is not None and any(weak_match(tag, etag) for tag in parse_etags(known)):
            return True  # 13.2.2: the client has it, and that is decided before the range
        if condition is not None and if_range_matches(condition, etag, None):
            return True
        return wanted is not None and any(strong_match(tag, etag) for tag in parse_etags(wanted))

    def _decide(self, method: str, environ: Mapping[str, Any]) -> None:
        """The status, the pieces and their headers for this request."""
        length = self.calculate_content_length()
        read = length is not None  # by a hook, which may have put other bytes in their place
        request = _RequestFields({**environ, "HTTP_RANGE": None} if read else environ)
        if self._take_validators():  # a hook has set them
            self._describe()
        if self._precompressed and not read:
            self._choose_variant(method, request)
        content_type = self.headers.get("Content-Type") or "application/octet-stream"
        file = Representation(
            self._parts.source.size if length is None else length,
            content_type,
            self._etag,
            self._modified,
            exact_dates=self._has_exact_dates(),
        )
        answer = file_answer(method, request, file)
        if answer.status in (200, 206) and not read:
            self._add_digest(request)
        if read and not answer.pieces:
            self.response = []
        self.status_code = answer.status
        self._parts.pieces = answer.pieces
        for name in answer.without:
            del self.headers[name]
        for name, value in answer.headers:
            self.headers[name] = value
        if answer.length is not None:
            self.headers["Content-Length"] = str(answer.length)

    def _choose_coding(self, environ: Mapping[str, Any]) -> None:
        if self._coding is None:  # a variant has one, and so has the tag of its 304, which does not name it
            super()._choose_coding(environ)

    def _add_digest(self, request: _RequestFields) -> None:
        known = self._digests if isinstance(self._digests, Mapping) and self._coding is None else {}
        available = known or (() if isinstance(self._digests, Mapping) else self._digests)
        algorithm = wanted_digest(request.get("Want-Repr-Digest"), available)
        if algorithm is None:
            return
        digest = known.get(algorithm) or file_digests.digest(self._parts.source, algorithm)
        if digest is not None:
            self.headers["Repr-Digest"] = repr_digest({algorithm: digest})

    # -- how it is sent -----------------------------------------------------------------------------------------

    def get_wsgi_headers(self, environ: Any) -> Any:
        """The headers as they are sent for this request."""
        headers = super().get_wsgi_headers(environ)
        date = self.headers.get("Last-Modified")
        # Werkzeug takes the date away; without a tag it is all that a cache can go by (15.4.5).
        if self.status_code == 304 and date is not None and "ETag" not in headers:
            headers["Last-Modified"] = date
        return headers

    def _answer(self, environ: dict[str, Any]) -> tuple[Iterable[bytes], str, list[tuple[str, str]]]:
        """See `StreamedResponse`. A precondition, a range or a digest that the request asks for is seen to here."""
        if self._refusal is not None:
            self.close()
            return self._refusal.answer(environ).get_wsgi_response(environ)
        method = str(environ.get("REQUEST_METHOD", "GET"))
        if self.status_code == 200 and not self._follows:
            self._decide(method, environ)
        source, wrapper, piece = self._parts.source, file_wrapper(environ), self._parts.single()
        if (
            wrapper is None
            or piece is None
            or method != "GET"
            or not self._left_to_server
            or self.status_code not in (200, 206)
            or self.response is not self._body
            or (descriptor := source.descriptor()) is None
            or not _is_readable(descriptor, *piece)  # read in blocks it fails before the head is sent
        ):
            return super()._answer(environ)
        self._admit(environ)
        stream, connection = self._body.hand_over()
        sent = SentFile(descriptor, *piece, source.close, stream, connection)
        return sent.wrapped(wrapper), self.status, list(self.get_wsgi_headers(environ).items())


class _RequestFields:
    """The header fields of a request, by their names."""

    def __init__(self, environ: Mapping[str, Any]) -> None:
        self._environ = environ

    def get(self, name: str, /) -> str | None:
        value: str | None = self._environ.get("HTTP_" + name.upper().replace("-", "_"))
        return value


def _is_readable(descriptor: int, start: int, stop: int) -> bool:
    """Whether the first byte can be read, or none is asked for."""
    try:
        return start == stop or bool(os.pread(descriptor, 1, start))
    except OSError:
        return False


def _with_coding(etag: str, coding: str | None) -> str:
    """Another strong tag for each content coding (RFC 9110 section 8.8.3.3)."""
    return etag if coding is None else f'{etag[:-1]}-{coding}"'
