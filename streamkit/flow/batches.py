"""Rows on the request's own thread: items are taken until a chunk is worth sending.

No other thread takes part, so objects that belong to the request's thread (an `sqlite3` cursor opened in the view)
just work, and a row costs no lock. The price: while the producer is silent nothing can be sent or noticed. The age
of a chunk is therefore looked at whenever a row arrives, and a cursor says `FLUSH` before it asks for more rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from time import monotonic, sleep, thread_time
from typing import Final

from streamkit.flow.chunks import Chunks, failure
from streamkit.flow.flush import FLUSH
from streamkit.flow.framing import Frame
from streamkit.flow.turns import WORTH_SLEEPING, turns

# A request that waits for the interpreter gets it when somebody sleeps, or else after 5 ms (sys.getswitchinterval()),
# and it needs it several times. `sleep(0)` would not do: the sleeper is back before the one who waits has woken up.
# Measured beside twenty exports: 346 ms for a page (p99) without these pauses, 36 ms with them, rows at the same rate.
PAUSE_EVERY: Final = 0.002
PAUSE: Final = 0.00002


class Batches(Chunks[Frame]):
    """Chunks of a producer that runs in `take` itself. Used by one thread."""

    _iterator: Iterator[object] | None = None  # once the producer is open
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
        append, encode, clock, flush, flush_bytes = (
            frames.append,
            framing.encode,
            monotonic,
            FLUSH,
            self._flush_bytes,
        )
        size = extra = 0  # frames that are no item
        try:
            iterator = self._iterator
            if iterator is None:
                self._iterator = iterator = self._producer.open(self._stream)
                append(framing.head())
                extra = 1
                flush_bytes = 1  # the first row goes out at once
            now = clock()
            deadline = now + self._flush_seconds
            look_at = min(deadline, now + PAUSE_EVERY) if self._crowded else deadline
            for item in iterator:
                if item is flush:
                    if size:
                        break
                    continue
                frame = encode(item)
                append(frame)
                size += len(frame)
                if size >= flush_bytes:
                    break
                if clock() >= look_at:
                    if clock() >= deadline:
                        break
                    sleep(PAUSE)
                    look_at = min(deadline, clock() + PAUSE_EVERY)
            else:
                self._producer.close()  # before the tail: a stream whose clean-up failed is not complete
                append(framing.tail())
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

    def close(self) -> None:
        """Close the producer, once. Raises what its `close` raises."""
        self.finished = True
        turns.leave(self)
        self._context.run(self._producer.close)
