"""The application of the fan-out figures: `/events` subscribes, `/publish?count=N&gap=SECONDS` sends, `/page` answers.

`Broadcast` is the least that a pushed source can be: no topics, no history, no ids of its own.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qs

from streamkit import EventSourceResponse, ServerSentEvent, streams
from streamkit.flow.pushed import PushedSource


class Broadcast:
    """Every subscriber gets every event from its subscription on."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._subscribers: dict[Subscriber, None] = {}

    def publish(self, event: ServerSentEvent) -> None:
        with self._lock:
            subscribers = list(self._subscribers)
        for subscriber in subscribers:
            subscriber.events.append(event)
            subscriber.wake()

    def add(self, subscriber: Subscriber) -> None:
        with self._lock:
            self._subscribers[subscriber] = None

    def remove(self, subscriber: Subscriber) -> None:
        with self._lock:
            self._subscribers.pop(subscriber, None)


class Subscriber(PushedSource):
    """One stream's events, at most 1,000 behind."""

    def __init__(self, broadcast: Broadcast) -> None:
        self._broadcast = broadcast
        self.events: deque[ServerSentEvent] = deque(maxlen=1000)

    def start(self, wake: Callable[[], object]) -> None:
        self.wake = wake
        self._broadcast.add(self)

    def take(self) -> list[ServerSentEvent]:
        events = self.events
        if len(events) == 1:
            return [events.popleft()]
        taken = []
        while events:
            taken.append(events.popleft())
        return taken

    def cancel(self) -> None:
        self.finished = True
        self.wake()

    def close(self) -> None:
        self._broadcast.remove(self)


broadcast = Broadcast()
HEARTBEAT = float(os.environ.get("HEARTBEAT", "15"))


def ticking(rate: float) -> Iterable[ServerSentEvent]:
    number = 0
    current = streams.current()
    assert current is not None
    while not current.cancelled.wait(1 / rate):
        number += 1
        yield ServerSentEvent(f"{number} {time.monotonic_ns()}")


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    path = environ["PATH_INFO"]
    query = {name: values[0] for name, values in parse_qs(environ["QUERY_STRING"]).items()}
    if path == "/events":
        return EventSourceResponse(Subscriber(broadcast), heartbeat=HEARTBEAT)(environ, start_response)
    if path == "/ticks":
        return EventSourceResponse(ticking(float(query.get("rate", "20"))))(environ, start_response)
    if path == "/publish":
        for number in range(1, int(query["count"]) + 1):
            broadcast.publish(ServerSentEvent(f"{number} {time.monotonic_ns()}", id=str(number)))
            time.sleep(float(query["gap"]))
    elif path == "/burn":  # a request that computes, and holds the interpreter as long as it may
        until = time.monotonic() + float(query["seconds"])
        while time.monotonic() < until:
            sum(range(1000))
    body = f"{len(streams)}\n".encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
