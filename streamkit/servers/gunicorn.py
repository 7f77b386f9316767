"""Optional hooks for gunicorn: begin to drain when a worker is told to stop, not only when it exits.

    gunicorn -c python:streamkit.servers.gunicorn app:app

Without them the streams of a worker are drained at its exit, which is soon enough for detached ones: gunicorn does not
know of them and does not wait. A stream that holds a thread makes gunicorn wait for `graceful_timeout` (30 s) first;
with these hooks it ends at once, at SIGTERM (a stop, a reload) and when `max_requests` is reached.

A configuration of your own imports them: `from streamkit.servers.gunicorn import *`.

One thread a worker waits for the signal, since draining takes locks, which a signal handler must not. It is a daemon
with nothing in hand: a drain that is cut off by the exit goes on there.
"""

from __future__ import annotations

import queue
import signal
import threading
from typing import Any

from streamkit.flow.streams import EXIT_SECONDS, drain

__all__ = ["post_request", "post_worker_init", "worker_exit"]

# Put into by signal handlers and by request threads: `SimpleQueue.put` may interrupt itself. Never more than a few.
_begin: queue.SimpleQueue[None] = queue.SimpleQueue()


def post_worker_init(worker: Any) -> None:
    """In a new worker: watch for SIGTERM, beside gunicorn's own handler."""
    global _begin
    # Made anew, because gevent has replaced the class by now: whoever waits on the old one stops all greenlets.
    _begin = queue.SimpleQueue()
    threading.Thread(target=_drain_when_told, name="streamkit-drain", daemon=True).start()
    gunicorn_handler = signal.getsignal(signal.SIGTERM)

    def handle_term(number: int, frame: Any) -> None:
        _begin.put(None)
        if callable(gunicorn_handler):
            gunicorn_handler(number, frame)

    signal.signal(signal.SIGTERM, handle_term)
    # As gunicorn has it: a request in a database driver's `read` is not to fail by EINTR (siginterrupt(3)).
    signal.siginterrupt(signal.SIGTERM, False)


def post_request(worker: Any, req: Any, environ: Any, resp: Any) -> None:
    """After each request: a worker that has answered `max_requests` is about to leave."""
    if not worker.alive:
        _begin.put(None)


def worker_exit(server: Any, worker: Any) -> None:
    """The worker leaves: give what is left its second."""
    drain(EXIT_SECONDS)


def _drain_when_told() -> None:
    _begin.get()
    drain(0.0)
