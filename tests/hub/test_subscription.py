"""The seam between history and live, slow subscribers, and long replays."""

from __future__ import annotations

import threading
from collections.abc import Callable

from streamkit.errors import SubscriberTooSlow
from streamkit.hub.gap import Gap
from streamkit.hub.hub import Hub
from streamkit.hub.subscription import BUFFER_BYTES, BUFFER_EVENTS
from tests.conftest import eventually
from tests.hub.conftest import Viewer

Make = Callable[..., Hub]


def test_the_seam_neither_loses_nor_doubles(hub: Hub) -> None:
    """Four publishers publish without a pause while viewers come with ids of a moment ago."""
    first = hub.publish("t", "first")
    total = 4 * 500
    started = threading.Barrier(5)

    def publish(number: int) -> None:
        started.wait()
        for step in range(250):
            hub.publish("t", f"{number} {step}")
            hub.publish_many([("other", "x"), ("t", f"{number} {step} many")])

    threads = [threading.Thread(target=publish, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    live = Viewer(hub.subscribe("t"))
    started.wait()
    viewers = []
    seen = first
    for _ in range(20):
        viewers.append((seen, Viewer(hub.subscribe("t", last_event_id=seen))))
        goal = min(total, len(live.events) + 1)
        live.until(lambda goal=goal: len(live.events) >= goal)  # type: ignore[misc]
        seen = live.events[-1].id or ""
    everything = [event.id for event in live.take(total)]
    assert len(set(everything)) == total
    for thread in threads:
        thread.join()
    for cursor, viewer in viewers:
        after = everything if cursor == first else everything[everything.index(cursor) + 1 :]
        assert [event.id for event in viewer.take(len(after))] == after
    for number in range(4):
        own = [event.data for event in live.events if (event.data or "").split()[0] == str(number)]
        assert own == [f"{number} {step}{many}" for step in range(250) for many in ("", " many")]


def test_a_slow_subscriber_loses_nothing(hub: Hub) -> None:
    slow, fast = Viewer(hub.subscribe("t")), Viewer(hub.subscribe("t"))
    for first in range(0, 5000, 500):
        hub.publish_many([("t", str(number)) for number in range(first, first + 500)])
        fast.until(lambda first=first: len(fast.events) == first + 500)  # type: ignore[misc]
    assert len(slow.subscription.buffer) <= BUFFER_EVENTS
    assert slow.data(5000) == [str(number) for number in range(5000)]
    hub.publish("t", "live again")
    assert slow.data(5001)[-1] == "live again"


def test_large_events_count_by_their_bytes(hub: Hub) -> None:
    size = 50_000
    slow, fast = Viewer(hub.subscribe("t")), Viewer(hub.subscribe("t"))
    for number in range(30):
        hub.publish("t", str(number).zfill(size))
        fast.take(number + 1)
    assert len(slow.subscription.buffer) * size <= BUFFER_BYTES
    assert slow.data(30) == [str(number).zfill(size) for number in range(30)]


def test_an_event_larger_than_the_buffer_passes(hub: Hub) -> None:
    sizes = [10, 600_000, 600_001, 10, 600_002]
    first = hub.publish("t", "first")
    live = Viewer(hub.subscribe("t"))
    for size in sizes:
        hub.publish("t", "x" * size)
    assert [len(data or "") for data in live.data(5)] == sizes
    assert [len(data or "") for data in Viewer(hub.subscribe("t", last_event_id=first)).data(5)] == sizes


def test_a_subscriber_behind_the_log_is_too_slow(make: Make) -> None:
    hub = make(retain=100)
    slow, fast = Viewer(hub.subscribe("t")), Viewer(hub.subscribe("t"))
    for first in range(0, 5000, 50):
        hub.publish_many([("t", str(number)) for number in range(first, first + 50)])
        fast.until(lambda first=first: len(fast.events) == first + 50)  # type: ignore[misc]
    events = slow.end()
    assert [event.data for event in events] == [str(number) for number in range(len(events))]
    assert isinstance(slow.subscription.error, SubscriberTooSlow)
    assert slow.subscription.error.code == "subscriber_too_slow"
    again = Viewer(hub.subscribe("t", last_event_id=events[-1].id))
    again.until(lambda: again.events and again.events[-1].data == "4999")
    assert isinstance(again.events[0], Gap)


def test_many_long_replays_and_live_events(hub: Hub) -> None:
    ids = hub.publish_many([("t", str(number)) for number in range(5000)])
    live = Viewer(hub.subscribe("live"))
    viewers = [Viewer(hub.subscribe("t", last_event_id=ids[number])) for number in range(40)]
    for number in range(20):
        hub.publish("live", str(number))
        live.take(number + 1)  # in the midst of the replays
    for number, viewer in enumerate(viewers):
        assert [event.id for event in viewer.take(4999 - number)] == ids[number + 1 :]


def test_a_viewer_that_leaves_in_the_midst_of_a_replay(hub: Hub) -> None:
    ids = hub.publish_many([("t", str(number)) for number in range(5000)])
    viewer = Viewer(hub.subscribe("t", last_event_id=ids[0]))
    viewer.until(lambda: viewer.events)
    viewer.close()
    other = Viewer(hub.subscribe("t", last_event_id=ids[4000]))
    other.take(999)
    reader = hub._reader
    # The reader has a subscription in its hands, and in none of its lists, while that catches up.
    eventually(lambda: other.subscription.place == "live" and not reader._catching_up and not reader._waiting)
    eventually(lambda: reader._audience.everyone() == [other.subscription])


def test_gaps_that_nobody_takes_do_not_pile_up(make: Make) -> None:
    """The filter holds the reader up, three times, while more is published than is retained."""
    hub = make(retain=10)
    held, go = threading.Semaphore(0), threading.Semaphore(0)

    def block(topic: str, event: object) -> bool:
        held.release()
        return go.acquire(timeout=20)

    idle = hub.subscribe("quiet")
    idle.start(lambda: None)
    blocker = Viewer(hub.subscribe("block", filter=block))
    for number in range(1, 4):
        hub.publish("block", "x")
        assert held.acquire(timeout=20)
        for _ in range(30):
            hub.publish_many([("other", "x")] * 50)
        go.release()
        blocker.until(lambda number=number: sum(isinstance(one, Gap) for one in blocker.events) == number)  # type: ignore[misc]
    assert [type(event) for event in idle.buffer] == [Gap]
    oldest = idle.buffer[0].json()["oldest"]
    assert hub.broker.locate(oldest) == hub.broker.read(hub.broker.floor(), 1)[0].position


def test_a_reader_that_is_left_behind_tells_of_the_gap(make: Make) -> None:
    """The filter holds the reader up while more is published than is retained."""
    hub = make(retain=100)
    held, go = threading.Event(), threading.Event()

    def block(topic: str, event: object) -> bool:
        held.set()
        return go.wait(20)

    blocker, viewer = Viewer(hub.subscribe("block", filter=block)), Viewer(hub.subscribe("t"))
    hub.publish("block", "x")
    held.wait(20)
    for first in range(0, 2000, 50):
        hub.publish_many([("t", str(number)) for number in range(first, first + 50)])
    go.set()
    viewer.until(lambda: viewer.events and viewer.events[-1].data == "1999")
    gap = viewer.events[0]
    assert isinstance(gap, Gap)
    assert gap.oldest == viewer.events[1].id
    numbers = [int(event.data or "") for event in viewer.events[1:]]
    assert numbers == list(range(numbers[0], 2000))
    blocker.close()
