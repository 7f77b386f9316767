"""What delivery needs of a producer: chunks of bytes, whoever makes them (`Pump`, `Batches`, `PushedChunks`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextvars import Context
from typing import Generic

from streamkit.flow.framing import Frame, Framing
from streamkit.flow.producer import Producer
from streamkit.flow.stream import Stream


def failure(error: BaseException) -> BaseException:
    """`error` as a stream may raise it: through an iterator StopIteration would be a clean end (PEP 479)."""
    if not isinstance(error, StopIteration):
        return error
    wrapped = RuntimeError("the producer raised StopIteration")
    wrapped.__cause__ = error
    return wrapped


class Chunks(ABC, Generic[Frame]):
    """The chunks of one stream, for the thread that sends them.

    flush_bytes: a chunk is due when it is about this long (characters, for formats whose frames are text).
    flush_seconds: or when its oldest item is this old; None is off. The first item is due at once.

    `finished` is True when nothing more comes; `error` then says whether the producer failed. `due_at` is when the
    oldest item that is held back has to go out (time.monotonic(); inf where none is).
    """

    due_at = float("inf")
    calls = False
    """Whether, after a `take`, `notify`'s function is called for whatever comes next, more of the same included."""

    opened = False
    """Whether the producer has been opened on a thread of its own: what it raises from now on, its items raise."""

    def __init__(
        self,
        producer: Producer,
        framing: Framing[Frame],
        stream: Stream,
        context: Context,
        *,
        flush_bytes: int,
        flush_seconds: float | None,
    ) -> None:
        self.finished = False
        self.error: BaseException | None = None
        self._producer = producer
        self._framing: Framing[Frame] = framing
        self._stream = stream
        self._context = context
        self._flush_bytes = flush_bytes
        self._flush_seconds = float("inf") if flush_seconds is None else flush_seconds

    @abstractmethod
    def start(self) -> None:
        """Start the producer, once. Raises TooManyStreams when no thread can be had."""

    @abstractmethod
    def ready(self, until: float, *, opened_only: bool = False) -> bool:
        """Wait until the first item is there or the producer has ended (`opened_only`: or has been opened).

        False when it is later than `until` (time.monotonic()) or the stream was told to stop.
        """

    @abstractmethod
    def take(self, until: float) -> bytes:
        """The next chunk; empty when it is later than `until`, at the end, or when told to stop.

        Raises ValueError for frames that cannot be joined (text with a lone surrogate).
        """

    def notify(self, wake: Callable[[], object]) -> None:
        """From now on nobody waits in `take`; instead `wake()` is called, from any thread, when something is due, when
        `due_at` comes nearer, and at the end. One call follows each `take`, at most. `wake` never blocks.
        """
        raise NotImplementedError(f"{type(self).__name__} makes its chunks on the thread that takes them")

    def abandon(self) -> None:
        """Stop and close the producer without waiting for it, for a thread that may not wait. Never raises."""
        raise NotImplementedError(f"{type(self).__name__} closes its producer on the thread that takes")

    @abstractmethod
    def close(self) -> None:
        """Stop, and close the producer, once. Raises what its `close` raises where that runs on this thread."""
