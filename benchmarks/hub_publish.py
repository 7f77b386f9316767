"""The hub in one process and between two: publications a second, the time from `publish` to a subscriber, what one more
live subscriber costs, replay, live delivery beside 200 replays, and memory over a million events.

Absolute numbers against bounds, because there is no peer in synchronous Python.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from benchmarks.measure import Figure
from streamkit.formats.event_stream import ServerSentEvent
from streamkit.hub.hub import Hub
from streamkit.hub.subscription import Subscription

ROOT = Path(__file__).resolve().parent.parent
WAIT_SECONDS = 60.0
SUBSCRIBERS = 10_000
PAYLOAD = "x" * 100


class Listener:
    """Takes what a stream would take, on a thread of its own or when asked."""

    def __init__(self, subscription: Subscription) -> None:
        self.subscription = subscription
        self.woken = threading.Event()
        self.events: list[ServerSentEvent] = []
        subscription.start(self.woken.set)

    def until(self, count: int) -> None:
        """Wait for this many events in all."""
        while len(self.events) < count:
            if not self.woken.wait(WAIT_SECONDS):
                raise AssertionError(f"{len(self.events)} events of {count} after {WAIT_SECONDS} s")
            self.woken.clear()
            self.events += self.subscription.take()


@contextmanager
def hubs(retain: int = 10_000) -> Iterator[list[tuple[str, Hub]]]:
    """A hub in memory and one on a file."""
    with tempfile.TemporaryDirectory() as folder:
        made = [
            ("memory", Hub("memory://", retain=retain)),
            ("SQLite", Hub(f"sqlite:///{folder}/events.db", retain=retain)),
        ]
        try:
            yield made
        finally:
            for _, hub in made:
                hub.close()


def rate(work: Callable[[], object], count: int, rounds: int = 5) -> float:
    """How often a second, the median of rounds; `work` does it `count` times."""
    taken = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return count / median(taken)


def receipt_times(hub: Hub, count: int = 300) -> list[float]:
    """Seconds from `publish` to the thread that waits for it, in one process, one event at a time."""
    listener = Listener(hub.subscribe("receipt"))
    taken = []
    for number in range(count):
        start = time.perf_counter()
        hub.publish("receipt", PAYLOAD)
        listener.until(number + 1)
        taken.append(time.perf_counter() - start)
        time.sleep(0.002)  # the reader goes to sleep, as it does between the events of a quiet hub
    listener.subscription.close()
    return taken


PUBLISHER = """
import sys, time
from streamkit.hub.hub import Hub
hub = Hub(sys.argv[1])
hub.publish("warm", "up")
for _ in range(300):
    hub.publish("far", repr(time.monotonic()))
    time.sleep(0.003)
"""


def receipt_times_from_afar(hub: Hub) -> list[float]:
    """The same from another process; CLOCK_MONOTONIC is one clock for both."""
    listener = Listener(hub.subscribe("far"))
    taken: list[float] = []
    with subprocess.Popen([sys.executable, "-c", PUBLISHER, hub.broker.url], cwd=ROOT):
        for number in range(300):
            listener.until(number + 1)
            now = time.monotonic()
            taken += [now - float(event.data or "") for event in listener.events[len(taken) :]]
    listener.subscription.close()
    return taken


def dispatch_cost(hub: Hub) -> float:
    """Microseconds of CPU for one event to one more live subscriber that is awake."""
    subscriptions = [hub.subscribe("crowd") for _ in range(SUBSCRIBERS)]
    for subscription in subscriptions:
        subscription.start(lambda: None)
    hub.publish("crowd", PAYLOAD)
    last = subscriptions[-1]
    _await(lambda: last.buffer)
    events = 50
    start = time.process_time()
    hub.publish_many([("crowd", PAYLOAD)] * events)
    _await(lambda: len(last.buffer) > events)
    cost = (time.process_time() - start) / (events * SUBSCRIBERS)
    for subscription in subscriptions:
        subscription.close()
    return cost * 1e6


def _await(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError("the hub did not deliver")
        time.sleep(0.0005)


def replay_time(hub: Hub, first: str, count: int) -> float:
    """Seconds until one client has `count` events of history."""
    start = time.perf_counter()
    listener = Listener(hub.subscribe("history", last_event_id=first))
    listener.until(count)
    listener.subscription.close()
    return time.perf_counter() - start


def live_beside_replays(hub: Hub, first: str, count: int) -> float:
    """The 99th percentile of the receipt of live events, in seconds, while 200 clients replay."""
    live = Listener(hub.subscribe("live"))
    replays = [Listener(hub.subscribe("history", last_event_id=first)) for _ in range(200)]
    done = threading.Event()

    def drain() -> None:
        left = set(replays)
        while left:
            for listener in list(left):
                listener.events += listener.subscription.take()
                if len(listener.events) >= count:
                    left.discard(listener)
            time.sleep(0)
        done.set()

    drainer = threading.Thread(target=drain)
    drainer.start()
    taken = []
    while not done.is_set():
        start = time.perf_counter()
        hub.publish("live", PAYLOAD)
        live.until(len(taken) + 1)
        taken.append(time.perf_counter() - start)
        time.sleep(0.002)
    drainer.join()
    for listener in [live, *replays]:
        listener.subscription.close()
    return sorted(taken)[int(len(taken) * 0.99)]


def resident() -> int:
    """Bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def growth(hub: Hub, events: int) -> float:
    """MiB that the process grows by while a listener gets `events` more than the hub retains."""
    listener = Listener(hub.subscribe("flood"))
    before = 0
    for step in range(events // 500):
        hub.publish_many([("flood", f"{step} {number}") for number in range(500)])
        listener.until(500)
        listener.events.clear()
        if step == 100:
            before = resident()
    listener.subscription.close()
    return (resident() - before) / 2**20


def figures() -> Iterator[Figure]:
    """Two figures of each kind, memory and SQLite."""
    for name, wanted, batched in (("memory", 100_000, 100_000), ("SQLite", 5_000, 50_000)):
        with hubs() as made:
            hub = dict(made)[name]
            listener = hub.subscribe("somebody else")
            listener.start(lambda: None)

            def single(hub: Hub = hub) -> None:
                for _ in range(5000):
                    hub.publish("rate", PAYLOAD)

            def many(hub: Hub = hub) -> None:
                for _ in range(10):
                    hub.publish_many([("rate", PAYLOAD)] * 500)

            measured = rate(single, 5000)
            yield Figure(f"publish, {name}", measured, wanted, True, f"{1e6 / measured:.1f} µs each", "/s")
            measured = rate(many, 5000)
            yield Figure(
                f"publish_many, {name}", measured, batched, True, f"{1e6 / measured:.1f} µs each", "/s"
            )
            listener.close()
            times = receipt_times(hub)
            slow = sorted(times)[-3] * 1e3
            yield Figure(
                f"publish to receipt, one process, {name}",
                median(times) * 1e3,
                5,
                False,
                f"p99 {slow:.2f} ms",
                "ms",
            )
            if name == "SQLite":
                times = receipt_times_from_afar(hub)
                slow = sorted(times)[-3] * 1e3
                yield Figure(
                    f"publish to receipt, two processes, {name}",
                    *(median(times) * 1e3, 15, False, f"p99 {slow:.2f} ms", "ms"),
                )
            cost = dispatch_cost(hub)
            yield Figure(
                f"one more of 10,000 subscribers, {name}", cost, 0.5, False, "CPU of one event", "µs"
            )
            first = hub.publish("history", "first")
            hub.publish_many([("history", PAYLOAD)] * 9_900)
            taken = replay_time(hub, first, 9_900)
            yield Figure(f"replay of 9,900 events, {name}", taken * 1e3, 150, False, "to one client", "ms")
    for name in ("memory", "SQLite"):
        with hubs(retain=50_000) as made:  # the live events beside must not push the history out
            hub = dict(made)[name]
            first = hub.publish("history", "first")
            hub.publish_many([("history", PAYLOAD)] * 10_000)
            p99 = live_beside_replays(hub, first, 10_000)
            yield Figure(f"live p99 beside 200 such replays, {name}", p99 * 1e3, 100, False, "", "ms")
        with hubs() as made:
            grown = growth(dict(made)[name], 1_000_000)
            yield Figure(f"growth over a million events, {name}", grown, 8, False, "10,000 retained", "MiB")
