"""A plain generator over a queue for each client, as countless recipes have it, as a bare WSGI application (for one
thread a client, `app`) and as a Flask application (for gevent, `flask_app`, where `queue` and `time` are gevent's).
"""

from __future__ import annotations

import itertools
import queue
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from urllib.parse import parse_qs

streams: set[queue.Queue[str]] = set()
numbers = itertools.count(1)


def events() -> Iterator[str]:
    """One client's events, at most 1,000 behind."""
    mine: queue.Queue[str] = queue.Queue(1000)
    streams.add(mine)
    try:
        yield ":\n\n"
        while True:
            yield mine.get()
    finally:
        streams.discard(mine)


def publish(count: int, gap: float) -> None:
    """Send `count` events to all, with pauses."""
    for _ in range(count):
        number = next(numbers)
        event = f"id: {number}\ndata: {number} {time.monotonic_ns()}\n\n"
        for stream in list(streams):
            stream.put_nowait(event)
        time.sleep(gap)


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """The bare WSGI application."""
    if environ["PATH_INFO"] == "/events":
        start_response("200 OK", [("Content-Type", "text/event-stream")])
        return (event.encode() for event in events())
    if environ["PATH_INFO"] == "/publish":
        query = parse_qs(environ["QUERY_STRING"])
        publish(int(query["count"][0]), float(query["gap"][0]))
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "3")])
    return [b"ok\n"]


try:
    import flask
except ImportError:
    pass
else:
    flask_app = flask.Flask(__name__)

    @flask_app.route("/events")
    def flask_events() -> flask.Response:
        return flask.Response(events(), mimetype="text/event-stream")

    @flask_app.route("/publish")
    def flask_publish() -> str:
        publish(int(flask.request.args["count"]), float(flask.request.args["gap"]))
        return "ok\n"

    @flask_app.route("/page")
    def flask_page() -> str:
        return "ok\n"
