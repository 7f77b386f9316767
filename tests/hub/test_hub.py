"""Publish, subscribe, resume: what every broker's hub promises its users."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from streamkit.errors import DuplicateEvent, HubClosed
from streamkit.formats.event_schema import EventSchemaError, event
from streamkit.formats.event_stream import ServerSentEvent
from streamkit.formats.last_event_id import UNKNOWN_CURSOR
from streamkit.hub.broker import Entry
from streamkit.hub.gap import Gap
from streamkit.hub.hub import Hub
from streamkit.hub.memory import MemoryBroker
from tests.conftest import eventually
from tests.hub.conftest import Viewer, hears
from tests.interrupts import interrupted_at

Make = Callable[..., Hub]


def test_what_is_published_arrives_with_its_id(hub: Hub) -> None:
    viewer = Viewer(hub.subscribe("news"))
    first = hub.publish("news", {"n": 1})
    second = hub.publish("news", "text\nof two lines", event="note", id="my-1")
    third = hub.publish("news", "")
    assert second == "my-1"
    assert viewer.take(3) == [
        ServerSentEvent('{"n":1}', id=first),
        ServerSentEvent("text\nof two lines", event="note", id="my-1"),
        ServerSentEvent("", id=third),
    ]


def test_all_subscribers_share_one_object(hub: Hub) -> None:
    viewers = [Viewer(hub.subscribe("news")) for _ in range(3)]
    hub.publish("news", "x")
    assert len({id(viewer.take(1)[0]) for viewer in viewers}) == 1


def test_topics_and_patterns_in_one_order(hub: Hub) -> None:
    viewer = Viewer(hub.subscribe("a", "user/*", "b?", "user/1", "[xy]"))
    topics = ["a", "user/1", "A", "b1", "b12", "user/2/x", "c", "x", "xy", "z", "a"]
    ids = hub.publish_many([(topic, topic) for topic in topics])
    wanted = [0, 1, 3, 5, 7, 10]
    assert [(event.data, event.id) for event in viewer.take(6)] == [(topics[n], ids[n]) for n in wanted]
    again = Viewer(hub.subscribe("a", "user/*", "b?", "user/1", "[xy]", last_event_id=ids[1]))
    assert [event.id for event in again.take(4)] == [ids[n] for n in wanted[2:]]


def test_a_star_hears_everything(hub: Hub) -> None:
    viewer = Viewer(hub.subscribe("*"))
    hub.publish("a/b", "1")
    hub.publish("\u00e9", "2")
    assert viewer.data(2) == ["1", "2"]


def test_it_resumes_after_the_id_of_the_request(hub: Hub) -> None:
    ids = hub.publish_many([("t", str(number)) for number in range(5)])
    subscription = hub.subscribe("t")
    subscription.resume_after(ids[2])
    viewer = Viewer(subscription)
    assert viewer.data(2) == ["3", "4"]
    hub.publish("t", "5")
    assert viewer.data(3) == ["3", "4", "5"]


def test_an_explicit_id_wins_over_the_request(hub: Hub) -> None:
    ids = hub.publish_many([("t", str(number)) for number in range(5)])
    subscription = hub.subscribe("t", last_event_id=ids[3])
    subscription.resume_after(ids[0])
    assert Viewer(subscription).data(1) == ["4"]


def test_one_id_for_several_topics(hub: Hub) -> None:
    ids = hub.publish_many([("ab"[number % 2], str(number)) for number in range(6)])
    assert Viewer(hub.subscribe("a", last_event_id=ids[1])).data(2) == ["2", "4"]


def test_own_ids_resume_too(hub: Hub) -> None:
    hub.publish("t", "1", id="one:1")
    hub.publish("t", "2", id="\u00e9")
    hub.publish("t", "3")
    assert Viewer(hub.subscribe("t", last_event_id="one:1")).data(2) == ["2", "3"]
    assert Viewer(hub.subscribe("t", last_event_id="\u00e9")).data(1) == ["3"]


def test_a_duplicate_id_publishes_nothing(hub: Hub) -> None:
    viewer = Viewer(hub.subscribe("t"))
    hub.publish("t", "1", id="one")
    with pytest.raises(DuplicateEvent, match="'one' was published already"):
        hub.publish("u", "2", id="one")
    with pytest.raises(DuplicateEvent, match="'two'"):
        hub.publish_many([("t", "3"), ("t", "4", None, "two"), ("t", "5", None, "two")])
    with pytest.raises(DuplicateEvent, match="'one'"):
        hub.publish_many([("t", "3"), ("t", "4", None, "two"), ("t", "5", None, "one")])
    hub.publish("t", "6")
    assert viewer.data(2) == ["1", "6"]


@pytest.mark.parametrize(
    "cursor", ["garbage", UNKNOWN_CURSOR, "x" * 10_000, "0", "-1", "a-b-c", "'; --", "\ud800", "99999999-1"]
)
def test_an_unknown_cursor_is_a_gap_and_then_what_is_held(hub: Hub, cursor: str) -> None:
    ids = hub.publish_many([("t", "1"), ("u", "2"), ("t", "3")])
    events = Viewer(hub.subscribe("t", last_event_id=cursor)).take(3)
    gap = events[0]
    assert isinstance(gap, Gap)
    assert gap.event == "gap"
    assert gap.id is None, "an id would overwrite the client's cursor"
    assert json.loads(gap.data or "") == {"asked": cursor, "oldest": ids[0]}
    assert [event.data for event in events[1:]] == ["1", "3"]


def test_a_cursor_from_the_future_or_another_log_is_a_gap(hub: Hub) -> None:
    (id,) = hub.publish_many([("t", "1")])
    epoch, number, *rest = id.split("-")
    with Hub("memory://") as other:
        foreign = other.publish("t", "x")
    later = ["-".join((epoch, digits, *rest)) for digits in (str(int(number) + 1), "9" * 18)]
    for cursor in (*later, foreign):
        gap, event = Viewer(hub.subscribe("t", last_event_id=cursor)).take(2)
        assert isinstance(gap, Gap)
        assert gap.asked == cursor
        assert event.data == "1"


def test_a_gap_where_nothing_is_held(hub: Hub) -> None:
    viewer = Viewer(hub.subscribe("t", last_event_id="gone"))
    (gap,) = viewer.take(1)
    assert isinstance(gap, Gap)
    assert gap.oldest is None
    hub.publish("t", "live")
    assert viewer.take(2)[1].data == "live"


def test_a_gap_where_history_was_trimmed(make: Make) -> None:
    hub = make(retain=100)
    first = hub.publish("t", "0")
    for number in range(20):
        hub.publish_many([("t", f"{number}-{part}") for part in range(50)])
    viewer = Viewer(hub.subscribe("t", last_event_id=first))
    events = viewer.until(lambda: viewer.events and viewer.events[-1].data == "19-49")
    gap = events[0]
    assert isinstance(gap, Gap)
    assert gap.oldest == events[1].id
    held = [event.data for event in events[1:]]
    assert len(held) >= 100
    assert held == [f"{n}-{part}" for n in range(20) for part in range(50)][-len(held) :]


def test_a_cursor_at_the_end_is_no_gap(hub: Hub) -> None:
    last = hub.publish_many([("t", "1"), ("t", "2")])[-1]
    viewer = Viewer(hub.subscribe("t", last_event_id=last))
    hub.publish("t", "3")
    assert viewer.data(1) == ["3"]


@pytest.mark.parametrize(
    "topic", ["", "a\nb", "a\rb", "a\0b", "x" * 10_000, "\u2028", "\ud800", "\u00e9" * 600]
)
def test_bad_topics(hub: Hub, topic: str) -> None:
    with pytest.raises(ValueError, match="topic"):
        hub.publish(topic, "x")
    with pytest.raises(ValueError, match="topic"):
        hub.subscribe(topic)


def test_bad_topics_and_patterns(hub: Hub) -> None:
    for topic in ("a*", "a?", "a[b]"):
        with pytest.raises(ValueError, match="patterns of subscribers"):
            hub.publish(topic, "x")
    with pytest.raises(TypeError, match="must be str, not int"):
        hub.publish(7, "x")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least one topic"):
        hub.subscribe()
    hub.publish("x" * 1024, "longest")


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"data": None}, TypeError, "cannot be None"),
        ({"data": b"x"}, TypeError, "bytes"),
        ({"data": float("nan")}, ValueError, "NaN"),
        ({"data": "\ud800"}, ValueError, "surrogate"),
        ({"data": "x", "event": "a\nb"}, ValueError, "line break"),
        ({"data": "x", "id": ""}, ValueError, "1 to 128"),
        ({"data": "x", "id": "a\nb"}, ValueError, "printable"),
        ({"data": "x", "id": " a"}, ValueError, "white space"),
        ({"data": "x", "id": "x" * 129}, ValueError, "1 to 128"),
        ({"data": "x", "id": 10**128}, ValueError, "1 to 128"),
        ({"data": "x", "id": 7.5}, TypeError, "float"),
        ({"data": "x" * 1000}, ValueError, "at most 1000"),
    ],
)
def test_what_cannot_be_published(
    make: Make, arguments: dict[str, Any], error: type[Exception], words: str
) -> None:
    hub = make(max_event_bytes=1000)
    with pytest.raises(error, match=words):
        hub.publish("t", **arguments)
    assert hub.broker.head() == 0


@event("price")
class Price:
    symbol: str
    value: float


def test_events_that_know_their_name(hub: Hub) -> None:
    viewer = Viewer(hub.subscribe("t"))
    hub.publish("t", Price("A", 1.5))
    hub.publish_many([("t", Price("B", 2.0)), ("t", Price("C", 3.0), "other")])
    assert hub.publish("t", ServerSentEvent("text", event="word", id="7", retry=5, comment="gone")) == "7"
    assert hub.publish("t", ServerSentEvent("text", event="word", id="7"), event="given", id=8) == "8"
    hub.publish("t", ServerSentEvent("received", event="message", id=""))
    assert [(event.event, event.data) for event in viewer.take(6)] == [
        ("price", '{"symbol":"A","value":1.5}'),
        ("price", '{"symbol":"B","value":2.0}'),
        ("other", '{"symbol":"C","value":3.0}'),
        ("word", "text"),
        ("given", "text"),
        ("message", "received"),
    ]
    assert [event.id for event in viewer.events[3:5]] == ["7", "8"]
    with pytest.raises(EventSchemaError, match="value must be float"):
        hub.publish("t", Price("A", "12.5"))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="None"):
        hub.publish("t", ServerSentEvent(comment="no data"))
    with pytest.raises(TypeError, match="id must be"):
        hub.publish("t", "x", id=True)


def test_bad_batches(hub: Hub) -> None:
    for bad in ("ab", ("t",), ("t", "x", None, None, None), ["t", "x"]):
        with pytest.raises(TypeError, match="an event to publish is"):
            hub.publish_many([("t", "fine"), bad])  # type: ignore[list-item]
    assert hub.publish_many([]) == []
    assert hub.broker.head() == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"retain": 0}, "retain"),
        ({"retain": True}, "retain"),
        ({"retain": 10**30}, "retain"),
        ({"retain_seconds": 0}, "retain_seconds"),
        ({"retain_seconds": float("inf")}, "retain_seconds"),
        ({"finish_runs": -1}, "finish_runs"),
        ({"finish_runs": float("inf")}, "finish_runs"),
        ({"max_event_bytes": 0}, "max_event_bytes"),
    ],
)
def test_bad_options(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Hub("memory://", **options)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "mem",
        "memory://x",
        "http://x",
        "sqlite://x.db",
        "sqlite:///",
        "sqlite:///x?y=1",
        "sqlite:///:memory:",
    ],
)
def test_bad_urls(url: str) -> None:
    with pytest.raises(ValueError, match="write"):
        Hub(url)


@pytest.mark.parametrize("url", [None, Path("/tmp/events.db"), b"memory://"])
def test_what_is_no_url(url: Any) -> None:
    with pytest.raises(TypeError, match=r'url is .*; give "memory://".*environment variable unset'):
        Hub(url)


def test_what_is_shown(make: Make) -> None:
    hub = make()
    assert repr(hub) == f"<Hub on {hub.broker.url}, open>"
    viewer = Viewer(hub.subscribe("t", "u*"))
    hub.publish("t", "x")
    viewer.take(1)
    assert repr(viewer.subscription) == "<Subscription to 't', 'u*', live>"
    hub.close()
    assert repr(hub) == f"<Hub on {hub.broker.url}, closed>"


def test_a_list_of_topics_is_to_be_unpacked(hub: Hub) -> None:
    with pytest.raises(TypeError, match=r"not list; unpack it: subscribe\(\*topics\)"):
        hub.subscribe(["a", "b"])  # type: ignore[arg-type]


def test_a_broker_of_ones_own() -> None:
    with Hub(MemoryBroker(retain=5)) as hub:
        viewer = Viewer(hub.subscribe("t"))
        hub.publish("t", "x")
        assert viewer.data(1) == ["x"]


def test_a_filter_decides_about_live_and_replayed_events(hub: Hub) -> None:
    def even(topic: str, event: ServerSentEvent) -> bool:
        assert topic == "t"
        return int(event.data or "") % 2 == 0

    ids = hub.publish_many([("t", str(number)) for number in range(6)])
    viewer = Viewer(hub.subscribe("t", last_event_id=ids[0], filter=even))
    assert viewer.data(2) == ["2", "4"]
    hub.publish_many([("t", str(number)) for number in range(6, 10)])
    assert viewer.data(4) == ["2", "4", "6", "8"]


@pytest.mark.parametrize("error", [LookupError("no such right"), SystemExit(1)])
def test_a_filter_that_raises_ends_its_own_subscription_alone(hub: Hub, error: BaseException) -> None:
    def picky(topic: str, event: ServerSentEvent) -> bool:
        if event.data == "2":
            raise error
        return True

    broken, fine = Viewer(hub.subscribe("t", filter=picky)), Viewer(hub.subscribe("t"))
    hub.publish_many([("t", "1"), ("t", "2"), ("t", "3")])
    assert [event.data for event in broken.end()] == ["1"]
    assert broken.subscription.error is error
    assert fine.data(3) == ["1", "2", "3"]
    with pytest.raises(TypeError, match="filter must be a function"):
        hub.subscribe("t", filter="x")  # type: ignore[arg-type]


def test_ten_thousand_topics(hub: Hub) -> None:
    viewers = [Viewer(hub.subscribe(f"user/{number}")) for number in range(10_000)]
    everything = Viewer(hub.subscribe("user/*"))
    for first in range(0, 10_000, 500):
        hub.publish_many([(f"user/{number}", str(number)) for number in range(first, first + 500)])
        everything.until(lambda first=first: len(everything.events) == first + 500)  # type: ignore[misc]
    for number, viewer in enumerate(viewers):
        assert viewer.data(1) == [str(number)]
    for viewer in viewers:
        viewer.close()


def test_presence(hub: Hub) -> None:
    assert hub.presence("t") == (0, 0)
    viewers = [Viewer(hub.subscribe("t")), Viewer(hub.subscribe("t", "u*")), Viewer(hub.subscribe("u*"))]
    hub.subscribe("t")  # never started
    assert hub.presence("t") == (2, 2)
    assert hub.presence("u*") == (2, 2)
    viewers[0].close()
    viewers[0].close()
    assert hub.presence("t") == (1, 1)
    cancelled = hub.subscribe("t")
    cancelled.cancel()
    cancelled.start(lambda: None)
    cancelled.close()
    assert hub.presence("t").here == 1


def test_close_ends_subscriptions_and_publishing(make: Make) -> None:
    hub = make()
    viewers = [Viewer(hub.subscribe("t")), Viewer(hub.subscribe("t", last_event_id="x"))]
    eventually(lambda: viewers[1].subscription.buffer)
    hub.publish("t", "last")
    viewers[0].take(1)
    lazy = hub.subscribe("t")
    hub.close()
    hub.close()
    for viewer in viewers:
        viewer.end()
        assert isinstance(viewer.subscription.error, HubClosed)
    for call in (lambda: hub.publish("t", "x"), lambda: hub.subscribe("t"), lambda: lazy.start(lambda: None)):
        with pytest.raises(HubClosed):
            call()
    with pytest.raises(HubClosed):
        hub.run("t", list)
    lazy.close()


def test_iterating_waits_on_this_thread(hub: Hub) -> None:
    ids = hub.publish_many([("t", "1"), ("t", "2")])
    subscription = hub.subscribe("t", last_event_id=ids[0])
    timer = threading.Timer(0.05, lambda: hub.publish("t", "3"))
    timer.start()
    events = iter(subscription)
    assert [next(events).data for _ in range(2)] == ["2", "3"]  # type: ignore[attr-defined]
    events.close()  # type: ignore[attr-defined]
    timer.join()
    assert hub.presence("t").here == 0


def test_cancel_ends_a_waiting_subscription(hub: Hub) -> None:
    viewer = Viewer(hub.subscribe("t"))
    viewer.subscription.cancel()
    viewer.end()
    assert viewer.subscription.error is None
    viewer.close()
    hub.publish("t", "nobody is told")
    with pytest.raises(RuntimeError, match="started already"):
        viewer.subscription.start(lambda: None)


def test_a_clock_that_jumps_back_changes_no_order(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    hub = make(retain_seconds=3600.0)
    ids = [hub.publish("t", "1")]
    monkeypatch.setattr(time, "time", lambda: 1000.0)
    ids += [hub.publish("t", "2"), hub.publish("t", "3")]
    monkeypatch.undo()
    ids.append(hub.publish("t", "4"))
    assert Viewer(hub.subscribe("t", last_event_id=ids[0])).data(3) == ["2", "3", "4"]


def test_events_older_than_retain_seconds_go(make: Make) -> None:
    hub = make(retain_seconds=0.05)
    first = hub.publish("t", "old")
    waited = threading.Event()
    waited.wait(0.1)
    hub.publish_many([("t", "1"), ("t", "2")])
    viewer = Viewer(hub.subscribe("t", last_event_id="unknown"))
    assert viewer.data(3)[1:] == ["1", "2"]
    assert first


def test_a_topic_that_is_left_is_forgotten(hub: Hub) -> None:
    viewers = [Viewer(hub.subscribe(f"t{number}", f"p{number}*")) for number in range(50)]
    last = Viewer(hub.subscribe("t0"))
    for viewer in viewers:
        viewer.close()
    hub.publish("t0", "x")
    assert last.data(1) == ["x"]
    audience = hub._reader._audience
    assert set(audience._exact) == {"t0"}
    assert not audience._patterns


def test_unexpected_records_are_left_out(hub: Hub, caplog: pytest.LogCaptureFixture) -> None:
    from streamkit.hub.broker import Entry

    viewer = Viewer(hub.subscribe("t"))
    hears(hub)
    with caplog.at_level(logging.WARNING, "streamkit"):
        hub.broker.append([Entry("t", "x", "two\nlines", None), Entry("t", "fine", None, None)])
        assert viewer.data(1) == ["fine"]
    assert "cannot be sent and is left out" in caplog.text


def test_a_signal_handler_that_raises_anywhere_leaves_the_log_in_memory_open() -> None:
    """As a Ctrl-C may, between any two calls; every publisher after it would wait for ever."""

    interrupted = 0
    for number in range(1, 100):
        broker = MemoryBroker()

        def use(broker: MemoryBroker = broker) -> None:
            broker.append([Entry("t", "x", None, None)])
            broker.follow(0, 10, 0)
            broker.head()

        interrupted += interrupted_at(number, use)
        assert not broker._lock._is_owned(), f"taken for ever, by an interrupt of call {number}"  # type: ignore[attr-defined]
    assert interrupted > 20
