"""A clock that tests move.

The law: it is a stand-in for what is *injected* (`every(..., clock=clock)`, or your own code that takes a `clock` and a
`sleep`). It replaces nothing in `time`. Heartbeats and deadlines of responses run on real time: give those small
numbers in a test.
"""

from __future__ import annotations

import math
import threading


class FakeClock:
    """Calling it gives its time in seconds, as `time.monotonic()` does; it moves only when told. Thread-safe.

    start: the first time. step: seconds that it moves by itself after each reading; 0, the default, is not at all.
    With a step as long as the period, `every` never waits:

    ```python
    assert list(every(3600, read_gauge, times=3, clock=FakeClock(step=3600))) == [...]
    ```

    Raises ValueError for a `step` that is negative or not a number.
    """

    def __init__(self, start: float = 0.0, *, step: float = 0.0) -> None:
        self._now = float(start)
        self._step = _seconds("step", step)
        self._lock = threading.Lock()  # held for one addition; nobody waits under it

    def __call__(self) -> float:
        """The time now, in seconds; then the clock moves by `step`."""
        with self._lock:
            now = self._now
            self._now += self._step
            return now

    @property
    def now(self) -> float:
        """The time in seconds, without moving the clock."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Move the clock. Raises ValueError for less than 0: a monotonic clock never goes back."""
        with self._lock:
            self._now += _seconds("seconds", seconds)

    def sleep(self, seconds: float) -> None:
        """Stand in for `time.sleep`: move the clock and return at once."""
        self.advance(seconds)

    def __repr__(self) -> str:
        return f"<FakeClock at {self._now}>"


def _seconds(name: str, value: float) -> float:
    if not (0 <= value < math.inf):
        raise ValueError(f"{name} is {value!r}; give a number of seconds from 0 on")
    return value
