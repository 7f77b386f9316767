"""The record of one live stream: what it has sent, how it is told to stop, and the one place where it ends.

Law of this file
- `end()` decides *why* a stream ends. Any thread may call it, the first call wins, and it never blocks.
- `_finish()` does what has to be done *once*: it runs every callback, takes the stream out of the registry and
  writes the line to the log. It is reached when every party (the thread that produces, the thread that sends) has
  called `leave()`, and runs on the thread of the last one, so no callback ever runs beside a producer at work. A
  party that may not wait for a user's code (the event loop) says who runs it instead.
- The counters have one writer each: `produced` belongs to the producing thread, the tally to the sending one.
"""

from __future__ import annotations

import itertools
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping
from contextvars import Context
from typing import Final, Literal

from streamkit.flow.failure_log import log_failure
from streamkit.flow.streams import current, streams

Outcome = Literal["completed", "failed", "client_gone", "too_slow", "expired", "drained"]
State = Literal["opening", "streaming", "ending", "ended"]
DeliveredBy = Literal["threaded", "detached"]

log: Final = logging.getLogger("streamkit")

_numbers = itertools.count(1)


class Tally:
    """What was sent on one stream. Written by whoever sends, which is why the event loop's connections are tallies
    themselves: one object less to reach for each event of each stream.

    last_write: time.monotonic(), None before the first. events: those that were sent without being counted before.
    """

    __slots__ = ("bytes", "chunks", "events", "last_write")

    chunks: int
    events: int
    bytes: int
    last_write: float | None

    def __init__(self, before: Tally | None = None) -> None:
        self.chunks = before.chunks if before is not None else 0
        self.events = before.events if before is not None else 0
        self.bytes = before.bytes if before is not None else 0
        self.last_write = before.last_write if before is not None else None


class Stream:
    """One live stream. Read it from any thread; the numbers are those of this moment.

    id: short, unique among the processes of one machine. kind: "events", "csv", ... path: SCRIPT_NAME and
        PATH_INFO, never the query string, which may hold a secret. peer: "address:port" of the connection; behind a
        proxy, the proxy.
    chunks, bytes: handed to the server so far. events: items taken from the producer. opened: seconds since the
        epoch.
    first_byte_delay: seconds until the first byte, or None. state: opening, streaming, ending, ended. delivery:
        "threaded" while a thread of the server sends, "detached" once the event loop does.
    outcome: None while it lives, then completed, failed, client_gone, too_slow, expired or drained.
    cancelled: an event that is set when the stream has to stop early; a producer may wait on it instead of
        sleeping.
    """

    __slots__ = (
        "_callbacks",
        "_cancelled",
        "_cancels",
        "_context",
        "_lock",
        "_parties",
        "_releases",
        "_started",
        "delivery",
        "error",
        "first_byte_delay",
        "id",
        "kind",
        "opened",
        "outcome",
        "path",
        "peer",
        "produced",
        "state",
        "tally",
    )

    def __init__(self, kind: str, environ: Mapping[str, object], context: Context) -> None:
        context.run(current.set, self)
        self._context = context
        self.id = f"{os.getpid():x}-{next(_numbers):x}"
        self.kind = kind
        self.path = f"{environ.get('SCRIPT_NAME', '')}{environ.get('PATH_INFO', '')}"
        self.peer = _peer(environ)
        self.opened = time.time()
        self._started = time.monotonic()
        self.produced = 0
        self.tally = Tally()
        self.first_byte_delay: float | None = None
        self.state: State = "opening"
        self.outcome: Outcome | None = None
        self.error: BaseException | None = None
        self.delivery: DeliveredBy = "threaded"
        # Most streams are never waited on, and an event is a kilobyte: it is made when it is asked for.
        self._cancelled: threading.Event | None = None
        # Owned by whoever is inside a method of this class, for a few instructions; nothing is called under it but what
        # the garbage collector ends (see `Streams`).
        self._lock = threading.RLock()
        self._parties = 1
        self._releases: list[Callable[[], object]] = []
        self._callbacks: list[Callable[[], object]] = []
        self._cancels: list[Callable[[], object]] = []

    # -- what it has done ---------------------------------------------------------------------------------------

    @property
    def age(self) -> float:
        """Seconds since the stream was opened."""
        return time.monotonic() - self._started

    @property
    def chunks(self) -> int:
        """Chunks that were handed to the server, or sent."""
        return self.tally.chunks

    @property
    def bytes(self) -> int:
        """Bytes in these chunks."""
        return self.tally.bytes

    @property
    def events(self) -> int:
        """Items taken from the producer."""
        return self.produced + self.tally.events

    @property
    def last_write(self) -> float | None:
        """When the last chunk was sent (time.monotonic()), or None."""
        return self.tally.last_write

    def sent(self, size: int, now: float | None = None) -> None:
        """Count one chunk of `size` bytes, sent `now` (time.monotonic()). Called by the sending thread alone."""
        tally = self.tally
        tally.last_write = now = time.monotonic() if now is None else now
        if not tally.chunks:
            self.first_byte_delay = now - self._started
            self.state = "streaming"
        tally.chunks += 1
        tally.bytes += size

    def as_dict(self) -> dict[str, object]:
        """The record as JSON values: durations in seconds, `last_write` as seconds ago."""
        last = self.last_write
        return {
            "id": self.id,
            "kind": self.kind,
            "path": self.path,
            "peer": self.peer,
            "state": self.state,
            "delivery": self.delivery,
            "outcome": self.outcome,
            "age": round(self.age, 3),
            "chunks": self.chunks,
            "events": self.events,
            "bytes": self.bytes,
            "first_byte_delay": None if self.first_byte_delay is None else round(self.first_byte_delay, 6),
            "last_write": None if last is None else round(time.monotonic() - last, 3),
        }

    def __repr__(self) -> str:
        return f"<Stream {self.id} {self.kind} {self.path!r} {self.outcome or self.state}>"

    # -- how it ends --------------------------------------------------------------------------------------------

    def call_on_close(self, callback: Callable[[], object]) -> None:
        """Run `callback()` once, at the end, whatever the end. Any thread; too late a call runs it at once."""
        with self._lock:
            if self.state != "ended":
                self._callbacks.append(callback)
                return
        callback()

    def release_at_end(self, release: Callable[[], object]) -> None:
        """Run `release()` once, at the end, before any callback. It must not block: the event loop may run it."""
        with self._lock:
            if self.state != "ended":
                self._releases.append(release)
                return
        release()

    @property
    def cancelled(self) -> threading.Event:
        """An event that is set when the stream has to stop early."""
        with self._lock:
            if self._cancelled is None:
                self._cancelled = threading.Event()
                if self._is_cancelled():
                    self._cancelled.set()
            return self._cancelled

    def _is_cancelled(self) -> bool:
        return self.outcome is not None and self.outcome != "completed"

    def call_on_cancel(self, cancel: Callable[[], object]) -> None:
        """Run `cancel()` when the stream is told to stop early. It must not block; it wakes a blocked producer."""
        with self._lock:
            if not self._is_cancelled():
                self._cancels.append(cancel)
                return
        cancel()

    def join_in(self) -> None:
        """One more party takes part (a thread of its own): `finish` waits for its `leave` too."""
        with self._lock:
            self._parties += 1

    def end(self, outcome: Outcome, error: BaseException | None = None) -> bool:
        """Decide why the stream ends; True if this call decided it. Any thread; never blocks, never raises.

        Every outcome but `completed` cancels the producer.
        """
        with self._lock:
            if self.outcome is not None:
                return False
            self.outcome = outcome
            self.error = error
            self.state = "ending"
            cancels: list[Callable[[], object]] = []
            if outcome != "completed":
                cancels, self._cancels = self._cancels, []
                if self._cancelled is not None:
                    self._cancelled.set()
        for cancel in cancels:
            try:
                cancel()
            except BaseException:  # the caller may be the event loop, which serves on
                log_failure("stream %s: cancelling its source failed", self.id)
        return True

    def leave(
        self,
        error: BaseException | None = None,
        *,
        elsewhere: Callable[[Callable[[], object]], object] | None = None,
    ) -> None:
        """One party is done with the stream, perhaps with an error of its own. The last one runs the callbacks.

        elsewhere: runs a function on another thread, for a party that may not wait for callbacks. What may block
            goes there, the rest is done at once.
        Raises `error`, else the first error of a callback.
        """
        with self._lock:
            self._parties -= 1
            last = self._parties == 0
            releases: list[Callable[[], object]] = []
            if last:
                releases, self._releases = self._releases, []
        try:
            for release in releases:
                release()
        finally:
            if last and elsewhere is not None and self._callbacks:
                elsewhere(self._finish)
            elif last:
                self._finish(error)
        if error is not None and not last:
            raise error

    def _finish(self, first: BaseException | None = None) -> None:
        self.end("client_gone")  # nobody said why: the server dropped the response
        with self._lock:
            callbacks, self._callbacks = self._callbacks, []
            self._cancels = []
            self.state = "ended"
        # A copy, because the producer's thread may still be on its way out of the context itself.
        context = self._context.copy()
        try:
            for callback in callbacks:
                try:
                    context.run(callback)
                except BaseException as error:  # every callback runs, then the first error is raised
                    if first is not None:
                        log_failure("stream %s: a further callback failed", self.id)
                    first = error if first is None else first
        finally:  # whatever a signal handler raises between two of them
            streams._remove(self)
        self._write_last_line()
        if first is not None:
            raise first

    def _write_first_line(self) -> None:
        log.info("stream %s opened: %s %s from %s", self.id, self.kind, ascii(self.path), self.peer or "-")

    def _write_last_line(self) -> None:
        failed = self.error is not None
        delay = self.first_byte_delay
        log.log(
            logging.ERROR if failed else logging.INFO,
            "stream %s %s: %s %s, %d events, %d chunks, %d bytes in %.3f s, first byte after %s%s",
            self.id,
            self.outcome,
            self.kind,
            ascii(self.path),
            self.events,
            self.chunks,
            self.bytes,
            self.age,
            "-" if delay is None else f"{delay:.3f} s",
            _advice(self.error),
            exc_info=self.error,
        )


def _peer(environ: Mapping[str, object]) -> str:
    address, port = environ.get("REMOTE_ADDR"), environ.get("REMOTE_PORT")
    if not address:
        return ""
    text = ascii(str(address))[1:-1]
    if port:
        text = f"[{text}]:{port}" if ":" in text else f"{text}:{port}"
    return text


def _advice(error: BaseException | None) -> str:
    # sqlite3 objects refuse to be used on another thread than the one that made them.
    if isinstance(error, sqlite3.ProgrammingError) and "thread" in str(error):
        return (
            "; the producer runs on a thread of its own: open the connection inside the generator,"
            ' or pass delivery="threaded" to run rows on the request\'s thread'
        )
    return ""
