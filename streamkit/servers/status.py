"""The status app: what streams in this process now, what has ended, and how much room is left.

```python
status = StatusApp(limiters={"viewers": limiter}, hub=hub, topics=["news"])

app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {"/status": status})  # Flask
serve({"/": page, "/status": lambda environ: status, "/status/*": lambda environ: status})  # a script
```

JSON for programs, tables for browsers (`Accept: text/html`). A path that ends in `/streams` has the live streams
alone. Under several workers the figures are those of the one that answers, and every answer says so.

It shows paths and addresses of clients, so it answers only those whom `allow` lets in. Query strings are never in a
record; what is secret in a path itself is shown.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import resource
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from streamkit.delivery.descriptors import SERVER_DESCRIPTORS
from streamkit.delivery.event_loop import event_loop
from streamkit.errors import StreamkitError
from streamkit.flow.stream import Stream
from streamkit.flow.stream_threads import stream_threads
from streamkit.flow.streams import streams
from streamkit.servers.status_page import as_page

LISTED: Final = 1000  # records in an answer: about 300 KiB of JSON, and what a person can look through

ABOUT: Final = "the figures of one process; other workers of the same server have their own"

_PROXY_FIELDS: Final = ("HTTP_FORWARDED", "HTTP_X_FORWARDED_FOR", "HTTP_X_REAL_IP", "HTTP_VIA")

_FIELDS: Final = [
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
    ("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
    ("Vary", "Accept"),
]

_began = time.monotonic()


def _begin() -> None:
    global _began
    _began = time.monotonic()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin)


class CountsPlaces(Protocol):
    """What a limiter tells: `len()` is how many places are taken."""

    max_streams: int | None
    per_key: int | None

    def __len__(self) -> int: ...


class KnowsPresence(Protocol):
    """What a hub tells: `(here, everywhere)` for a topic."""

    def presence(self, topic: str) -> tuple[int, int | None]: ...


def from_this_machine(environ: Mapping[str, Any]) -> bool:
    """Whether a request comes from this machine, is meant for it by name, and no proxy says it speaks for another.

    The name (Host) is looked at because a web page elsewhere can have its own name resolved to 127.0.0.1 and then read
    what a browser on this machine may read; and because many proxies pass on the public name.

    A proxy on this machine that does not, and adds none of Forwarded, X-Forwarded-For, X-Real-IP and Via, cannot be
    told from a local user: behind one give `StatusApp` an `allow` of your own, or do not let it pass the path on.
    """
    if any(field in environ for field in _PROXY_FIELDS):  # empty or not: a proxy wrote it
        return False
    try:
        host = urlsplit(f"//{environ.get('HTTP_HOST', 'localhost')}").hostname or ""
        # An empty address is a Unix socket, behind which there is always a proxy.
        return _is_loopback(environ.get("REMOTE_ADDR") or "") and (host == "localhost" or _is_loopback(host))
    except ValueError:
        return False


def _is_loopback(address: str) -> bool:
    """Raises ValueError for what is no address."""
    parsed = ipaddress.ip_address(address)
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        return parsed.ipv4_mapped.is_loopback  # a server that listens on both writes ::ffff:127.0.0.1
    return parsed.is_loopback


class StatusApp:
    """A WSGI application that shows the streams of this process. Thread-safe; it reads, and changes nothing.

    allow: a function of the environ: who may see it; others get 403. Default: `from_this_machine`.
    limiters: those to show, by a name of yours. hub, topics: how many subscribers each of these topics has; asking may
        take the hub's broker one look at its log.
    listed: how many live streams are shown at most, the oldest first, default 1,000; `left_out` counts the others.

    Raises ValueError for `listed` below 1, and for topics without a hub.
    """

    def __init__(
        self,
        *,
        allow: Callable[[dict[str, Any]], object] = from_this_machine,
        limiters: Mapping[str, CountsPlaces] | None = None,
        hub: KnowsPresence | None = None,
        topics: Sequence[str] = (),
        listed: int = LISTED,
    ) -> None:
        if not callable(allow):
            raise TypeError(
                f"allow is {allow!r}; give a function of the environ that says who may see the status"
            )
        if isinstance(listed, bool) or not isinstance(listed, int) or listed < 1:
            raise ValueError(f"listed is {listed!r}; give a whole number above 0")
        if isinstance(topics, str):
            raise TypeError(f"topics is {topics!r}; give a list of topics: [{topics!r}]")
        if topics and hub is None:
            raise ValueError("topics are shown with their presence, which a hub knows: give hub= too")
        self._allow = allow
        self._limiters = dict(limiters or {})
        self._hub = hub
        self._topics = tuple(topics)
        self._listed = listed

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        method = environ["REQUEST_METHOD"]
        if not self._allow(environ):
            return _send(start_response, method, 403, "text/plain", "the status is not for everybody\n")
        if method not in ("GET", "HEAD"):
            text = f"{ascii(method)[1:-1]} is not allowed here; use GET or HEAD\n"
            return _send(start_response, method, 405, "text/plain", text, ("Allow", "GET, HEAD"))
        alone = environ.get("PATH_INFO", "").rstrip("/").endswith("/streams")
        figures = self.live_streams() if alone else self.figures()
        if _wants_page(environ.get("HTTP_ACCEPT", "")):
            return _send(start_response, method, 200, "text/html", as_page(figures))
        text = json.dumps(figures, allow_nan=False, indent=1) + "\n"
        return _send(start_response, method, 200, "application/json", text)

    def live_streams(self) -> dict[str, Any]:
        """What `/streams` shows, as JSON values: `about`, `pid`, `live`, `left_out`, and the records in `streams`."""
        return self._listed_of(list(streams))

    def figures(self) -> dict[str, Any]:
        """All that there is to show, as JSON values; times in seconds.

        `uptime` counts from the fork, or where there was none from the import of this module. `draining`: whether the
        process is about to end and refuses new streams. What cannot be had is None.
        """
        live, totals = streams.snapshot()  # of one moment, or a stream that ends in between would be in both
        return {
            **self._listed_of(live),
            "uptime": round(time.monotonic() - _began, 3),
            "draining": streams.closing,
            "totals": [total.as_dict() for total in totals],
            "stream_threads": {
                "alive": len(stream_threads),
                "working": stream_threads.working,
                "maximum": stream_threads.maximum,
            },
            "event_loop": {"connections": len(event_loop)},
            "descriptors": _descriptors(),
            "limiters": {
                name: {
                    "taken": len(limiter),
                    "max_streams": limiter.max_streams,
                    "per_key": limiter.per_key,
                }
                for name, limiter in self._limiters.items()
            },
            "presence": {topic: self._presence(topic) for topic in self._topics},
        }

    def _listed_of(self, live: Sequence[Stream]) -> dict[str, Any]:
        return {
            "about": ABOUT,
            "pid": os.getpid(),
            "live": len(live),
            "left_out": max(0, len(live) - self._listed),
            "streams": [stream.as_dict() for stream in live[: self._listed]],
        }

    def _presence(self, topic: str) -> dict[str, int | None]:
        assert self._hub is not None
        try:
            here, everywhere = self._hub.presence(topic)
        except StreamkitError:  # the broker is away, which is when somebody looks at this page
            return {"here": None, "everywhere": None}
        return {"here": here, "everywhere": everywhere}


def _descriptors() -> dict[str, int | None]:
    """The limit (the hard one, which counts from the first detached stream on), the use, the room for streams."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if limit == resource.RLIM_INFINITY:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    for_streams = max(0, limit - min(SERVER_DESCRIPTORS, limit // 2))
    try:
        # Less the one that lists the folder.
        taken = len(os.listdir("/dev/fd")) - 1
    except OSError:
        taken = None
    return {
        "limit": limit,
        "taken": taken,
        "for_streams": for_streams,
        "room_for_streams": max(0, for_streams - len(event_loop)),
    }


def _wants_page(accept: str) -> bool:
    """Whether HTML is asked for by its name, as browsers do; whoever takes anything gets JSON (RFC 9110 12.5.1)."""
    asked = {"text/html": 0.0, "application/json": 0.0}
    for part in accept.lower().split(","):
        media_type, _, parameters = part.partition(";")
        if media_type.strip() in asked:
            weight = re.search(r"\bq\s*=\s*([01](?:\.\d{0,3})?)", parameters)
            asked[media_type.strip()] = float(weight[1]) if weight else 1.0
    return asked["text/html"] > asked["application/json"]


def _send(
    start_response: Callable[..., Any],
    method: str,
    status: int,
    mimetype: str,
    text: str,
    *more: tuple[str, str],
) -> Iterable[bytes]:
    data = text.encode()
    content_type = mimetype if mimetype == "application/json" else f"{mimetype}; charset=utf-8"
    fields = [("Content-Type", content_type), ("Content-Length", str(len(data))), *_FIELDS, *more]
    start_response(f"{status} {HTTPStatus(status).phrase}", fields)
    return [] if method == "HEAD" else [data]
