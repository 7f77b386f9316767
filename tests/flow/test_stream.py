"""The record of a stream, and the one place where it ends."""

from __future__ import annotations

import logging
import threading
from contextvars import copy_context
from typing import Any

import pytest

from streamkit.flow.stream import Stream
from streamkit.flow.streams import Streams, drain, streams
from tests.interrupts import Interrupted, interrupted_at

ENVIRON = {
    "SCRIPT_NAME": "/app",
    "PATH_INFO": "/feed\r\nX: y",
    "REMOTE_ADDR": "192.0.2.1",
    "REMOTE_PORT": "4711",
}


def make() -> Stream:
    return Stream("events", ENVIRON, copy_context())


def test_the_first_reason_to_end_is_the_reason() -> None:
    stream = make()
    assert stream.end("expired")
    assert not stream.end("client_gone")
    assert stream.outcome == "expired"
    assert stream.cancelled.is_set()


def test_a_complete_stream_is_not_cancelled() -> None:
    stream = make()
    stream.end("completed")
    assert not stream.cancelled.is_set()


def test_callbacks_wait_for_every_party_and_run_once() -> None:
    stream, calls = make(), []
    stream.call_on_close(lambda: calls.append("closed"))
    stream.join_in()
    stream.leave()
    assert calls == []
    stream.leave()
    assert calls == ["closed"]
    assert stream.state == "ended"


def test_all_callbacks_run_then_the_first_error_is_raised(caplog: pytest.LogCaptureFixture) -> None:
    stream, calls = make(), []

    def fail(name: str) -> None:
        calls.append(name)
        raise RuntimeError(name)

    stream.call_on_close(lambda: fail("one"))
    stream.call_on_close(lambda: calls.append("two"))
    stream.call_on_close(lambda: fail("three"))
    with pytest.raises(RuntimeError, match="one"):
        stream.leave()
    assert calls == ["one", "two", "three"]
    assert "a further callback failed" in caplog.text


def test_a_callback_that_comes_too_late_runs_at_once() -> None:
    stream, calls = make(), []
    stream.leave()
    stream.call_on_close(lambda: calls.append(1))
    stream.call_on_cancel(lambda: calls.append(2))
    assert calls == [1, 2]


def test_a_cancel_that_fails_does_not_keep_the_others_from_running(caplog: pytest.LogCaptureFixture) -> None:
    stream, calls = make(), []
    stream.call_on_cancel(lambda: 1 / 0)
    stream.call_on_cancel(lambda: calls.append(1))
    stream.end("client_gone")
    assert calls == [1]
    assert "cancelling its source failed" in caplog.text


def test_ending_from_many_threads_ends_once() -> None:
    stream, winners = make(), []
    barrier = threading.Barrier(8)

    def end() -> None:
        barrier.wait()
        if stream.end("drained"):
            winners.append(1)

    threads = [threading.Thread(target=end) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert winners == [1]


def test_two_log_lines_with_nothing_unescaped(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "streamkit")
    stream = make()
    streams._add(stream)
    assert stream in streams
    assert [live.id for live in streams] == [stream.id]
    stream.sent(10)
    stream.end("completed")
    stream.leave()
    assert stream not in streams
    first, last = (record.getMessage() for record in caplog.records)
    assert first == f"stream {stream.id} opened: events '/app/feed\\r\\nX: y' from 192.0.2.1:4711"
    assert last.startswith(
        f"stream {stream.id} completed: events '/app/feed\\r\\nX: y', 0 events, 1 chunks, 10 bytes"
    )


def test_a_failure_is_logged_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    stream = make()
    stream.end("failed", ValueError("why"))
    stream.leave()
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None
    assert record.exc_info[1] is stream.error


def test_the_record_is_json() -> None:
    stream = make()
    stream.sent(5)
    record = stream.as_dict()
    assert record["bytes"] == 5
    assert record["chunks"] == 1
    assert record["peer"] == "192.0.2.1:4711"
    assert record["state"] == "streaming"
    assert record["first_byte_delay"] is not None


@pytest.mark.parametrize(
    ("seconds", "error"),
    [("1", TypeError), (None, TypeError), (True, TypeError), (-1, ValueError), (float("nan"), ValueError)],
)
def test_what_is_no_time_drains_nothing(seconds: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="seconds is"):
        drain(seconds)
    assert not streams.closing


def test_the_registry_says_how_many_live() -> None:
    stream = make()
    streams._add(stream)
    assert repr(streams) == "<Streams 1 live>"
    stream.leave()
    assert repr(streams) == "<Streams 0 live>"


def test_a_signal_handler_that_raises_anywhere_leaves_the_registry_open() -> None:
    """As a Ctrl-C may, between any two calls; whoever drains at exit would wait for ever."""

    registry = Streams()

    def use() -> None:
        stream = make()
        registry._live[stream.id] = stream
        registry.totals()
        registry.snapshot()
        list(registry)
        stream.end("completed")
        registry._remove(stream)

    interrupted = 0
    for number in range(1, 300):
        interrupted += interrupted_at(number, use)
        assert not registry._changed._is_owned(), f"taken for ever, by an interrupt of call {number}"  # type: ignore[attr-defined]
    assert interrupted > 20


def test_what_fails_between_two_callbacks_does_not_keep_the_stream_in_the_registry(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(*arguments: object) -> None:
        raise Interrupted

    stream = make()
    streams._add(stream)
    stream.call_on_close(lambda: 1 / 0)
    stream.call_on_close(lambda: 1 / 0)
    monkeypatch.setattr("streamkit.flow.stream.log_failure", interrupted)
    with pytest.raises(Interrupted):
        stream.leave()
    assert stream not in streams


def test_a_release_that_is_interrupted_does_not_keep_the_callbacks_from_running() -> None:
    def interrupted() -> None:
        raise Interrupted

    stream, calls = make(), []
    stream.release_at_end(interrupted)
    stream.call_on_close(lambda: calls.append("closed"))
    with pytest.raises(Interrupted):
        stream.leave()
    assert calls == ["closed"]
    assert stream.state == "ended"
