"""`assert_streams`: does an application stream, and does it notice when its reader leaves?

The law: one request is made in this process, as a client makes it that accepts every compression; its reader looks
at one or two chunks and leaves. What is asserted is what a reader, a proxy and the producer's owner need, all
of it at once, and each failure says what to change.
"""

from __future__ import annotations

import gc
import io
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextvars import Context
from time import monotonic
from types import FrameType, FunctionType, GeneratorType, ModuleType
from typing import Any, Final

from streamkit.flow.streams import streams
from streamkit.testing.in_process import Exchange, WSGIApplication, check_timeout, environ_for

SECOND_CHUNK_SECONDS: Final = 0.5
"""A stream that is silent this long after its first byte has sent it before the last one was produced."""
_SEARCH_OBJECTS: Final = 10_000
"""What a body holds is a handful; this ends the search where it holds the world."""
_LOOK_SECONDS: Final = 0.01
_NOT_FOLLOWED: Final = (ModuleType, type, FrameType, Context, io.IOBase)


def assert_streams(
    app: WSGIApplication,
    path: str,
    *,
    headers: Mapping[str, str] | None = None,
    method: str = "GET",
    body: bytes = b"",
    timeout: float = 5.0,
    closed: Callable[[], object] | None = None,
) -> None:
    """Raise AssertionError, with everything that is wrong, unless `app` streams at `path`.

    - The first byte comes before the last one is produced: within `timeout` seconds, and not in one piece. **Ask for a
      stream that goes on**, endless or slow: a short one may be complete before anybody can look.
    - The status is 200, there is no `Content-Length`, and no hop-by-hop header, which belong to the server (PEP 3333).
    - Nothing compresses it, though the request accepts every coding.
    - An event stream says that it is one, and that it must not be cached, transformed (`Cache-Control`) or buffered
      (`X-Accel-Buffering: no`).
    - When the reader leaves, the server's `close()` reaches the producer within `timeout` seconds: no generator behind
      the body is left suspended, and no streamkit stream lives on. A producer that is blocked counts too: where
      nothing tells it, its thread is lost. `closed`, called without arguments, says whether a producer of another
      kind has ended.

    app: any WSGI application, middlewares included. headers, method, body: of the request. What the application raises
    comes through.
    """
    check_timeout(timeout)
    request = {"Accept": "*/*", "Accept-Encoding": "gzip, deflate, br, zstd", **(headers or {})}
    before = set(streams)
    exchange = Exchange(app, environ_for(path, method=method, headers=request, body=body))
    exchange.start(lambda _: len(exchange.chunks) >= 2)
    exchange.first_chunk.wait(timeout)
    arrived = bool(exchange.chunks)
    if arrived:
        exchange.wait_closed(SECOND_CHUNK_SECONDS)
    exchange.leave()
    over = exchange.wait_closed(timeout)
    if exchange.error is not None:
        raise exchange.error
    wrong = _wrong_arrival(exchange, arrived, timeout) + _wrong_headers(exchange)
    if over:
        wrong += _wrong_end(exchange, before, timeout, closed)
    else:
        wrong.append(
            f"the producer is still at work {timeout} s after the reader has left: it is blocked, and nothing tells it;"
            " return a streamkit response, or let it wake up (a heartbeat) to be closed"
        )
    if wrong:
        lines = "".join(f"\n  - {line}" for line in wrong)
        raise AssertionError(f"{method} {path} does not stream as it should:{lines}")


def _wrong_arrival(exchange: Exchange, arrived: bool, timeout: float) -> list[str]:
    if exchange.status and exchange.status != 200:
        return [f"the status is {exchange.status}: {b''.join(exchange.chunks)[:200]!r}"]
    if isinstance(exchange.iterable, (list, tuple)):
        return [
            f"the body is a {type(exchange.iterable).__name__}: all of it was made before the first byte could be "
            "sent; return a generator"
        ]
    if not arrived and not exchange.complete:
        return [
            f"no byte came in {timeout} s: the producer is slow to begin, or something holds its bytes back"
        ]
    if exchange.complete and len(exchange.chunks) < 2:
        return [
            f"the body came in one piece of {sum(map(len, exchange.chunks))} bytes, at its end: something holds it back"
            " (or the stream is over too soon to tell; ask for one that goes on)"
        ]
    return []


def _wrong_headers(exchange: Exchange) -> list[str]:
    headers = exchange.headers
    wrong = []
    for name, why in (
        (
            "Content-Length",
            "the length of a stream is not known; something counted, and so has read, all of it",
        ),
        ("Transfer-Encoding", "framing belongs to the server (PEP 3333)"),
        ("Connection", "the connection belongs to the server (PEP 3333)"),
    ):
        if headers[name] is not None:
            wrong.append(f"there is {name}: {headers[name]}: {why}")
    coding = (headers["Content-Encoding"] or "identity").lower()
    if coding != "identity":
        wrong.append(
            f"there is Content-Encoding: {coding}: something compresses the stream, which holds small chunks back; "
            "say Cache-Control: no-transform, or exempt this path"
        )
    if (headers["Content-Type"] or "").lower().startswith("text/event-stream"):
        wrong += _wrong_event_stream_headers(headers)
    return wrong


def _wrong_event_stream_headers(headers: Any) -> list[str]:
    wrong = []
    cache = (headers["Cache-Control"] or "").lower()
    if "no-transform" not in cache:
        wrong.append(
            "Cache-Control lacks no-transform, so proxies may compress and buffer (RFC 9110 section 7.7)"
        )
    if "no-cache" not in cache and "no-store" not in cache:
        wrong.append("Cache-Control lacks no-cache, so a cache may answer with old events (RFC 9111)")
    if (headers["X-Accel-Buffering"] or "").strip().lower() != "no":
        wrong.append(
            "X-Accel-Buffering: no is missing, so nginx holds events back until its buffers are full"
        )
    return wrong


def _wrong_end(
    exchange: Exchange, before: set[Any], timeout: float, closed: Callable[[], object] | None
) -> list[str]:
    """What lives on after the reader has left and the server has called `close()`."""
    wrong = [
        f"close() of the body does not reach {_place(generator)}, which is left suspended: a middleware drops it, or "
        "it is wrapped in an iterator without close(), such as map()"
        for generator in _suspended_generators(exchange.iterable, exchange, *exchange.surroundings)
    ]
    deadline = monotonic() + timeout
    # streamkit's producers end on threads of their own, which nobody outside can wait on.
    pause = threading.Event()
    while monotonic() < deadline and (_new_streams(before) or (closed is not None and not closed())):
        pause.wait(_LOOK_SECONDS)
    wrong += [f"{stream!r} lives on {timeout} s after its body was closed" for stream in _new_streams(before)]
    if closed is not None and not closed():
        wrong.append(f"closed() is still not true {timeout} s after the body was closed")
    return wrong


def _new_streams(before: set[Any]) -> list[Any]:
    return [stream for stream in streams if stream not in before]


def _place(generator: GeneratorType[Any, Any, Any]) -> str:
    code = generator.gi_code
    return f"the generator {code.co_name!r} ({code.co_filename}:{code.co_firstlineno})"


def _suspended_generators(body: object, *strangers: object) -> list[GeneratorType[Any, Any, Any]]:
    """Generators that `body` still holds, directly or not, and that are in the middle of their work.

    The garbage collector knows what holds what; the search goes from near to far. What is not followed holds the
    world: modules, classes, what a function can name, contexts, files, and the `strangers`.
    """
    seen = set(map(id, strangers))
    found: list[GeneratorType[Any, Any, Any]] = []
    waiting = deque([body])
    while waiting and len(seen) < _SEARCH_OBJECTS:
        thing = waiting.popleft()
        if id(thing) in seen or isinstance(thing, _NOT_FOLLOWED):
            continue
        seen.add(id(thing))
        if isinstance(thing, GeneratorType):
            if thing.gi_frame is not None and not thing.gi_running and thing.gi_frame.f_lasti >= 0:
                found.append(thing)
        elif isinstance(thing, FunctionType):
            waiting.extend(thing.__closure__ or ())
        else:
            waiting.extend(gc.get_referents(thing))
    return found
