"""The reader of a hub: how it begins where the log is slow, and what it hands out."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Iterator

import pytest

from streamkit.errors import BrokerUnavailable, Draining, HubClosed, TooManyStreams
from streamkit.flow.streams import streams
from streamkit.hub.broker import HistoryLost, Position, Record
from streamkit.hub.gap import Gap
from streamkit.hub.hub import Hub
from streamkit.hub.memory import MemoryBroker
from tests.conftest import eventually
from tests.hub.conftest import Viewer


class SlowToOpen(MemoryBroker):
    """A log whose end the reader cannot learn before `opened` is set; others can."""

    def __init__(self) -> None:
        super().__init__()
        self.opened = threading.Event()
        self.asked = threading.Event()

    def head(self) -> Position:
        if threading.current_thread().name == "streamkit-hub":
            self.asked.set()
            assert self.opened.wait(20)
        return super().head()


@pytest.fixture
def broker() -> Iterator[SlowToOpen]:
    broker = SlowToOpen()
    yield broker
    broker.opened.set()


def test_a_stream_begins_while_the_log_is_not_open_yet(broker: SlowToOpen) -> None:
    with Hub(broker) as hub:
        viewer = Viewer(hub.subscribe("t"))  # comes back, although the reader waits
        resumed = Viewer(hub.subscribe("t", last_event_id="unknown"))
        assert broker.asked.wait(20)
        assert viewer.events == []
        broker.opened.set()
        resumed.take(1)  # a gap
        hub.publish("t", "x")
        assert viewer.data(1) == ["x"]
        assert [event.data for event in resumed.take(2)[1:]] == ["x"]


def test_what_this_process_publishes_before_that_is_heard(broker: SlowToOpen) -> None:
    with Hub(broker) as hub:
        hub.publish("t", "before it subscribed")
        viewer = Viewer(hub.subscribe("t"))
        assert broker.asked.wait(20)
        hub.publish_many([("t", "1"), ("t", "2")])
        assert not broker.opened.is_set()
        broker.opened.set()
        assert viewer.data(2) == ["1", "2"]


def test_a_hub_is_closed_while_its_log_is_not_open_yet(broker: SlowToOpen) -> None:
    hub = Hub(broker)
    viewer = Viewer(hub.subscribe("t"))
    assert broker.asked.wait(20)
    closing = threading.Thread(target=hub.close)
    closing.start()
    broker.opened.set()
    closing.join(20)
    viewer.end()
    assert not closing.is_alive()


class Unavailable(MemoryBroker):
    """A log that cannot be read while `down`."""

    down = False
    refused = 0

    def follow(self, after: Position, limit: int, timeout: float) -> list[Record]:
        if self.down:
            self.refused += 1
            raise BrokerUnavailable("down")
        return super().follow(after, limit, timeout)


def test_streams_that_come_and_go_while_the_log_is_down_are_forgotten() -> None:
    broker = Unavailable()
    with Hub(broker) as hub:
        stays = Viewer(hub.subscribe("t"))
        broker.down = True
        broker.wake()
        gone = [Viewer(hub.subscribe("t", last_event_id="x" if number % 2 else None)) for number in range(20)]
        found = [weakref.ref(viewer.subscription) for viewer in gone]
        while gone:
            gone.pop().close()
        eventually(lambda: not any(reference() for reference in found))
        broker.down = False
        hub.publish("t", "x")
        assert stays.data(1) == ["x"]


class Raising(logging.Handler):
    """A log handler that breaks, as a pipe that nobody reads any more."""

    def emit(self, record: logging.LogRecord) -> None:
        raise SystemExit("no log to be had")


def test_a_log_handler_that_raises_ends_neither_the_thread_nor_an_event() -> None:
    broker, handler = Unavailable(), Raising()
    with Hub(broker) as hub:
        stays, bad = Viewer(hub.subscribe("t")), Viewer(hub.subscribe("t"))
        logging.getLogger("streamkit").addHandler(handler)
        try:
            bad.subscription.wake = lambda: 1 / 0
            hub.publish("t", "1")
            assert stays.data(1) == ["1"]
            broker.down = True
            broker.wake()
            eventually(lambda: broker.refused > 1)
            broker.down = False
            hub.publish("t", "2")
            assert stays.data(2) == ["1", "2"]
        finally:
            logging.getLogger("streamkit").removeHandler(handler)


class Losing(MemoryBroker):
    """A log without what comes before `lost`, which cannot be read when that is seen for the first time."""

    lost = 0
    failed = False

    def follow(self, after: Position, limit: int, timeout: float) -> list[Record]:
        found = super().follow(after, limit, timeout)
        if after < self.lost:
            raise HistoryLost("lost")
        return found

    def floor(self) -> Position:
        return self.lost

    def read(self, after: Position, limit: int) -> list[Record]:
        if not self.failed:
            self.failed = True
            raise BrokerUnavailable("down")
        return super().read(after, limit)


def test_a_loss_is_told_also_where_the_log_goes_away_then() -> None:
    broker = Losing()
    with Hub(broker) as hub:
        viewer = Viewer(hub.subscribe("t"))
        hub.publish("t", "1")
        viewer.take(1)
        broker.lost = 2
        hub.publish_many([("t", "2"), ("t", "3")])
        gap, event = viewer.take(3)[1:]
        assert isinstance(gap, Gap)
        assert (event.data, event.id) == ("3", gap.oldest)


class SlowToLocate(MemoryBroker):
    """A log that says where an id is when it was closed."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.closed = threading.Event(), threading.Event()

    def locate(self, id: str) -> Position | None:
        self.asked.set()
        assert self.closed.wait(20)
        return super().locate(id)

    def close(self) -> None:
        super().close()
        self.closed.set()


def test_a_hub_that_is_closed_in_the_midst_of_a_replay_ends_it() -> None:
    broker = SlowToLocate()
    hub = Hub(broker)
    viewer = Viewer(hub.subscribe("t", last_event_id="x"))
    assert broker.asked.wait(20)
    hub.close()
    viewer.end()
    assert isinstance(viewer.subscription.error, HubClosed)


def test_a_broker_with_a_fault_of_its_own_does_not_keep_streams_from_their_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hub = Hub(MemoryBroker())
    viewer = Viewer(hub.subscribe("t"))
    monkeypatch.setattr(hub.broker, "read", lambda *_: 1 / 0)
    hub.close()
    viewer.end()


def test_a_wake_that_raises_is_no_business_of_others(caplog: pytest.LogCaptureFixture) -> None:
    with Hub() as hub:
        before = Viewer(hub.subscribe("t"))
        failing = hub.subscribe("t")
        calls = []

        def wake() -> None:
            calls.append(1)
            if len(calls) == 1:
                raise OSError("no")

        failing.start(wake)
        choosy = hub.subscribe("t", filter=lambda topic, event: True)
        choosy.start(lambda: 1 / 0)
        after = Viewer(hub.subscribe("t"))
        hub.publish("t", "1")
        assert (before.data(1), after.data(1)) == (["1"], ["1"])
        eventually(lambda: choosy.buffer)
        hub.publish("t", "2")
        assert (before.data(2), after.data(2)) == (["1", "2"], ["1", "2"])
        eventually(lambda: len(calls) == 2 and len(choosy.buffer) == 2)
        assert [event.data for event in failing.buffer] == ["1", "2"]
        assert "waking a stream failed" in caplog.text


def test_no_thread_is_said_where_a_stream_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not in the view, where it would be a 500; what `start` raises becomes a 503."""

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with Hub() as hub:
        monkeypatch.setattr(threading.Thread, "start", refuse)
        subscription = hub.subscribe("t")
        with pytest.raises(TooManyStreams, match="cannot be started"):
            subscription.start(lambda: None)
        assert hub.presence("t").here == 0
        monkeypatch.undo()
        viewer = Viewer(hub.subscribe("t"))
        hub.publish("t", "x")
        assert viewer.data(1) == ["x"]


def test_a_view_of_a_process_that_ends_is_told_so_by_its_response(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub()
    hub.close()
    with pytest.raises(HubClosed):
        hub.subscribe("t")
    monkeypatch.setattr(streams, "closing", True)
    subscription = hub.subscribe("t")
    with pytest.raises(Draining):
        subscription.start(lambda: None)
