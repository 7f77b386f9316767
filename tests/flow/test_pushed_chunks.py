"""A pushed source as chunks: taken by a thread that waits, or by one that is called."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable
from contextvars import ContextVar, copy_context
from time import monotonic

import pytest

from streamkit.flow.compressed import CompressedFraming
from streamkit.flow.flush import FLUSH
from streamkit.flow.pushed_chunks import PushedChunks
from streamkit.flow.stream import Stream
from tests.flow.by_hand import ByHand, Words

FOREVER = float("inf")
name: ContextVar[str] = ContextVar("name", default="nobody")


def chunks_of(source: ByHand) -> tuple[PushedChunks[bytes], Stream]:
    context = copy_context()
    stream = Stream("test", {}, context)
    chunks = PushedChunks(source, Words(), stream, context, flush_bytes=1, flush_seconds=None)
    chunks.start()
    return chunks, stream


def everything(chunks: PushedChunks[bytes]) -> bytes:
    taken = b""
    while not chunks.finished:
        taken += chunks.take(FOREVER)
    return taken + chunks.take(FOREVER)


def test_the_head_does_not_wait_for_the_source() -> None:
    chunks, _ = chunks_of(ByHand())
    assert chunks.take(0.0) == b"<"
    assert chunks.take(0.0) == b""
    assert not chunks.finished


def test_all_items_in_order_and_then_the_tail() -> None:
    source = ByHand(*(f"w{n}" for n in range(1000)), step=7)
    source.ended = True
    chunks, stream = chunks_of(source)
    assert everything(chunks) == b"<" + b"".join(b"w%d " % n for n in range(1000)) + b">"
    assert chunks.error is None
    assert stream.events == 1000


def test_a_thread_that_waits_is_woken_by_another() -> None:
    source = ByHand()
    chunks, _ = chunks_of(source)
    assert chunks.take(0.0) == b"<"
    pusher = threading.Timer(0.02, source.push, ["late"])
    pusher.start()
    assert chunks.take(FOREVER) == b"late "
    pusher.join()


def test_waiting_ends_at_its_deadline() -> None:
    chunks, _ = chunks_of(ByHand())
    chunks.take(0.0)
    assert chunks.take(monotonic() + 0.01) == b""
    assert not chunks.ready(monotonic() + 0.01)


def test_ready_when_there_is_something_and_at_once_when_only_the_opening_counts() -> None:
    source = ByHand()
    chunks, _ = chunks_of(source)
    assert chunks.ready(0.0, opened_only=True)
    assert not chunks.ready(0.0)
    source.push("a")
    assert chunks.ready(FOREVER)
    assert chunks.take(0.0) + chunks.take(0.0) == b"<a "


def test_a_loop_is_called_once_for_each_take() -> None:
    source = ByHand()
    chunks, _ = chunks_of(source)
    chunks.take(0.0)
    calls: list[None] = []
    chunks.notify(lambda: calls.append(None))
    assert calls == []
    source.push("a")
    assert len(calls) == 1
    assert chunks.take(0.0) == b"a "
    assert chunks.take(0.0) == b""
    source.push("b", "c")
    assert len(calls) == 2
    assert chunks.take(0.0) == b"b c "
    source.end()
    assert len(calls) == 3
    assert chunks.take(0.0) == b">"
    assert chunks.finished


def test_what_came_before_the_loop_was_there_is_told_at_once() -> None:
    source = ByHand()
    chunks, _ = chunks_of(source)
    chunks.take(0.0)
    source.push("early")
    calls: list[None] = []
    chunks.notify(lambda: calls.append(None))
    assert calls == [None]
    assert chunks.take(0.0) == b"early "


def test_a_wake_that_overlaps_the_change_to_the_loop_is_not_lost() -> None:
    """The source has looked up whom to call, the stream changes hands, then the source calls."""
    source = ByHand()
    chunks, _ = chunks_of(source)
    chunks.take(0.0)
    calls: list[None] = []
    before = chunks._wake

    def overtaken() -> None:
        chunks.notify(lambda: calls.append(None))
        before()

    chunks._wake = overtaken
    source.push("late")
    assert calls, "the loop was never told of this item"
    assert chunks.take(0.0) == b"late "


@pytest.mark.parametrize("detached", [False, True])
def test_an_item_that_cannot_be_encoded_keeps_those_before_it(detached: bool) -> None:
    source = ByHand("a", "b", 3, "never")
    chunks, stream = chunks_of(source)
    chunks.take(0.0)
    if detached:
        chunks.notify(bool)
    assert chunks.take(0.0) == b"a b "
    assert chunks.finished
    assert isinstance(chunks.error, TypeError)
    assert stream.events == 2
    assert chunks.take(0.0) == b""


def test_a_source_that_fails_has_no_tail() -> None:
    source = ByHand("a")
    source.ended, source.failure = True, RuntimeError("gone")
    chunks, _ = chunks_of(source)
    assert everything(chunks) == b"<a "
    assert chunks.error is source.failure


def test_start_that_raises_is_heard() -> None:
    class Refusing(ByHand):
        def start(self, wake: Callable[[], object]) -> None:
            raise ValueError("no such topic")

    with pytest.raises(ValueError, match="no such topic"):
        chunks_of(Refusing())


def test_flush_is_nothing_here_since_everything_is_due() -> None:
    source = ByHand(FLUSH, "a", FLUSH, "b", FLUSH)
    chunks, stream = chunks_of(source)
    chunks.take(0.0)
    assert chunks.take(0.0) == b"a b "
    assert stream.events == 2


def test_a_frame_that_is_alone_is_passed_on_as_the_very_object() -> None:
    """So that an event that goes to thousands of streams is one object in all of them."""
    frame = b"data: for all\n\n"
    chunks, _ = chunks_of(ByHand(frame))
    chunks.take(0.0)
    assert chunks.take(0.0) is frame


def test_a_frame_that_is_alone_is_compressed_too() -> None:
    source = ByHand("one", "two", step=1)
    source.ended = True
    context = copy_context()
    framing: CompressedFraming[bytes] = CompressedFraming(Words(), "gzip")
    chunks = PushedChunks(source, framing, Stream("test", {}, context), context)
    chunks.start()
    assert gzip.decompress(everything(chunks) + framing.finish()) == b"<one two >"


@pytest.mark.parametrize("where", ["take", "error"])
def test_stop_iteration_of_a_source_is_a_failure_and_no_end(where: str) -> None:
    class Stopping(ByHand):
        def take(self) -> list[object]:
            raise StopIteration

    source = Stopping("a") if where == "take" else ByHand("a")
    source.ended, source.failure = True, StopIteration()
    chunks, _ = chunks_of(source)
    everything(chunks)
    assert isinstance(chunks.error, RuntimeError)


def test_a_stream_that_is_told_to_stop_cancels_its_source_and_has_no_tail() -> None:
    source = ByHand("a")
    chunks, stream = chunks_of(source)
    chunks.take(0.0)
    stream.end("drained")
    assert source.cancelled == 1
    assert chunks.take(0.0) == b"a "
    assert chunks.finished


def test_closing_closes_the_source_once() -> None:
    source = ByHand("a")
    chunks, _ = chunks_of(source)
    chunks.close()
    chunks.close()
    chunks.abandon()
    assert source.closed == 1
    assert chunks.finished
    assert chunks.take(0.0) in (b"", b"<")


def test_the_source_runs_in_the_callers_context() -> None:
    seen: list[str] = []

    class Named(ByHand):
        def start(self, wake: Callable[[], object]) -> None:
            seen.append(name.get())
            super().start(wake)

        def close(self) -> None:
            seen.append(name.get())

    token = name.set("alice")
    try:
        chunks, _ = chunks_of(Named())
    finally:
        name.reset(token)
    chunks.close()
    assert seen == ["alice", "alice"]
