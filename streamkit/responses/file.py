"""Files: conditional requests (RFC 9110 section 13), one byte range (section 14), constant memory."""

from __future__ import annotations

import io
import mimetypes
import os
import stat
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from streamkit.delivery.file_wrapper import SentFile, file_wrapper
from streamkit.errors import RangeNotSatisfiable
from streamkit.flow.file_range import FileRange
from streamkit.formats.byte_ranges import content_range, parse_range, unsatisfied_content_range
from streamkit.formats.conditional import evaluate_preconditions, file_validators, if_range_matches
from streamkit.formats.content_disposition import content_disposition
from streamkit.formats.header_fields import http_date
from streamkit.responses.early_errors import early_answer
from streamkit.responses.streamed import StreamedResponse, StreamOptions
from streamkit.responses.streaming import ChunkFraming

if TYPE_CHECKING:
    from typing_extensions import Unpack


class FileResponse(StreamedResponse):
    """A file, whole or the one range that was asked for.

    path_or_file: the path of a regular file, opened at once, or a seekable binary file object, which the response
        closes.
    filename: the name in Content-Disposition. as_attachment: saved by a browser instead of shown, under `filename`
        or the path's own name.
    mimetype: None guesses it from the name, else application/octet-stream.
    etag: an entity tag with its quotes, perhaps weak (`W/"1"`). None makes one from the file's time, size and
        inode, False sends none.
    last_modified: seconds since the epoch. None takes the file's, False sends none.
    options: see StreamOptions.

    Preconditions decide before ranges: 304 and 412 come first. Several ranges are answered with the whole file, as
    RFC 9110 section 14.2 allows. Size and validators are those of the opened file; a file that shrinks while it is
    sent ends as an abort, one that grows is sent as long as was promised. Raises FileNotFoundError,
    PermissionError, IsADirectoryError; ValueError for what is no regular file.
    """

    def __init__(
        self,
        path_or_file: str | os.PathLike[str] | BinaryIO,
        *,
        filename: str | None = None,
        as_attachment: bool = False,
        mimetype: str | None = None,
        etag: str | bool | None = None,
        last_modified: float | bool | None = None,
        **options: Unpack[StreamOptions],
    ) -> None:
        if etag is True or last_modified is True:
            raise TypeError("etag and last_modified take a value, None for the file's own, or False for none")
        file, name = _opened(path_or_file)
        try:
            self._size, own_etag, own_time = _facts(file)
            self._etag = own_etag if etag is None else (etag or None)
            self._modified = own_time if last_modified is None else (int(last_modified) or None)
            self._range = FileRange(file, 0, self._size)
            name = name if filename is None else filename
            if as_attachment and name is None:
                raise ValueError("as_attachment needs filename=: this file object has no name to offer")
            super().__init__(
                "file",
                ChunkFraming(),
                self._range,
                "chunks",
                content_type=_content_type(name, mimetype),
                thread="request",
                wait_first=float("inf"),
                flush_bytes=1,
                flush_seconds=None,
                **options,
            )
            if name is not None and (as_attachment or filename is not None):
                self.headers["Content-Disposition"] = content_disposition(name, attachment=as_attachment)
        except BaseException:
            file.close()
            raise
        self.headers["Content-Length"] = str(self._size)
        self.headers.setdefault("Accept-Ranges", "bytes")
        if self._etag is not None:
            self.headers.setdefault("ETag", self._etag)
        if self._modified is not None:
            self.headers.setdefault("Last-Modified", http_date(self._modified))

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if self.status_code == 200:
            self._decide(str(environ.get("REQUEST_METHOD", "GET")), environ)
        wrapper = file_wrapper(environ)
        if (
            wrapper is None
            or self.status_code != 200
            or environ.get("REQUEST_METHOD") != "GET"
            or self.response is not self._body
            or not _has_descriptor(self._range.file)
        ):
            return super().__call__(environ, start_response)
        self._body.environ = environ
        try:
            self._admit(environ)
        except BaseException as error:
            answer = early_answer(error, environ)
            if answer is None:
                raise
            return answer(environ, start_response)
        stream, connection = self._body.hand_over()
        start_response(self.status, list(self.get_wsgi_headers(environ).items()))
        return SentFile.wrapped(wrapper, self._range.file, self._size, stream, connection)

    def _decide(self, method: str, environ: Mapping[str, Any]) -> None:
        """The status, the range and their headers for this request, in the order of RFC 9110 section 13.2.2."""

        request = _RequestFields(environ)
        status = evaluate_preconditions(method, request, self._etag, self._modified)
        if status == 304:
            # 15.4.5: the headers that the 200 would have, but those that describe the content it does not send
            for name in ("Content-Length", "Content-Type", "Content-Disposition"):
                del self.headers[name]
            self.status_code = status
            return
        if status != 200:
            self._send_part(status, 0, 0)
            return
        header, condition = request.get("Range"), request.get("If-Range")
        if header is None or method != "GET":  # 14.2: ranges are defined for GET only
            return
        if condition is not None and not if_range_matches(condition, self._etag, self._modified):
            return
        try:
            ranges = parse_range(header, self._size)
        except RangeNotSatisfiable:
            self.headers["Content-Range"] = unsatisfied_content_range(self._size)
            self._send_part(416, 0, 0)
            return
        if ranges is not None and len(ranges) == 1:
            start, stop = ranges[0]
            self.headers["Content-Range"] = content_range(start, stop, self._size)
            self._send_part(206, start, stop)

    def _send_part(self, status: int, start: int, stop: int) -> None:
        self.status_code = status
        self._range.start, self._range.stop = start, stop
        self.headers["Content-Length"] = str(stop - start)


class _RequestFields:
    """The header fields of a request, by their names."""

    def __init__(self, environ: Mapping[str, Any]) -> None:
        self._environ = environ

    def get(self, name: str, /) -> str | None:
        value: str | None = self._environ.get("HTTP_" + name.upper().replace("-", "_"))
        return value


def _opened(path_or_file: str | os.PathLike[str] | BinaryIO) -> tuple[BinaryIO, str | None]:
    """The open file and its name. Opened first and looked at then, so that both are of the same file."""
    if not isinstance(path_or_file, (str, os.PathLike)):
        if not (hasattr(path_or_file, "read") and hasattr(path_or_file, "seek")):
            raise TypeError(f"FileResponse takes a path or a binary file, got {type(path_or_file).__name__}")
        if isinstance(cast("object", path_or_file), io.TextIOBase):
            raise TypeError("FileResponse takes a binary file, got one in text mode; open it with mode 'rb'")
        name = getattr(path_or_file, "name", None)
        return path_or_file, os.path.basename(name) if isinstance(name, str) else None
    path = os.fspath(path_or_file)
    if "\0" in path:
        raise ValueError(f"a path cannot hold a NUL character: {path!r}")
    # O_NONBLOCK: opening a FIFO would otherwise wait for a writer; it means nothing for a regular file.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(f"{path!r} is a directory; FileResponse sends one regular file")
        raise ValueError(
            f"{path!r} is not a regular file (a device, socket or FIFO); use StreamingResponse for those"
        )
    return os.fdopen(descriptor, "rb"), os.path.basename(path)


def _facts(file: BinaryIO) -> tuple[int, str | None, int | None]:
    """Size, entity tag and modification time of an open file; of an object without a descriptor only its size."""
    if not _has_descriptor(file):
        return file.seek(0, os.SEEK_END), None, None
    facts = os.fstat(file.fileno())
    etag, modified = file_validators(facts, time.time())
    return facts.st_size, etag, modified


def _has_descriptor(file: BinaryIO) -> bool:
    try:
        file.fileno()
    except (AttributeError, OSError):
        return False
    return True


def _content_type(name: str | None, mimetype: str | None) -> str:
    if mimetype is None:
        mimetype, coding = mimetypes.guess_type(name or "")
        if mimetype is None or coding is not None:  # a .tar.gz is not a tar file to the one who gets it
            mimetype = "application/octet-stream"
    return f"{mimetype}; charset=utf-8" if mimetype.startswith("text/") and ";" not in mimetype else mimetype
