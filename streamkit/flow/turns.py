"""Turns of computing, so that exports at full speed do not starve small requests.

Python threads share one interpreter lock, and it is not fair: with twenty threads that format rows as fast as they
can, a request that needs the lock six times waits for twenty others each time, half a second in all. So producers of
rows do not queue for the lock; each reserves its next stretch of computing, one after the other, and sleeps until then.
A request then meets one of them at most.

Law of this file
- A reservation is arithmetic on one number, under a lock that is held for two additions. Nothing is held while a
  producer runs, so one that waits for a database, or never comes back, keeps nobody waiting.
- What is reserved is the processor time that the producer's last chunk took, within bounds: one that mostly waits
  reserves next to nothing, and one that is alone never sleeps.
"""

from __future__ import annotations

import os
import threading
from time import monotonic
from typing import Final

SLACK: Final = 1.1  # a tenth of the time stays free for everybody else
LONGEST: Final = 0.05
"""Seconds of computing that are reserved at most: a producer whose chunks take longer (a compressor, a hash; mostly
without the interpreter lock) must not hold up the others for as long."""
WORTH_SLEEPING: Final = 0.0005  # seconds; a sleep costs about 0.06 ms itself


class Turns:
    """The reservations of one process. Thread-safe."""

    def __init__(self) -> None:
        self._forget()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        # Owned for a few instructions; what the garbage collector ends meanwhile may leave.
        self._lock = threading.RLock()
        self._free_at = 0.0
        self._last = 0  # the id of who reserved last: a reference would keep a response that was dropped

    def reserve(self, producer: object, used: float) -> float:
        """When `producer`, whose last chunk took `used` seconds of computing, is to compute on (time.monotonic())."""
        now = monotonic()
        with self._lock:
            alone = self._last == id(producer)
            self._last = id(producer)
            start = now if alone else max(now, self._free_at)
            self._free_at = start + min(used, LONGEST) * SLACK
        return start

    def leave(self, producer: object) -> None:
        """`producer` computes no more."""
        with self._lock:
            if self._last == id(producer):
                self._last = 0


turns: Final = Turns()
