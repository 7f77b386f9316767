"""The application of the figures of detached delivery. Any path but these is an ordinary page.

/events                         subscribes
/publish?count=N&gap=SECONDS    sends N events to all
/fill?count=N&gap=SECONDS&size=BYTES
                                sends what nobody counts
/behind                         says how many streams have not taken everything
/ticks?rate=N                   is a generator with N events a second
/burn?seconds=N                 computes
/loop                           gives the native id of the event loop's thread

`Broadcast` is the least that a pushed source can be: no topics, no history, no ids of its own. `SOURCE=hub` in the
environment puts a `Hub` in its place, and with `SEND=socket` the loop sends with `socket.send`, which gives up the
interpreter lock for each call.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any
from urllib.parse import parse_qs

from streamkit import CSVResponse, EventSourceResponse, Hub, ServerSentEvent, streams
from streamkit.delivery import detached
from streamkit.flow.pushed import PushedSource
from streamkit.flow.turns import turns

KEPT_EVENTS = 1_000


class Broadcast:
    """Every subscriber gets every event from its subscription on. It holds the last `KEPT_EVENTS` for those behind."""

    def __init__(self) -> None:
        # Held for a few assignments, by whoever publishes, subscribes or is behind.
        self._lock = threading.Lock()
        self._subscribers: dict[Subscriber, None] = {}
        self._kept: deque[tuple[int, ServerSentEvent]] = deque(maxlen=KEPT_EVENTS)
        self.newest: tuple[int, ServerSentEvent] = (0, ServerSentEvent(""))

    def publish(self, event: ServerSentEvent) -> None:
        with self._lock:
            self.newest = (self.newest[0] + 1, event)
            self._kept.append(self.newest)
            subscribers = list(self._subscribers)
        for subscriber in subscribers:
            subscriber.wake()

    def after(self, position: int) -> list[tuple[int, ServerSentEvent]]:
        """What is still there of the events after this one, with their numbers."""
        with self._lock:
            return [numbered for numbered in self._kept if numbered[0] > position]

    def behind(self) -> int:
        """How many subscribers have not taken everything."""
        with self._lock:
            return sum(1 for subscriber in self._subscribers if subscriber.position < self.newest[0])

    def add(self, subscriber: Subscriber) -> None:
        with self._lock:
            subscriber.position = self.newest[0]
            self._subscribers[subscriber] = None

    def remove(self, subscriber: Subscriber) -> None:
        with self._lock:
            self._subscribers.pop(subscriber, None)


class Subscriber(PushedSource):
    """One stream's place among the events. It holds none: a queue of its own is what most of its memory would be."""

    __slots__ = ("_broadcast", "finished", "position", "wake")

    def __init__(self, broadcast: Broadcast) -> None:
        self._broadcast = broadcast
        self.finished = False
        self.position = 0  # the number of the event taken last

    def start(self, wake: Callable[[], object]) -> None:
        self.wake = wake
        self._broadcast.add(self)

    def take(self) -> Sequence[ServerSentEvent]:
        number, event = self._broadcast.newest
        if number == self.position + 1:
            self.position = number
            return (event,)
        if number == self.position:
            return ()
        missed = self._broadcast.after(self.position)
        self.position = missed[-1][0]
        return [event for _, event in missed]

    def cancel(self) -> None:
        self.finished = True
        self.wake()

    def close(self) -> None:
        self._broadcast.remove(self)


broadcast = Broadcast()
numbers = itertools.count(1)
hub = Hub("memory://") if os.environ.get("SOURCE") == "hub" else None
if os.environ.get("SEND") == "socket":
    detached.send_at_once = None  # type: ignore[attr-defined]
if os.environ.get("TURNS") == "off":
    turns.reserve = lambda producer, used: 0.0  # type: ignore[method-assign]


def publish() -> None:
    """One event to every stream: "NUMBER NANOSECONDS", the number of the event and the time of now."""
    number = next(numbers)
    data = f"{number} {time.monotonic_ns()}"
    if hub is None:
        broadcast.publish(ServerSentEvent(data, id=str(number)))
    else:
        hub.publish("all", data)


def ticking(rate: float) -> Iterable[ServerSentEvent]:
    number = 0
    current = streams.current()
    assert current is not None
    due = time.monotonic()
    while not current.cancelled.wait(max(0.0, due - time.monotonic())):
        due += 1 / rate
        number += 1
        yield ServerSentEvent(f"{number} {time.monotonic_ns()}")


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    path = environ["PATH_INFO"]
    query = {name: values[0] for name, values in parse_qs(environ["QUERY_STRING"]).items()}
    number: int | None = len(streams)
    if path == "/events":
        events = Subscriber(broadcast) if hub is None else hub.subscribe("all")
        return EventSourceResponse(events)(environ, start_response)
    if path == "/rows":
        rows = ([number, f"name {number}", number / 4, "some text"] for number in itertools.count())
        return CSVResponse(rows)(environ, start_response)
    if path == "/ticks":
        return EventSourceResponse(ticking(float(query.get("rate", "20"))))(environ, start_response)
    if path == "/publish":
        for _ in range(int(query["count"])):
            publish()
            time.sleep(float(query["gap"]))
    elif path == "/fill":
        for _ in range(int(query["count"])):
            broadcast.publish(ServerSentEvent("x" * int(query["size"])))
            time.sleep(float(query["gap"]))
    elif path == "/behind":
        number = broadcast.behind()
    elif path == "/burn":  # a request that computes, and holds the interpreter as long as it may
        until = time.monotonic() + float(query["seconds"])
        while time.monotonic() < until:
            sum(range(1000))
    elif path == "/loop":
        number = next(thread.native_id for thread in threading.enumerate() if thread.name == "streamkit-loop")
    body = f"{number}\n".encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
