"""Runs: producers apart from connections, their viewers, their ends."""

from __future__ import annotations

import contextvars
import json
import threading
from collections.abc import Callable, Iterator

import pytest

from streamkit.errors import HubClosed, TooManyStreams
from streamkit.flow.flush import FLUSH
from streamkit.flow.stream_threads import stream_threads
from streamkit.formats.event_schema import event
from streamkit.formats.event_stream import ServerSentEvent
from streamkit.hub import run as runs
from streamkit.hub import runs as runs_module
from streamkit.hub.gap import Gap
from streamkit.hub.hub import Hub
from tests.conftest import eventually
from tests.hub.conftest import Viewer

Make = Callable[..., Hub]


def shown(viewer: Viewer) -> list[tuple[str | None, str | None]]:
    return [(event.event, event.data) for event in viewer.end()]


def end(event: str, id: str) -> tuple[str, str]:
    return event, json.dumps({"run": id}, separators=(",", ":"))


@pytest.fixture(autouse=True)
def _threads_come_back() -> Iterator[None]:
    yield
    eventually(lambda: stream_threads.working == 0)


class Answer:
    """A producer that waits to be told to go on, and can be cancelled, as one that reads from a socket."""

    def __init__(self, words: str) -> None:
        self.words = words.split()
        self.calls = 0
        self.closed = threading.Event()
        self.step = threading.Semaphore(0)
        self.cancelled = False

    def open(self) -> Answer:
        self.calls += 1
        self._words = iter(self.words)
        return self

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        self.step.acquire()
        if self.cancelled:
            raise StopIteration
        return next(self._words)

    def cancel(self) -> None:
        self.cancelled = True
        self.step.release()

    def close(self) -> None:
        self.closed.set()


def test_viewers_before_during_and_after(hub: Hub) -> None:
    before = Viewer(hub.subscribe("answer/1"))
    go = threading.Event()

    def produce() -> Iterator[object]:
        yield "one"
        yield FLUSH
        yield ServerSentEvent("two", event="word", id="own", retry=1)
        yield ServerSentEvent(comment="nothing to publish")
        go.wait(20)
        yield {"n": 3}

    run = hub.run("answer/1", produce)
    assert not run.attached
    during = Viewer(run.events())
    during.take(2)
    go.set()
    body = [(None, "one"), ("word", "two"), (None, '{"n":3}'), end("complete", run.id)]
    assert shown(during) == body
    assert shown(Viewer(run.events())) == body
    assert [event.event for event in before.take(5)] == ["start", None, "word", None, "complete"]
    resumed = run.events(last_event_id=during.events[1].id)
    assert shown(Viewer(resumed)) == body[2:]
    assert "own" not in [event.id for event in during.events]


def test_who_comes_with_an_id_later_than_the_end_gets_nothing(hub: Hub) -> None:
    run = hub.run("t", lambda: ["x"])
    Viewer(run.events()).end()
    eventually(lambda: hub.attach("t") is None)
    later = hub.publish("t", "of another run")
    hub.publish("t", "and of one more")
    assert Viewer(run.events(last_event_id=later)).end() == []


def test_a_run_that_yields_declared_events(hub: Hub) -> None:
    @event("word")
    class Word:
        text: str

    run = hub.run("t", lambda: [Word("one"), Word(2)])  # type: ignore[arg-type]
    *words, last = Viewer(run.events()).end()
    assert [(word.event, word.data) for word in words] == [("word", '{"text":"one"}')]
    assert (last.event, last.json()["code"]) == ("error", "event_schema_error")


def test_who_comes_back_with_the_last_id_gets_the_end(hub: Hub) -> None:
    run = hub.run("t", lambda: ["x"])
    last = Viewer(run.events()).end()[-1].id
    subscription = run.events()
    subscription.resume_after(last)
    assert Viewer(subscription).end() == []


def test_a_second_run_on_a_live_topic_attaches(hub: Hub) -> None:
    answer = Answer("one two")
    first = hub.run("t", answer.open)
    second = hub.run("t", answer.open)
    assert (first.attached, second.attached) == (False, True)
    assert second.id == first.id
    assert repr(second) == f"<Run {first.id} on 't'>"
    found = hub.attach("t")
    assert found is not None
    assert found.id == first.id
    for _ in range(3):
        answer.step.release()
    assert shown(Viewer(second.events())) == [(None, "one"), (None, "two"), end("complete", first.id)]
    assert answer.calls == 1
    assert answer.closed.wait(20)
    eventually(lambda: hub.attach("t") is None)
    third = hub.run("t", lambda: ["again"])
    assert shown(Viewer(third.events())) == [(None, "again"), end("complete", third.id)]
    over = hub.attach("t", first.id)
    assert over is not None
    assert shown(Viewer(over.events()))[-1] == end("complete", first.id)


def test_a_generator_that_is_not_needed_is_closed(hub: Hub) -> None:
    answer = Answer("x")
    run = hub.run("t", answer.open)
    generator = (word for word in ["never"])
    assert hub.run("t", generator).attached
    assert next(generator, "closed") == "closed"
    run.stop()
    Viewer(run.events()).end()


def test_what_a_run_says_itself_is_never_too_large(make: Make) -> None:
    hub = make(max_event_bytes=20)
    run = hub.run("t", lambda: ["x", "too long for this hub"])
    assert [event.event for event in Viewer(run.events()).end()] == [None, "error"]


def test_stop_cancels_and_closes_the_producer(hub: Hub) -> None:
    answer = Answer("one two three")
    run = hub.run("t", answer.open)
    viewer = Viewer(run.events())
    answer.step.release()
    viewer.take(1)
    assert run.stop()
    assert shown(viewer) == [(None, "one"), end("stopped", run.id)]
    assert answer.closed.wait(20)
    eventually(lambda: not run.stop())


def test_stop_from_another_process_is_seen_by_the_heartbeat(make: Make) -> None:
    """Another hub on the same log has nothing but the lease, as another process."""
    hub = make()
    if hub.local:
        pytest.skip("a log in memory has one process")
    other = make()
    answer = Answer("one")
    run = hub.run("t", answer.open)
    far = other.run("t", lambda: ["not started"])
    assert far.attached
    viewer = Viewer(far.events())
    answer.step.release()
    viewer.take(1)
    assert far.stop()
    assert shown(viewer)[-1] == end("stopped", run.id)
    assert answer.closed.wait(20)


def test_a_failing_producer_is_an_error_event_that_leaks_nothing(
    hub: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    def produce() -> Iterator[str]:
        yield "one"
        raise RuntimeError("password is hunter2")

    run = hub.run("t", produce)
    events = Viewer(run.events()).end()
    assert events[-1].event == "error"
    assert events[-1].json() == {"run": run.id, "message": "The run failed.", "code": "stream_failed"}
    eventually(lambda: "hunter2" in caplog.text, what="the traceback in the log")


@pytest.mark.parametrize("items", [[b"bytes"], [None], [float("nan")], "text", 7, ["x" * 2_000_000]])
def test_items_that_cannot_be_published_fail_the_run(hub: Hub, items: object) -> None:
    run = hub.run("t", lambda: items)
    assert Viewer(run.events()).end()[-1].event == "error"


@pytest.mark.parametrize("producer", ["text", b"bytes", None, 7])
def test_what_is_no_producer(hub: Hub, producer: object) -> None:
    with pytest.raises(TypeError, match=r"producer is .*; give an iterable of events, or a function"):
        hub.run("t", producer)
    assert hub.attach("t") is None


def test_the_producer_runs_in_a_copy_of_the_context(hub: Hub) -> None:
    user: contextvars.ContextVar[str] = contextvars.ContextVar("user")
    user.set("Ada")
    run = hub.run("t", lambda: [user.get()])
    assert Viewer(run.events()).end()[0].data == "Ada"


def test_a_dead_run_is_published_as_failed(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "LEASE_SECONDS", 0.05)
    hub = make()
    dead = runs.new_id()
    holder = runs.new_holder(dead)
    hub.publish("t", {"run": dead}, event="start", id=runs.start_id(dead))
    hub.publish("t", "half an answer")
    hub.broker.claim(runs.lease_name("t"), holder, 0.05)
    run = hub.attach("t")
    assert run is not None
    events = Viewer(run.events()).end()
    assert events[0].data == "half an answer"
    assert events[-1].json() == {
        "run": dead,
        "message": "The process that ran it is gone.",
        "code": "run_lost",
    }
    assert hub.attach("t") is None


def test_a_new_run_buries_a_dead_one(make: Make) -> None:
    hub = make()
    hub.broker.claim(runs.lease_name("t"), runs.new_holder("dead"), 0.001)
    eventually(lambda: hub.broker.expired())
    run = hub.run("t", lambda: ["alive"])
    assert not run.attached
    assert shown(Viewer(run.events()))[-1] == end("complete", run.id)


def test_a_run_is_over_when_its_end_is_held_and_its_start_is_not(make: Make) -> None:
    hub = make(retain=10)
    answer = Answer("one two")
    viewer = Viewer(hub.run("t", answer.open, id="job").events())
    answer.step.release()
    viewer.take(1)
    for number in range(50):
        hub.publish_many([("other", str(number))] * 50)
    assert hub.broker.locate(runs.start_id("job")) is None
    answer.step.release()
    answer.step.release()
    eventually(lambda: hub.attach("t") is None)
    again = hub.run("t", answer.open, id="job")
    assert again.attached
    gap, *events = Viewer(again.events()).end()
    assert isinstance(gap, Gap)
    assert [(event.event, event.data) for event in events] == [(None, "two"), end("complete", "job")]
    assert answer.calls == 1
    assert hub.attach("t") is None


@pytest.mark.parametrize("behind", [False, True])
def test_a_viewer_that_missed_the_end_of_its_run_ends(make: Make, behind: bool) -> None:
    """It was trimmed before this process could read it; `behind`: the viewer itself stands still then, too."""
    hub = make(retain=100)
    answer = Answer("one")
    run = hub.run("t", answer.open)
    viewer = Viewer(run.events())
    answer.step.release()
    viewer.take(1)
    held, go = threading.Event(), threading.Event()

    def block(topic: str, event: object) -> bool:
        held.set()
        return go.wait(20)

    blocker = Viewer(hub.subscribe("block", filter=block))
    hub.publish("block", "x")
    assert held.wait(20)
    answer.step.release()
    eventually(lambda: hub.attach("t") is None)
    for _ in range(50):
        hub.publish_many([("other", "x")] * 50)
    if behind:
        hub.publish_many([("t", "x" * 100_000)] * 5)
    go.set()
    eventually(lambda: viewer.subscription.place == ("waiting" if behind else "gone"))
    events = viewer.end()[1:]
    assert isinstance(events[0], Gap)
    assert not any(event.event == "complete" for event in events)
    assert viewer.subscription.error is None
    blocker.close()


def test_a_run_whose_process_died_before_its_start_is_over(make: Make) -> None:
    hub = make()
    hub.broker.claim(runs.lease_name("t"), runs.new_holder("job"), 0.001)
    eventually(lambda: hub.broker.expired())
    answer = Answer("one")
    run = hub.run("t", answer.open, id="job")
    assert run.attached
    assert Viewer(run.events()).end()[-1].json()["code"] == "run_lost"
    assert answer.calls == 0


def test_a_run_whose_lease_is_lost_is_stopped(hub: Hub) -> None:
    answer = Answer("one")
    run = hub.run("t", answer.open)
    name = runs.lease_name("t")
    viewer = Viewer(run.events())
    answer.step.release()
    viewer.take(1)
    hub.broker.release(name, hub.broker.holder(name) or "")
    assert answer.closed.wait(20)
    assert viewer.end()[-1].event == "error"


def test_a_viewer_of_a_run_that_history_has_forgotten_does_not_wait_for_ever(make: Make) -> None:
    hub = make(retain=10)
    run = hub.run("t", lambda: ["x"])
    Viewer(run.events()).end()
    eventually(lambda: hub.attach("t") is None)
    for number in range(50):
        hub.publish_many([("other", str(number))] * 50)
    events = Viewer(run.events()).end()
    assert [type(event) for event in events] == [Gap]


def test_a_viewer_that_comes_between_the_lease_and_the_first_event(make: Make) -> None:
    """Another caller of `run` has the handle before the one that starts it has published its start."""
    hub = make()
    hub.publish("t", "of another run")
    hub.broker.claim(runs.lease_name("t"), runs.new_holder("young"), runs.LEASE_SECONDS)
    attached = hub.run("t", lambda: ["never"])
    assert (attached.id, attached.attached) == ("young", True)
    viewer = Viewer(attached.events())
    late = Viewer(hub.subscribe("t", last_event_id="unknown"))
    late.take(2)  # so the viewer, who was before it, has looked
    hub.publish("t", {}, event="start", id=runs.start_id("young"))
    hub.publish("t", "one")
    assert viewer.data(1) == ["one"]


def test_no_thread_is_no_run(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(task: object) -> None:
        raise TooManyStreams("as many as one process may have")

    monkeypatch.setattr(stream_threads, "run", full)
    answer = Answer("x")
    with pytest.raises(TooManyStreams):
        hub.run("t", answer.open)
    assert hub.attach("t") is None
    assert answer.calls == 0


def test_close_stops_what_runs_here(make: Make) -> None:
    hub = make()
    answer = Answer("x")
    run = hub.run("t", answer.open)
    viewer = Viewer(run.events())
    answer.step.release()
    viewer.take(1)
    hub.close()
    assert answer.closed.is_set()
    assert viewer.end()[-1].event == "stopped"


def test_a_run_with_an_id_of_its_own_happens_once(hub: Hub) -> None:
    calls = []

    def produce() -> Iterator[str]:
        calls.append(1)
        yield "paid for"

    answers = [hub.run("answer/7", produce, id="answer-7") for _ in range(5)]
    expected = [(None, "paid for"), end("complete", "answer-7")]
    assert [shown(Viewer(answer.events())) for answer in answers] == [expected] * 5
    eventually(lambda: hub.attach("answer/7") is None)
    late = hub.run("answer/7", produce, id="answer-7")
    assert late.attached
    assert shown(Viewer(late.events())) == expected
    assert hub.attach("answer/7") is None
    assert len(calls) == 1
    for bad in ("", "a\nb", "x" * 101):
        with pytest.raises(ValueError, match="1 to 100"):
            hub.run("t", produce, id=bad)


def test_runs_may_finish_when_the_hub_is_closed(make: Make) -> None:
    hub = make(finish_runs=20.0)
    answer = Answer("one two")
    run = hub.run("t", answer.open)
    viewer = Viewer(run.events())
    answer.step.release()
    viewer.take(1)
    closing = threading.Thread(target=hub.close)
    closing.start()
    answer.step.release()
    answer.step.release()
    closing.join(20)
    assert viewer.end()[-1].event == "complete"


def test_who_interrupts_the_wait_for_runs_closes_the_hub_all_the_same(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = make(finish_runs=20.0)
    answer = Answer("one")
    viewer = Viewer(hub.run("t", answer.open).events())

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runs_module, "_wait_for", interrupt)
    with pytest.raises(KeyboardInterrupt):
        hub.close()
    viewer.end()
    with pytest.raises(HubClosed):
        hub.publish("t", "x")
    assert answer.closed.wait(20)
