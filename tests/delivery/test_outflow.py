"""The pieces of one stream: cut, counted, limited, and each of its ends. No sockets here."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from contextvars import copy_context
from time import monotonic
from typing import Any

import pytest

from streamkit.delivery import outflow as outflow_module
from streamkit.delivery.outflow import FOREVER, HOLD_SECONDS, PIECE_BYTES, Limits, Outflow
from streamkit.errors import QuotaExceeded, StreamExpired, SubscriberTooSlow
from streamkit.flow.compressed import CompressedFraming
from streamkit.flow.pushed_chunks import PushedChunks
from streamkit.flow.rate import Allowance, Quota, Rate
from streamkit.flow.stream import Stream
from tests.flow.by_hand import ByHand, Words

NONE = Limits()


def outflow_of(
    source: ByHand, limits: Limits = NONE, content_length: int | None = None, framing: Any = None
) -> Outflow:
    context = copy_context()
    stream = Stream("test", {}, context)
    framing = framing or Words()
    chunks = PushedChunks(source, framing, stream, context, flush_bytes=1, flush_seconds=None)
    outflow = Outflow(stream, chunks, framing, limits, content_length)
    chunks.start()
    chunks.notify(bool)  # as the event loop does: nothing waits
    return outflow


def complete(*items: object, step: int = 100) -> ByHand:
    source = ByHand(*items, step=step)
    source.ended = True
    return source


def pieces(outflow: Outflow) -> list[bytes]:
    """All that is due now, sent."""
    found = []
    while piece := outflow.step(0.0):
        outflow.sent(len(piece), outflow_module.monotonic())
        found.append(piece)
    return found


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Stands still until the test moves it, however long the test itself may take."""
    now = [monotonic()]
    monkeypatch.setattr("streamkit.delivery.outflow.monotonic", lambda: now[0])
    return now


def test_a_complete_stream() -> None:
    outflow = outflow_of(complete("a", "b"))
    assert b"".join(pieces(outflow)) == b"<a b >"
    assert outflow.step(0.0) is None
    assert (outflow.over, outflow.error, outflow.stream.outcome) == (True, None, "completed")
    assert (outflow.stream.bytes, outflow.stream.events) == (6, 2)


def test_nothing_due_is_an_empty_piece() -> None:
    outflow = outflow_of(ByHand())
    assert outflow.step(0.0) == b"<"
    assert outflow.step(0.0) == b""
    assert not outflow.over


def test_a_failed_stream_says_so_last() -> None:
    source = ByHand("a")
    source.ended, source.failure = True, RuntimeError("gone")
    outflow = outflow_of(source)
    assert pieces(outflow) == [b"<", b"a ", b"!"]
    assert outflow.step(0.0) is None
    assert outflow.error is source.failure
    assert outflow.stream.outcome == "failed"


def test_a_subscriber_that_is_too_slow_comes_back() -> None:
    source = ByHand()
    source.ended, source.failure = True, SubscriberTooSlow("1000 events behind")
    outflow = outflow_of(source)
    sent = pieces(outflow)
    assert outflow.stream.outcome == "too_slow"
    assert b"!" not in sent


def test_large_chunks_go_out_in_pieces() -> None:
    block = bytes(range(256)) * 4096  # 1 MiB
    outflow = outflow_of(complete(block + b"x"))
    sent = pieces(outflow)
    assert b"".join(sent) == b"<" + block + b"x>"
    assert max(map(len, sent)) == PIECE_BYTES


@pytest.mark.parametrize("outcome", ["client_gone", "too_slow"])
def test_nobody_reads(outcome: Any) -> None:
    outflow = outflow_of(ByHand("a" * PIECE_BYTES * 3))
    assert outflow.step(0.0) == b"<"
    assert outflow.step(0.0)
    outflow.stream.end(outcome)
    assert outflow.step(0.0) is None
    assert outflow.error is None


def test_drained_sends_what_was_begun_and_what_is_there_and_pauses() -> None:
    source = ByHand("a" * PIECE_BYTES, "b", step=1)
    outflow = outflow_of(source)
    outflow.step(0.0)
    first = outflow.step(0.0)
    outflow.stream.end("drained")
    rest = pieces(outflow)
    assert first is not None
    assert first + b"".join(rest) in (b"a" * PIECE_BYTES + b" b ...", b"a" * PIECE_BYTES + b" ...")
    assert (outflow.over, outflow.error, outflow.stream.outcome) == (True, None, "drained")


@pytest.mark.parametrize("outcome", ["drained", "expired"])
@pytest.mark.parametrize("resets", [True, False])
def test_the_rest_of_a_record_is_sent_only_where_words_follow(
    outcome: str, resets: bool, clock: list[float]
) -> None:
    """What is reset is broken anyhow, and its rest may take for ever, as that of a file."""
    framing = Words(pause=None if resets else b"...")
    framing.resets = resets
    block = b"a" * PIECE_BYTES * 3
    outflow = outflow_of(ByHand(block), Limits(max_duration=100), framing=framing)
    assert outflow.step(0.0) == b"<"
    assert outflow.step(0.0) == block[:PIECE_BYTES]
    if outcome == "drained":
        outflow.stream.end("drained")
    clock[0] += 101
    rest = pieces(outflow)
    assert outflow.over
    assert outflow.stream.outcome == outcome
    if resets:
        assert rest == [b"!"]
        assert isinstance(outflow.error, StreamExpired)
    else:
        assert b"".join(rest) == block[PIECE_BYTES:] + b"..."
        assert outflow.error is None


def test_a_limited_record_that_is_to_end_waits_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    outflow = outflow_of(ByHand(b"x" * 100_000), Limits(allowance=Allowance(Rate(1024))))
    sent = b"".join(pieces(outflow))
    outflow.stream.end("drained")
    while not outflow.over:
        sent += b"".join(pieces(outflow))
    assert sent == b"<" + b"x" * 100_000 + b"..."


def test_a_quota_that_is_passed_within_a_record_leaves_it_without_an_end() -> None:
    """Words behind half an event would be read as its data."""
    quota = Quota(PIECE_BYTES + 10, per=60)
    outflow = outflow_of(ByHand(b"x" * PIECE_BYTES * 2), Limits(allowance=Allowance(quota)))
    assert pieces(outflow) == [b"<", b"x" * PIECE_BYTES]
    assert (outflow.over, outflow.stream.outcome) == (True, "expired")
    assert isinstance(outflow.error, QuotaExceeded)


def test_a_compressed_stream_that_is_drained_can_be_read_to_its_last_word() -> None:
    framing: CompressedFraming[bytes] = CompressedFraming(Words(), "gzip")
    outflow = outflow_of(ByHand("a", "b", step=1), framing=framing)
    sent = pieces(outflow)
    outflow.chunks.source.push("c", "d")  # type: ignore[attr-defined]
    outflow.stream.end("drained")
    sent += pieces(outflow)
    assert zlib.decompressobj(31).decompress(b"".join(sent)).startswith(b"<a b c ")
    assert zlib.decompressobj(31).decompress(b"".join(sent)).endswith(b"...")


def test_a_compressed_stream_over_its_quota_ends_behind_what_can_be_read() -> None:
    """Words after a chunk that was compressed and not sent would be garbage, and end cleanly."""
    framing: CompressedFraming[bytes] = CompressedFraming(Words(), "gzip")
    long = b"".join(b"%d" % n for n in range(10_000))
    outflow = outflow_of(ByHand("a", long, step=1), Limits(max_bytes=1000), framing=framing)
    sent = pieces(outflow)
    assert zlib.decompressobj(31).decompress(b"".join(sent)) == b"<a "
    assert (outflow.over, outflow.stream.outcome) == (True, "expired")
    assert isinstance(outflow.error, QuotaExceeded)


def test_what_is_left_and_cannot_be_sent_does_not_keep_a_client_from_coming_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Halves(Words):
        """Joins nothing any more, like text with half a character."""

        def join(self, frames: Sequence[bytes]) -> bytes:
            if b"b " in frames:
                raise ValueError("half a character")
            return super().join(frames)

    outflow = outflow_of(ByHand("a"), framing=Halves())
    sent = pieces(outflow)
    outflow.chunks.source.push("b")  # type: ignore[attr-defined]
    outflow.stream.end("drained")
    assert sent + pieces(outflow) == [b"<", b"a ", b"..."]
    assert outflow.error is None
    assert "half a character" in caplog.text


def test_drained_rows_are_not_complete() -> None:
    outflow = outflow_of(ByHand("a"), framing=Words(pause=None))
    pieces(outflow)
    outflow.stream.end("drained")
    assert pieces(outflow) == [b"!"]
    assert isinstance(outflow.error, StreamExpired)


@pytest.mark.parametrize("pause", [b"...", None])
def test_expired(pause: bytes | None, clock: list[float]) -> None:
    outflow = outflow_of(ByHand(), Limits(max_duration=100), framing=Words(pause))
    pieces(outflow)
    assert clock[0] + 79 < outflow.wake_at <= clock[0] + 100
    clock[0] += 79
    assert outflow.step(0.0) == b""
    clock[0] += 22
    sent = pieces(outflow)
    while not outflow.over:
        sent += pieces(outflow)
    assert sent == [b"..." if pause else b"!"]
    assert outflow.stream.outcome == "expired"
    assert (outflow.error is None) is bool(pause)


def test_streams_of_one_duration_do_not_end_together(clock: list[float]) -> None:
    """Else those who came together would all come back together, again and again."""
    left = [outflow_of(ByHand(), Limits(max_duration=100)).expires_at - clock[0] for _ in range(50)]
    assert 79 < min(left) < 90 < max(left) < 101


def test_heartbeats_come_when_nothing_else_did(clock: list[float]) -> None:
    source = ByHand()
    outflow = outflow_of(source, Limits(heartbeat=15))
    pieces(outflow)
    assert clock[0] + 14 < outflow.wake_at <= clock[0] + 15
    clock[0] += 14.9
    assert outflow.step(0.0) == b""
    clock[0] += 0.2
    assert pieces(outflow) == [b"~"]
    clock[0] += 14
    source.push("a")
    assert pieces(outflow) == [b"a "]
    clock[0] += 14
    assert outflow.step(0.0) == b""
    clock[0] += 47
    assert pieces(outflow) == [b"~"]


def test_an_hour_of_heartbeats(monkeypatch: pytest.MonkeyPatch) -> None:
    outflow = outflow_of(ByHand(), Limits(heartbeat=15))
    pieces(outflow)
    begin = now = monotonic()
    monkeypatch.setattr("streamkit.delivery.outflow.monotonic", lambda: now)
    beats = 0
    while now < begin + 3600:
        now = outflow.wake_at
        beats += len(pieces(outflow))
    assert beats in (239, 240, 241)


def test_no_heartbeat_where_the_format_has_none() -> None:
    framing = Words()
    framing.heartbeat = None
    assert outflow_of(ByHand(), Limits(heartbeat=1), framing=framing).wake_at == float("inf")


def test_max_bytes_is_never_passed_by_a_byte_of_the_body() -> None:
    outflow = outflow_of(ByHand(b"x" * 10, b"y" * 10, step=1), Limits(max_bytes=12))
    assert pieces(outflow)[:2] == [b"<", b"x" * 10]
    assert outflow.over
    assert outflow.stream.outcome == "expired"
    assert outflow.stream.bytes <= 12 + len(b"...")


def test_max_bytes_of_rows_breaks_off() -> None:
    outflow = outflow_of(ByHand(b"x" * 20), Limits(max_bytes=12), framing=Words(pause=None))
    assert pieces(outflow) == [b"<", b"!"]
    assert isinstance(outflow.error, QuotaExceeded)


@pytest.mark.parametrize(
    ("length", "error"), [(6, None), (5, "Content-Length says 5"), (7, "Content-Length says 7")]
)
def test_a_promised_length_is_kept_or_the_stream_fails(length: int, error: str | None) -> None:
    outflow = outflow_of(complete("a", "b", step=1), content_length=length)
    sent = b"".join(pieces(outflow))
    if error is None:
        assert (sent, outflow.error, outflow.stream.outcome) == (b"<a b >", None, "completed")
    else:
        assert error in str(outflow.error)
        assert outflow.stream.outcome == "failed"
        assert len(sent.rstrip(b"!")) <= length


def test_a_rate_cuts_pieces_and_spreads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """8 KiB/s: the burst of a second at once, then 2 KiB each quarter of a second."""
    now = monotonic()
    monkeypatch.setattr("streamkit.delivery.outflow.monotonic", lambda: now)
    outflow = outflow_of(complete(b"x" * 32 * 1024), Limits(allowance=Allowance(Rate(8192))))
    begin = now
    sent: list[tuple[float, int]] = []
    while not outflow.over:
        piece = outflow.step(0.0)
        if piece:
            outflow.sent(len(piece), now)
            sent.append((now - begin, len(piece)))
        elif piece is not None:
            assert outflow.holds_back
            assert now < outflow.wake_at < now + 1
            now = outflow.wake_at
    assert sum(size for _, size in sent) == 32 * 1024 + 2
    assert max(size for _, size in sent) == 2048
    assert sum(size for when, size in sent if when < 0.1) in range(6 * 1024, 9 * 1024)
    assert 2.9 < sent[-1][0] < 3.3
    assert outflow.stream.outcome == "completed"


def test_a_piece_that_waits_for_its_turn_is_booked_once() -> None:
    asked: list[int] = []

    class Counting(Allowance):
        def delay(self, size: int, now: float) -> float:
            asked.append(size)
            return 1000.0

    outflow = outflow_of(ByHand("a"), Limits(allowance=Counting()))
    for _ in range(5):
        assert outflow.step(0.0) == b""
    assert asked == [1]


def test_who_waits_for_an_allowance_can_be_told_to_stop() -> None:
    class Never(Allowance):
        def delay(self, size: int, now: float) -> float:
            return 1000.0

    outflow = outflow_of(ByHand("a"), Limits(allowance=Never()))
    assert outflow.step(0.0) == b""
    outflow.stream.end("drained")
    outflow.wait(100)  # returns at once
    for _ in range(10):
        if outflow.over:
            break
        outflow.step(0.0)
    assert outflow.over


def test_a_quota_of_a_period_ends_the_stream_as_expired() -> None:
    outflow = outflow_of(ByHand(b"x" * 10, b"y" * 10, step=1), Limits(allowance=Allowance(Quota(15, per=60))))
    assert pieces(outflow)[:2] == [b"<", b"x" * 10]
    assert outflow.stream.outcome == "expired"


def test_an_encoder_that_fails_keeps_what_came_before() -> None:
    outflow = outflow_of(ByHand("a", 3, "b"))
    assert pieces(outflow) == [b"<", b"a ", b"!"]
    assert isinstance(outflow.error, TypeError)


@pytest.mark.parametrize("items", [(), ("a",)])
def test_a_source_that_raises_in_take_fails_the_stream(items: tuple[str, ...]) -> None:
    class Broken(ByHand):
        def take(self) -> Any:
            if not self.items:
                raise OSError("the broker is gone")
            return [self.items.pop()]

    outflow = outflow_of(Broken(*items))
    assert pieces(outflow) == [b"<", *(word.encode() + b" " for word in items), b"!"]
    assert isinstance(outflow.error, OSError)


def test_last_words_that_cannot_be_said_are_an_error_too() -> None:
    class Mute(Words):
        def finish(self) -> bytes:
            raise ValueError("the compressor is broken")

    outflow = outflow_of(complete("a"), framing=Mute())
    pieces(outflow)
    assert isinstance(outflow.error, ValueError)
    assert outflow.stream.outcome == "failed"


def test_what_a_compressor_keeps_for_the_end_comes_before_the_end() -> None:
    class Compressing(Words):
        def finish(self) -> bytes:
            return b"$"

    outflow = outflow_of(complete("a"), framing=Compressing())
    assert b"".join(pieces(outflow)) == b"<a >$"
    assert outflow.error is None


class Bytes(Words):
    """Chunks as they are."""

    def head(self) -> bytes:
        return b""

    def tail(self) -> bytes:
        return b""


@pytest.mark.parametrize("body", [b"1", b"123"])
def test_the_last_promised_byte_waits_without_being_asked_for(
    body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = monotonic()
    monkeypatch.setattr(outflow_module, "monotonic", lambda: now)
    source = ByHand(body)
    outflow = outflow_of(source, content_length=len(body), framing=Bytes())
    assert outflow.step(0.0) == b""
    assert (outflow.wake_at < FOREVER) is (len(body) > 1)
    now += HOLD_SECONDS
    assert sent(outflow) == body[:-1]
    assert outflow.wake_at == FOREVER  # until the source calls
    source.end()
    assert sent(outflow) == body[-1:]
    assert outflow.step(0.0) is None
    assert outflow.error is None


def sent(outflow: Outflow) -> bytes:
    piece = outflow.step(0.0)
    assert isinstance(piece, bytes)
    outflow.sent(len(piece), monotonic())
    return piece
