"""The first n of an endless stream, in this process: take them and leave.

The law: what is taken ends with the n-th item, and then the client has left. `close()` of the body has run when these
functions return, so what a producer does in its `finally` can be asserted on the next line.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from streamkit.formats.event_stream import ServerSentEvent
from streamkit.formats.event_stream_decoder import EventStreamDecoder
from streamkit.testing.in_process import LEAVE_SECONDS, Exchange, WSGIApplication, check_timeout, environ_for

T = TypeVar("T")


class Taken(list[T], Generic[T]):
    """What was taken: a list, and the answer around it.

    - `status`: the status code. `headers`: a `wsgiref.headers.Headers`, asked without regard to case; a header that is
      not there is None.
    - `body`: the bytes that came, which is more than the items where the last chunk had more, or comments.
    - `complete`: the stream ended by itself; False where the client left.
    """

    def __init__(self, items: list[T], exchange: Exchange) -> None:
        super().__init__(items)
        self.status = exchange.status
        self.headers = exchange.headers
        self.body = b"".join(exchange.chunks)
        self.complete = exchange.complete


def take_chunks(
    app: WSGIApplication,
    path: str,
    n: int | None = None,
    *,
    headers: Mapping[str, str] | None = None,
    method: str = "GET",
    body: bytes = b"",
    timeout: float = 5.0,
) -> Taken[bytes]:
    """The first `n` chunks of a body, as the server gets them; empty ones are not counted.

    app: any WSGI application. path: with its query, if any. n: how many, then the client leaves; None takes all.
    headers, method, body: of the request. timeout: seconds for all of it.

    Fewer than `n` come where the stream ends first (`complete` is True then). Raises TimeoutError when they did not
    come in time, what the application raises, ValueError for an `n` below 1, and OverflowError above 64 MiB.
    """
    chunks: list[bytes] = []
    return _take(
        app, path, n, chunks, lambda chunk, _: chunks.append(chunk), "chunks", headers, method, body, timeout
    )


def take_events(
    app: WSGIApplication,
    path: str,
    n: int | None = None,
    *,
    headers: Mapping[str, str] | None = None,
    method: str = "GET",
    body: bytes = b"",
    timeout: float = 5.0,
) -> Taken[ServerSentEvent]:
    """The first `n` events of an event stream, decoded as a browser would (`EventStreamDecoder`).

    Parameters and errors as in `take_chunks`; `Accept: text/event-stream` is sent unless `headers` says otherwise. To
    come back as a client does, give `headers={"Last-Event-ID": "7"}`: the id in force until another comes. Raises
    AssertionError for a 200 that is not `text/event-stream`; an answer with another status has no events, so look at
    `.status`.
    """
    headers = {"accept": "text/event-stream"} | {
        name.lower(): value for name, value in (headers or {}).items()
    }
    decoder = EventStreamDecoder(last_event_id=headers.get("last-event-id", ""))
    events: list[ServerSentEvent] = []

    def feed(chunk: bytes, exchange: Exchange) -> None:
        if exchange.status != 200:
            return
        content_type = exchange.headers["Content-Type"] or "no Content-Type"
        if not content_type.lower().startswith("text/event-stream"):
            raise AssertionError(
                f"{method} {path} answered {content_type}, not text/event-stream: {chunk[:200]!r}"
            )
        events.extend(decoder.feed(chunk))

    return _take(app, path, n, events, feed, "events", headers, method, body, timeout)


def take_json_lines(
    app: WSGIApplication,
    path: str,
    n: int | None = None,
    *,
    headers: Mapping[str, str] | None = None,
    method: str = "GET",
    body: bytes = b"",
    timeout: float = 5.0,
) -> Taken[Any]:
    """The first `n` records of JSON lines (NDJSON) or of a JSON text sequence (RFC 7464), parsed.

    Parameters and errors as in `take_chunks`. A last line without its newline is not a record: it may be cut off.
    Raises ValueError (`json.JSONDecodeError`) for a line that is not JSON, such as those of an HTML error page.
    """
    records: list[Any] = []
    rest = bytearray()

    def feed(chunk: bytes, _: Exchange) -> None:
        rest.extend(chunk)
        if b"\n" not in chunk:
            return
        *lines, last = bytes(rest).split(b"\n")
        rest[:] = last
        records.extend(json.loads(line.lstrip(b"\x1e")) for line in lines if line.strip(b"\x1e\r \t"))

    return _take(app, path, n, records, feed, "records", headers, method, body, timeout)


def _take(
    app: WSGIApplication,
    path: str,
    n: int | None,
    items: list[T],
    feed: Callable[[bytes, Exchange], object],
    what: str,
    headers: Mapping[str, str] | None,
    method: str,
    body: bytes,
    timeout: float,
) -> Taken[T]:
    """Make the request, and feed what comes until there are `n` items."""
    if n is not None and (isinstance(n, bool) or not isinstance(n, int) or n < 1):
        raise ValueError(f"n is {n!r}; give how many {what} to take, 1 or more, or None for all of them")
    check_timeout(timeout)
    exchange = Exchange(app, environ_for(path, method=method, headers=headers, body=body))

    def enough(chunk: bytes) -> bool:
        feed(chunk, exchange)
        return n is not None and len(items) >= n

    exchange.start(enough)
    in_time = exchange.wait_closed(timeout)
    exchange.leave()
    if not in_time:
        closed = exchange.wait_closed(LEAVE_SECONDS)
        size = sum(map(len, exchange.chunks))
        came = f"{len(items)} of {'all' if n is None else n} {what} ({size} bytes) came"
        if not exchange.status:
            came = "there was no answer"
        ended = "" if closed else "; its producer is still at work, though the client has left"
        raise TimeoutError(f"{method} {path}: after {timeout} s {came}{ended}")
    if exchange.error is not None:
        raise exchange.error
    return Taken(items[:n], exchange)
