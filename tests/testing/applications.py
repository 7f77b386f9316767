"""WSGI applications that stream well, and some that do it wrong; no package is needed."""

from __future__ import annotations

import itertools
import queue
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from streamkit import EventSourceResponse, NDJSONResponse, ServerSentEvent, last_event_id

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
EVENT_STREAM = [
    ("Content-Type", "text/event-stream"),
    ("Cache-Control", "no-cache, no-transform"),
    ("X-Accel-Buffering", "no"),
]


class Numbers:
    """Endless numbers that know whether they were closed."""

    def __init__(self, start: int = 0) -> None:
        self.numbers = itertools.count(start)
        self.closed = 0

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        return next(self.numbers)

    def close(self) -> None:
        self.closed += 1


class Application:
    """Endless streams, each of which notes its end in `ended`."""

    def __init__(self) -> None:
        self.ended: list[str] = []

    def _noting(self, name: str, items: Iterable[Any]) -> Iterator[Any]:
        try:
            yield from items
        finally:
            self.ended.append(name)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        name = environ["PATH_INFO"].strip("/")
        made: Callable[[Environ], Any] | None = getattr(self, name, None)
        if made is None:
            start_response("404 Not Found", [("Content-Type", "text/plain")])
            return [b"no such stream\n"]
        response = made(environ)
        if callable(response):
            answer: Iterable[bytes] = response(environ, start_response)
            return answer
        start_response("200 OK", EVENT_STREAM)
        body: Iterable[bytes] = response
        return body

    def events(self, environ: Environ) -> Any:
        start = int(last_event_id(environ) or -1) + 1
        numbers = (ServerSentEvent({"n": n}, id=n) for n in itertools.count(start))
        return EventSourceResponse(self._noting("events", numbers))

    def lines(self, environ: Environ) -> Any:
        return NDJSONResponse(self._noting("lines", ({"n": n} for n in itertools.count())), flush_bytes=1)

    def plain(self, environ: Environ) -> Any:
        return self._noting("plain", (b"data: %d\n\n" % n for n in itertools.count()))

    def three(self, environ: Environ) -> Any:
        return self._noting("three", (b"data: %d\n\n" % n for n in range(3)))

    def silent(self, environ: Environ) -> Any:
        """One event, then nothing, without a heartbeat that would come in time."""
        waiting: queue.Queue[Any] = queue.Queue()
        waiting.put("first")
        return EventSourceResponse(waiting)

    def echo(self, environ: Environ) -> Any:
        text = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}?{environ['QUERY_STRING']} "
        text += f"{environ.get('HTTP_X_NAME')} {environ['wsgi.input'].read().decode()}"
        return [f"data: {text}\n\n".encode()]

    def failing(self, environ: Environ) -> Any:
        def body() -> Iterator[bytes]:
            yield b"data: 1\n\n"
            raise LookupError("out of numbers")

        return self._noting("failing", body())
