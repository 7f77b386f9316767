"""The event loop: one thread a process that owns every detached connection.

Law of this file
- The thread starts with the first connection, and again in a forked process with its first one. It is a daemon; an
  `atexit` function drains the streams and waits `EXIT_SECONDS` for the last bytes.
- Other threads reach it through two deques (new connections, connections with something to do) and one byte in a pipe,
  and only while it sleeps. They wait for nothing here, and it waits for nothing but `select`.
- It runs no user's code but a pushed source's `take`, which must not block, and encoders.
- A failure in one connection ends that connection and is logged; the others go on.
"""

from __future__ import annotations

import atexit
import heapq
import itertools
import logging
import os
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Final

from streamkit.delivery import descriptors
from streamkit.delivery.detached import DetachedConnection
from streamkit.delivery.outflow import FOREVER, Outflow
from streamkit.delivery.takeover import Answer
from streamkit.flow.stream import streams

EXIT_SECONDS: Final = 1.0  # a supervisor that stops a worker expects it to be gone soon
TURNS_AT_ONCE: Final = 256  # between two looks at the sockets: about 2 ms

log: Final = logging.getLogger("streamkit")


class EventLoop:
    """See the file's head. `adopt`, `ready` and `len()` are for any thread."""

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
        self._sleeping = False
        self._new: deque[DetachedConnection] = deque()
        self._ready: deque[DetachedConnection] = deque()
        self._connections = {}
        self._timers: list[tuple[float, int, DetachedConnection]] = []
        self._numbers = itertools.count()

    def _after_fork(self) -> None:
        """The connections are the parent's; as long as a child held them too, their clients would see no end."""
        connections = list(self._connections.values())
        selector, self._selector = self._selector, None
        pipe, self._pipe = self._pipe, (-1, -1)
        self._reset()
        for connection in connections:
            connection.drop()
        if selector is not None:
            selector.close()  # closes the descriptor; what is registered in the parent stays registered
            for descriptor in pipe:
                os.close(descriptor)

    def __len__(self) -> int:
        """How many connections there are, those included that only wait for their client to close."""
        return len(self._connections) + len(self._new)

    # -- any thread ---------------------------------------------------------------------------------------------

    def adopt(self, sock: socket.socket, outflow: Outflow, answer: Answer) -> None:
        """Send `answer`, then what `outflow` gives, and close. The non-blocking socket is the loop's from now on."""
        self._start()
        self._new.append(DetachedConnection(self, sock, outflow, answer.data, chunked=answer.chunked))
        self._wake()

    def ready(self, connection: DetachedConnection) -> None:
        """Give `connection` a turn soon."""
        self._ready.append(connection)
        if self._sleeping:
            self._wake()

    def _wake(self) -> None:
        if self._sleeping:
            self._sleeping = False
            try:
                os.write(self._pipe[1], b"\0")
            except BlockingIOError:
                pass  # full of wake-up calls

    def _start(self) -> None:
        with self._lock:
            if self._running:
                return
            descriptors.prepare()
            self._pipe = os.pipe()
            for descriptor in self._pipe:
                os.set_blocking(descriptor, False)
            self._selector = selectors.DefaultSelector()
            self._selector.register(self._pipe[0], selectors.EVENT_READ, None)
            threading.Thread(
                target=self._run, args=(self._selector,), name="streamkit-loop", daemon=True
            ).start()
            atexit.register(self._at_exit, os.getpid())
            self._running = True

    def _at_exit(self, process: int) -> None:
        if process != os.getpid():
            return
        streams.drain()
        deadline = monotonic() + EXIT_SECONDS
        while monotonic() < deadline and any(c.outflow is not None for c in list(self._connections.values())):
            time.sleep(0.005)  # at exit, once a process, for a second at most: not worth a condition

    # -- the loop's thread --------------------------------------------------------------------------------------

    def _run(self, selector: selectors.BaseSelector) -> None:
        while selector is self._selector:
            try:
                self._turn(selector)
            except Exception:  # not of one connection: those are caught where they are called
                log.exception("the event loop failed, and goes on")
                time.sleep(0.1)  # whatever it is, it must not spin

    def _turn(self, selector: selectors.BaseSelector) -> None:
        # First the flag, then the look: whoever adds something now sees the flag and writes the byte.
        self._sleeping = True
        timeout: float | None = 0.0
        if not self._ready and not self._new:
            timeout = max(0.0, self._timers[0][0] - monotonic()) if self._timers else None
        events = selector.select(timeout)
        self._sleeping = False
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
        ready = self._ready
        for _ in range(min(len(ready), TURNS_AT_ONCE)):
            connection = ready.popleft()
            _call(connection, connection.advance)
        timers = self._timers
        if timers and timers[0][0] <= monotonic():
            self._run_timers(monotonic())

    def _run_timers(self, now: float) -> None:
        timers = self._timers
        while timers and timers[0][0] <= now:
            _, _, connection = heapq.heappop(timers)
            connection.scheduled = FOREVER
            if connection.deadline <= now:
                _call(connection, connection.on_deadline)
            elif connection.deadline < FOREVER:  # it was put off since
                self.schedule(connection, connection.deadline)

    def watch(self, connection: DetachedConnection, *, writing: bool) -> None:
        """Watch for readability, and for room to write or not."""
        assert self._selector is not None
        events = selectors.EVENT_READ | selectors.EVENT_WRITE if writing else selectors.EVENT_READ
        known = self._selector.get_map().get(connection.descriptor)
        if known is None:
            self._selector.register(connection.descriptor, events, connection)
        elif known.events != events:
            self._selector.modify(connection.descriptor, events, connection)

    def schedule(self, connection: DetachedConnection, deadline: float) -> None:
        """Look at `connection.deadline` at `deadline`. One entry a connection: later deadlines are seen to then."""
        if deadline < connection.scheduled:
            connection.scheduled = deadline
            heapq.heappush(self._timers, (deadline, next(self._numbers), connection))

    def forget(self, connection: DetachedConnection) -> None:
        """The socket is about to be closed."""
        assert self._selector is not None
        if self._connections.pop(connection.descriptor, None) is not None:
            self._selector.unregister(connection.descriptor)
        if len(self._timers) > 64 + 2 * len(self._connections):  # mostly of connections that are closed
            self._timers = [entry for entry in self._timers if entry[2].deadline < FOREVER]
            heapq.heapify(self._timers)


def _call(connection: DetachedConnection, method: Callable[[], object]) -> None:
    try:
        method()
    except Exception:
        log.exception("a detached connection failed")
        connection.abort()


event_loop: Final = EventLoop()
