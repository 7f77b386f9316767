"""A producer on a thread of its own, and the small bounded queue between it and the thread that sends.

Law of this file
- The producing thread (a stream thread) alone opens, iterates and closes the producer. It waits for the sending
  thread only in `put`, when the queue is full.
- The sending thread (the request's) waits for the producing one only in `ready` and `take`, each with a deadline,
  and for `CLOSE_SECONDS` at most in `close`.
- One condition guards the queue. Its lock is held for a few list operations, never across user code: items are
  encoded before `put` takes it, and joined after `take` gave it back. Only one of the two sides can be waiting at
  a time (a full queue is due, and `take` wakes all who wait for room), so one `notify` always reaches the sender.
- A sender that does not wait (the event loop) is woken by a call instead, once for each of its takes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import Context
from time import monotonic, sleep, thread_time
from typing import Final

from streamkit.errors import ClientDisconnected
from streamkit.flow.chunks import Chunks, failure
from streamkit.flow.flush import FLUSH
from streamkit.flow.framing import Frame, Framing
from streamkit.flow.producer import Producer
from streamkit.flow.stream import Stream
from streamkit.flow.stream_threads import stream_threads
from streamkit.flow.turns import WORTH_SLEEPING, turns

# Enough to keep a socket busy (the default send buffers of Linux), small enough for 1,000 streams.
QUEUE_BYTES: Final = 256 * 1024
# Bounds the objects too, for producers of tiny items.
QUEUE_FRAMES: Final = 1000
# What a producer puts before it lets others compute: an event here and there is not worth it.
TURN_BYTES: Final = 64 * 1024
# An ordinary generator closes at once; one that is blocked in somebody else's code is not waited for.
CLOSE_SECONDS: Final = 0.2


class Pump(Chunks[Frame]):
    """Runs a producer apart from the thread that sends its chunks. At a `FLUSH` everything queued is due."""

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
        super().__init__(
            producer, framing, stream, context, flush_bytes=flush_bytes, flush_seconds=flush_seconds
        )
        self._limit = max(QUEUE_BYTES, 2 * flush_bytes)
        self._lock = threading.Lock()
        self._condition = threading.Condition(self._lock)
        self._frames: list[Frame] = []
        self._size = 0
        self._oldest = 0.0  # when the first frame of the queue was put
        self._due = False
        self._stopped = False
        self._waiting = False  # the sending thread waits
        self._wake: Callable[[], object] | None = None  # or it never waits, and is called ...
        self._armed = False  # ... once after each take
        self._begun = (
            threading.Lock()
        )  # taken once and kept, by whoever runs the producer; nobody waits for it
        self._running = False
        self._turned_at = 0  # the size of the queue at the last turn
        self._computed = 0.0  # processor time of the producing thread at its last turn
        self._closed = threading.Event()

    # -- the sending thread -------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the producer. Raises TooManyStreams when no thread can be had."""
        if self._framing.head_first:
            self._put_aside(self._framing.head())
        self._stream.call_on_cancel(self.cancel)
        self._stream.join_in()
        try:
            stream_threads.run(self._run)
        except BaseException:  # of a signal handler, perhaps, while the thread is at work
            self._running = not self._begin()
            if not self._running:
                self._stream.leave()
            raise
        self._running = True

    def ready(self, until: float, *, opened_only: bool = False) -> bool:
        """Wait until the first item is there or the producer has ended (`opened_only`: or has been opened).

        False when it is later than `until` (time.monotonic()) or the stream was told to stop.
        """
        with self._lock:
            while not (self._stream.events or self.finished or (opened_only and self.opened)):
                left = until - monotonic()
                if left <= 0 or self._stopped:
                    return False
                self._wait(left)
            return True

    def take(self, until: float) -> bytes:
        """What is due, as one chunk; empty when it is later than `until`, at the end, or when told to stop."""
        with self._lock:
            self._armed = True
            while not self._due and not self.finished and not self._stopped:
                now = monotonic()
                deadline = until
                if self._frames:
                    self.due_at = old = self._oldest + self._flush_seconds
                    if now >= old:
                        break
                    deadline = min(deadline, old)
                if now >= deadline:
                    return b""
                self._wait(deadline - now)
            if self._is_full():
                self._condition.notify_all()  # who produces waits for room; `write` may have threads of its own
            frames, self._frames = self._frames, []
            self._size = self._turned_at = 0
            self._due = False
            self.due_at = float("inf")
        return self._framing.join(frames) if frames else b""

    def _wait(self, seconds: float) -> None:
        self._waiting = True
        self._condition.wait(min(seconds, threading.TIMEOUT_MAX))
        self._waiting = False

    def notify(self, wake: Callable[[], object]) -> None:
        """Call `wake()` instead of waiting in `take`."""
        with self._lock:
            self._wake = wake
            if self._frames or self.finished:
                wake()
            else:
                self._armed = True

    def _tell(self) -> None:
        """Wake the sending side, if it has taken since the last time. The lock is held."""
        if self._waiting:
            self._condition.notify()
        elif self._armed and self._wake is not None:
            self._armed = False
            self._wake()

    def cancel(self) -> None:
        """Stop taking items: wakes both threads. Any thread; never blocks for longer than a few instructions."""
        with self._lock:
            self._stopped = True
            self._condition.notify_all()

    def abandon(self) -> None:
        """Stop; the producing thread closes the producer as soon as that returns."""
        self.cancel()

    def close(self) -> None:
        """Stop, and give the producer a moment to close; one that is blocked closes when it returns."""
        if self._running:
            self.cancel()
            self._closed.wait(CLOSE_SECONDS)
        else:
            self.finished = True
            self._context.run(self._producer.close)

    # -- the producing thread -----------------------------------------------------------------------------------

    def put(self, frame: Frame) -> bool:
        """Queue one encoded item; waits while the queue is full. False when the stream has been told to stop, or has
        its end already."""
        with self._lock:
            if self._stopped or self.finished:  # nobody takes it; `write` may go on all the same
                return False
            frames = self._frames
            frames.append(frame)
            self._size = size = self._size + len(frame)
            self._stream.produced = produced = self._stream.produced + 1
            if size < self._flush_bytes and 1 < len(frames) < QUEUE_FRAMES and produced > 1:
                return True  # the usual row of many: nothing is due, nobody needs to know
            if len(frames) == 1:
                self._oldest = monotonic()
            if size >= self._flush_bytes or len(frames) >= QUEUE_FRAMES or produced == 1:
                self._due = True
            self._tell()
            while self._is_full() and not self._stopped and not self.finished:
                self._condition.wait()
            going_on = not self._stopped
        if size - self._turned_at >= TURN_BYTES and going_on:
            self._turned_at = size
            self._await_turn()
        return going_on

    def _await_turn(self) -> None:
        """After a good deal of output, let others compute."""
        used = thread_time()
        wait = turns.reserve(self, used - self._computed) - monotonic()
        self._computed = used
        if wait > WORTH_SLEEPING:
            sleep(wait)

    def flush(self) -> None:
        """Make what is queued due now."""
        with self._lock:
            if self._frames:
                self._due = True
                self._tell()

    def _is_full(self) -> bool:
        return self._size >= self._limit or len(self._frames) >= QUEUE_FRAMES

    def _begin(self) -> bool:
        """Whether the producer is the caller's from now on: true for the first who asks."""
        return self._begun.acquire(blocking=False)

    def _run(self) -> None:
        if not self._begin():
            return
        context = self._context
        error: BaseException | None = None
        try:
            context.run(self._produce)
        except BaseException as caught:
            error = failure(caught)
        finally:
            try:
                context.run(self._producer.close)
            except BaseException as caught:
                error = failure(caught) if error is None else error
        if error is None and not self._stopped:
            try:
                self._put_aside(self._framing.tail())
            except BaseException as caught:
                error = failure(caught)
        if self._stopped and self._stream.error is None and not isinstance(error, ClientDisconnected):
            self._stream.error = error  # nobody else is told: the sending thread may have gone already
        turns.leave(self)
        with self._lock:
            self.error = error
            self.finished = True
            self._tell()
            self._condition.notify_all()  # and whoever writes on from a thread of the producer's own
        self._closed.set()
        self._stream.leave()

    def _put_aside(self, frame: Frame) -> None:
        """Queue a frame that is no item. It is due, but nobody is told."""
        with self._lock:
            if frame:
                self._frames.append(frame)
                self._due = True

    def _produce(self) -> None:
        encode, put = self._framing.encode, self.put
        self._computed = thread_time()
        iterator = iter(self._producer.open(self._stream))
        if not self._framing.head_first:
            self._put_aside(self._framing.head())
        with self._lock:
            self.opened = True
            self._condition.notify()
        for item in iterator:
            if item is FLUSH:
                self.flush()
            elif not put(encode(item)):
                return
