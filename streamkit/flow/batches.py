"""Rows on the request's own thread: items are taken until a chunk is worth sending.

No other thread takes part, so objects that belong to the request's thread (an `sqlite3` cursor opened in the view)
just work, and a row costs no lock. The price: while the producer is silent nothing can be sent or noticed. The age
of a chunk is therefore looked at whenever a row arrives, and a cursor says `FLUSH` before it asks for more rows. Rows
that a cursor has fetched together are there together: a format that can encodes some dozens of them as one piece.
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
# nothing beside its rows, small enough for a chunk to be about as long, and as old, as it was asked for.
PIECE_BYTES: Final = 8 * 1024
PIECE_ITEMS: Final = 100
PIECE_SECONDS: Final = 0.05


class _Pieces(Generic[Frame]):
    """The items of batches, a few at a time. Iterating gives each piece until `encode` has taken it, and `FLUSH`."""

    def __init__(
        self,
        batches: Iterator[Sequence[object] | Flush],
        encode_batch: Callable[[Sequence[object], list[Frame]], int],
        flush_bytes: int,
    ) -> None:
        self._batches = batches
        self._encode_batch = encode_batch
        self._bytes = min(PIECE_BYTES, flush_bytes)
        self._batch: Sequence[object] = ()
        self._start = 0  # of the next piece, in the batch
        self._items = 1  # in it, at most

    def __iter__(self) -> _Pieces[Frame]:
        return self

    def __next__(self) -> Sequence[object] | Flush:
        while self._start >= len(self._batch):
            batch = next(self._batches)
            if isinstance(batch, Flush):
                return batch
            self._batch, self._start = batch, 0
        return self._batch[self._start : self._start + self._items]

    def encode(self, piece: Sequence[object], frames: list[Frame]) -> int:
        """Append the frames of a piece, or of the first of its items; returns how long they are."""
        before, began = len(frames), monotonic()
        size = self._encode_batch(piece, frames)
        taken = len(frames) - before
        self._start += taken
        in_time = int(taken * PIECE_SECONDS / (monotonic() - began + 1e-9))
        self._items = max(1, min(PIECE_ITEMS, self._bytes * taken // max(1, size), in_time))
        return size

    def close(self) -> None:
        """Forget the batch: the traceback of an error keeps this object."""
        self._batch = ()


class Batches(Chunks[Frame]):
    """Chunks of a producer that runs in `take` itself. Used by one thread."""

    _items: Iterator[Any] | _Pieces[Frame] | None = None  # once the producer is open
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
            items = self._items
            if items is None:
                self._items = items = self._open()
                frames.append(framing.head())
                extra = 1
                flush_bytes = 1  # the first row goes out at once
            if isinstance(items, _Pieces):
                ended = self._gather_pieces(items, frames, flush_bytes)
            else:
                ended = self._gather_items(items, frames, flush_bytes)
            if ended:
                self._producer.close()  # before the tail: a stream whose clean-up failed is not complete
                frames.append(framing.tail())
                extra += 1
                self.finished = True
        except BaseException as error:
            self.finished, self.error = True, failure(error)
        try:
            chunk = framing.join(frames)
        except BaseException as error:
            self.finished, self.error = True, failure(error) if self.error is None else self.error
            return b""
        self._stream.produced += len(frames) - extra
        return chunk

    def _open(self) -> Iterator[Any] | _Pieces[Frame]:
        source = self._producer.open(self._stream)
        encode_batch = self._framing.encode_batch
        if encode_batch is not None and isinstance(source, BatchedSource):
            batches = source.batches()
            if batches is not None:
                return _Pieces(batches, encode_batch, self._flush_bytes)
        return iter(source)

    def _gather_items(self, items: Iterator[Any], frames: list[Frame], flush_bytes: int) -> bool:
        """Append the frames of one chunk. True at the end of the items."""
        append, encode, clock, flush = frames.append, self._framing.encode, monotonic, FLUSH
        size = 0
        deadline, look_at = self._deadlines()
        for item in items:
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

    def _gather_pieces(self, pieces: _Pieces[Frame], frames: list[Frame], flush_bytes: int) -> bool:
        """The same, a piece at a time."""
        size = 0
        deadline, look_at = self._deadlines()
        for piece in pieces:
            if isinstance(piece, Flush):
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
        if isinstance(self._items, _Pieces):
            self._items.close()
        self._context.run(self._producer.close)
