"""Rows on the request's own thread: items are taken until a chunk is worth sending.

No other thread takes part, so objects that belong to the request's thread (an `sqlite3` cursor opened in the view)
just work, and a row costs no lock. The price: while the producer is silent nothing can be sent or noticed. The age of
a chunk is therefore looked at whenever a row arrives, and a cursor says `FLUSH` before it asks for more rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextvars import Context
from time import monotonic
from typing import AnyStr, Generic

from streamkit.flow.flush import FLUSH
from streamkit.flow.framing import Framing
from streamkit.flow.producer import Producer
from streamkit.flow.stream import Stream


class Batches(Generic[AnyStr]):
    """Chunks of a producer that runs in `take` itself. Used by one thread.

    flush_bytes: a chunk is sent when it is about this long (characters, for formats that are text).
    flush_seconds: or when this long after the chunk before; None is off.
    """

    def __init__(
        self,
        producer: Producer,
        framing: Framing[AnyStr],
        stream: Stream,
        context: Context,
        *,
        flush_bytes: int,
        flush_seconds: float | None,
    ) -> None:
        self.finished = False
        self.error: BaseException | None = None
        self._producer = producer
        self._framing: Framing[AnyStr] = framing
        self._stream = stream
        self._context = context
        self._flush_bytes = flush_bytes
        self._flush_seconds = float("inf") if flush_seconds is None else flush_seconds
        self._iterator: Iterator[object] | None = None
        self._first = b""

    def start(self) -> None:
        """Take the first item, so that a producer that fails at once does it before anything was sent."""
        self._first = self._context.run(self._take)

    def ready(self, until: float, *, opened_only: bool = False) -> bool:
        """Whether the first item is there: always, after `start`."""
        return True

    def take(self, until: float) -> bytes:
        """The next chunk; empty at the end, where `finished` is True and `error` says whether it failed."""
        if self._first:
            chunk, self._first = self._first, b""
            return chunk
        return b"" if self.finished else self._context.run(self._take)

    def _take(self) -> bytes:
        framing = self._framing
        frames: list[AnyStr] = []
        append, encode, flush_bytes = frames.append, framing.encode, self._flush_bytes
        size = count = 0
        try:
            iterator = self._iterator
            if iterator is None:
                self._iterator = iterator = self._producer.open(self._stream)
                append(framing.head())
                flush_bytes = 1  # the first row goes out at once
            deadline = monotonic() + self._flush_seconds
            for item in iterator:
                if item is FLUSH:
                    if size:
                        break
                    continue
                frame = encode(item)
                append(frame)
                count += 1
                size += len(frame)
                if size >= flush_bytes or monotonic() >= deadline:
                    break
            else:
                self._producer.close()  # before the tail: a stream whose clean-up failed is not complete
                append(framing.tail())
                self.finished = True
        except BaseException as error:
            self.finished, self.error = True, error
        self._stream.events += count
        try:
            return framing.join(frames)
        except BaseException as error:
            self.finished, self.error = True, self.error or error
            return b""

    def close(self) -> None:
        """Close the producer, once. Raises what its `close` raises."""
        self.finished = True
        self._context.run(self._producer.close)
