"""Totals: every stream that ends is counted once, under its kind and outcome, and a fork starts at none."""

from __future__ import annotations

import os
import threading
from contextvars import copy_context

import pytest

from streamkit import StreamingResponse
from streamkit.flow.stream import Outcome, Stream
from streamkit.flow.streams import Streams, streams
from streamkit.flow.totals import DURATION_BUCKETS, FIRST_BYTE_BUCKETS, Total, Totals
from tests.conftest import eventually


def registered(registry: Streams, kind: str = "events") -> Stream:
    stream = Stream(kind, {"PATH_INFO": "/"}, copy_context())
    with registry._lock:
        registry._live[stream.id] = stream
    return stream


def ended(registry: Streams, stream: Stream, outcome: Outcome) -> None:
    stream.end(outcome)
    registry._remove(stream)


def total(kind: str, outcome: str, totals: list[Total] | None = None) -> Total | None:
    found = [
        t for t in (streams.totals() if totals is None else totals) if (t.kind, t.outcome) == (kind, outcome)
    ]
    assert len(found) < 2
    return found[0] if found else None


def test_what_ended_adds_up_by_kind_and_outcome() -> None:
    registry = Streams()
    for kind, outcome, sizes in [
        ("events", "client_gone", [10, 20]),
        ("events", "client_gone", [5]),
        ("events", "failed", []),
        ("csv", "completed", [100]),
    ]:
        stream = registered(registry, kind)
        for size in sizes:
            stream.sent(size)
            stream.produced += 2
        ended(registry, stream, outcome)  # type: ignore[arg-type]
    totals = registry.totals()
    assert [(t.kind, t.outcome, t.streams, t.events, t.chunks, t.bytes, t.first_bytes) for t in totals] == [
        ("csv", "completed", 1, 2, 1, 100, 1),
        ("events", "client_gone", 2, 6, 3, 35, 2),
        ("events", "failed", 1, 0, 0, 0, 0),
    ]
    assert all(t.seconds >= t.first_byte_seconds >= 0 for t in totals)


def test_times_fall_into_buckets_whose_bounds_belong_to_them() -> None:
    totals = Totals()
    stream = Stream("events", {}, copy_context())
    for delay in (0.0, FIRST_BYTE_BUCKETS[0], FIRST_BYTE_BUCKETS[-1], 1000.0):
        stream.first_byte_delay = delay
        totals.add(stream)
    (only,) = totals.now()
    assert only.first_byte_delays == (2, *[0] * (len(FIRST_BYTE_BUCKETS) - 2), 1, 1)
    assert only.durations == (4, *[0] * len(DURATION_BUCKETS))
    assert only.first_byte_seconds == pytest.approx(1000 + 10 + 0.005)


def test_a_stream_is_among_the_living_or_in_the_totals() -> None:
    registry = Streams()
    stream = registered(registry)
    live, totals = registry.snapshot()
    assert live == [stream]
    assert totals == []
    ended(registry, stream, "completed")
    live, totals = registry.snapshot()
    assert live == []
    assert totals[0].streams == 1


def test_a_stream_that_was_never_opened_is_not_counted() -> None:
    registry = Streams()
    ended(registry, Stream("events", {}, copy_context()), "drained")
    assert registry.totals() == []


def test_a_total_is_a_copy_and_its_json_has_no_buckets() -> None:
    registry = Streams()
    ended(registry, registered(registry), "completed")
    (before,) = registry.totals()
    ended(registry, registered(registry), "completed")
    assert before.streams == 1
    with pytest.raises(AttributeError):
        before.streams = 2  # type: ignore[misc]
    assert set(before.as_dict()) == set(Total._fields) - {"durations", "first_byte_delays"}


def test_streams_that_end_on_many_threads_are_all_counted() -> None:
    registry = Streams()
    barrier = threading.Barrier(4)

    def end_some() -> None:
        barrier.wait()
        for _ in range(200):
            stream = registered(registry)
            stream.sent(1)
            ended(registry, stream, "completed")

    threads = [threading.Thread(target=end_some) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (only,) = registry.totals()
    assert (only.streams, only.bytes, only.first_bytes) == (800, 800, 800)


def test_a_response_is_counted_when_it_is_closed(nothing_left: None) -> None:
    def chunks() -> object:
        yield b"one"
        yield b"two"

    before = total("stream", "client_gone")
    environ = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": "/",
        "wsgi.url_scheme": "http",
        "SERVER_NAME": "localhost",
    }
    environ |= {"SERVER_PORT": "80", "SERVER_PROTOCOL": "HTTP/1.1"}
    body = StreamingResponse(chunks, delivery="threaded")(environ, lambda *_: None)
    assert next(iter(body)) == b"one"
    assert total("stream", "client_gone") == before
    body.close()  # type: ignore[attr-defined]
    eventually(lambda: total("stream", "client_gone") != before)
    after = total("stream", "client_gone")
    assert after is not None
    assert after.streams - (before.streams if before else 0) == 1
    assert after.bytes - (before.bytes if before else 0) >= 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_fork_starts_at_none() -> None:
    registry = Streams()
    ended(registry, registered(registry), "completed")
    of_the_parent = registered(registry)
    child = os.fork()
    if not child:
        try:
            empty = registry.snapshot() == ([], [])
            registry._remove(of_the_parent)
            os._exit(0 if empty and registry.totals() == [] else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(registry.totals()) == 1
