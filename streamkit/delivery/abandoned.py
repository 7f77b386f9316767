"""What has to be closed but not here and now, on a thread that holds nothing.

First of all bodies that were dropped without `close()`, by a middleware that forgets it: they are closed all the same.

The garbage collector finds them, and it may run on any thread at any instruction, also on one that holds a lock
which closing needs. So a finalizer only puts the body into a queue (`SimpleQueue.put` is made for finalizers), and one
thread a process closes what comes. It is a daemon: at exit there is no body to come.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
from collections.abc import Callable
from typing import Final, Protocol

from streamkit.flow.failure_log import log_failure

log: Final = logging.getLogger("streamkit")


class Closeable(Protocol):
    """What can be closed."""

    def close(self) -> None: ...


class Abandoned:
    """The queue and its thread. `watch` is called before a body can be dropped, `put` by its finalizer."""

    def __init__(self) -> None:
        self._reset()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        """A new process has none of its parent's threads."""
        self._lock = threading.Lock()  # held while the thread is started, by nobody who is being finalized
        self._bodies: queue.SimpleQueue[Closeable | Callable[[], object]] = queue.SimpleQueue()
        self._watching = False

    def watch(self) -> None:
        """Start the thread, once a process."""
        if self._watching:
            return
        with self._lock:
            if not self._watching:
                # Made anew, because gevent may have replaced the class since the import (gunicorn's --preload): whoever
                # waits on the old one stops all greenlets.
                self._bodies = queue.SimpleQueue()
                threading.Thread(
                    target=self._close_all, args=(self._bodies,), name="streamkit-abandoned", daemon=True
                ).start()
                self._watching = True

    def put(self, body: Closeable) -> None:
        """Have `body` closed soon. Never blocks and takes no lock."""
        self._bodies.put(body)

    def run(self, task: Callable[[], object]) -> None:
        """Run `task()` after all that came before. Never blocks."""
        self.watch()
        self._bodies.put(task)

    def _close_all(self, bodies: queue.SimpleQueue[Closeable | Callable[[], object]]) -> None:
        while True:
            body = bodies.get()
            try:
                if callable(body):
                    body()
                else:
                    log.warning(
                        "a response was dropped without close(): a middleware does not follow PEP 3333"
                    )
                    body.close()
            except BaseException:  # the thread serves on
                log_failure("closing a response that was dropped failed")
            del body


abandoned: Final = Abandoned()
