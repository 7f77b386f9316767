"""A stream to judge a path by: events that carry the time at which they were sent. `app` is a WSGI application.

Serve it beside the real application, behind the same proxies, and let `python -m streamkit doctor URL` look at it:

```console
$ gunicorn --threads 8 streamkit.servers.probe:app
```

or mount it: `DispatcherMiddleware(app, {"/probe": streamkit.servers.probe.app})`. It needs no path of its own: what it
does is asked for in the query.

- `interval` seconds between two events (0.2), `count` of events (until `MAX_SECONDS`), `size` bytes of padding in each.
- `quiet=S`: one event, S seconds without a byte, not even a heartbeat, and one more. It shows who cuts idle streams.
- `end=broken`: after `count` events the stream fails in the middle, so that its end must not look whole.
- `token`: a name for this stream. `ask=live`: which named streams of this process are live, as JSON.

The data of event number n (its id) is `{"sent": UNIX_SECONDS, "n": n}`; the first one also has `"seen"`, what reached
the application: the protocol, the process, and the request headers that proxies add or change. There is nothing secret
in that, but it is more than strangers need; take the probe away when the path is right.

Any thread may call `app`. The names of live streams are one bounded dict behind one lock, held for single operations.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final
from urllib.parse import parse_qs

from streamkit.errors import StreamkitError
from streamkit.flow.streams import streams
from streamkit.formats.event_stream import ServerSentEvent
from streamkit.responses.event_source import EventSourceResponse
from streamkit.responses.plain import PlainResponse

__all__ = ["MARK", "MAX_SECONDS", "app"]

MARK: Final = "X-Streamkit-Probe"
"""The response header by which a reader knows the probe."""

MAX_SECONDS: Final = 3600.0
"""A stream that nobody ends is ended: whoever forgot it can come back."""

_MAX_TOKENS: Final = 10_000
_MAX_PADDING: Final = 1024 * 1024
_SEEN: Final = (
    "ACCEPT_ENCODING", "CONNECTION", "FORWARDED", "VIA", "X_FORWARDED_FOR", "X_FORWARDED_PROTO", "CF_RAY",
)  # fmt: skip

_live: dict[str, float] = {}
_lock = threading.Lock()


class BrokenOnPurpose(StreamkitError):
    """What a stream with `end=broken` raises."""

    code = "broken_on_purpose"


class _BadRequest(Exception):
    """A parameter that makes no sense."""


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()
    _live.clear()  # the streams belong to the parent


os.register_at_fork(after_in_child=_after_fork)


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer one request as the file's head says; 400 for a parameter that makes no sense. A WSGI application."""
    query = {name: values[-1] for name, values in parse_qs(environ.get("QUERY_STRING", "")).items()}
    try:
        response = _live_streams() if query.get("ask") == "live" else _stream(environ, query)
    except _BadRequest as error:
        response = PlainResponse([f"{error}\n".encode()], 400, content_type="text/plain; charset=utf-8")
    answer: Iterable[bytes] = response(environ, start_response)
    return answer


def _stream(environ: dict[str, Any], query: dict[str, str]) -> Any:
    quiet = _number(query, "quiet", None, 0.1, MAX_SECONDS)
    interval = _number(query, "interval", 0.2, 0.001, MAX_SECONDS)
    count = _number(query, "count", None, 1, 1e9)
    size = _number(query, "size", 0, 0, _MAX_PADDING)
    end = query.get("end", "whole")
    if end not in ("whole", "broken"):
        raise _BadRequest("end is whole or broken")
    if end == "broken" and count is None:
        raise _BadRequest("end=broken needs count, the number of events before it")
    token = query.get("token", "")
    if len(token) > 64:
        raise _BadRequest("token has at most 64 characters")
    assert interval is not None
    assert size is not None
    if quiet is not None:
        interval, count = quiet, 2
    producer = _events(_seen(environ), interval, count, int(size), broken=end == "broken")
    _remember(token)
    try:
        return EventSourceResponse(
            producer,
            heartbeat=None,  # what proxies do to silence is what it is there to show
            max_duration=MAX_SECONDS,
            on_close=lambda stream: _forget(token),
            headers={MARK: "1"},
        )
    except BaseException:
        _forget(token)
        raise


def _events(
    seen: dict[str, Any], interval: float, count: float | None, size: int, *, broken: bool
) -> Iterator[ServerSentEvent]:
    stream = streams.current()
    cancelled = threading.Event() if stream is None else stream.cancelled
    padding = {"padding": "." * size} if size else {}
    due = time.monotonic()
    n = 1
    while True:
        first = {"seen": seen} if n == 1 else {}
        yield ServerSentEvent({"sent": time.time(), "n": n, **first, **padding}, id=str(n))
        if count is not None and n >= count:
            break
        n += 1
        # Late is late: a burst to catch up would look like buffering.
        due = max(due + interval, time.monotonic())
        if cancelled.wait(due - time.monotonic()):
            return
    if broken:
        raise BrokenOnPurpose("the reader asked for a stream that breaks")


def _seen(environ: dict[str, Any]) -> dict[str, Any]:
    headers = {name.lower().replace("_", "-"): environ.get(f"HTTP_{name}") for name in _SEEN}
    return {
        "protocol": str(environ.get("SERVER_PROTOCOL", "")),
        "server": "uWSGI" if "uwsgi.version" in environ else str(environ.get("SERVER_SOFTWARE", "")),
        "process": _process(),
        "headers": {name: value[:200] for name, value in headers.items() if value is not None},
    }


def _process() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


def _remember(token: str) -> None:
    with _lock:
        if token:
            _live[token] = time.time()
        while len(_live) > _MAX_TOKENS:
            del _live[next(iter(_live))]


def _forget(token: str) -> None:
    with _lock:
        _live.pop(token, None)


def _live_streams() -> Any:
    with _lock:
        tokens = list(_live)
    body = json.dumps({"process": _process(), "tokens": tokens}) + "\n"
    headers = {"Cache-Control": "no-store", MARK: "1"}
    return PlainResponse([body.encode()], content_type="application/json", headers=headers)


def _number(query: dict[str, str], name: str, default: float | None, low: float, high: float) -> float | None:
    if name not in query:
        return default
    try:
        number = float(query[name])
    except ValueError:
        number = float("nan")
    if not low <= number <= high:
        raise _BadRequest(f"{name} is a number from {low:g} to {high:g}")
    return number
