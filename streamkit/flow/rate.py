"""Bytes a second and bytes a period: how much a stream, or all streams of a key, may send.

Law of this file
- Arithmetic only: nothing here waits, and the caller brings the time (`time.monotonic()`), so an hour of sending is
  tested in no time. Who sends asks once for each chunk, before it goes out: `delay(size, now)`.
- Asking books the bytes: a chunk that is then not sent has been paid for.
- The counts are those of this process: four workers send four times as much.
- One lock guards all counts. It is held for a few additions, so that thousands of limits need no lock of their own,
  and a new process replaces one.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable
from time import monotonic
from typing import Generic, Protocol, TypeVar
from weakref import WeakValueDictionary

from streamkit.errors import QuotaExceeded

__all__ = ["Allowance", "Limit", "PerKey", "Quota", "Rate"]

_lock = threading.Lock()  # owned by whoever books; nothing is waited for and nobody's code is called under it

# Keys are looked through for idle ones whenever there are twice as many as after the last look, so that a look costs
# nothing per key in the long run. Below this number there is nothing to gain.
KEYS_WORTH_A_LOOK = 64


class Limit(Protocol):
    """What `Allowance` and `PerKey` ask of a limit."""

    def delay(self, size: int, now: float) -> float:
        """Book `size` bytes and return the seconds to wait before they go out, or raise QuotaExceeded."""
        ...

    def is_idle(self, now: float) -> bool:
        """Whether it stands as if it were new, and may be forgotten."""
        ...


class Rate:
    """A token bucket: `bytes_per_second` in the long run, `burst` bytes at once after a pause. Thread-safe.

    burst: default: what flows in one second. A chunk larger than the burst waits until all of it has flowed in.

    One object may be shared by several streams: they divide the rate, each chunk waiting behind those before it.
    Raises ValueError for numbers that are not above 0.
    """

    __slots__ = ("__weakref__", "_paid_at", "burst", "bytes_per_second")

    def __init__(self, bytes_per_second: float, burst: int | None = None) -> None:
        _above_zero("bytes_per_second", bytes_per_second)
        _above_zero("burst", bytes_per_second if burst is None else burst)
        self.bytes_per_second = bytes_per_second
        self.burst = bytes_per_second if burst is None else burst
        # The bucket as one number: when it was, or will be, exactly empty. It is full `burst` later.
        self._paid_at = -math.inf

    def delay(self, size: int, now: float) -> float:
        """Book `size` bytes; the seconds from `now` (time.monotonic()) until they may go out, 0.0 for at once."""
        with _lock:
            full_since = now - self.burst / self.bytes_per_second
            self._paid_at = paid_at = max(self._paid_at, full_since) + size / self.bytes_per_second
        return max(0.0, paid_at - now)

    def __repr__(self) -> str:
        free = min(self.burst, (monotonic() - self._paid_at) * self.bytes_per_second)
        state = f"{free:.0f} of {self.burst:g} free" if free >= 0 else f"{-free:.0f} owed"
        return f"<Rate {self.bytes_per_second:g} bytes a second, {state}>"

    def is_idle(self, now: float) -> bool:
        """Whether the bucket is full."""
        return self._paid_at <= now - self.burst / self.bytes_per_second

    @property
    def even_bytes(self) -> int:
        """The largest chunk that keeps the flow even, a quarter of a second's: cut longer ones to this, 1 KiB or more.

        Without it a 64 KiB chunk at 8 KiB/s is eight seconds of silence and then a rush.
        """
        return max(1024, int(self.bytes_per_second / 4))


class Quota:
    """`max_bytes` in each period of `per` seconds; the period begins with its first byte. Thread-safe.

    Around the turn of two periods twice as much may pass. Raises ValueError for numbers that are not above 0.
    """

    __slots__ = ("__weakref__", "_ends_at", "_used", "max_bytes", "per")

    def __init__(self, max_bytes: int, per: float) -> None:
        _above_zero("max_bytes", max_bytes)
        _above_zero("per", per)
        self.max_bytes = max_bytes
        self.per = per
        self._used = 0
        self._ends_at = -math.inf

    def delay(self, size: int, now: float) -> float:
        """Book `size` bytes and return 0.0; raises QuotaExceeded, and books nothing, where they are too many."""
        with _lock:
            if now >= self._ends_at:
                self._ends_at = now + self.per
                self._used = 0
            if self._used + size <= self.max_bytes:
                self._used += size
                return 0.0
            used, ends_in = self._used, self._ends_at - now
        raise QuotaExceeded(
            f"{used} bytes of {self.max_bytes} in {self.per:g} s are used, {size} more are too many; the next period "
            f"begins in {math.ceil(ends_in)} s"
        )

    def __repr__(self) -> str:
        return f"<Quota {self.left(monotonic())} of {self.max_bytes} bytes left, per {self.per:g} s>"

    def left(self, now: float) -> int:
        """The bytes that may still be sent in this period."""
        with _lock:
            return self.max_bytes if now >= self._ends_at else self.max_bytes - self._used

    def retry_after(self, now: float) -> int:
        """Whole seconds until the next period, for a `Retry-After`; 0 while something is left."""
        with _lock:
            if now >= self._ends_at or self._used < self.max_bytes:
                return 0
            return math.ceil(self._ends_at - now)

    def is_idle(self, now: float) -> bool:
        """Whether its period is over."""
        return now >= self._ends_at


LimitT = TypeVar("LimitT", bound=Limit)


class PerKey(Generic[LimitT]):
    """A limit for each key (a user, an address, a tenant): `PerKey(lambda: Rate(1_000_000)).of("alice")`. Thread-safe.

    make: called for a key that is new or was idle long enough to be forgotten; it must not take locks of yours.
    """

    def __init__(self, make: Callable[[], LimitT]) -> None:
        self._make = make
        # Found while a stream has it, or while it is held here: until it is seen to be idle.
        self._limits: WeakValueDictionary[str, LimitT] = WeakValueDictionary()
        self._held: dict[str, LimitT] = {}
        self._look_at = KEYS_WORTH_A_LOOK

    def __len__(self) -> int:
        """How many keys are remembered."""
        return len(self._held)

    def of(self, key: str, now: float | None = None) -> LimitT:
        """The limit of a key, for one stream to keep; now: time.monotonic(), the default."""
        limit = self._held.get(key)
        if limit is not None:
            return limit
        new = self._make()
        with _lock:
            if len(self._held) >= self._look_at:
                moment = monotonic() if now is None else now
                self._held = {key: limit for key, limit in self._held.items() if not limit.is_idle(moment)}
                self._look_at = max(KEYS_WORTH_A_LOOK, 2 * len(self._held))
            limit = self._limits.setdefault(key, new)
            return self._held.setdefault(key, limit)


class Allowance:
    """All limits of one stream (its own rate, its key's rate, its key's quota) behind one call for each chunk.

    Quotas are asked first, so that what is refused costs no rate. Without limits nothing is asked.
    """

    __slots__ = ("_limits", "even_bytes")

    def __init__(self, *limits: Limit) -> None:
        self._limits = sorted(limits, key=lambda limit: isinstance(limit, Rate))
        rates = [limit.even_bytes for limit in limits if isinstance(limit, Rate)]
        self.even_bytes: int | None = min(rates) if rates else None
        """The largest chunk that keeps the flow even (see Rate); None where no rate is limited."""

    def delay(self, size: int, now: float) -> float:
        """Book `size` bytes with every limit; the seconds to wait before they go out. Raises QuotaExceeded."""
        wait = 0.0
        for limit in self._limits:
            wait = max(wait, limit.delay(size, now))
        return wait


def _above_zero(name: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} is {value!r}; give a number")
    if not 0 < value < math.inf:
        raise ValueError(f"{name} is {value!r}; give a number above 0; to lift the limit, give none")


def _forget_lock() -> None:
    global _lock
    _lock = threading.Lock()  # another thread of the parent may have held it


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_lock)
