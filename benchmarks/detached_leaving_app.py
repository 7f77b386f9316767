"""The application of `detached_leaving`: streams that say nothing, and `/state`: producers closed, places taken."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from benchmarks.fan_out_app import Broadcast, Subscriber
from streamkit import EventSourceResponse, Limiter, streams

limiter = Limiter(5_000)
broadcast = Broadcast()
closed = 0


class Idle(Subscriber):
    """A pushed source that nothing is ever pushed into."""

    def close(self) -> None:
        global closed
        super().close()
        closed += 1


def waiting() -> Iterator[str]:
    """A generator that waits for something that never happens, and for its client to leave."""
    global closed
    stream = streams.current()
    assert stream is not None
    try:
        while not stream.cancelled.wait(60):
            yield "nothing"
    finally:
        closed += 1


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    path = environ["PATH_INFO"]
    if path == "/pushed":
        return EventSourceResponse(Idle(broadcast), limiter=limiter)(environ, start_response)
    if path == "/generator":
        return EventSourceResponse(waiting(), limiter=limiter)(environ, start_response)
    body = f"{closed} {len(limiter)}".encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
