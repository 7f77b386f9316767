"""The log in this process's memory: `memory://`. For one process, tests and development.

Law of this file
- One condition guards everything. It is held for list and dictionary operations only, never across user code; the
  reader waits on it in `follow`, publishers wait for nobody but each other.
- But the garbage collector may run a finalizer in the midst of them, which publishes on the same thread: its lock may
  be taken again. So what is added or trimmed is prepared first and then put in place by operations on lists and
  dictionaries that make no new object and call nothing, where the collector cannot come in; and it is prepared anew
  where something was added meanwhile.
- Positions are dense: record number n is at index n - floor - 1. A position is never given twice.
"""

from __future__ import annotations

import secrets
import threading
import time
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Final

from streamkit.errors import DuplicateEvent, HubClosed
from streamkit.hub.broker import RETAIN, Entry, HistoryLost, LeaseState, Position, Record

# Trimming moves what is left of a list, so it is done in steps of this share of what is retained: amortised, a
# publication moves a few pointers.
TRIM_SHARE: Final = 8


class MemoryBroker:
    """See `Broker`. The epoch is the process's: after a restart every old id is unknown, which is a gap."""

    local = True

    def __init__(
        self, url: str = "memory://", *, retain: int | None = None, retain_seconds: float | None = None
    ) -> None:
        self.url = url
        self._retain = RETAIN if retain is None else retain
        self._retain_seconds = retain_seconds
        self._clear()

    def _clear(self) -> None:
        # Always entered itself: entering a Condition is Python code, and what a signal handler raises in there leaves
        # it taken.
        self._lock = threading.RLock()
        self._condition = threading.Condition(self._lock)
        self._epoch = secrets.token_hex(4)
        self._records: list[Record] = []
        self._times: list[float] = []  # time.monotonic() of each record, where that is asked for
        self._head = 0
        self._own_ids: dict[str, Position] = {}
        self._waiting = False
        self._woken = False
        self._closed = False
        self._leases: dict[str, tuple[str, float, bool]] = {}  # name: holder, when it expires, asked to stop
        self._present: dict[str, int] = {}
        self._present_until = 0.0

    def append(self, entries: Sequence[Entry]) -> list[str]:
        """Add to the log; see `Broker.append`."""
        with self._lock:
            self._check_open()
            prefix = f"{self._epoch}-"
            own_ids = [entry.id for entry in entries if entry.id is not None]
            while True:
                if own_ids:
                    self._refuse_taken(own_ids, prefix)
                head = position = self._head
                records, chosen = [], {}
                for topic, data, event, id in entries:
                    position += 1
                    if id is None:
                        id = f"{prefix}{position}"
                    else:
                        chosen[id] = position
                    records.append(Record(position, id, topic, data, event))
                times = [] if self._retain_seconds is None else [time.monotonic()] * len(records)
                if self._head == head:
                    break
            self._records += records
            self._times += times
            self._own_ids |= chosen
            self._head = position
            self._trim()
            if self._waiting:
                self._waiting = False
                self._condition.notify_all()
        return [record.id for record in records]

    def _refuse_taken(self, ids: Sequence[str], prefix: str) -> None:
        seen: set[str] = set()
        for id in ids:
            if id in self._own_ids or id in seen:
                raise DuplicateEvent(f"id {id!r} was published already; nothing of this call was published")
            if id.startswith(prefix):
                raise DuplicateEvent(
                    f"id {id!r} begins as the hub's own ids do; choose another, or leave it out"
                )
            seen.add(id)

    def _trim(self) -> None:
        records, head = self._records, self._head
        surplus = len(records) - self._retain
        if self._times:
            late = bisect_left(self._times, time.monotonic() - self._retain_seconds)  # type: ignore[operator]
            surplus = max(surplus, min(late, len(records) - 1))
        if surplus <= 0 or surplus * TRIM_SHARE < min(self._retain, len(records)):
            return
        for record in records[:surplus] if self._own_ids else ():
            self._own_ids.pop(record.id, None)
        first = slice(surplus)
        if self._head == head:  # else who came in between has trimmed
            del records[first]
            del self._times[first]

    def read(self, after: Position, limit: int) -> list[Record]:
        """What follows `after`; see `Broker.read`."""
        with self._lock:
            self._check_open()
            return self._read(after, limit)

    def _read(self, after: Position, limit: int) -> list[Record]:
        floor = self._floor
        start = after - floor
        if not 0 <= start <= len(self._records):
            raise HistoryLost(f"the log holds what follows {floor}, not what follows {after}")
        found = self._records[start : start + limit]
        if found and found[0].position != after + 1:
            return self._read(after, limit)  # trimmed by a finalizer, a moment ago
        return found

    def follow(self, after: Position, limit: int, timeout: float) -> list[Record]:
        """What follows `after`, waited for; see `Broker.follow`."""
        deadline = time.monotonic() + timeout
        with self._lock:
            while True:
                self._check_open()
                found = self._read(after, limit)
                left = deadline - time.monotonic()
                if found or self._woken or left <= 0:
                    self._woken = False
                    return found
                self._waiting = True
                self._condition.wait(left)

    def wake(self) -> None:
        """Make `follow` return; see `Broker.wake`."""
        with self._lock:
            self._woken = True
            self._condition.notify_all()

    def head(self) -> Position:
        """The newest position."""
        with self._lock:
            self._check_open()
            return self._head

    def floor(self) -> Position:
        """The position before the oldest record that is held."""
        with self._lock:
            self._check_open()
            return self._floor

    def locate(self, id: str) -> Position | None:
        """Where this id is; see `Broker.locate`."""
        with self._lock:
            self._check_open()
            known = self._own_ids.get(id)
            if known is not None:
                return known
            position = number_of(id, self._epoch)
            if position is None or position > self._head:
                return None
            # A record with an own id has no second one: that id was never given out.
            index = position - self._floor - 1
            return position if index < 0 or self._records[index].id == id else None

    # -- leases -----------------------------------------------------------------------------------------------------

    def claim(self, name: str, holder: str, seconds: float) -> str:
        """Take a lease; see `Broker.claim`."""
        with self._lock:
            self._check_open()
            held = self._leases.get(name)
            if held is not None:
                return held[0]
            self._leases[name] = (holder, time.monotonic() + seconds, False)
            return holder

    def renew(self, leases: Sequence[tuple[str, str]], seconds: float) -> list[LeaseState]:
        """Extend leases; see `Broker.renew`."""
        states: list[LeaseState] = []
        with self._lock:
            self._check_open()
            for name, holder in leases:
                held = self._leases.get(name)
                if held is None or held[0] != holder:
                    states.append("lost")
                    continue
                self._leases[name] = (holder, time.monotonic() + seconds, held[2])
                states.append("stopping" if held[2] else "held")
        return states

    def release(self, name: str, holder: str) -> bool:
        """Give a lease up; see `Broker.release`."""
        with self._lock:
            self._check_open()
            held = self._leases.get(name)
            if held is None or held[0] != holder:
                return False
            del self._leases[name]
            return True

    def holder(self, name: str) -> str | None:
        """Who has a lease."""
        with self._lock:
            self._check_open()
            held = self._leases.get(name)
            return None if held is None else held[0]

    def expired(self) -> list[tuple[str, str]]:
        """Leases that nobody renewed in time; see `Broker.expired`."""
        now = time.monotonic()
        with self._lock:
            self._check_open()
            late = [(name, held[0]) for name, held in self._leases.items() if held[1] <= now]
        return late[:100]

    def request_stop(self, name: str, holder: str) -> bool:
        """Ask the holder of a lease to stop; see `Broker.request_stop`."""
        with self._lock:
            self._check_open()
            held = self._leases.get(name)
            if held is None or held[0] != holder:
                return False
            self._leases[name] = (holder, held[1], True)
            return True

    # -- presence ---------------------------------------------------------------------------------------------------

    def announce(self, counts: Mapping[str, int], seconds: float) -> None:
        """Say how many listen here; see `Broker.announce`."""
        now = time.monotonic()
        with self._lock:
            self._check_open()
            if now >= self._present_until:
                self._present.clear()
            self._present_until = now + seconds
            for topic, count in counts.items():
                if count:
                    self._present[topic] = count
                else:
                    self._present.pop(topic, None)

    def present(self, topic: str) -> int | None:
        """How many listen; see `Broker.present`."""
        with self._lock:
            self._check_open()
            return self._present.get(topic, 0) if time.monotonic() < self._present_until else 0

    # -- life -------------------------------------------------------------------------------------------------------

    def after_fork(self) -> None:
        """The child has a log of its own from here on, with an epoch of its own: the parent's ids are gaps to it."""
        self._clear()

    def close(self) -> None:
        """Forget everything and wake `follow`."""
        with self._lock:
            self._closed = True
            self._records = []
            self._own_ids = {}
            self._condition.notify_all()

    @property
    def _floor(self) -> Position:
        while True:
            head = self._head
            floor = head - len(self._records)
            if self._head == head:
                return floor

    def _check_open(self) -> None:
        if self._closed:
            raise HubClosed(f"the hub on {self.url} is closed; make a new one to publish or subscribe")


def number_of(id: str, epoch: str) -> int | None:
    """The number in an id of the form `epoch-number`; None for any other text."""
    prefix, _, digits = id.rpartition("-")
    # 19 digits hold every position that a 64-bit integer can; a longer one was never given out.
    if (
        prefix != epoch
        or not digits.isascii()
        or not digits.isdigit()
        or len(digits) > 19
        or digits[0] == "0"
    ):
        return None
    return int(digits)
