"""The pump: a producer on its own thread, a bounded queue, and one place that closes."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextvars import ContextVar, copy_context
from typing import Any

import pytest

from streamkit.flow.batches import Batches
from streamkit.flow.flush import FLUSH
from streamkit.flow.producer import Producer
from streamkit.flow.pump import QUEUE_BYTES, QUEUE_FRAMES, Pump
from streamkit.flow.stream import Stream
from streamkit.flow.stream_threads import StreamThreads
from streamkit.flow.streams import streams
from tests.conftest import eventually
from tests.interrupts import interrupt_thread_start

FOREVER = float("inf")


class Words:
    """A framing of words, for tests."""

    heartbeat = b"~"
    resets = True
    head_first = True
    encode_batch = None

    def head(self) -> bytes:
        return b""

    def encode(self, item: object) -> bytes:
        if not isinstance(item, str):
            raise TypeError(f"a word is text, got {type(item).__name__}")
        return item.encode() + b" "

    def tail(self) -> bytes:
        return b"."

    def join(self, frames: Sequence[bytes]) -> bytes:
        return b"".join(frames)

    def failed(self, error: BaseException) -> bytes:
        return b"!"

    def paused(self) -> bytes | None:
        return b"..."


def make(
    kind: type[Any], items: object, flush_bytes: int = 1, flush_seconds: float | None = None
) -> tuple[Any, Stream]:
    context = copy_context()
    stream = Stream("test", {}, context)
    chunks = kind(
        Producer(items, "words"),
        Words(),
        stream,
        context,
        flush_bytes=flush_bytes,
        flush_seconds=flush_seconds,
    )
    return chunks, stream


def everything(chunks: Any) -> bytes:
    taken = b""
    while True:
        chunk = chunks.take(FOREVER)
        taken += chunk
        if not chunk and chunks.finished:
            return taken


@pytest.mark.parametrize("kind", [Pump, Batches])
def test_all_items_arrive_in_order_and_then_the_tail(kind: type[Any]) -> None:
    words = [f"w{n}" for n in range(5000)]
    chunks, stream = make(kind, iter(words), flush_bytes=100)
    chunks.start()
    assert everything(chunks) == " ".join(words).encode() + b" ."
    assert chunks.error is None
    assert stream.events == 5000


@pytest.mark.parametrize("kind", [Pump, Batches])
def test_the_first_item_does_not_wait_for_company(kind: type[Any]) -> None:
    asked = threading.Event()

    def items() -> Iterator[str]:
        yield "one"
        asked.wait(10)
        yield "two"

    chunks, _ = make(kind, items(), flush_bytes=1_000_000)
    chunks.start()
    assert chunks.take(FOREVER) == b"one "
    asked.set()
    assert everything(chunks) == b"two ."


@pytest.mark.parametrize("begun", [True, False])
def test_a_signal_handler_that_raises_beside_the_start_of_the_thread_ends_the_stream_once(
    begun: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[str] = []
    at_work, going_on = threading.Event(), threading.Event()

    class Words(list[str]):
        def __next__(self) -> str:
            at_work.set()
            going_on.wait(10)
            raise StopIteration

        def __iter__(self) -> Any:
            return self

        def close(self) -> None:
            closed.append(threading.current_thread().name)

    monkeypatch.setattr("streamkit.flow.pump.stream_threads", StreamThreads())
    chunks, stream = make(Pump, Words())
    ended: list[str] = []
    stream.call_on_close(lambda: ended.append("once"))
    interrupt_thread_start(chunks.start, at_work if begun else None)
    chunks.close()
    assert not begun or not ended
    stream.leave()
    going_on.set()
    eventually(lambda: ended)
    assert len(closed) == len(ended) == 1
    assert (closed[0] == threading.current_thread().name) is not begun


def test_the_first_item_does_not_wait_behind_a_head(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Words, "head", lambda self: b"<")
    monkeypatch.setattr(Words, "head_first", False)
    go, asked = threading.Event(), threading.Event()

    def items() -> Iterator[str]:
        go.wait(20)
        yield "one"
        asked.wait(20)
        yield "two"

    def go_on() -> None:
        eventually(lambda: chunks._waiting)
        go.set()

    chunks, _ = make(Pump, items(), flush_bytes=1_000_000)
    chunks.start()
    began = time.monotonic()
    assert chunks.ready(began + 10, opened_only=True)
    thread = threading.Thread(target=go_on)
    thread.start()
    assert chunks.ready(began + 10)
    assert chunks.take(began + 10) == b"<one "
    assert time.monotonic() - began < 5
    thread.join()
    asked.set()
    assert everything(chunks) == b"two ."


def test_what_is_old_enough_goes_out_while_the_producer_is_silent() -> None:
    more = threading.Event()

    def items() -> Iterator[str]:
        yield "first"
        yield "second"
        yield "third"
        more.wait(10)

    chunks, _ = make(Pump, items(), flush_bytes=1_000_000, flush_seconds=0.05)
    chunks.start()
    taken = chunks.take(FOREVER)
    while taken != b"first second third ":
        taken += chunks.take(FOREVER)  # comes by age alone: the producer is blocked
    more.set()
    assert everything(chunks) == b"."


def test_flush_makes_what_is_queued_due() -> None:
    more = threading.Event()

    def items() -> Iterator[object]:
        yield "first"
        yield "second"
        yield FLUSH
        more.wait(10)
        yield "third"

    chunks, _ = make(Pump, items(), flush_bytes=1_000_000)
    chunks.start()
    taken = chunks.take(FOREVER)
    if taken == b"first ":
        taken += chunks.take(FOREVER)
    assert taken == b"first second "
    more.set()
    assert everything(chunks) == b"third ."


def test_flush_ends_a_batch() -> None:
    chunks, _ = make(Batches, iter(["a", "b", "c", FLUSH, "d"]), flush_bytes=1_000_000)
    chunks.start()
    assert [chunks.take(FOREVER) for _ in range(3)] == [b"a ", b"b c ", b"d ."]


def test_take_returns_at_its_deadline() -> None:
    go_on = threading.Event()
    chunks, _ = make(Pump, iter(go_on.wait, True))
    chunks.start()
    assert chunks.take(time.monotonic() + 0.01) == b""
    assert not chunks.finished
    go_on.set()
    assert everything(chunks) == b"."


def test_the_queue_is_bounded_in_bytes_and_in_items() -> None:
    for word, most in (("x" * 10_000, QUEUE_BYTES // 10_000 + 2), ("x", QUEUE_FRAMES + 1)):
        count = 0

        def items(word: str = word) -> Iterator[str]:
            nonlocal count
            while True:
                count += 1
                yield word

        chunks, stream = make(Pump, items())
        chunks.start()
        chunks.ready(FOREVER)
        eventually(lambda chunks=chunks: chunks._is_full())  # type: ignore[misc]
        assert count <= most
        stream.end("client_gone")
        chunks.close()


def test_the_producer_runs_on_one_thread_in_the_callers_context() -> None:
    name: ContextVar[str] = ContextVar("name")
    name.set("caller")
    threads = set()
    seen = []

    def items() -> Iterator[str]:
        try:
            for _ in range(3):
                threads.add(threading.get_ident())
                seen.append(name.get())
                yield "x"
        finally:
            threads.add(threading.get_ident())
            seen.append(streams.current() is stream)

    chunks, stream = make(Pump, items())
    chunks.start()
    everything(chunks)
    assert seen == ["caller"] * 3 + [True]
    assert len(threads) == 1
    assert threading.get_ident() not in threads


def test_a_callable_is_called_and_used_on_the_producers_thread() -> None:
    threads = []

    def start() -> Iterator[str]:
        threads.append(threading.get_ident())
        return iter(["x"])

    chunks, _ = make(Pump, start)
    chunks.start()
    assert chunks.ready(FOREVER, opened_only=True)
    everything(chunks)
    assert threads != [threading.get_ident()]


@pytest.mark.parametrize("kind", [Pump, Batches])
def test_an_error_comes_after_what_was_produced_before_it(kind: type[Any]) -> None:
    def items() -> Iterator[str]:
        yield "one"
        yield "two"
        raise LookupError("broken")

    chunks, _ = make(kind, items(), flush_bytes=1_000_000)
    chunks.start()
    assert everything(chunks) == b"one two "  # and no tail
    assert isinstance(chunks.error, LookupError)


@pytest.mark.parametrize("kind", [Pump, Batches])
@pytest.mark.parametrize("wrong", [None, 7, b"bytes"])
def test_an_item_that_cannot_be_encoded_ends_the_stream_as_failed(kind: type[Any], wrong: object) -> None:
    closed = []

    def items() -> Iterator[object]:
        try:
            yield "fine"
            yield wrong
            yield "never taken"
        finally:
            closed.append(True)

    chunks, _ = make(kind, items())
    chunks.start()
    assert everything(chunks) == b"fine "
    assert isinstance(chunks.error, TypeError)
    chunks.close()
    eventually(lambda: closed == [True])


class Closing:
    """An iterator that counts its `close` calls and may fail in it."""

    def __init__(self, items: list[str], error: Exception | None = None) -> None:
        self._items = iter(items)
        self._error = error
        self.closed: list[int] = []

    def __iter__(self) -> Closing:
        return self

    def __next__(self) -> str:
        return next(self._items)

    def close(self) -> None:
        self.closed.append(threading.get_ident())
        if self._error is not None:
            raise self._error


@pytest.mark.parametrize("kind", [Pump, Batches])
def test_close_runs_once_whether_it_ends_or_is_left(kind: type[Any]) -> None:
    for take_all in (True, False):
        items = Closing(["a", "b", "c"])
        chunks, stream = make(kind, items)
        chunks.start()
        if take_all:
            everything(chunks)
        else:
            chunks.take(FOREVER)
            stream.end("client_gone")
        chunks.close()
        chunks.close()
        eventually(lambda items=items: len(items.closed) == 1)  # type: ignore[misc]
        assert (items.closed[0] == threading.get_ident()) is (kind is Batches)


@pytest.mark.parametrize("kind", [Pump, Batches])
def test_a_stream_whose_clean_up_fails_is_not_complete(kind: type[Any]) -> None:
    chunks, _ = make(kind, Closing(["a"], OSError("cannot commit")))
    chunks.start()
    assert everything(chunks) == b"a "  # no tail
    assert isinstance(chunks.error, OSError)


@pytest.mark.parametrize("kind", [Pump, Batches])
def test_a_producer_that_is_never_started_is_closed(kind: type[Any]) -> None:
    items = Closing(["a"])
    chunks, _ = make(kind, items)
    chunks.close()
    assert items.closed == [threading.get_ident()]


def test_a_blocked_producer_keeps_nobody_waiting_and_closes_when_it_returns() -> None:
    blocked, closed = threading.Event(), threading.Event()

    def items() -> Iterator[str]:
        try:
            yield "first"
            blocked.wait(30)
            yield "late"
        finally:
            closed.set()

    chunks, stream = make(Pump, items())
    chunks.start()
    assert chunks.take(FOREVER) == b"first "
    stream.end("client_gone")
    chunks.close()  # returns although the producer is blocked
    assert not closed.is_set()
    blocked.set()
    assert closed.wait(10)


@pytest.mark.parametrize("kind", [Pump, Batches])
def test_a_producer_at_full_speed_waits_for_its_turn(
    kind: type[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one computes: small requests meet one export at a time (see `turns`)."""
    module = sys.modules[kind.__module__]
    slept: list[float] = []
    monkeypatch.setattr(module, "sleep", slept.append)
    monkeypatch.setattr(module.turns, "reserve", lambda producer, used: time.monotonic() + 5)
    words = ["w" * 1000] * 1000
    chunks, _ = make(kind, words, flush_bytes=64 * 1024)
    chunks.start()
    assert len(everything(chunks)) == 1001 * 1000 + 1
    assert len(slept) > 5  # after a chunk or a few, not after each item
    assert len(slept) < 30
    assert all(4 < seconds < 5.1 for seconds in slept if seconds > 0.1)


def test_what_is_put_after_the_stop_is_not_kept() -> None:
    """By code that writes, and takes no notice of what `write` raises."""
    go_on = threading.Event()

    def items() -> Iterator[str]:
        go_on.wait(20)
        yield "late"

    chunks, stream = make(Pump, items())
    chunks.start()
    stream.end("client_gone")
    assert not chunks.put(b"x" * 1000)
    assert chunks._size == 0
    go_on.set()
    eventually(lambda: chunks.finished)
    assert chunks.take(0.0) == b""


def test_cancelling_wakes_both_sides() -> None:
    chunks, stream = make(Pump, iter(lambda: "x" * 100_000, None))
    chunks.start()
    eventually(lambda: chunks._is_full())
    stream.end("drained")
    while chunks.take(FOREVER):  # what is left; returns at once although nothing more comes
        pass
    eventually(lambda: chunks.finished)
