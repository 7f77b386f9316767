"""Rows on the request's own thread: items are taken until a chunk is worth sending.

No other thread takes part, so objects that belong to the request's thread (an `sqlite3` cursor opened in the view)
just work, and a row costs no lock. The price: while the producer is silent nothing can be sent or noticed. The age
of a chunk is therefore looked at whenever a row arrives, and a cursor says `FLUSH` before it asks for more rows. Rows
that a cursor has fetched together are there together: a format that can encodes them in pieces of some dozens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from time import monotonic, sleep, thread_time
from typing import Any, Final, Generic

from streamkit.flow.batched import BatchedSource
from streamkit.flow.chunks import Chunks, failure
from streamkit.flow.flush import FLUSH, Flush
from streamkit.flow.framing import Frame
from streamkit.flow.turns import WORTH_SLEEPING, turns

# A request that waits for the interpreter gets it when somebody sleeps, or else after 5 ms (sys.getswitchinterval()),
# and it needs it several times. `sleep(0)` would not do: the sleeper is back before the one who waits has woken up.
# Measured beside twenty exports: 346 ms for a page (p99) without these pauses, 36 ms with them, rows at the same rate.
PAUSE_EVERY: Final = 0.002
PAUSE: Final = 0.00002
# Items that are there together are encoded in pieces of about this size: large enough that a piece costs next to
# nothing beside its rows, small enough for a chunk to be about as long as it was asked for.
PIECE_BYTES: Final = 8 * 1024
PIECE_ITEMS: Final = 64


class _Pieces(Generic[Frame]):
    """Batches cut into pieces, and how a piece is encoded."""

    def __init__(
        self,
        batches: Iterator[Sequence[object] | Flush],
        encode_batch: Callable[[Sequence[object], list[Frame]], int],
    ) -> None:
        self._batches = batches
        self._encode_batch = encode_batch
        self._items = 1  # of the next piece

    def __iter__(self) -> Iterator[Sequence[object] | Flush]:
        for batch in self._batches:
            if isinstance(batch, Flush):
                yield batch
                continue
            start = 0
            while start < len(batch):
                piece = batch[start : start + self._items]
                start += len(piece)
                yield piece

    def encode(self, piece: Sequence[object], frames: list[Frame]) -> int:
        """Append the frames of a piece; returns their size. The next piece has as many items as make the right size."""
        size = self._encode_batch(piece, frames)
        self._items = max(1, min(PIECE_ITEMS, PIECE_BYTES * len(piece) // max(1, size)))
        return size


class Batches(Chunks[Frame]):
    """Chunks of a producer that runs in `take` itself. Used by one thread."""

    _iterator: Iterator[Any] | None = None  # of items, or of pieces; once the producer is open
    _pieces: _Pieces[Frame] | None = None  # where items come by the batch and are encoded so
    _first = b""  # the chunk that `start` made
    _resume_at = 0.0  # when it is this producer's turn to compute
    _crowded = False  # others compute too

    def start(self) -> None:
        """Take the first item, so that a producer that fails at once does it before anything was sent."""
        self._first = self._context.run(self._take)

    def ready(self, until: float, *, opened_only: bool = False) -> bool:
        """Whether the first item is there: always, after `start`."""
        return True

    def take(self, until: float) -> bytes:
        """The next chunk; empty at the end, or when told to stop. Waits as long as the producer does."""
        if self._first:
            chunk, self._first = self._first, b""
            return chunk
        if self.finished or self._stream.outcome is not None:
            return b""
        wait = self._resume_at - monotonic()
        self._crowded = wait > WORTH_SLEEPING
        if self._crowded:
            sleep(wait)
        began, computed = monotonic(), thread_time()
        chunk = self._context.run(self._take)
        computed = thread_time() - computed
        # On a machine that is busy with other processes a chunk takes longer than its processor time says; but time
        # that was spent on waiting for a database is not to be reserved.
        self._resume_at = turns.reserve(self, min(monotonic() - began, 2 * computed))
        return chunk

    def _take(self) -> bytes:
        framing = self._framing
        frames: list[Frame] = []
        flush_bytes = self._flush_bytes
        extra = 0  # frames that are no item
        try:
            iterator = self._iterator
            if iterator is None:
                self._iterator = iterator = self._open()
                frames.append(framing.head())
                extra = 1
                flush_bytes = 1  # the first row goes out at once
            pieces = self._pieces
            if pieces is None:
                ended = self._gather_items(iterator, frames, flush_bytes)
            else:
                ended = self._gather_pieces(pieces, iterator, frames, flush_bytes)
            if ended:
                self._producer.close()  # before the tail: a stream whose clean-up failed is not complete
                frames.append(framing.tail())
                extra += 1
                self.finished = True
        except BaseException as error:
            self.finished, self.error = True, failure(error)
        self._stream.produced += len(frames) - extra
        try:
            return framing.join(frames)
        except BaseException as error:
            self.finished, self.error = True, failure(error) if self.error is None else self.error
            return b""

    def _open(self) -> Iterator[Any]:
        source = self._producer.open(self._stream)
        encode_batch = self._framing.encode_batch
        if encode_batch is not None and isinstance(source, BatchedSource):
            batches = source.batches()
            if batches is not None:
                self._pieces = _Pieces(batches, encode_batch)
                return iter(self._pieces)
        return iter(source)

    def _gather_items(self, iterator: Iterator[Any], frames: list[Frame], flush_bytes: int) -> bool:
        """Append the frames of one chunk. True at the end of the items."""
        append, encode, clock, flush = frames.append, self._framing.encode, monotonic, FLUSH
        size = 0
        deadline, look_at = self._deadlines()
        for item in iterator:
            if item is flush:
                if size:
                    return False
                continue
            frame = encode(item)
            append(frame)
            size += len(frame)
            if size >= flush_bytes:
                return False
            if clock() >= look_at:
                if clock() >= deadline:
                    return False
                look_at = self._pause(deadline)
        return True

    def _gather_pieces(
        self, pieces: _Pieces[Frame], iterator: Iterator[Any], frames: list[Frame], flush_bytes: int
    ) -> bool:
        """The same, a piece at a time."""
        size = 0
        deadline, look_at = self._deadlines()
        for piece in iterator:
            if piece is FLUSH:
                if size:
                    return False
                continue
            size += pieces.encode(piece, frames)
            if size >= flush_bytes:
                return False
            if monotonic() >= look_at:
                if monotonic() >= deadline:
                    return False
                look_at = self._pause(deadline)
        return True

    def _deadlines(self) -> tuple[float, float]:
        """When the chunk is due, and when the clock says something new to whoever gathers it."""
        now = monotonic()
        deadline = now + self._flush_seconds
        return deadline, min(deadline, now + PAUSE_EVERY) if self._crowded else deadline

    def _pause(self, deadline: float) -> float:
        """Let others compute for a moment. Returns when to look at the clock again."""
        sleep(PAUSE)
        return min(deadline, monotonic() + PAUSE_EVERY)

    def close(self) -> None:
        """Close the producer, once. Raises what its `close` raises."""
        self.finished = True
        turns.leave(self)
        self._context.run(self._producer.close)
