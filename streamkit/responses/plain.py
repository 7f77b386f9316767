"""The response of a process without Werkzeug: status, headers and a body, as a WSGI callable.

It has the part of `werkzeug.wrappers.Response` that a streamed answer needs, under the same names, so that code
written for one works with the other.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import Any, Final
from wsgiref.headers import Headers

from streamkit.formats.header_fields import check_header

# RFC 9112 section 4: a code and a reason; PEP 3333: in Latin-1.
_STATUS: Final = re.compile(r"[2-5][0-9]{2}(?: [\t\x20-\x7e\x80-\xff]*)?")


class PlainResponse:
    """A WSGI response. `headers` is a mapping or pairs, `response` an iterable of bytes.

    status: a code, or a line such as "404 Not Found"; None is 200. content_type: the whole header value. Raises
    TypeError or ValueError for a status that is none; and when it is sent, for a header that no server may be given.
    """

    def __init__(
        self,
        response: Iterable[bytes] = (),
        status: int | str | None = None,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
        content_type: str | None = None,
    ) -> None:
        self.response: Iterable[Any] = response
        self.status = 200 if status is None else status
        pairs = headers.items() if isinstance(headers, Mapping) else (headers or ())
        self.headers = Headers([(name, value) for name, value in pairs])
        if content_type is not None:
            self.headers.setdefault("Content-Type", content_type)
        self._on_close: list[Callable[[], Any]] = []

    @property
    def status(self) -> str:
        """The status line. It may be set to a code or a line."""
        return self._status

    @status.setter
    def status(self, status: int | str) -> None:
        self._status = status_line(status)

    @property
    def status_code(self) -> int:
        """The status as a number."""
        return int(self._status[:3])

    @status_code.setter
    def status_code(self, code: int) -> None:
        self._status = status_line(code)

    @property
    def content_type(self) -> str | None:
        """The Content-Type header."""
        return self.headers.get("Content-Type")

    @content_type.setter
    def content_type(self, content_type: str) -> None:
        self.headers["Content-Type"] = content_type

    @property
    def mimetype(self) -> str | None:
        """The Content-Type header without its parameters. Set, a text gets `charset=utf-8`."""
        value = self.headers.get("Content-Type")
        return None if value is None else value.partition(";")[0].strip().lower()

    @mimetype.setter
    def mimetype(self, mimetype: str) -> None:
        self.content_type = f"{mimetype}; charset=utf-8" if mimetype.startswith("text/") else mimetype

    def call_on_close(self, callback: Callable[[], Any]) -> Callable[[], Any]:
        """Run `callback()` when the response ends. Returns it, so that this works as a decorator."""
        self._on_close.append(callback)
        return callback

    def iter_encoded(self) -> Iterator[bytes]:
        """The chunks of the body."""
        return iter(self.response)

    def close(self) -> None:
        """Close the body and run what `call_on_close` was given: all of it, then the first error is raised."""
        close = getattr(self.response, "close", None)
        callbacks = [] if close is None else [close]
        callbacks += self._on_close
        self._on_close = []
        first: BaseException | None = None
        for callback in callbacks:
            try:
                callback()
            except BaseException as error:
                first = error if first is None else first
        if first is not None:
            raise first

    def get_wsgi_headers(self, environ: Mapping[str, Any]) -> Headers:
        """The headers as they are sent for this request. Raises TypeError or ValueError (see `check_header`)."""
        headers = Headers(self.headers.items())
        for name, value in headers.items():
            check_header(name, value)  # not every server looks, and a line break would begin another header
        if self.status_code == 204:
            del headers["Content-Length"]  # RFC 9110 section 8.6; nothing happens where there is none
        return headers

    def get_wsgi_response(
        self, environ: dict[str, Any]
    ) -> tuple[Iterable[bytes], str, list[tuple[str, str]]]:
        """The body, the status line and the headers that answer this request."""
        headers = list(self.get_wsgi_headers(environ).items())
        if environ.get("REQUEST_METHOD") == "HEAD" or self.status_code in (204, 304):
            return _Closing((), self.close), self.status, headers
        return _Closing(self.response, self.close), self.status, headers

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        body, status, headers = self.get_wsgi_response(environ)
        start_response(status, headers)
        return body


class _Closing:
    """A body whose end closes the response, whatever was put into the response's place for one."""

    def __init__(self, chunks: Iterable[bytes], close: Callable[[], None]) -> None:
        self._chunks = chunks
        self.close = close

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._chunks)


def status_line(status: object) -> str:
    """A code, or a line, as a line with a reason. Raises TypeError or ValueError for what is no final status."""
    if isinstance(status, bool) or not isinstance(status, (int, str)):
        raise TypeError(f'status is {status!r}; give a number such as 200, or a line such as "200 OK"')
    line = status if isinstance(status, str) else f"{status:d}"
    if not _STATUS.fullmatch(line):
        raise ValueError(f'status is {status!r}; give a number from 200 to 599, or a line such as "200 OK"')
    code, _, reason = line.partition(" ")
    if reason:
        return line
    try:
        return f"{code} {HTTPStatus(int(code)).phrase}"
    except ValueError:
        return f"{code} UNKNOWN"
