"""Admission: how many streams may live at once, in all and for each key (a user, an address, a tenant).

A slot is taken before the producer starts and given back by the end of the stream, whatever the end, not by a
generator's `finally`, which never runs for one that never started. The counts are those of this process: with four
workers, four times as many streams are admitted.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from typing import Literal
from weakref import WeakSet

from streamkit.errors import TooManyStreams

EventStreams = Literal["retry", "status"]


class Slot:
    """One stream's place in a limiter. `release()` gives it back, once; any thread."""

    __slots__ = ("_counts", "_limiter", "held", "key")

    def __init__(self, limiter: Limiter, key: str | None) -> None:
        self._limiter = limiter
        self._counts = (
            limiter._by_key
        )  # where it counts: a forked child, which may close its parent's, has others
        self.key = key
        self.held = True

    def release(self) -> None:
        """Give the place back; the second call and later ones do nothing."""
        self._limiter._give_back(self)


class Limiter:
    """At most `max_streams` at once, and at most `per_key` for each key. None is no limit. Thread-safe.

    Give one limiter to all responses that share its places: `EventSourceResponse(events, limiter=limiter)`.

    retry_after: whole seconds that a refused client is told to wait. It gets 503 (the server is full) or 429 (its
        own share is used up; RFC 6585 section 4) with `Retry-After`.
    event_streams: how a client is refused that asks for `text/event-stream`. "retry", the default, answers 200 with
        `retry:` and the end, because a browser's EventSource never comes back after any other status (WHATWG HTML
        9.2.3); "status" answers it like everybody else.

    Raises ValueError for limits below 1, and where neither limit is given.
    """

    def __init__(
        self,
        max_streams: int | None = None,
        per_key: int | None = None,
        *,
        retry_after: int = 5,
        event_streams: EventStreams = "retry",
    ) -> None:
        if max_streams is None and per_key is None:
            raise ValueError("a Limiter needs max_streams, per_key, or both")
        for name, value in (("max_streams", max_streams), ("per_key", per_key), ("retry_after", retry_after)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ValueError(f"{name} is {value!r}; give a whole number above 0")
        if event_streams not in ("retry", "status"):
            raise ValueError(f'event_streams is {event_streams!r}; it is "retry" or "status"')
        self.max_streams = max_streams
        self.per_key = per_key
        self.retry_after = retry_after
        self.event_streams = event_streams
        self._forget()
        _limiters.add(self)

    def _forget(self) -> None:
        """A new process holds none of its parent's streams."""
        # Held for two counts, nothing more; what the garbage collector ends meanwhile may give back a place.
        self._lock = threading.RLock()
        self._taken = 0
        self._by_key: Counter[str] = Counter()

    def __len__(self) -> int:
        """How many places are taken."""
        return self._taken

    def __repr__(self) -> str:
        total = "" if self.max_streams is None else f" of {self.max_streams}"
        share = "" if self.per_key is None else f", {self.per_key} a key"
        return f"<Limiter {self._taken}{total} taken{share}>"

    def acquire(self, key: str | None = None) -> Slot:
        """Take a place, or raise TooManyStreams. `key` is needed where there is a limit per key (else ValueError)."""
        if self.per_key is not None and key is None:
            raise ValueError("this Limiter has per_key, so it needs a key: give limit_key= to the response")
        slot = Slot(self, key)
        with self._lock:
            if self.max_streams is not None and self._taken >= self.max_streams:
                raise self._refusal(f"all {self.max_streams} streams are taken", 503)
            if self.per_key is not None and key is not None:
                if self._by_key[key] >= self.per_key:
                    raise self._refusal(f"all {self.per_key} streams of this key are taken", 429)
                self._by_key[key] += 1
            self._taken += 1
        return slot

    def _refusal(self, message: str, status: int) -> TooManyStreams:
        return TooManyStreams(message, self.retry_after, status, self.event_streams)

    def _give_back(self, slot: Slot) -> None:
        with self._lock:
            if not slot.held or slot._counts is not self._by_key:
                return
            slot.held = False
            self._taken -= 1
            if self.per_key is not None and slot.key is not None:
                self._by_key[slot.key] -= 1
                if not self._by_key[slot.key]:
                    del self._by_key[slot.key]  # keys are users: they must not add up


_limiters: WeakSet[Limiter] = WeakSet()


def _forget_all() -> None:
    for limiter in list(_limiters):
        limiter._forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
