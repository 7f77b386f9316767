"""The one connection of a process on which it waits for what others append.

Law of this file
- Everything belongs to the thread in `follow`, which holds `_lock` all the time that it is in there; `close` asks for
  that lock briefly, and where it does not get it leaves the end to that thread. `wake` takes `_wake_lock` alone, which
  is held for a few instructions, by anybody.
- Redis waits (`XREAD BLOCK`), and this thread waits for its answer and for a pipe into which `wake` writes. When it is
  woken, or out of time, the question stays asked; the next `follow` of the same position waits for its answer.
- A new connection first reads the log: only that compares what this process has seen with what Redis holds now.
"""

from __future__ import annotations

import os
import select
import threading
from time import monotonic
from typing import Any, Final, cast

from streamkit.errors import BrokerUnavailable
from streamkit.hub.broker import Position, Record
from streamkit.hub.redis_calls import Connection, RedisCalls, packed, socket_of
from streamkit.hub.redis_records import Log, number_of, read_words, records_in, records_of
from streamkit.hub.redis_scripts import READ

# How long one XREAD waits in Redis. It is asked anew after that, and the log is read: a FLUSHALL, or a connection that
# died without a word, is noticed within this time (and the timeout of a call).
BLOCK_SECONDS: Final = 5.0
# Records taken from the answer of XREAD itself; where there are more, READ is faster (see there).
WOKEN_RECORDS: Final = 16
# Seconds that an answer which is certain to come may take.
ANSWER_SECONDS: Final = 1.0
# Seconds that `close` waits for the thread in `follow`: it is on its way out.
CLOSE_SECONDS: Final = 0.5

_LAST_MS: Final = (1 << 64) - 1  # of an entry's id; what comes after it has the next number


class RedisReader:
    """Waits for what follows a position of the log `stream`."""

    def __init__(self, calls: RedisCalls, stream: str) -> None:
        self._calls = calls
        self._stream = stream
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._asked: Position | None = None  # XREAD is under way for what follows this
        self._overdue = 0.0  # when its answer is
        self._caught_up: Position | None = None  # the log was seen to end here, on this connection
        self._log: Log | None = None
        self._wake_lock = threading.RLock()  # a finalizer may subscribe in the midst of it
        self._woken = False
        self._bell: tuple[int, int] | None = None  # the pipe; holds one byte while `_woken`, else none

    def follow(self, after: Position, limit: int, timeout: float) -> list[Record]:
        """What follows `after`; see `Broker.follow`. Tries once: where Redis is down it raises at once."""
        with self._lock:
            try:
                self._calls.check_open()
                if timeout <= 0:
                    self._heard_wake()
                    return self._read(after, limit, None)
                return self._follow(after, limit, monotonic() + timeout)
            except self._calls.errors as error:
                self._disconnect()
                self._calls.check_open()
                raise BrokerUnavailable(self._calls.explained(error)) from error
            except (KeyboardInterrupt, SystemExit):
                self._disconnect()  # perhaps in the middle of an answer
                raise
            finally:
                if self._calls.closed:
                    self._end()

    def _follow(self, after: Position, limit: int, deadline: float) -> list[Record]:
        while True:
            connection = self._ready(after)
            if self._asked is None:
                if self._caught_up != after:
                    records = self._read(after, limit, connection)
                    if records:
                        return records
                    self._caught_up = after
                self._ask(connection, after)
            if not self._await_answer(connection, deadline):
                return []
            found = self._answer(connection)
            if found and number_of(found[0].position) == number_of(after) + 1:
                # The end of the log is known only where the answer was not cut off.
                whole = len(found) < WOKEN_RECORDS and len(found) <= limit
                self._caught_up = found[-1].position if whole else None
                return found[:limit]
            # Nothing came for a while, or not what comes next: reading the log says whether something was lost.
            self._caught_up = None

    def _ready(self, after: Position) -> Connection:
        """A connection that is not waiting for what follows some other position."""
        if self._connection is not None and self._asked is not None and self._asked != after:
            # What follows the other one was read without this connection: its answer is here, or about to be.
            if after > self._asked and self._connection.can_read(ANSWER_SECONDS):
                self._answer(self._connection)
            else:
                self._disconnect()
        if self._connection is None:
            connection = self._calls.new_connection()
            connection.connect()
            self._connection = connection
        return self._connection

    def _read(self, after: Position, limit: int, connection: Connection | None) -> list[Record]:
        words = [0, *read_words(after, limit)]
        if connection is None:
            reply = self._calls.attempt(READ, words, monotonic() + self._calls.timeout)
        else:
            reply = self._calls.evaluated(connection, READ, words)
        self._log, records = records_in(reply, self._calls.url)
        return records

    def _ask(self, connection: Connection, after: Position) -> None:
        question = packed(
            *("XREAD", "COUNT", WOKEN_RECORDS, "BLOCK", int(BLOCK_SECONDS * 1000)),
            *("STREAMS", self._stream, f"{number_of(after)}-{_LAST_MS}"),
        )
        connection.send_packed_command([question])
        self._asked = after
        self._overdue = monotonic() + BLOCK_SECONDS + self._calls.timeout

    def _await_answer(self, connection: Connection, deadline: float) -> bool:
        """Whether the answer has come; False when it is later than `deadline`, or `wake` was called."""
        sock = socket_of(connection)
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        poll.register(self._open_bell(), select.POLLIN)
        while True:
            # An answer that is there goes before a wake-up: who is woken all the time would never read it.
            woken = self._heard_wake()
            now = monotonic()
            left = 0.0 if woken else max(0.0, min(deadline, self._overdue) - now)
            ready = {descriptor for descriptor, _ in poll.poll(left * 1000)}
            # TLS has messages of its own, which wake the poll but are no answer.
            if sock.fileno() in ready and connection.can_read(0):
                return True
            if woken:
                self._calls.check_open()
                return False
            if now >= self._overdue:
                raise TimeoutError(f"no answer within {BLOCK_SECONDS + self._calls.timeout:g} s")
            if now >= deadline:
                return False

    def _answer(self, connection: Connection) -> list[Record]:
        """The entries in the answer of XREAD; none where it had none, or the log is not known yet."""
        self._asked = None
        reply = cast("list[Any] | None", connection.read_response())
        return records_of(reply[0][1], self._log) if reply and self._log is not None else []

    def wake(self) -> None:
        """Make `follow` return, or the next one; see `Broker.wake`."""
        with self._wake_lock:
            if not self._woken:
                self._woken = True
                if self._bell is not None:
                    os.write(self._bell[1], b"\0")

    def _heard_wake(self) -> bool:
        with self._wake_lock:
            woken, self._woken = self._woken, False
            if woken and self._bell is not None:
                os.read(self._bell[0], 1)
            return woken

    def _open_bell(self) -> int:
        with self._wake_lock:
            if self._bell is None:
                self._bell = os.pipe()
                if self._woken:
                    os.write(self._bell[1], b"\0")
            return self._bell[0]

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        self._asked = self._caught_up = None
        if connection is not None:
            connection.disconnect()

    def _end(self) -> None:
        self._disconnect()
        with self._wake_lock:
            self.abandon()

    def abandon(self) -> None:
        """Close the pipe, without any lock: in a forked child it may be held by a thread that is not there."""
        bell, self._bell = self._bell, None
        self._woken = False
        for descriptor in bell or ():
            os.close(descriptor)

    def close(self) -> None:
        """End `follow`, which then raises HubClosed, and disconnect; after `RedisCalls.close`."""
        self.wake()
        if self._lock.acquire(timeout=CLOSE_SECONDS):
            try:
                self._end()
            finally:
                self._lock.release()
