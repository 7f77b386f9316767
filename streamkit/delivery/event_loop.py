"""The event loop: one thread a process that owns every detached connection.

Law of this file
- The thread starts with the first connection, and again in a forked process with its first one. It is a daemon: at exit
  the registry of streams drains them, and a stream is gone from there when its last byte is with the kernel.
- Other threads reach it through two deques (new connections, connections with something to do) and one byte in a pipe,
  and only while it sleeps. They wait for nothing here, and it waits for nothing but `select`.
- It runs no user's code but a pushed source's `take` and `on_error`, which must not block, and encoders.
- A failure in one connection ends that connection and is logged; the others go on.
"""

from __future__ import annotations

import heapq
import itertools
import os
import selectors
import threading
import time
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any, Final

from streamkit.delivery import descriptors
from streamkit.delivery.detached import DetachedConnection
from streamkit.delivery.outflow import FOREVER
from streamkit.delivery.sending import size_argument
from streamkit.errors import TooManyStreams
from streamkit.flow.failure_log import log_failure
from streamkit.formats.event_stream import ServerSentEvent

TURNS_AT_ONCE: Final = 256  # between two looks at the sockets: about 2 ms
TICK_SECONDS: Final = 0.1
"""Deadlines that are more than ten of these away fall due together, at the next whole tick. The heartbeats of 10,000
streams then wake the loop, and whoever reads them, ten times a second and not a thousand times."""

LONGEST_SLEEP: Final = 3600.0
"""Seconds between two looks at the deadlines. The kernel's limit for one wait is 24.8 days (2^31 ms)."""


class EventLoop:
    """See the file's head. `adopt`, `wake` and `len()` are for any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # held while the thread is started, nothing more
        self._connections: dict[int, DetachedConnection] = {}
        self._selector: selectors.BaseSelector | None = None
        self._pipe = (-1, -1)
        self._reset()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._after_fork)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._running = False
        self.sleeping = False
        self._new: deque[DetachedConnection] = deque()
        self.waiting: deque[DetachedConnection] = deque()
        self.event: object = None
        self.event_bytes = self.framed_event = b""
        self.event_size = self.framed_size = 0
        self.event_argument: Any = None
        self.framed_argument: Any = None
        self._connections = {}
        self._timers: list[tuple[float, int, DetachedConnection]] = []
        self._numbers = itertools.count()

    def _after_fork(self) -> None:
        """The connections are the parent's; as long as a child held them too, their clients would see no end."""
        connections = [*self._connections.values(), *self._new]
        self._reset()
        for connection in connections:
            connection.drop()
        self._close()  # the descriptors alone: what the parent has registered stays registered

    def __len__(self) -> int:
        """How many connections there are, those included that only wait for their client to close."""
        return len(self._connections) + len(self._new)

    # -- any thread ---------------------------------------------------------------------------------------------

    def adopt(self, connection: DetachedConnection) -> None:
        """Own `connection`, made for this loop, from now on.

        The loop was started before, by whoever could still say no.
        """
        self._new.append(connection)
        self.wake()

    def wake(self) -> None:
        """Have it look at what is new and what is waiting. Never blocks."""
        if self.sleeping:
            # First the flag, then the byte: the other way round the loop could be asleep again when the flag is taken
            # away, and nobody would wake it any more.
            try:
                self.sleeping = False
                self._write_byte()
            except BaseException:  # of a signal handler, between the two
                self._write_byte()
                raise

    def _write_byte(self) -> None:
        try:
            os.write(self._pipe[1], b"\0")
        except OSError:
            pass  # full of wake-up calls, or closed in a forked child, where nobody sleeps

    def start(self) -> None:
        """Start the thread, once a process. Raises TooManyStreams where the system has no descriptor or thread left."""
        with self._lock:
            if self._running:
                return
            try:
                self._open()
            except BaseException as error:
                self._close()
                if isinstance(error, (OSError, RuntimeError)):
                    raise TooManyStreams(f"the event loop cannot be started: {error}") from error
                raise
            self._running = True
        descriptors.prepare()

    def _open(self) -> None:
        self._pipe = os.pipe()
        for descriptor in self._pipe:
            os.set_blocking(descriptor, False)
        self._selector = selector = selectors.DefaultSelector()
        selector.register(self._pipe[0], selectors.EVENT_READ, None)
        descriptors.insist_on_spare(self._pipe[0])
        threading.Thread(target=self._run, args=(selector,), name="streamkit-loop", daemon=True).start()

    def _close(self) -> None:
        """Close the descriptors of the loop itself."""
        selector, self._selector = self._selector, None
        pipe, self._pipe = self._pipe, (-1, -1)
        if selector is not None:
            selector.close()
        for descriptor in pipe:
            if descriptor >= 0:
                os.close(descriptor)

    # -- the loop's thread --------------------------------------------------------------------------------------

    def _run(self, selector: selectors.BaseSelector) -> None:
        while selector is self._selector:
            try:
                self._turn(selector)
            except BaseException:  # not of one connection: those are caught where they are called
                log_failure("the event loop failed, and goes on")
                time.sleep(0.1)  # whatever it is, it must not spin

    def _turn(self, selector: selectors.BaseSelector) -> None:
        # First the flag, then the look: whoever adds something now sees the flag and writes the byte.
        self.sleeping = True
        timeout: float | None = 0.0
        if not self.waiting and not self._new:
            timeout = min(max(0.0, self._timers[0][0] - monotonic()), LONGEST_SLEEP) if self._timers else None
        events = selector.select(timeout)
        self.sleeping = False
        for key, mask in events:
            connection: DetachedConnection | None = key.data
            if connection is None:
                os.read(self._pipe[0], 4096)
            elif mask & selectors.EVENT_READ:
                _call(connection, connection.on_readable)
            elif mask & selectors.EVENT_WRITE:
                _call(connection, connection.on_writable)
        while self._new:
            connection = self._new.popleft()
            self._connections[connection.descriptor] = connection
            _call(connection, connection.start)
        waiting = self.waiting
        if waiting:
            now = monotonic()
            for _ in range(min(len(waiting), TURNS_AT_ONCE)):
                connection = waiting.popleft()
                try:
                    connection.advance(now)
                except BaseException:
                    _failed(connection)
        timers = self._timers
        if timers and timers[0][0] <= monotonic():
            self._run_timers(monotonic())
        if not self.waiting:
            self.event = None  # it may be large, and nobody may send it again

    def _run_timers(self, now: float) -> None:
        timers = self._timers
        # First those that are due, a turn's worth, then one by one: what is scheduled meanwhile has its turn later.
        due: list[tuple[float, int, DetachedConnection]] = []
        while timers and timers[0][0] <= now and len(due) < TURNS_AT_ONCE:
            due.append(heapq.heappop(timers))
        for when, _, connection in due:
            if when != connection.scheduled:
                continue  # it was called forward since, and has an earlier entry
            connection.scheduled = FOREVER
            if connection.deadline <= now:
                _call(connection, connection.on_deadline)
            elif connection.deadline < FOREVER:  # it was put off since
                self.schedule(connection, connection.deadline)

    def frame_event(self, event: object) -> bool:
        """Encode `event` and frame it as one chunk (RFC 9112 section 7.1), once for all that send it now.

        False if it is none, but something else that a framing has to look at.
        """
        if not isinstance(event, ServerSentEvent):
            return False
        self.event = event
        self.event_bytes = wire = event.encode()
        self.event_size = len(wire)
        self.event_argument = size_argument(len(wire))
        self.framed_event = framed = b"%x\r\n%b\r\n" % (len(wire), wire)
        self.framed_size = len(framed)
        self.framed_argument = size_argument(len(framed))
        return True

    def watch(self, connection: DetachedConnection, *, writing: bool) -> None:
        """Watch for readability, and for room to write or not."""
        assert self._selector is not None
        events = (0 if connection.deaf else selectors.EVENT_READ) | (selectors.EVENT_WRITE if writing else 0)
        known = self._selector.get_map().get(connection.descriptor)
        if not events:
            if known is not None:
                self._selector.unregister(connection.descriptor)
        elif known is None:
            self._selector.register(connection.descriptor, events, connection)
        elif known.events != events:
            self._selector.modify(connection.descriptor, events, connection)

    def schedule(self, connection: DetachedConnection, deadline: float) -> None:
        """Look at `connection.deadline` at `deadline`, or up to a tick later where that is far away.

        One entry a connection counts: later deadlines are seen then.
        """
        if deadline >= connection.scheduled:
            return
        if deadline - monotonic() > 10 * TICK_SECONDS:
            deadline = (deadline // TICK_SECONDS + 1) * TICK_SECONDS
            if deadline >= connection.scheduled:
                return
        connection.scheduled = deadline
        if len(self._timers) > 8 + 2 * len(self._connections):  # most entries do not count any more
            self._timers = [entry for entry in self._timers if entry[0] == entry[2].scheduled]
            heapq.heapify(self._timers)
        heapq.heappush(self._timers, (deadline, next(self._numbers), connection))

    def forget(self, connection: DetachedConnection) -> None:
        """The socket is about to be closed."""
        assert self._selector is not None
        connection.scheduled = FOREVER
        self._connections.pop(connection.descriptor, None)
        if connection.descriptor in self._selector.get_map():
            self._selector.unregister(connection.descriptor)


def _call(connection: DetachedConnection, method: Callable[[], object]) -> None:
    try:
        method()
    except BaseException:  # SystemExit, CancelledError: whatever a source raises, the thread serves on
        _failed(connection)


def _failed(connection: DetachedConnection) -> None:
    log_failure("a detached connection failed")
    connection.abort()


event_loop: Final = EventLoop()
