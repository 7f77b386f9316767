"""Streams that leave the server's threads, within Flask and several middlewares, and what they leave behind.

`/state` tells what is still held: descriptors, threads, memory, live streams. A path may begin with the name of a
middleware: `/gzipped/ticks`.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import multiprocessing
import os
import resource
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from streamkit import (
    CSVResponse,
    EventSourceResponse,
    Limiter,
    NDJSONResponse,
    ServerSentEvent,
    StreamingResponse,
    streams,
)
from streamkit.delivery import body, connection, detached
from streamkit.flow.pushed import PushedSource
from streamkit.flow.stream_threads import stream_threads


def limit_writes(seconds: float) -> None:
    """Tests do not wait half a minute for a client that never reads."""
    for module in (body, connection, detached):
        module.WRITE_SECONDS = seconds  # type: ignore[misc]


if "WRITE_SECONDS" in os.environ:
    limit_writes(float(os.environ["WRITE_SECONDS"]))

Environ = dict[str, Any]
Application = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]

outcomes: Counter[str] = Counter()  # "path outcome"
last: dict[str, dict[str, object]] = {}  # the record of each path's last stream, as it ended
facts: Counter[str] = Counter()
children: list[Any] = []
hold: list[int] = []
places = Limiter(max_streams=3)


def ended(stream: Any) -> None:
    last[stream.path] = stream.as_dict()
    outcomes[f"{stream.path} {stream.outcome}"] += 1  # who sees that finds the record


# -- producers ---------------------------------------------------------------------------------------------------


class Quiet(PushedSource):
    """One event, then nothing, on no thread."""

    def __init__(self) -> None:
        self._items: list[object] = ["first"]
        self._wake: Callable[[], object] = bool
        self._cancelled = False

    def start(self, wake: Callable[[], object]) -> None:
        self._wake = wake
        wake()

    def take(self) -> Sequence[object]:
        items, self._items = self._items, []
        self.finished = self._cancelled
        return items

    def cancel(self) -> None:
        self._cancelled = True
        self._wake()

    def close(self) -> None:
        facts["closed quiet"] += 1


class Flood(Quiet):
    """More than any socket takes: whenever it is asked, it has a step's worth and more."""

    def take(self) -> Sequence[object]:
        self.finished = self._cancelled
        if not self.finished:
            self._wake()
        facts["floods"] += 1
        return ["x" * 1000] * 50


def ticks() -> Iterator[dict[str, int]]:
    """Numbers, 100 a second; whoever has one open sees when one is missing or late."""
    stream = streams.current()
    assert stream is not None
    n = 0
    try:
        while not stream.cancelled.wait(0.01):
            yield {"n": n}
            n += 1
    finally:
        facts["closed ticks"] += 1


def deaf() -> Iterator[str]:
    """Blocked in somebody else's code until `/let-go`."""
    yield "first"
    released.wait()


released = threading.Event()


def failing() -> Iterator[str]:
    yield "first"
    stream = streams.current()
    assert stream is not None
    stream.cancelled.wait(0.05)
    raise RuntimeError("secret detail")


def endless() -> Iterator[bytes]:
    try:
        while True:
            yield b"x" * 65536
    finally:
        facts["closed endless"] += 1


def hundred_megabytes() -> Iterator[bytes]:
    yield b"begin"
    yield bytes(100_000_000)
    yield b"end"


def one_block() -> Iterator[bytes]:
    """All at once, and the end."""
    yield bytes(20_000_000)


def rows() -> Iterator[list[object]]:
    for n in range(5000):
        yield [n, "x" * 90]


def slow_rows() -> Iterator[list[object]]:
    stream = streams.current()
    assert stream is not None
    n = 0
    while not stream.cancelled.wait(0.01):
        yield [n, "x" * 90]
        n += 1


class Closing:
    """An iterator that counts its `close()`; it is never to be forgotten, even where the stream is refused."""

    def __init__(self, items: Iterable[Any]) -> None:
        self._items = iter(items)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return next(self._items)

    def close(self) -> None:
        facts["closed items"] += 1


def upload(environ: Environ) -> Iterator[dict[str, int]]:
    """Reads the body of its request while it answers."""
    left = int(environ["CONTENT_LENGTH"])
    read = 0
    while left > read and (data := environ["wsgi.input"].read(min(65536, left - read))):
        read += len(data)
        yield {"read": read}


def upload_in_chunks(environ: Environ) -> Iterator[int]:
    with contextlib.suppress(OSError):  # the client leaves in the middle of it
        while data := environ["wsgi.input"].read(5):
            yield len(data)


ROUTES: dict[str, Callable[[Environ], Any]] = {
    "/ticks": lambda _: EventSourceResponse(ticks(), on_close=ended),
    "/quiet": lambda _: EventSourceResponse(Quiet(), on_close=ended),
    "/beating": lambda _: EventSourceResponse(Quiet(), heartbeat=0.05, on_close=ended),
    "/flood": lambda _: EventSourceResponse(Flood(), on_close=ended),
    "/numbers": lambda _: EventSourceResponse(
        (ServerSentEvent({"n": n}, id=str(n)) for n in range(3000)), on_close=ended
    ),
    "/deaf": lambda _: EventSourceResponse(deaf(), on_close=ended),
    "/failing": lambda _: EventSourceResponse(failing(), on_close=ended),
    "/endless": lambda _: StreamingResponse(endless(), on_close=ended),
    "/hundred": lambda _: StreamingResponse(hundred_megabytes(), on_close=ended),
    "/block": lambda _: StreamingResponse(one_block(), on_close=ended),
    "/rows": lambda _: CSVResponse(rows(), delivery="detached", on_close=ended),
    "/slow-rows": lambda _: NDJSONResponse(slow_rows(), on_close=ended),
    "/length": lambda _: StreamingResponse(
        (b"x" * 1000 for _ in range(2000)), headers={"Content-Length": "2000000"}, on_close=ended
    ),
    "/limited": lambda environ: EventSourceResponse(
        {"quiet": Quiet, "ticks": ticks, "failing": failing, "flood": Flood}[environ["QUERY_STRING"]](),
        limiter=places,
        on_close=ended,
    ),
    "/upload": lambda environ: EventSourceResponse(upload(environ), done="all", on_close=ended),
    "/upload-briefly": lambda environ: EventSourceResponse(
        upload_in_chunks(environ), max_duration=0.5, on_close=ended
    ),
    "/closing": lambda _: EventSourceResponse(Closing(ticks()), on_close=ended),
}


# -- what is held ------------------------------------------------------------------------------------------------


def is_held(descriptor: str) -> bool:
    """Not what Werkzeug has for 10 ms after every answer, such as the one before: a selector of its own."""
    return "eventpoll" not in descriptor


def state() -> dict[str, object]:
    return {
        "pid": os.getpid(),
        "outcomes": outcomes,
        "last": last,
        "facts": facts,
        "live": [stream.as_dict() for stream in streams],
        "descriptors": len(held := [one for one in map(target, os.listdir("/proc/self/fd")) if is_held(one)]),
        "open": sorted(held),
        "working": stream_threads.working,
        "places": len(places),
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "rss": int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize(),
    }


def target(number: str) -> str:
    try:
        return f"{number} {os.readlink(f'/proc/self/fd/{number}')}"
    except OSError:
        return ""


def child_that_stays() -> None:
    threading.Event().wait(60)


def command(environ: Environ) -> object:
    path = environ["PATH_INFO"]
    if path == "/fork":
        child = multiprocessing.get_context("fork").Process(target=child_that_stays, daemon=True)
        child.start()
        children.append(child)
        return child.pid
    if path == "/unfork":
        for child in children:
            child.kill()
            child.join()
        children.clear()
    elif path == "/let-go":
        released.set()
    elif path == "/fill":  # all descriptors but a few
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        while len(os.listdir("/proc/self/fd")) < limit - int(environ["QUERY_STRING"]):
            hold.append(os.open("/dev/null", os.O_RDONLY))
    elif path == "/empty":
        while hold:
            os.close(hold.pop())
    elif path == "/limit-writes":
        limit_writes(float(environ["QUERY_STRING"]))
    elif path == "/read":
        return len(environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)))
    else:
        return state()
    return "done"


def plain(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
    route = ROUTES.get(environ["PATH_INFO"])
    if route is not None:
        answer: Iterable[bytes] = route(environ)(environ, start_response)
        return answer
    facts[f"page {environ['PATH_INFO']}"] += 1
    data = json.dumps(command(environ)).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(data)))])
    return [data]


# -- middlewares, as they are found ------------------------------------------------------------------------------


def passing(environ: Environ, start_response: Callable[..., Any]) -> Iterator[bytes]:
    """A generator around the application: `start_response` is called at the first `next()`."""
    answer = plain(environ, start_response)
    try:
        yield from answer
    finally:
        answer.close()  # type: ignore[attr-defined]


def with_header(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
    def started(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        return start_response(status, [*headers, ("X-Added", "yes")])

    return plain(environ, started)


def with_length(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Has counted wrongly: the length of what it thinks is the whole body."""

    def started(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        return start_response(status, [*headers, ("Content-Length", "100000000")])

    return plain(environ, started)


def gzipped(environ: Environ, start_response: Callable[..., Any]) -> Iterator[bytes]:
    """Compresses everything, and flushes each chunk."""

    def started(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        return start_response(status, [*headers, ("Content-Encoding", "gzip")])

    answer = plain(environ, started)
    try:
        for chunk in answer:
            yield gzip.compress(chunk)
    finally:
        answer.close()  # type: ignore[attr-defined]


def buffered(environ: Environ, start_response: Callable[..., Any]) -> Iterator[bytes]:
    """Collects 50 bytes before it lets go of anything."""
    answer = plain(environ, start_response)
    held = b""
    try:
        for chunk in answer:
            held += chunk
            if len(held) > 50:
                yield held
                held = b""
        yield held
    finally:
        answer.close()  # type: ignore[attr-defined]


def whole(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Collects the whole body."""
    answer = plain(environ, start_response)
    try:
        return [b"".join(answer)]
    finally:
        answer.close()  # type: ignore[attr-defined]


def followed(environ: Environ, start_response: Callable[..., Any]) -> Iterator[bytes]:
    """Says a great deal after the application has said its last."""
    answer = plain(environ, start_response)
    try:
        yield from answer
        yield b"." * 1_000_000
    finally:
        answer.close()  # type: ignore[attr-defined]


def prefixed(environ: Environ, start_response: Callable[..., Any]) -> Iterator[bytes]:
    """Says something before the application does."""
    answer = plain(environ, start_response)
    try:
        yield b": proxy\n\n"
        yield from answer
    finally:
        answer.close()  # type: ignore[attr-defined]


def unclosing(environ: Environ, start_response: Callable[..., Any]) -> Iterator[bytes]:
    """Never calls close()."""
    yield from iter(plain(environ, start_response))


class Unclosing:
    """Never calls close(), and is no generator, which would delegate it."""

    def __init__(self, answer: Iterable[bytes]) -> None:
        self._answer = iter(answer)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return next(self._answer)


def dropping(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
    return Unclosing(plain(environ, start_response))


def peeking(environ: Environ, start_response: Callable[..., Any]) -> Iterator[bytes]:
    """Takes the first chunk before it lets the server see anything, as error pages do."""
    answer = plain(environ, start_response)
    iterator = iter(answer)
    first = next(iterator)

    def body() -> Iterator[bytes]:
        try:
            yield first
            yield from iterator
        finally:
            answer.close()  # type: ignore[attr-defined]

    return body()


def replacing(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Takes the first chunk and then answers something else."""
    answer = plain(environ, lambda *_: bytes)
    next(iter(answer))
    answer.close()  # type: ignore[attr-defined]
    start_response("200 OK", [("Content-Length", "7")])
    return [b"instead"]


def raising(environ: Environ, start_response: Callable[..., Any]) -> Iterator[bytes]:
    """Has a bug, after the first chunk, and before anything is sent."""
    answer = plain(environ, start_response)
    try:
        next(iter(answer))
        raise RuntimeError("a middleware with a bug")
    finally:
        answer.close()  # type: ignore[attr-defined]
    yield b"never"


MIDDLEWARES: dict[str, Application] = {
    function.__name__: function
    for function in (
        passing,
        with_header,
        with_length,
        gzipped,
        buffered,
        whole,
        prefixed,
        followed,
        unclosing,
        dropping,
        peeking,
        replacing,
        raising,
    )
}

try:
    from flask import Flask, g, request
    from werkzeug.middleware.proxy_fix import ProxyFix
except ImportError:
    pass
else:
    flask_app = Flask(__name__)
    MIDDLEWARES["flask"] = flask_app
    MIDDLEWARES["proxied"] = ProxyFix(flask_app, x_for=1)

    @flask_app.before_request
    def name() -> None:
        g.user = request.args.get("user", "nobody")

    @flask_app.teardown_request
    def torn_down(error: BaseException | None) -> None:
        facts[f"teardown {request.path}"] += 1

    @flask_app.route("/events", methods=["GET", "POST"])
    def events() -> Any:
        """Says who asked for what, now and after the request was torn down."""
        request.get_data()

        def generate() -> Iterator[str]:
            stream = streams.current()
            assert stream is not None
            yield f"{g.user} asked for {request.path}"
            while not facts[f"teardown {request.path}"] and not stream.cancelled.wait(0.01):
                pass
            yield f"{g.user} asked from {request.remote_addr} for {request.args['user']}"
            stream.cancelled.wait(60)

        response = EventSourceResponse(generate(), on_close=ended)
        response.call_on_close(lambda: facts.update(["call_on_close"]))
        return response


def app(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
    first, _, rest = environ["PATH_INFO"].lstrip("/").partition("/")
    wrapped = MIDDLEWARES.get(first)
    if wrapped is None:
        return plain(environ, start_response)
    environ["SCRIPT_NAME"] += f"/{first}"
    environ["PATH_INFO"] = f"/{rest}"
    return wrapped(environ, start_response)
