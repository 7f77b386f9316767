"""Generators that nobody closed: the garbage collector runs their `finally` in the midst of whatever runs then."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator

import pytest

from streamkit.errors import BrokerUnavailable
from streamkit.hub import hub as hub_module
from streamkit.hub.hub import Hub
from streamkit.hub.reader import Reader
from tests.conftest import eventually
from tests.interrupts import call_within

ALLOCATIONS = range(1, 120)
"""After how many new containers the collector runs: so it comes at each place of a call in turn."""


@pytest.fixture(autouse=True)
def _collector_as_before() -> Iterator[None]:
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()  # what is there already need not be looked through each time, and stays so
    yield
    gc.set_threshold(*before)


class Cycle:
    """What holds a generator and itself, as the traceback of an error does."""

    def __init__(self, generator: Iterator[object]) -> None:
        next(generator)
        self.generator = generator
        self.me = self


def finalize_within(call: Callable[[int], object], drop: Callable[[], object]) -> None:
    """Call again and again, each time after `drop`; what that has dropped is found a little later each time."""

    def work() -> None:
        for count in ALLOCATIONS:
            gc.set_threshold(1_000_000)
            gc.collect()
            drop()
            gc.set_threshold(count, 1000, 1000)
            call(count)
        gc.set_threshold(1_000_000)
        gc.collect()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive(), "it waits for itself"


def test_a_finalizer_that_publishes(hub: Hub) -> None:
    published: list[str] = []
    finalized, refused = [], []

    def last_words() -> Iterator[object]:
        try:
            yield 1
        finally:
            finalized.append(1)
            try:
                published.append(hub.publish("left", "bye", id=f"bye {len(finalized)}"))
            except BrokerUnavailable as error:
                refused.append(str(error))

    finalize_within(
        lambda count: published.extend(
            hub.publish_many(
                [("t", str(part), None, f"{count} {part}" if part % 2 else None) for part in range(10)]
            )
        ),
        lambda: Cycle(last_words()),
    )
    assert len(finalized) == len(ALLOCATIONS)
    assert all("by this very thread" in said for said in refused), refused
    assert len(refused) <= (0 if hub.local else len(ALLOCATIONS))
    broker = hub.broker
    records = broker.read(0, 10_000)
    assert len(records) == 11 * len(ALLOCATIONS) - len(refused)
    assert [record.position for record in records] == list(range(records[0].position, broker.head() + 1))
    assert [broker.locate(record.id) for record in records] == [record.position for record in records]
    assert sorted(record.id for record in records) == sorted(published)
    batches = [record.data for record in records if record.topic == "t"]
    assert batches == [str(part) for part in range(10)] * len(ALLOCATIONS)


def test_a_finalizer_that_publishes_while_records_are_trimmed(make: Callable[..., Hub]) -> None:
    hub = make(retain=100)

    def last_words() -> Iterator[object]:
        try:
            yield 1
        finally:
            try:
                hub.publish_many([("left", "bye")] * 50)
            except BrokerUnavailable:
                assert not hub.local

    finalize_within(
        lambda count: hub.publish_many([("t", "x", None, f"{count} {part}") for part in range(50)]),
        lambda: Cycle(last_words()),
    )
    broker = hub.broker
    records = broker.read(broker.floor(), 10_000)
    assert 100 <= len(records) <= 250
    assert records[-1].position == broker.head()
    assert [broker.locate(record.id) for record in records] == [record.position for record in records]
    assert hub.publish("t", "again", id="1 1") == "1 1"


def test_a_finalizer_that_leaves(hub: Hub) -> None:
    def reading() -> Iterator[object]:
        yield from hub.subscribe("t", last_event_id="unknown")  # a gap is its first event

    def join_and_leave(count: int) -> None:
        subscriptions = [hub.subscribe("t", f"u{count}") for _ in range(3)]
        for one in subscriptions:
            one.start(lambda: None)
        assert hub.presence("t").here >= 3
        hub.publish("t", "x")
        for one in subscriptions:
            one.close()

    finalize_within(join_and_leave, lambda: Cycle(reading()))
    assert hub.presence("t").here == 0
    eventually(lambda: not hub._reader._audience.everyone())


def test_a_finalizer_that_stops_a_run(hub: Hub) -> None:
    hold = threading.Event()

    def produce() -> Iterator[str]:
        yield "x"
        hold.wait(20)

    run = hub.run("t", produce)

    def viewing() -> Iterator[object]:
        try:
            yield 1
        finally:
            try:
                run.stop()
            except BrokerUnavailable:
                assert not hub.local

    finalize_within(lambda count: hub._runs.heartbeat(), lambda: Cycle(viewing()))
    hold.set()
    eventually(lambda: hub.attach("t") is None)


def test_a_signal_handler_that_publishes_while_the_first_subscription_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The log is slow to open, so it is who publishes that says where it ends."""
    monkeypatch.setattr(hub_module, "READER_SECONDS", 0.01)
    monkeypatch.setattr(Reader, "_run", lambda reader: None)
    hub: Hub

    def make() -> None:
        nonlocal hub
        hub = Hub()

    call_within(lambda: hub.subscribe("t"), lambda: hub.publish("t", "x"), make)
