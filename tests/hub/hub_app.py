"""A WSGI application on a hub; the URL of the hub and its options are in the environment."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from streamkit import EventSourceResponse, streams
from streamkit.hub.hub import Hub

hub = Hub(
    os.environ["HUB_URL"],
    retain=int(os.environ.get("HUB_RETAIN", "10000")),
    finish_runs=float(os.environ.get("HUB_FINISH_RUNS", "20")),
)


def words() -> Iterator[str]:
    """Numbers, until the file is there that the environment names."""
    for number in itertools.count():
        if os.path.exists(os.environ["HUB_WORDS_UNTIL"]):
            break
        time.sleep(0.05)
        yield str(number)


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    path = environ["PATH_INFO"]
    if path == "/events":
        return EventSourceResponse(hub.subscribe("t"), retry=10)(environ, start_response)
    if path == "/answer":
        run = hub.run("answer", words, id="answer")
        return EventSourceResponse(run.events(), retry=10)(environ, start_response)
    if path == "/publish":
        answer = hub.publish("t", environ["QUERY_STRING"])
    elif path == "/deliveries":
        answer = " ".join(str(stream.delivery) for stream in streams)
    elif path == "/pid":
        answer = str(os.getpid())
    else:
        answer = "up"
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(answer)))])
    return [answer.encode()]
