"""What all streamed responses share: a Werkzeug `Response` (or the plain one) whose body is a live stream."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping
from contextvars import Context, copy_context
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Final, Literal

from streamkit.delivery.body import Body
from streamkit.delivery.outflow import Limits
from streamkit.errors import TooManyStreams
from streamkit.flow.batches import Batches
from streamkit.flow.chunks import Chunks
from streamkit.flow.compressed import CompressedFraming
from streamkit.flow.framing import Framing
from streamkit.flow.producer import Producer
from streamkit.flow.pump import Pump
from streamkit.flow.pushed import PushedSource
from streamkit.flow.pushed_chunks import PushedChunks
from streamkit.flow.stream import Stream
from streamkit.flow.writer import Writer, WriterPump
from streamkit.formats.last_event_id import last_event_id
from streamkit.responses.compression import negotiate
from streamkit.responses.early_errors import early_answer
from streamkit.responses.given_items import check_given
from streamkit.responses.options import (
    StreamOptions,
    allowance,
    check_options,
    checked_headers,
    seconds,
    whole,
)

if TYPE_CHECKING:
    from typing_extensions import Self
    from werkzeug.wrappers import Response
else:
    try:
        from werkzeug.wrappers import Response
    except ImportError:
        from streamkit.responses.plain import PlainResponse as Response

BaseResponse = Response

ItemsThread = Literal["own", "request"]
MakeChunks = Callable[[Framing[Any], Stream, Context], Chunks[Any]]

log: Final = logging.getLogger("streamkit")

FLUSH_BYTES: Final = 64 * 1024
"""A chunk of rows is sent at this size: a chunk costs a server 6 to 7 us, which does not matter from 16 KiB on."""
FLUSH_SECONDS: Final = 0.5
"""Or at this age: short enough for an eye to call it live."""


class _KeepsItsClass:
    """Flask turns the class of any Werkzeug response that a view returns into its own (`Response.force_type`).

    That would take away how these responses are sent, and they have all that Flask asks of a response; so assigning
    `__class__` does nothing here.
    """

    @property
    def __class__(self) -> type[Self]:
        return type(self)

    @__class__.setter
    def __class__(self, cls: type[Self], /) -> None:
        pass


class StreamedResponse(_KeepsItsClass, BaseResponse):
    """The base of every streamed response. Make one for each request; it is sent once.

    It is a `werkzeug.wrappers.Response` where Werkzeug is installed, and a plain WSGI response with the same
    parameters where it is not; return it from a view or call it as a WSGI application.
    """

    _body: Body

    def __init__(
        self,
        kind: str,
        framing: Framing[Any],
        items: object,
        what: str,
        *,
        content_type: str,
        thread: ItemsThread,
        wait_first: float | None,
        heartbeat: float | None = None,
        flush_bytes: int,
        flush_seconds: float | None,
        make_chunks: MakeChunks | None = None,
        options: StreamOptions,
    ) -> None:
        check_options(type(self), options)
        seconds("heartbeat", heartbeat)
        seconds("flush_seconds", flush_seconds)
        whole("flush_bytes", flush_bytes)
        check_given(items, what)
        delivery = options.get("delivery", "auto")
        if delivery == "detached" or isinstance(items, PushedSource):
            thread = "own"
        elif delivery == "threaded" and heartbeat is None:
            thread = "request"  # nothing has to happen while the producer is silent
        pairs = checked_headers(options.get("headers"))
        given = {name.lower() for name, _ in pairs}
        self._compress = options.get("compress", False)
        self._limiter = options.get("limiter")
        self._limit_key = options.get("limit_key")
        producer = Producer(items, what)
        limits = {"flush_bytes": flush_bytes, "flush_seconds": flush_seconds}
        make: MakeChunks
        self._source = items if isinstance(items, PushedSource) else None
        if make_chunks is not None:
            make = make_chunks
        elif self._source is not None:
            make = partial(PushedChunks, self._source)
        elif isinstance(items, Writer):
            make = partial(WriterPump, items, **limits)  # type: ignore[arg-type]
        else:
            make = partial(Batches if thread == "request" else Pump, producer, **limits)  # type: ignore[arg-type]
        self._body = Body(
            kind,
            framing,
            make,
            producer.close,
            copy_context(),
            limits=Limits(
                heartbeat,
                options.get("max_duration"),
                options.get("max_bytes"),
                allowance(options.get("max_rate")),
            ),
            wait_first=wait_first,
            wait_open=callable(items),
            detach=delivery != "threaded" and thread == "own" and may_detach(),
            on_close=options.get("on_close"),
        )
        super().__init__(
            self._body,
            status=options.get("status", 200),
            headers=pairs,
            content_type=None if "content-type" in given else content_type,
        )

    @property
    def record(self) -> Stream | None:
        """The record of the live stream: counts, state, `cancelled`. None until the response is sent."""
        return self._body.stream

    def call_on_close(self, func: Callable[[], Any]) -> Callable[[], Any]:
        """Run `func()` once at the end of the stream, whatever the end. Returns `func`."""
        self._body.call_on_close(func)
        return func

    def close(self) -> None:
        """End the stream if it has not ended. Servers call it when they are done with the response; once is enough."""
        try:
            super().close()
        finally:
            self._body.close()  # also where a hook put something else into `response`

    def _choose_coding(self, environ: Mapping[str, Any]) -> None:
        """Compress for this request, if that was asked for and its client takes it. The headers are final by now."""
        if self._compress and not self._is_buffered():
            coding = negotiate(self.headers, environ, self.status_code)
            if coding is not None:
                self._body.framing = CompressedFraming(self._body.framing, coding)

    def _prepare_source(self, environ: Mapping[str, Any]) -> None:
        """Tell a pushed source where its client was, and its owner where nobody will hear it."""
        if self._source is None:
            return
        self._source.resume_after(last_event_id(environ))
        if self._source.local and environ.get("wsgi.multiprocess"):
            warn_of_local_source()

    def _admit(self, environ: Mapping[str, Any]) -> None:
        """Take a place in the limiter until the end of the stream. Raises TooManyStreams."""
        if self._limiter is None:
            return
        key = self._limit_key(environ) if callable(self._limit_key) else self._limit_key
        try:
            slot = self._limiter.acquire(key)
        except TooManyStreams as error:
            log.warning("refused a stream at %s: %s", ascii(environ.get("PATH_INFO", "")), error)
            raise
        self._body.release_at_end(slot.release)

    def _before_start(self) -> None:
        """The first item is known where it is waited for, and nothing is sent yet: last chance for headers."""

    def _is_buffered(self) -> bool:
        """Whether something has read the body (`get_data`, `freeze`) or put data in its place (`set_data`)."""
        return isinstance(self.response, (list, tuple))

    def calculate_content_length(self) -> int | None:
        """The length of a body that was read or replaced; None for a stream.

        Werkzeug's `make_conditional` asks for it, and would read a stream to its end, which may never come.
        """
        return sum(map(len, self.iter_encoded())) if self._is_buffered() else None

    def get_wsgi_response(
        self, environ: dict[str, Any]
    ) -> tuple[Iterable[bytes], str, list[tuple[str, str]]]:
        """The body, the status line and the headers that answer this request: all that a framework with a response
        class of its own needs. A server calls the response itself, which sends them.

        environ: the request's. Whoever takes the body must call its `close()`. Raises what the producer raises before
        its first item, where that is waited for, unless it is the answer itself (`abort(404)`); StreamkitError the
        second time.
        """
        if not self._is_buffered():
            self._body.check_unsent()  # before anything is changed that the first request still uses
        self._body.environ = environ
        try:
            return self._answer(environ)
        except BaseException as error:
            self._failed(error)
            self.close()
            return early_answer(error, environ, self.headers.items()).get_wsgi_response(environ)

    def _failed(self, error: BaseException) -> None:
        """Say why the stream ends, if there is one and it has not ended for another reason."""
        if self.record is not None:
            self.record.end("failed", error)

    def _answer(self, environ: dict[str, Any]) -> tuple[Iterable[bytes], str, list[tuple[str, str]]]:
        """See `get_wsgi_response`. What is raised here comes before the first byte."""
        body = self._body
        self._choose_coding(environ)
        if (
            environ.get("REQUEST_METHOD") == "HEAD"
            or self.status_code < 200
            or self.status_code in (204, 304)
            or self._is_buffered()
        ):
            # Without a body, or not with this one: nothing is produced.
            return super().get_wsgi_response(environ)
        untouched = self.response is body  # else a hook has wrapped it, and may alter its length
        length = self.headers.get("Content-Length")
        body.content_length = int(length) if length is not None and untouched else None
        body.coding = self.headers.get("Content-Encoding")
        self._prepare_source(environ)
        self._admit(environ)
        body.open()
        self._before_start()
        if not untouched:
            return super().get_wsgi_response(environ)
        return body, self.status, list(self.get_wsgi_headers(environ).items())

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        body, status, headers = self.get_wsgi_response(environ)
        try:
            start_response(status, headers)
        except BaseException as error:  # a server does not close what it was not given
            self._failed(error)
            close = getattr(body, "close", None)
            if close is not None:
                close()
            raise
        return body


@cache
def warn_of_local_source() -> None:
    """Say once that this server runs several processes."""
    log.warning(
        "a stream hears only what its own process publishes, and this server runs several: events of the others are"
        ' missed; give the Hub a URL that they share, such as "sqlite:///events.db"'
    )


def may_detach() -> bool:
    """Whether the environment lets streams leave the server's threads. Raises ValueError for words without meaning."""
    environment = os.environ.get("STREAMKIT_DELIVERY", "auto")
    if environment not in ("auto", "threaded"):
        raise ValueError(f'STREAMKIT_DELIVERY is {environment!r}; it is "auto" or "threaded"')
    return environment == "auto"
