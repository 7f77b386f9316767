"""Two WSGI middlewares that do to a stream what the way to its readers may do: hold it back, compress it.

Put one around an application in a test. By default they behave well, as nginx and a good compressor do: they leave
alone what asks for that by its headers, so a test proves that the application asks. With `obey=False` they behave like
those that do not care, so a test shows what readers get then.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, Final
from wsgiref.headers import Headers

from streamkit.testing.in_process import WSGIApplication

BUFFER_BYTES: Final = 64 * 1024
"""What is held back: nginx's default `proxy_buffers` are 8 of 8 KiB."""
_GZIP_WINDOW: Final = 31  # zlib's way to ask for a gzip header: 15, the largest window, plus 16


class _Answer:
    """What the wrapped application said: its head, and its body as an iterator. One a request."""

    def __init__(self, app: WSGIApplication, environ: dict[str, Any], start_response: Any) -> None:
        self.headers = Headers([])
        self._status = ""
        self._exc_info: Any = None
        self._start_response = start_response
        self._written: list[bytes] = []  # by the old write() callable
        self.body = app(environ, self._remember)

    def _remember(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], None]:
        self._status, self.headers, self._exc_info = status, Headers(list(headers)), exc_info
        return self._written.append

    def chunks(self) -> Iterator[bytes]:
        """The body. The head is known when the first chunk is there, not before (PEP 3333)."""
        for chunk in self.body:
            yield from self._take_written()
            yield chunk
        yield from self._take_written()

    def _take_written(self) -> list[bytes]:
        written, self._written[:] = self._written[:], []
        return written

    def send_head(self) -> None:
        if not self._status:
            raise AssertionError("the application did not call start_response before its body (PEP 3333)")
        if self._exc_info is None:
            self._start_response(self._status, self.headers.items())
        else:
            self._start_response(self._status, self.headers.items(), self._exc_info)


class _Body:
    """The iterable of a middleware: its `close()` reaches the application's, as PEP 3333 demands."""

    def __init__(self, chunks: Generator[bytes, None, None], inner: object) -> None:
        self._chunks = chunks
        self._inner = inner

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return next(self._chunks)

    def close(self) -> None:
        try:
            self._chunks.close()
        finally:
            close = getattr(self._inner, "close", None)
            if close is not None:
                close()


class BufferingMiddleware:
    """Holds a body back until it is complete or `size` bytes are there, as a proxy with a buffer does.

    app: the application to wrap. size: bytes, 64 KiB unless told. obey: let `X-Accel-Buffering: no` through unbuffered,
    as nginx does (ngx_http_proxy_module); False holds everything back. Raises ValueError for a `size` below 1.
    """

    def __init__(self, app: WSGIApplication, *, size: int = BUFFER_BYTES, obey: bool = True) -> None:
        if size < 1:
            raise ValueError(f"size is {size!r}; give a number of bytes, 1 or more")
        self.app = app
        self.size = size
        self.obey = obey

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer a request (PEP 3333)."""
        answer = _Answer(self.app, environ, start_response)
        return _Body(self._held_back(answer), answer.body)

    def _held_back(self, answer: _Answer) -> Generator[bytes, None, None]:
        held = bytearray()
        head_sent = False
        for chunk in answer.chunks():
            held += chunk
            passes = self.obey and (answer.headers["X-Accel-Buffering"] or "").strip().lower() == "no"
            if passes or len(held) >= self.size:
                if not head_sent:
                    answer.send_head()
                    head_sent = True
                yield bytes(held)
                held.clear()
        if not head_sent:
            answer.send_head()
        if held:
            yield bytes(held)


class GzipMiddleware:
    """Compresses a body for a client that accepts gzip, as many frameworks' middlewares do: without flushing.

    So small chunks stay inside the compressor, and events arrive late, in bunches, or at the end.

    app: the application to wrap. obey: leave a body alone that says `Cache-Control: no-transform` (RFC 9110 7.7);
    False compresses that too. A body that has a `Content-Encoding` is never compressed again.
    """

    def __init__(self, app: WSGIApplication, *, obey: bool = True) -> None:
        self.app = app
        self.obey = obey

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer a request (PEP 3333)."""
        answer = _Answer(self.app, environ, start_response)
        accepted = "gzip" in environ.get("HTTP_ACCEPT_ENCODING", "").lower()
        return _Body(self._compressed(answer, accepted), answer.body)

    def _compressed(self, answer: _Answer, accepted: bool) -> Generator[bytes, None, None]:
        compressor = None
        head_sent = False
        for chunk in answer.chunks():
            if not head_sent:
                head_sent = True
                if accepted and self._may_compress(answer.headers):
                    compressor = self._begin(answer.headers)
                answer.send_head()
            out = chunk if compressor is None else compressor.compress(chunk)
            if out:
                yield out
        if not head_sent:
            answer.send_head()
        if compressor is not None:
            yield compressor.flush()

    def _may_compress(self, headers: Headers) -> bool:
        if headers["Content-Encoding"] is not None:
            return False
        return not (self.obey and "no-transform" in (headers["Cache-Control"] or "").lower())

    def _begin(self, headers: Headers) -> Any:
        del headers["Content-Length"]
        headers["Content-Encoding"] = "gzip"
        headers.add_header("Vary", "Accept-Encoding")
        return zlib.compressobj(wbits=_GZIP_WINDOW)
