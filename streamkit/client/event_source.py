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
import math
import random
import ssl
import threading
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Final
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from streamkit.client.stoppable_connection import SecureConnection, StoppableConnection, Stopped, StopSignal
from streamkit.errors import EventSourceError, StreamkitError
from streamkit.formats.event_stream import ServerSentEvent
from streamkit.formats.event_stream_decoder import EventStreamDecoder

log: Final = logging.getLogger("streamkit")

FIRST_RETRY: Final = 3000
"""Milliseconds to wait where the server has named no `retry`: what Chromium and WebKit do."""

LONGEST_BACK_OFF: Final = 30.0
"""Seconds that doubling ends at; a longer `retry` of the server is obeyed all the same."""

LONGEST_RETRY: Final = 86_400.0
"""Seconds of the longest `retry` that is obeyed, so that no server can put a client to sleep for good."""

MAX_REDIRECTS: Final = 20
"""The limit of the Fetch standard (section 4.4, HTTP-redirect fetch)."""

READ_BYTES: Final = 65536

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_OF_ONE_ORIGIN = frozenset({"authorization", "cookie", "proxy-authorization"})
_OF_A_BODY = frozenset(
    {"content-encoding", "content-language", "content-location", "content-type", "content-length"}
)
_URL_CHARACTERS = "/?%:@!$&'()*+,;=~-._[]"


class EventSource:
    """An iterator of the events at a URL, and a context manager that closes it.

    ```python
    with EventSource("http://127.0.0.1:8000/events") as events:
        for event in events:
            print(event.event, event.id, event.data)
    ```

    - `url`: `http` or `https`, without user name and password.
    - `method`, `headers`, `body`: of every request. A reconnection **repeats the method and the body**: with a paid or
      changing call behind a POST, give `max_retries=0`. `headers` is copied; `Accept` and `Cache-Control` are added
      where it does not name them. `body` is bytes, or text that is sent as UTF-8.
    - `last_event_id`: where to resume; the first request sends it. None or `""` starts without.
    - `timeout`: seconds without a byte (a heartbeat is one) until the connection counts as lost, and seconds that a
      connection may take to open. Default 60: four heartbeats of 15 s. None waits for ever, and then never notices
      a server that has vanished without a word.
    - `max_retries`: how often in a row a connection is opened again without an event in between. None is without
      limit; 0 reads one connection to its end.

    Between two connections it waits for the server's `retry` (3 s where there is none), doubled at each failure in
    a row up to 30 s, and up to a quarter more at random. An event sets it back.

    Iteration ends quietly after `close()`, after status 204, and where the retries are used up and the last connection
    ended cleanly. It raises `EventSourceError` (with `.status`) for any other status than 200, a wrong content type, a
    redirect that cannot be followed, a certificate that is not trusted, and where the retries are used up and the last
    connection failed; `DecodeError` for an event that is too large. After either, it is over. The constructor raises
    `ValueError` or `TypeError` for parameters out of range, and opens no connection: the first `next()` does.

    One thread iterates; `close()` may be called from any.
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
    ) -> None:
        if timeout is not None and not 0 < timeout < math.inf:
            raise ValueError(f"timeout must be seconds above 0, or None to wait for ever, not {timeout!r}")
        if max_retries is not None and max_retries < 0:
            raise ValueError(f"max_retries must be 0 or more, or None for no limit, not {max_retries!r}")
        if body is not None and not isinstance(body, (bytes, str)):
            raise TypeError(f"body must be bytes or str, to be sent again, not {type(body).__name__}")
        own_headers = dict(headers or {})
        for name in [name for name in own_headers if name.lower() == "last-event-id"]:
            named = own_headers.pop(name)
            last_event_id = named if last_event_id is None else last_event_id
        # An id is checked as an event that carries it would be.
        self._last_event_id = ServerSentEvent("", id=last_event_id or "").id or ""
        self._request = _Request(
            _checked_url(url), method, own_headers, body.encode() if isinstance(body, str) else body
        )
        self._timeout = timeout
        self._max_retries = max_retries
        self._retry = FIRST_RETRY
        self._failures = 0  # connections in a row that brought no event
        self._ready: deque[ServerSentEvent] = deque()
        self._decoder = EventStreamDecoder()
        self._connection: StoppableConnection | None = None
        self._response: http.client.HTTPResponse | None = None
        self._rest: int | None = None  # bytes that a Content-Length still promises
        self._over = False
        self._stop = StopSignal()
        self._reading = threading.Lock()  # held by the thread that owns the connection

    @property
    def url(self) -> str:
        """The URL that every connection begins with."""
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
            if self._response is None:
                self._connect()
                return
            # The rest is counted here: before Python 3.12 `read1` reads on where the Content-Length ends.
            size = READ_BYTES if self._rest is None else min(READ_BYTES, self._rest)
            data = self._response.read1(size) if size else b""
        except ssl.SSLCertVerificationError as error:
            raise EventSourceError(
                f"{self._request} has a certificate that is not trusted: {error}"
            ) from error
        except (OSError, http.client.HTTPException) as error:
            self._lost(error)
            return
        if self._rest is not None:
            self._rest -= len(data)
        events = self._decoder.feed(data)
        self._retry = self._retry if self._decoder.retry is None else self._decoder.retry
        if events:
            self._failures = 0
            self._ready.extend(events)
        else:
            self._last_event_id = self._decoder.last_event_id
        if not data:
            self._lost(http.client.IncompleteRead(b"", self._rest) if self._rest else None)

    def _connect(self) -> None:
        """Open a connection, follow redirects, and take its answer if it is an event stream."""
        request = self._request
        for _ in range(MAX_REDIRECTS + 1):
            response = self._answer(request)
            if response.status not in _REDIRECTS:
                break
            location = response.headers.get("Location")
            self._drop()
            request = request.redirected(response.status, location)
        else:
            raise EventSourceError(
                f"{self._request} was redirected more than {MAX_REDIRECTS} times", response.status
            )
        if response.status == 204:  # "No Content": the server's way to say that there will be no more
            raise Stopped
        if response.status != 200:
            raise EventSourceError(f"{request} answered {response.status} {response.reason}", response.status)
        content_type = response.headers.get("Content-Type", "")
        if content_type.partition(";")[0].strip().lower() != "text/event-stream":
            raise EventSourceError(
                f"{request} is not an event stream but {content_type or 'of no type'!r}", 200
            )
        encoding = response.headers.get("Content-Encoding", "identity")
        if encoding.strip().lower() not in ("", "identity"):
            raise EventSourceError(
                f"{request} came with Content-Encoding {encoding!r}, which was not asked for", 200
            )
        self._rest = response.length
        # The standard starts a stream with an empty id buffer, and browsers with the id in force: an event without
        # an id must not clear the cursor.
        self._decoder = EventStreamDecoder(last_event_id=self._last_event_id)

    def _answer(self, request: _Request) -> http.client.HTTPResponse:
        """Send one request on a connection of its own and return the answer, its body unread."""
        host, port = request.url.hostname or "", request.port
        if request.url.scheme == "https":
            self._connection = SecureConnection(host, port, timeout=self._timeout)
        else:
            self._connection = StoppableConnection(host, port, timeout=self._timeout)
        self._connection.stop = self._stop
        headers: dict[str, str | bytes] = {"Accept": "text/event-stream", "Cache-Control": "no-cache"}
        for name, value in request.headers.items():
            for given in [given for given in headers if given.lower() == name.lower()]:
                del headers[given]
            headers[name] = value
        if self._last_event_id:
            headers["Last-Event-ID"] = self._last_event_id.encode()  # as text it would have to be Latin-1
        self._connection.request(request.method, request.target, request.body, headers)
        self._response = self._connection.getresponse()
        return self._response

    def _lost(self, error: Exception | None) -> None:
        """After the end of a connection, wait until the next may be opened; `error` is None for a clean end."""
        self._drop()
        if self._stop.is_set():
            raise Stopped
        self._failures += 1
        if self._max_retries is not None and self._failures > self._max_retries:
            if error is None:
                raise Stopped
            raise EventSourceError(
                f"{self._request} was lost, and the retries are used up: {error!r}"
            ) from error
        delay = self._delay()
        if error is None:
            log.debug("%s ended; reconnecting in %.1f s", self._request, delay)
        else:
            log.warning("%s was lost (%r); reconnecting in %.1f s", self._request, error, delay)
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
        response, self._response = self._response, None
        connection, self._connection = self._connection, None
        for opened in (response, connection):
            if opened is not None:
                with suppress(OSError):  # a TLS socket may still have something to say
                    opened.close()
        self._stop.forget()


@dataclass(frozen=True)
class _Request:
    """One request; its text is for messages, without the query, in which secrets travel."""

    url: SplitResult
    method: str
    headers: dict[str, str]
    body: bytes | None

    @property
    def port(self) -> int:
        return self.url.port or (443 if self.url.scheme == "https" else 80)

    @property
    def target(self) -> str:
        """The path and the query, in ASCII (RFC 3986 section 2)."""
        query = f"?{self.url.query}" if self.url.query else ""
        return quote((self.url.path or "/") + query, safe=_URL_CHARACTERS)

    def redirected(self, status: int, location: str | None) -> _Request:
        """Return the request that a redirect asks for (Fetch standard, HTTP-redirect fetch)."""
        try:
            if not location:
                raise ValueError("it names no Location")
            # A header is bytes, which http.client shows as Latin-1; non-ASCII ones are sent as UTF-8 in practice.
            location = location.encode("latin-1", "replace").decode("utf-8", "replace")
            url = _checked_url(urljoin(self.url.geturl(), location))
        except ValueError as error:
            raise EventSourceError(
                f"{self} answered {status}, but it cannot be followed: {error}", status
            ) from error
        method, headers, body = self.method, self.headers, self.body
        if (status == 303 and method not in ("GET", "HEAD")) or (status in (301, 302) and method == "POST"):
            method, body = "GET", None
            headers = {name: value for name, value in headers.items() if name.lower() not in _OF_A_BODY}
        if (url.scheme, url.hostname, url.port) != (self.url.scheme, self.url.hostname, self.url.port):
            headers = {name: value for name, value in headers.items() if name.lower() not in _OF_ONE_ORIGIN}
        return _Request(url, method, headers, body)

    def __str__(self) -> str:
        return f"{self.method} {self.url.scheme}://{self.url.netloc}{self.url.path}"


def _checked_url(url: str) -> SplitResult:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(
            f"{url!r} is not a URL of an event stream; give http://host/path or https://host/path"
        )
    if parts.username is not None or parts.password is not None:
        raise ValueError(
            "a URL with a user name or password is not sent; give an Authorization header instead"
        )
    _ = parts.port  # raises ValueError where it is no port
    try:
        parts.hostname.encode("idna")
        if not parts.hostname.isprintable() or " " in parts.hostname:
            raise UnicodeError("it has a space or a control character")
    except UnicodeError as error:
        raise ValueError(f"{parts.hostname!r} is not a host name: {error}") from error
    return parts._replace(fragment="")
