"""What all streamed responses share: a Werkzeug `Response` (or the plain one) whose body is a live stream."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import Context, copy_context
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Final, Literal, TypedDict

from streamkit.delivery.body import Body
from streamkit.delivery.outflow import Limits
from streamkit.errors import TooManyStreams
from streamkit.flow.batches import Batches
from streamkit.flow.chunks import Chunks
from streamkit.flow.compressed import CompressedFraming
from streamkit.flow.framing import Framing
from streamkit.flow.limiter import Limiter
from streamkit.flow.producer import Producer
from streamkit.flow.pump import Pump
from streamkit.flow.pushed import PushedSource
from streamkit.flow.pushed_chunks import PushedChunks
from streamkit.flow.rate import Allowance, Limit, Rate
from streamkit.flow.stream import Stream
from streamkit.flow.writer import ChunkWriter, WriterPump
from streamkit.formats.header_fields import check_header
from streamkit.formats.last_event_id import last_event_id
from streamkit.responses.compression import negotiate
from streamkit.responses.early_errors import early_answer

if TYPE_CHECKING:
    from typing_extensions import Self
    from werkzeug.wrappers import Response
else:
    try:
        from werkzeug.wrappers import Response
    except ImportError:
        from streamkit.responses.plain import PlainResponse as Response

BaseResponse = Response

Headers = Mapping[str, str] | Iterable[tuple[str, str]]
Delivery = Literal["auto", "threaded", "detached"]
ItemsThread = Literal["own", "request"]
MakeChunks = Callable[[Framing[Any], Stream, Context], Chunks[Any]]
LimitKey = str | Callable[[Mapping[str, Any]], str] | None

log: Final = logging.getLogger("streamkit")

FLUSH_BYTES: Final = 64 * 1024
"""A chunk of rows is sent at this size: a chunk costs a server 6 to 7 us, which does not matter from 16 KiB on."""
FLUSH_SECONDS: Final = 0.5
"""Or at this age: short enough for an eye to call it live."""


class StreamOptions(TypedDict, total=False):
    """What every streamed response takes by keyword, beside its own parameters.

    max_duration, max_bytes: seconds, bytes; beyond them the stream ends early (event streams so that they resume,
        everything else as an abort). The real duration is 80 to 100 % of it, at random. None, the default, is off.
    on_close: called with the stream's record at its end.
    limiter, limit_key: a place to take before the producer starts (see Limiter), and whose it is: a text, or a
        function of the environ.
    max_rate: bytes a second; or a Rate, a Quota or several of them, which streams may share. None is off.
    compress: whether a client that accepts it gets the stream compressed (gzip; brotli or zstd where installed), each
        chunk readable at once. Not where the headers say `no-transform`, as those of event streams do.
    delivery: "auto" lets a long-lived stream leave the server's thread where the server lends its socket; "detached"
        asks the same of tables and files, whose producer then runs on a thread of its own; "threaded" keeps everything
        on the server's thread. STREAMKIT_DELIVERY=threaded in the environment keeps every stream on the server.
    status: default 200. headers: a mapping or pairs; they win over the response's own.
    """

    max_duration: float | None
    max_bytes: int | None
    max_rate: float | Limit | Sequence[Limit] | None
    on_close: Callable[[Stream], object] | None
    limiter: Limiter | None
    limit_key: LimitKey
    compress: bool
    delivery: Delivery
    status: int | str
    headers: Headers | None


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
        write: Callable[[ChunkWriter], object] | None = None,
        make_chunks: MakeChunks | None = None,
        max_duration: float | None = None,
        max_bytes: int | None = None,
        max_rate: float | Limit | Sequence[Limit] | None = None,
        on_close: Callable[[Stream], object] | None = None,
        limiter: Limiter | None = None,
        limit_key: LimitKey = None,
        compress: bool = False,
        delivery: Delivery = "auto",
        status: int | str = 200,
        headers: Headers | None = None,
    ) -> None:
        seconds("heartbeat", heartbeat)
        seconds("max_duration", max_duration)
        seconds("flush_seconds", flush_seconds)
        whole("max_bytes", max_bytes)
        whole("flush_bytes", flush_bytes)
        if delivery not in ("auto", "threaded", "detached"):
            raise ValueError(f'delivery is {delivery!r}; it is "auto", "threaded" or "detached"')
        if delivery == "detached" or isinstance(items, PushedSource):
            thread = "own"
        elif delivery == "threaded" and heartbeat is None:
            thread = "request"  # nothing has to happen while the producer is silent
        if limiter is not None and limiter.per_key is not None and limit_key is None:
            raise ValueError(
                "this limiter has per_key, so it needs limit_key= (a text, or a function of the environ)"
            )
        self._compress = compress
        self._limiter = limiter
        self._limit_key = limit_key
        producer = Producer(items, what)
        limits = {"flush_bytes": flush_bytes, "flush_seconds": flush_seconds}
        make: MakeChunks
        self._source = items if isinstance(items, PushedSource) else None
        if make_chunks is not None:
            make = make_chunks
        elif self._source is not None:
            make = partial(PushedChunks, self._source)
        elif write is not None:
            make = partial(WriterPump, write, **limits)  # type: ignore[arg-type]
        else:
            make = partial(Batches if thread == "request" else Pump, producer, **limits)  # type: ignore[arg-type]
        self._body = Body(
            kind,
            framing,
            make,
            producer.close,
            copy_context(),
            limits=Limits(heartbeat, max_duration, max_bytes, allowance(max_rate)),
            wait_first=wait_first,
            wait_open=callable(items),
            detach=delivery != "threaded" and thread == "own" and may_detach(),
            on_close=on_close,
        )
        pairs = checked_headers(headers)
        given = {name.lower() for name, _ in pairs}
        super().__init__(
            self._body,
            status=status,
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

    def chunks(self, environ: Mapping[str, Any]) -> Iterator[bytes]:
        """The body alone, for a framework with a response class of its own; `environ` is the request's.

        Raises what the producer raises before its first item, where that is waited for. Whoever iterates must call
        `close()` on what is returned.
        """
        self._body.environ = environ
        self._choose_coding(environ)
        self._prepare_source(environ)
        self._admit(environ)
        self._body.open()
        return self._body

    def _choose_coding(self, environ: Mapping[str, Any]) -> None:
        """Compress for this request, if that was asked for and its client takes it. The headers are final by now."""
        if self._compress:
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
        """Take a place in the limiter until the end of the stream. Raises TooManyStreams, after closing everything."""
        if self._limiter is None:
            return
        try:
            key = self._limit_key(environ) if callable(self._limit_key) else self._limit_key
            slot = self._limiter.acquire(key)
        except BaseException as error:
            if isinstance(error, TooManyStreams):
                log.warning("refused a stream at %s: %s", ascii(environ.get("PATH_INFO", "")), error)
            self.close()
            raise
        self._body.release_at_end(slot.release)

    def _instead(self, environ: Mapping[str, Any]) -> BaseResponse | None:
        """Another response to give to this request, or None."""
        return None

    def _before_start(self) -> None:
        """The first item is known where it is waited for, and nothing is sent yet: last chance for headers."""

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        body = self._body
        body.environ = environ
        self._choose_coding(environ)
        if (
            environ.get("REQUEST_METHOD") == "HEAD"
            or self.status_code < 200
            or self.status_code in (204, 304)
        ):
            return super().__call__(environ, start_response)  # the headers alone; the producer never starts
        instead = self._instead(environ)
        if instead is not None:
            self.close()
            return instead(environ, start_response)
        if self.response is not body:  # something wrapped it, and will iterate it in its own way
            return super().__call__(environ, start_response)
        length = self.headers.get("Content-Length")
        body.content_length = int(length) if length is not None else None
        body.coding = self.headers.get("Content-Encoding")
        self._prepare_source(environ)
        try:
            self._admit(environ)
            body.open()
        except BaseException as error:
            answer = early_answer(error, environ)
            if answer is None:
                raise
            return answer(environ, start_response)
        self._before_start()
        start_response(self.status, list(self.get_wsgi_headers(environ).items()))
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


def allowance(max_rate: float | Limit | Sequence[Limit] | None) -> Allowance | None:
    """What `max_rate` asks for. Raises TypeError or ValueError for numbers that are no rate."""
    if max_rate is None:
        return None
    if isinstance(max_rate, (int, float)):
        return Allowance(Rate(max_rate))
    return Allowance(*max_rate) if isinstance(max_rate, Sequence) else Allowance(max_rate)


def seconds(name: str, value: float | None) -> None:
    """Check a parameter that is a time: a finite number of seconds above 0, or None for off."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} is {value!r}; give seconds as a number, or None to switch it off")
    if not value > 0 or math.isinf(value):
        raise ValueError(f"{name} is {value!r}; give a number of seconds above 0, or None to switch it off")


def whole(name: str, value: int | None) -> None:
    """Check a parameter that is a size: a whole number above 0, or None for off."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} is {value!r}; give a whole number, or None to switch it off")
    if value <= 0:
        raise ValueError(f"{name} is {value!r}; give a number above 0, or None to switch it off")


def checked_headers(headers: Headers | None) -> list[tuple[str, str]]:
    """The pairs of `headers`. Raises ValueError for what no server may be given (see `check_header`)."""
    pairs = list(headers.items()) if isinstance(headers, Mapping) else list(headers or ())
    for name, value in pairs:
        check_header(name, value)
    return pairs
