"""`EventSource`: reading an event stream over HTTP and resuming it (WHATWG HTML 9.2.2 and 9.2.3), on `http.client`.

The law:

- The stream never ends by itself. Its end and a network error lead to a new connection with `Last-Event-ID`; a status
  other than 200, and a content type other than `text/event-stream`, are final.
- The thread that iterates owns the connection: it alone opens, reads and closes it. `close()` from another thread only
  shuts the socket down and sets a flag, and the owner cleans up on its way out.
- An event is handed out before the connection after it is lost, so the cursor of a reconnection is that of the last
  event that the caller has seen, or of a block without data behind it.
"""

from __future__ import annotations

import http.client
import logging
import random
import ssl
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Final, TypeVar

from streamkit.client.http_exchange import HTTPExchange
from streamkit.client.http_request import HTTPRequest, named_once, new_request
from streamkit.client.parameters import check_callback, check_connection, check_limit
from streamkit.client.proxies import FROM_ENVIRONMENT, checked_proxy
from streamkit.client.response_body import ResponseBody
from streamkit.client.response_head import status_words
from streamkit.client.retry_after import retry_after_seconds
from streamkit.client.stoppable_connection import Stopped, StopSignal
from streamkit.errors import ConnectionLost, DecodeError, NotAnEventStream, StreamkitError, StreamRefused
from streamkit.formats.event_stream import ServerSentEvent
from streamkit.formats.event_stream_decoder import MAX_EVENT_BYTES, EventStreamDecoder

log: Final = logging.getLogger("streamkit")

FIRST_RETRY: Final = 3000
"""Milliseconds to wait where the server has named no `retry`: what Chromium and WebKit do."""

LONGEST_BACK_OFF: Final = 30.0
"""Seconds that doubling ends at; a longer `retry` of the server is obeyed all the same."""

LONGEST_RETRY: Final = 86_400.0
"""Seconds of the longest `retry` that is obeyed, so that no server can put a client to sleep for good."""

_Told = TypeVar("_Told")


@dataclass(frozen=True)
class Opened:
    """What `on_open` is told: the answer that a stream begins with."""

    url: str
    """Where the stream is, after redirects, without user name and password."""
    http_version: str
    """`"1.0"` or `"1.1"`."""
    headers: http.client.HTTPMessage
    """The header fields of the answer; names in any case."""


@dataclass(frozen=True)
class Retry:
    """What `on_retry` is told: a connection has ended, and the next will be opened after `delay` seconds."""

    delay: float
    """Seconds."""
    failures: int
    """Connections in a row that ended without an event in between, this one included."""
    error: Exception | None
    """What went wrong; None where the server ended the stream."""


class EventSource:
    """An iterator of the events at a URL, and a context manager that closes it.

    ```python
    with EventSource("http://127.0.0.1:8000/events") as events:
        for event in events:
            print(event.event, event.id, event.data)
    ```

    - `url`: `http` or `https`. A user name and password in it are sent as basic authentication, as `auth` is.
    - `method`, `headers`, `body`: of every request. A reconnection **repeats the method and the body**: with a paid or
      changing call behind a POST, give `max_retries=0`. `headers` is a mapping and copied; of a name that is to be sent
      with several values join them with a comma (RFC 9110 section 5.3). `Accept` and `Cache-Control` are added where it
      does not name them. `body` is bytes, or text that is sent as UTF-8.
    - `last_event_id`: where to resume; the first request sends it. None or `""` starts without.
    - `timeout`: seconds without a byte (a heartbeat is one) until the connection counts as lost. As long may each step
      of opening one take, however its bytes drip: to connect to an address, to shake hands with a proxy and by TLS, to
      send the request, and to hear the whole head of the answer. Default 60: four heartbeats of 15 s. None waits for
      ever, and then never notices a server that has vanished without a word.
    - `auth`: user name and password, for basic authentication (RFC 7617). Like any `Authorization` and `Cookie` header
      they are not sent on to another server that a redirect leads to.
    - `ssl_context`: whom to trust, and with which certificate to answer. None trusts what the system trusts.
    - `proxy`: `"environment"` obeys `http_proxy`, `https_proxy`, `all_proxy` and `no_proxy`; else the URL of a proxy;
      None is none.
    - `max_event_bytes`: the limit of one event, as of `EventStreamDecoder`; None is without.
    - `on_open`, `on_retry`: called with an `Opened` when a stream begins, and with a `Retry` before each wait, on the
      thread that iterates. They may call `close()`. What they raise comes out of `next()` and ends the iteration.
    - `max_retries`: how often in a row a connection is opened again without an event in between. None is without
      limit; 0 reads one connection to its end.

    Between two connections it waits for the server's `retry` (3 s where there is none), doubled at each failure in
    a row up to 30 s, and up to a quarter more at random. An event sets it back.

    Iteration ends quietly after `close()`, after status 204, and where the retries are used up and the last connection
    ended cleanly. It raises, all of them kinds of `EventSourceError`: `StreamRefused` for any other status than 200,
    `NotAnEventStream` for a wrong content type, an unknown coding or lengths that contradict each other (RFC 9112
    section 6.3: the same server would answer so again), `RedirectFailed`, `CertificateRefused`, `ProxyFailed`, and
    `ConnectionLost` where the retries are used up and the last connection failed; and `DecodeError` for an event that
    is too large. After any of these it is over. The constructor raises `ValueError` or `TypeError` for parameters out
    of range, and opens no connection: the first `next()` does.

    Answers in gzip and deflate are read, though not asked for: compression holds events back. One thread iterates;
    `close()` may be called from any.
    """

    def __init__(
        self,
        url: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        body: bytes | str | None = None,
        last_event_id: str | None = None,
        timeout: float | None = 60,  # seconds
        max_retries: int | None = None,
        auth: tuple[str, str] | None = None,
        ssl_context: ssl.SSLContext | None = None,
        proxy: str | None = FROM_ENVIRONMENT,
        max_event_bytes: int | None = MAX_EVENT_BYTES,
        on_open: Callable[[Opened], object] | None = None,
        on_retry: Callable[[Retry], object] | None = None,
    ) -> None:
        check_connection(timeout, ssl_context, proxy)
        check_limit("max_retries", max_retries, 0)
        check_limit("max_event_bytes", max_event_bytes, 1)
        check_callback("on_open", on_open, "an Opened")
        check_callback("on_retry", on_retry, "a Retry")
        if body is not None and not isinstance(body, (bytes, str)):
            raise TypeError(f"body must be bytes or str, to be sent again, not {type(body).__name__}")
        own_headers = named_once(headers)
        for name in [name for name in own_headers if name.lower() == "last-event-id"]:
            named = own_headers.pop(name)
            last_event_id = named if last_event_id is None else last_event_id
        try:  # an id is checked as an event that carries it would be
            self._last_event_id = ServerSentEvent("", id=last_event_id).id or ""
        except (TypeError, ValueError) as error:
            raise type(error)(f"last_event_id cannot be resumed from: {error}") from None
        try:
            sent = body.encode() if isinstance(body, str) else body
        except UnicodeEncodeError as error:
            raise ValueError(
                f"body must be text that UTF-8 can hold, or bytes; it has a lone surrogate at index {error.start}"
            ) from None
        self._request = new_request(url, method, own_headers, sent, auth)
        if proxy not in (None, FROM_ENVIRONMENT):
            checked_proxy(proxy)
        self._max_retries = max_retries
        self._max_event_bytes = max_event_bytes
        self._on_open = on_open
        self._on_retry = on_retry
        self._retry = FIRST_RETRY
        self._failures = 0  # connections in a row that brought no event
        self._ready: deque[ServerSentEvent] = deque()
        self._decoder = self._new_decoder()
        self._body: ResponseBody | None = None
        self._over = False
        self._stop = StopSignal()
        self._exchange = HTTPExchange(self._stop, timeout=timeout, context=ssl_context, proxy=proxy)
        self._reading = threading.Lock()  # held by the thread that owns the connection

    def __repr__(self) -> str:
        """One line for logs: the URL without credentials and query, the state, and the beginning of the last id."""
        state = "open" if self._body is not None else "not connected"
        if self._over or self._stop.given:
            state = "closed"
        url = str(self._request).partition(" ")[2]
        return f"<EventSource {url} {state}, last_event_id={self._last_event_id[:80]!a}>"

    @property
    def url(self) -> str:
        """The URL that every connection begins with, without user name and password."""
        return self._request.url.geturl()

    @property
    def last_event_id(self) -> str:
        """The id in force after the last event that was handed out: what to resume with; `""` where there is none."""
        return self._last_event_id

    @property
    def retry(self) -> int:
        """Milliseconds before a reconnection, before back-off and jitter."""
        return self._retry

    def close(self) -> None:
        """End the iteration and release the connection. May be called twice, and from any thread.

        A `next()` that waits in another thread, for bytes, for a connection or for the time to reconnect, ends at once
        with `StopIteration`. Only the look-up of a host name cannot be interrupted.
        """
        self._stop.set()
        self._release_after_stop()

    def __enter__(self) -> EventSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> EventSource:
        return self

    def __next__(self) -> ServerSentEvent:
        if len(self._ready) > 1 and not self._stop.given:
            # Events after this one are decoded already: its id is the cursor, and nothing needs the connection.
            event = self._ready.popleft()
            self._last_event_id = event.id or ""
            return event
        try:
            with self._reading:
                return self._next()
        finally:
            if self._stop.is_set():
                self._release_after_stop()

    def _release_after_stop(self) -> None:
        """Release the connection where no thread owns it. Called by both sides, so one of them finds it free."""
        if self._reading.acquire(blocking=False):
            try:
                self._over = True
                self._drop()
            finally:
                self._reading.release()

    def _next(self) -> ServerSentEvent:
        while not (self._over or self._stop.is_set()):
            if self._ready:
                event = self._ready.popleft()
                # What is decoded already but not handed out must not be skipped by who resumes from here.
                self._last_event_id = (event.id or "") if self._ready else self._decoder.last_event_id
                return event
            try:
                self._advance()
            except Stopped:
                break
            except BaseException as error:
                # A KeyboardInterrupt during a read leaves a stream of which nobody knows where it stands.
                self._drop()
                self._over = self._over or isinstance(error, (StreamkitError, ValueError))
                if self._stop.is_set() and isinstance(error, Exception):
                    break
                raise
        self._over = True
        self._drop()
        raise StopIteration

    def _advance(self) -> None:
        """Do the next thing that can bring events: connect, or read once."""
        try:
            if self._body is None:
                self._connect()
                return
            data = self._body.read()
        except (OSError, http.client.HTTPException, DecodeError) as error:
            self._lost(error)
            return
        events = self._decoder.feed(data)
        self._retry = self._retry if self._decoder.retry is None else self._decoder.retry
        if events:
            self._failures = 0
            self._ready.extend(events)
        else:
            self._last_event_id = self._decoder.last_event_id
        if not data:
            self._lost(None)

    def _connect(self) -> None:
        """Open a connection, follow redirects, and take its answer if it is an event stream."""
        # Fetch standard, HTTP-network-or-cache fetch: the cache mode "no-store" of an EventSource is this header.
        extra: dict[str, str | bytes] = {"Accept": "text/event-stream", "Cache-Control": "no-cache"}
        if self._last_event_id:
            extra["Last-Event-ID"] = self._last_event_id.encode()  # as text it would have to be Latin-1
        request, response = self._exchange.open(self._request, extra)
        if response.status == 204:  # "No Content": the server's way to say that there will be no more
            raise Stopped
        if response.status != 200:
            raise self._refusal(request, response)
        content_type = response.headers.get("Content-Type", "")
        if content_type.partition(";")[0].strip().lower() != "text/event-stream":
            found = ascii(content_type) if content_type else "of no type"
            raise NotAnEventStream(
                f"{request} is not an event stream but {found}; is this the URL of "
                "the stream, and does it need a login?",
                200,
            )
        try:
            body = ResponseBody(response)
        except DecodeError as error:
            raise NotAnEventStream(f"{request} cannot be read: {error}", 200) from error
        # The standard starts a stream with an empty id buffer, and browsers with the id in force: an event without
        # an id must not clear the cursor.
        self._decoder = self._new_decoder()
        self._body = body
        version = "1.0" if response.version == 10 else "1.1"
        self._tell(self._on_open, Opened(request.url.geturl(), version, response.headers))

    def _new_decoder(self) -> EventStreamDecoder:
        return EventStreamDecoder(max_event_bytes=self._max_event_bytes, last_event_id=self._last_event_id)

    def _refusal(self, request: HTTPRequest, response: http.client.HTTPResponse) -> StreamRefused:
        wait = retry_after_seconds(response.headers.get("Retry-After"))
        advice = "" if wait is None else f"; it asks to come back in {wait:.0f} s"
        return StreamRefused(
            f"{request} answered {status_words(response)}{advice}",
            response.status,
            self._exchange.excerpt(),
            wait,
        )

    def _tell(self, callback: Callable[[_Told], object] | None, told: _Told) -> None:
        if callback is not None:
            try:
                callback(told)
            except BaseException:
                self._over = True
                raise

    def _lost(self, error: Exception | None) -> None:
        """After the end of a connection, wait until the next may be opened; `error` is None for a clean end."""
        self._drop()
        if self._stop.is_set():
            raise Stopped
        self._failures += 1
        if self._max_retries is not None and self._failures > self._max_retries:
            if error is None:
                raise Stopped
            raise ConnectionLost(
                f"{self._request} was lost, and the retries are used up: {error!r}"
            ) from error
        delay = self._delay()
        if error is None:
            log.debug("%s ended; reconnecting in %.1f s", self._request, delay)
        else:
            log.warning("%s was lost (%r); reconnecting in %.1f s", self._request, error, delay)
        self._tell(self._on_retry, Retry(delay, self._failures, error))
        if self._stop.wait(delay):
            raise Stopped

    def _delay(self) -> float:
        """Return the seconds to wait before the next connection."""
        told = min(self._retry / 1000, LONGEST_RETRY)
        delay = told
        if self._failures > 1:
            # From a tenth of a second at least: `retry: 0` must not become a busy loop against a dead server.
            delay = max(told, 0.1) * 2 ** min(self._failures - 1, 16)
        return min(delay, max(told, LONGEST_BACK_OFF)) * random.uniform(1, 1.25)

    def _drop(self) -> None:
        self._body = None
        self._exchange.close()
