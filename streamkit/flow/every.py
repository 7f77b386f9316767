"""A value at a steady beat: clocks, gauges, progress that has to be asked for.

Law of this file
- Beat number n is due at the start plus n times the period, so that errors do not add up.
- A beat that was missed (the function, or the client, was slow) is skipped: two values are never sent to
  catch up.
- It waits on an event, never in `sleep`, so that `cancel` ends it at once.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Generator, Iterator
from typing import Generic, TypeVar

from streamkit.flow.sources import Source

T = TypeVar("T")


class Beats(Generic[T]):
    """The values of a function, called at a steady beat; see `every`."""

    def __init__(
        self, seconds: float, fn: Callable[[], T], times: int | None, clock: Callable[[], float]
    ) -> None:
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
            swapped = "; the seconds come first: every(1.0, fn)" if callable(seconds) else ""
            raise TypeError(f"seconds is {seconds!r}: give the time between two values as a number{swapped}")
        if not 0 < seconds <= threading.TIMEOUT_MAX:
            raise ValueError(f"seconds is {seconds!r}: give the time between two values, more than 0 seconds")
        if times is not None and times < 1:
            raise ValueError(f"times is {times!r}: give the number of values, 1 or more, or None for no end")
        if not callable(fn):
            raise TypeError(f"fn is {fn!r}: give a function without parameters that returns the next value")
        self._seconds = seconds
        self._fn = fn
        self._times = times
        self._clock = clock
        self._wake = threading.Event()
        self._iterator = self._values()

    def __iter__(self) -> Iterator[T]:
        return self._iterator

    def __next__(self) -> T:
        return next(self._iterator)

    def close(self) -> None:
        """End it. There is nothing to release."""
        self._wake.set()
        self._iterator.close()

    def cancel(self) -> None:
        """End it at once, also in the middle of a wait; any thread. A function at work is not interrupted."""
        self._wake.set()

    def _values(self) -> Generator[T, None, None]:
        seconds, clock, wake = self._seconds, self._clock, self._wake
        start = clock()
        beat = count = 0
        while not wake.is_set():
            yield self._fn()
            count += 1
            if count == self._times:
                return
            beat = max(beat + 1, math.ceil((clock() - start) / seconds))
            due = start + beat * seconds
            while (left := due - clock()) > 0:
                if wake.wait(left):
                    return


def every(
    seconds: float,
    fn: Callable[[], T],
    *,
    times: int | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Source[T]:
    """What `fn()` returns: once at once, then once every `seconds`, without drift; missed beats are skipped.

    seconds: the period, more than 0. fn: called without arguments, on the thread that iterates; what it
    raises ends the stream. times: the number of values, 1 or more; None, the default, goes on until the
    client leaves. clock: returns seconds; for tests.

    Raises ValueError for a period of 0 or less and for `times` below 1, TypeError when `seconds` is no number or `fn`
    cannot be called.
    `cancel()` may be called from any thread and wakes a waiting `next()` at once.
    """
    return Beats(seconds, fn, times, clock)
