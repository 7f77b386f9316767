"""The live streams of this process: who looks for them, counts them, and ends all of them when it stops.

Law of this file
- A stream is added when it begins and removed at its end, by whoever runs that; nobody waits here but who drains.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

from streamkit.errors import Draining
from streamkit.flow.totals import Total, Totals

if TYPE_CHECKING:
    from streamkit.flow.stream import Stream

EXIT_SECONDS: Final = 1.0  # a supervisor that stops a worker expects it to be gone soon

current: ContextVar[Stream | None] = ContextVar("streamkit_stream", default=None)


class Streams:
    """The streams of this process that live now: iterate, `len()`, `get(id)`, `current()`. Thread-safe.

    `totals()` and `snapshot()` say what those that have ended add up to. At exit those that are left are drained, for
    a second at most.
    """

    def __init__(self) -> None:
        self._forget()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        """After a fork the streams are the parent's; so may the lock have been."""
        # Owned for the length of one dictionary operation and a few sums; no foreign code runs under it but what the
        # garbage collector ends: a middleware's generator whose `finally` closes a body. Always entered itself, because
        # entering a Condition is Python code, and what a signal handler raises in there leaves it taken.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)  # whoever drains waits on it
        self._live: dict[str, Stream] = {}
        self._totals = Totals()
        self._exit_registered = False
        self.closing = False
        """Whether the process is about to end: new streams are refused then (see `drain`)."""

    def _add(self, stream: Stream) -> None:
        """Raises Draining when the process is about to end."""
        with self._lock:
            if self.closing:
                raise Draining("this process is stopping, and opens no stream any more")
            self._live[stream.id] = stream
            register = not self._exit_registered
            self._exit_registered = True
        if register:
            atexit.register(self._at_exit, os.getpid())
        stream._write_first_line()

    def _remove(self, stream: Stream) -> None:
        with self._lock:
            # Not one that was refused or answered HEAD, nor the parent's, which a forked child lets go of.
            if self._live.pop(stream.id, None) is not None:
                self._totals.add(stream)
            self._changed.notify_all()

    def __repr__(self) -> str:
        return f"<Streams {len(self)} live{', the process is stopping' if self.closing else ''}>"

    def __iter__(self) -> Iterator[Stream]:
        with self._lock:
            live = list(self._live.values())
        return iter(live)

    def __len__(self) -> int:
        return len(self._live)

    def __contains__(self, stream: object) -> bool:
        return any(live is stream for live in self)

    def get(self, id: str) -> Stream | None:
        """The live stream with this id, or None."""
        return self._live.get(id)

    def totals(self) -> list[Total]:
        """What the streams that have ended add up to, one `Total` for each kind and outcome; a fork starts at none."""
        with self._lock:
            return self._totals.now()

    def snapshot(self) -> tuple[list[Stream], list[Total]]:
        """The live streams and the totals of one moment: each stream is in exactly one of the two."""
        with self._lock:
            return list(self._live.values()), self._totals.now()

    def drain(self) -> None:
        """Tell every live stream to end now: events say `retry:` and end, rows are aborted. Never waits."""
        for stream in self:
            stream.end("drained")

    def wait_until_empty(self, seconds: float) -> bool:
        """Wait until no stream lives, for `seconds` at most; whether that is so."""
        with self._lock:
            return self._changed.wait_for(lambda: not self._live, seconds)

    def _at_exit(self, process: int) -> None:
        if process == os.getpid():
            drain(EXIT_SECONDS)

    def current(self) -> Stream | None:
        """The stream whose producer this code runs in (its generator, its `write` function), or None elsewhere."""
        return current.get()


def drain(seconds: float = 1.0) -> int:
    """End every stream of this process because it is about to stop, and wait until they have, `seconds` at most.

    Event streams say `retry:` (1 to 5 s, at random) and end cleanly, so that their clients resume elsewhere; rows and
    files are aborted; their producers are closed. From now on this process refuses new streams with Draining, which
    clients see as 503, or as a `retry:`. Returns how many are left: those whose producer is blocked in somebody else's
    code. Any thread, any number of times; not for signal handlers, since it takes locks.

    Raises TypeError or ValueError, and drains nothing, for what is no number of seconds from 0 on.
    """
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise TypeError(f"seconds is {seconds!r}; give a number")
    if not 0 <= seconds <= threading.TIMEOUT_MAX:
        raise ValueError(f"seconds is {seconds!r}; give a number of seconds, 0 to wait for none")
    streams.closing = True
    streams.drain()
    streams.wait_until_empty(seconds)
    return len(streams)


streams: Final = Streams()
