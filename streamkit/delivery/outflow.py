"""What goes out on one stream, piece by piece, and how it ends. No sockets and no waiting but in `Chunks.take`.

Two drivers ask it for the next piece: a server's thread (`body`), which waits, and the event loop (`detached`), which
never does. A stream may go from the first to the second once; there is one driver at a time, so nothing is locked.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final

from streamkit.errors import QuotaExceeded, StreamExpired, StreamkitError, SubscriberTooSlow
from streamkit.flow.chunks import Chunks
from streamkit.flow.compressed import CompressedFraming
from streamkit.flow.file_chunks import FileSpan
from streamkit.flow.framing import Framing
from streamkit.flow.pushed_chunks import PushedChunks
from streamkit.flow.rate import Allowance
from streamkit.flow.stream import Stream

HOLD_SECONDS: Final = 0.05
"""Most producers return right behind their last chunk; for one that does not, only the last promised byte waits on."""
PIECE_BYTES: Final = 256 * 1024  # larger chunks go out in pieces: a write deadline holds for one piece
FOREVER: Final = float("inf")
Piece = bytes | FileSpan
NOBODY_READS: Final = ("client_gone", "too_slow")  # outcomes after which not a byte is sent

log: Final = logging.getLogger("streamkit")


@dataclass(frozen=True)
class Limits:
    """The limits of one stream; None is off.

    heartbeat: seconds without a byte until a heartbeat. max_duration: seconds; the real duration is 80 to 100 % of it,
    so that clients do not all return at once. max_bytes: bytes. allowance: what is asked before each piece.
    """

    heartbeat: float | None = None
    max_duration: float | None = None
    max_bytes: int | None = None
    allowance: Allowance | None = None


class Outflow:
    """The pieces of one stream. After `step` gave None: `error` is None where the end is clean.

    is_gone: asks whether the client has left, where a producer may find that out by itself; never blocks.
    wake_at: when `step` has something to say even if no chunk comes (time.monotonic()).
    """

    __slots__ = (
        "_beat_at",
        "_booked",
        "_expires_at",
        "_heartbeat",
        "_held",
        "_limits",
        "_not_before",
        "_release_at",
        "_rest",
        "_special",
        "chunks",
        "content_length",
        "error",
        "framing",
        "is_gone",
        "over",
        "piece_bytes",
        "plain",
        "stream",
    )

    def __init__(
        self,
        stream: Stream,
        chunks: Chunks[Any],
        framing: Framing[Any],
        limits: Limits,
        content_length: int | None,
    ) -> None:
        now = monotonic()
        self.stream = stream
        self.chunks = chunks
        self.framing = framing
        self.content_length = content_length  # what the headers promise, if anything
        self.error: BaseException | None = None
        self.is_gone: Callable[[], bool] = bool
        self.over = False  # nothing more is taken from the producer
        even = limits.allowance.even_bytes if limits.allowance is not None else None
        self.piece_bytes = min(PIECE_BYTES, even or PIECE_BYTES)
        self._limits = limits
        self._held: Piece = b""  # what makes the promised length full, until the producer has ended well
        self._release_at = FOREVER  # when all but its last byte goes out
        self._booked = False  # the next piece of the rest has been asked for
        self._rest: memoryview | FileSpan = memoryview(b"")  # of a chunk that is longer than a piece
        beats = limits.heartbeat is not None and framing.heartbeat is not None
        self._heartbeat: float = limits.heartbeat if beats and limits.heartbeat is not None else FOREVER
        self._beat_at = now + self._heartbeat
        self._expires_at = FOREVER
        if limits.max_duration is not None:
            self._expires_at = now + limits.max_duration * random.uniform(0.8, 1.0)
        self._not_before = 0.0
        self._special = False  # something comes before the next chunk: see `_step_specially`
        # Whether a chunk goes out as it is: nothing is counted against a limit or a promise.
        self.plain = limits.max_bytes is None and limits.allowance is None and content_length is None

    @property
    def wake_at(self) -> float:
        if self._not_before:
            return min(self._not_before, self._expires_at)
        return min(self._beat_at, self._expires_at, self._release_at, self.chunks.due_at)

    @property
    def holds_back(self) -> bool:
        """Whether a piece waits for its allowance."""
        return self._not_before > 0.0

    def wait(self, seconds: float) -> None:
        """Wait until that piece may go out, for `seconds` at most, or until the stream is told to stop."""
        left = min(self._not_before, self._expires_at) - monotonic()
        if left > 0:
            self.stream.cancelled.wait(min(left, seconds))

    @property
    def expires_at(self) -> float:
        """When the stream's time is over (time.monotonic()), or inf."""
        return self._expires_at

    def step(self, until: float) -> Piece | None:
        """The next piece to send; empty when none is due before `until` (time.monotonic()); None at the end.

        Whoever sends a piece calls `sent` with its length.
        """
        if self._expires_at < FOREVER and monotonic() >= self._expires_at and not self._is_whole:
            self.stream.end("expired")
        if self._special or self.stream.outcome is not None:
            if self.over:
                return None
            piece = self._step_specially()
            if piece is not None or self.over:
                return piece
        try:
            chunk = self.chunks.take(until)
        except BaseException as error:
            return self._fail(error)
        return self.accept(chunk)

    def accept(self, chunk: Piece) -> Piece | None:
        """What of `chunk`, the newest of the chunks, goes out now, as `step` says it."""
        if chunk:
            return chunk if self.plain and len(chunk) <= self.piece_bytes else self._checked(chunk)
        if self.chunks.finished:
            return self._finish(self.chunks.error)
        if self._release_at < FOREVER and monotonic() >= self._release_at:
            held, self._held, self._release_at = self._held[:-1], self._held[-1:], FOREVER
            return self._send_out(held)
        if monotonic() >= self._beat_at and self.stream.outcome is None:
            return self.framing.heartbeat
        return b""

    @property
    def _is_whole(self) -> bool:
        """Whether all that was promised is sent, and was all there is."""
        chunks = self.chunks
        return chunks.finished and chunks.error is None and self.stream.bytes == self.content_length

    def _step_specially(self) -> Piece | None:
        """What comes before the next chunk: an end, a wait, the rest of the last one. None if nothing does."""
        outcome = self.stream.outcome
        if self._not_before and outcome is None:
            if monotonic() < self._not_before:
                return b""
            self._not_before = 0.0
        if self._rest and (outcome is None or self._finishes_records):
            try:
                return self._piece()
            except QuotaExceeded as error:
                self.stream.end("expired")
                return self._last_words(b"", error)  # words behind half a record would be read as part of it
        self._rest = memoryview(b"")
        self._special = False
        return None if outcome is None else self._end_early()

    @property
    def _finishes_records(self) -> bool:
        """Whether a record that was begun is sent whole though the stream ends: last words come after it. A body that
        is reset is broken anyhow, and may be long."""
        return self.stream.outcome not in NOBODY_READS and not self.framing.resets

    @property
    def steady(self) -> bool:
        """Whether each event goes out by itself as it comes: nothing is held back, limited, or over."""
        return (
            self.plain and not self._special and isinstance(self.chunks, PushedChunks) and self.chunks.steady
        )

    @property
    def idle(self) -> bool:
        """Whether there is nothing to send until the source calls: what it had is taken, and it has not ended."""
        return not self._special and self.chunks.calls and not self.chunks.finished

    def sent(self, size: int, now: float) -> None:
        """Count a piece of `size` bytes as sent `now` (time.monotonic())."""
        self.stream.sent(size, now)
        self._beat_at = now + self._heartbeat

    def beat(self, now: float) -> bytes:
        """The heartbeat, where nothing else is due `now`; else nothing."""
        if self._beat_at <= now < self._expires_at and self.stream.outcome is None and self.framing.heartbeat:
            return self.framing.heartbeat
        return b""

    def put_off_heartbeat(self, now: float) -> None:
        """Something was sent `now`."""
        self._beat_at = now + self._heartbeat

    def _checked(self, chunk: Piece) -> Piece | None:
        stream, max_bytes = self.stream, self._limits.max_bytes
        total = stream.bytes + len(self._held) + len(chunk)
        if max_bytes is not None and total > max_bytes:
            stream.end("expired")
            return self._end_early(
                QuotaExceeded(f"the stream has {total} bytes, max_bytes allows {max_bytes}")
            )
        if self.content_length is not None and total > self.content_length:
            return self._fail(self._wrong_length(total))
        if total == self.content_length and not (self.chunks.finished and self.chunks.error is None):
            # Once it is sent the client has a whole answer, whatever the producer does after it.
            self._held = chunk
            self._release_at = monotonic() + HOLD_SECONDS if len(chunk) > 1 else FOREVER
            try:
                chunk = self.chunks.take(0.0)
            except BaseException as error:
                return self._fail(error)
            return self.accept(chunk)
        return self._send_out(chunk)

    def _send_out(self, chunk: Piece) -> Piece | None:
        stream = self.stream
        self._rest = chunk if isinstance(chunk, FileSpan) else memoryview(chunk)
        self._special = True
        try:
            return self._piece()
        except QuotaExceeded as error:
            self._rest = memoryview(b"")
            stream.end("expired")
            return self._end_early(error)

    def _piece(self) -> Piece:
        """The beginning of the rest, if it may go out now. Raises QuotaExceeded."""
        part = self._rest[: self.piece_bytes]
        piece = part if isinstance(part, FileSpan) else bytes(part)
        allowance = self._limits.allowance
        if allowance is not None and not self._booked:
            now = monotonic()
            delay = allowance.delay(len(piece), now)
            self._booked = True
            if delay > 0 and self.stream.outcome is None:
                self._not_before = now + delay
                return b""
        self._booked = False
        self._rest = self._rest[len(piece) :]
        return piece

    def _wrong_length(self, size: int) -> ValueError:
        return ValueError(f"the body has {size} bytes, but its Content-Length says {self.content_length}")

    # -- ends ---------------------------------------------------------------------------------------------------

    def _finish(self, error: BaseException | None) -> Piece | None:
        if self.stream.outcome is not None:  # who is told to stop may end like one that is complete
            return self._end_early()
        if error is None and self._held:
            held, self._held, self._release_at = self._held, b"", FOREVER
            return self._send_out(held)
        words = b""
        if error is None:
            try:
                words = self.framing.finish()
            except BaseException as caught:
                error = caught
        if error is None and self.content_length not in (None, self.stream.bytes + len(words)):
            error = self._wrong_length(self.stream.bytes)
        if error is not None:
            return self._fail(error)
        self.stream.end("completed")
        return self._last_words(words, None)

    def _fail(self, error: BaseException) -> bytes | None:
        """The last words of the format, if it has any; then the error, so that nobody ends the body cleanly."""
        if self.stream.outcome is not None:  # it was told to stop: that is the reason, this its consequence
            return self._end_early()
        if isinstance(error, SubscriberTooSlow):  # its client comes back, and resumes by its last id
            self.stream.end("too_slow")
            return self._end_early()
        if isinstance(error, OSError) and self.is_gone():  # it was reading the body of the request
            self.stream.end("client_gone")
            return self._end_early()
        self.stream.end("failed", error)
        return self._last_words(self.framing.failed(error), error)

    def fail(self, error: BaseException) -> None:
        """What was given out cannot be sent: the file behind it cannot be read. Not a word more goes out."""
        self._rest = memoryview(b"")
        if self.stream.outcome is None:
            self.stream.end("failed", error)
        self.over, self.error, self._special = True, error, True

    def _end_early(self, reason: StreamkitError | None = None) -> bytes | None:
        """Somebody else decided the end: the client left, its time is over, or the process stops."""
        outcome = self.stream.outcome
        if outcome in NOBODY_READS:
            return self._last_words(b"", None)
        if reason is not None and isinstance(self.framing, CompressedFraming):
            return self._last_words(b"", reason)  # no decoder reads on without the chunk that is not sent
        # What was produced is sent, except over a quota, and before the words: a compressor takes both in their order.
        queued = b"" if reason is not None or self.framing.resets else self._queued()
        words = self.framing.paused()
        if words is not None:
            return self._last_words(queued + words, None)
        reason = reason or StreamExpired(f"the stream was {outcome} before it was complete")
        return self._last_words(queued + self.framing.failed(reason), reason)

    def _queued(self) -> bytes:
        """What is there already; told to stop, `take` does not wait."""
        try:
            queued: bytes = self.chunks.take(0)
        except BaseException:
            log.exception("stream %s: what it had left could not be sent", self.stream.id)
            return b""
        return queued

    def _last_words(self, words: bytes, error: BaseException | None) -> bytes | None:
        self.over, self.error, self._special = True, error, True
        return words or None
