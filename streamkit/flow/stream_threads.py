"""The threads that producers run on, outside the server's own pool, reused from stream to stream.

Law of this file
- A worker thread is owned by the pool while idle and by exactly one task while it runs. Nobody waits for a worker;
  a worker waits only on its own inbox, for `IDLE_SECONDS`, then leaves.
- The pool's lock is held for a few list operations, never while a task runs or a thread starts.
- Workers are daemons, because a producer blocked for ever in somebody else's code must not keep a process from
  ending. So that none dies with work in hand, the registry of streams drains them at exit (see `stream`).
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable
from typing import Final

from streamkit.errors import TooManyStreams
from streamkit.flow.failure_log import log_failure

MAXIMUM: Final = 1000  # threads a process; each costs about 33 KiB of memory and one entry of the scheduler
IDLE_SECONDS: Final = 10.0  # long enough to be reused by the next burst, short enough to give memory back

Task = Callable[[], object]


class StreamThreads:
    """An elastic pool: a thread for every task at once, never a queue of tasks. Thread-safe."""

    def __init__(self, maximum: int = MAXIMUM, idle_seconds: float = IDLE_SECONDS) -> None:
        self.maximum = maximum
        self.idle_seconds = idle_seconds
        self._reset()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        """A new process starts with no workers: threads do not survive a fork."""
        self._lock = threading.Lock()
        self._idle: list[queue.SimpleQueue[Task | None]] = []
        self._count = 0

    def __len__(self) -> int:
        """Threads that exist, at work or idle."""
        return self._count

    @property
    def working(self) -> int:
        """Threads that are at work now."""
        with self._lock:
            return self._count - len(self._idle)

    def run(self, task: Task) -> None:
        """Run `task()` on a thread of its own, now. Raises TooManyStreams when `maximum` threads are at work.

        What a signal handler raises meanwhile is raised here, and leaves open whether the task runs.
        """
        with self._lock:
            if self._idle:
                self._idle.pop().put(task)
                return
            if self._count >= self.maximum:
                raise TooManyStreams(
                    f"{self._count} stream threads are at work, as many as one process may have"
                )
            self._count += 1
            number = self._count
        inbox: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        inbox.put(task)
        try:
            threading.Thread(
                target=self._work, args=(inbox,), name=f"streamkit-{number}", daemon=True
            ).start()
        except BaseException as error:
            try:
                inbox.get_nowait()
            except queue.Empty:  # the thread is at work: a signal handler has raised behind its start
                raise error from None
            inbox.put(None)  # for a thread that begins all the same
            with self._lock:
                self._count -= 1
            if isinstance(error, RuntimeError):  # the system refuses another, or the interpreter is stopping
                raise TooManyStreams(f"no thread can be started: {error}") from error
            raise

    def _work(self, inbox: queue.SimpleQueue[Task | None]) -> None:
        while True:
            try:
                task = inbox.get(timeout=self.idle_seconds)
            except queue.Empty:
                with self._lock:
                    if inbox in self._idle:
                        self._idle.remove(inbox)
                        self._count -= 1
                        return
                continue  # a task was put in between the time-out and the lock
            if task is None:
                return
            try:
                task()
            except BaseException:  # whatever a task lets out, the thread serves on
                log_failure("a stream thread's task failed")
            del task  # an idle thread keeps nothing of its last stream alive
            with self._lock:
                self._idle.append(inbox)


stream_threads: Final = StreamThreads()
