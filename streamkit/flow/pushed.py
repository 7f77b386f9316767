"""Sources that are pushed: they say when they have items, so that no thread waits for them.

Law of this file
- The stream takes and the source wakes. `wake` may be called by any thread, at any moment, also from inside `start`
  and `take`; it never blocks, never raises and calls nothing of the source.
- One `wake` follows for everything that the last `take` did not give: for items that come later, for more that is
  ready already, and for the end. So a stream that takes once for each wake misses nothing.
- `start`, `take` and `close` are called by one thread at a time; `cancel` by any.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence


class PushedSource(ABC):
    """Items from somewhere else (a hub, a broker, a callback API), for any number of streams on no thread at all.

    Write one to stream from something that calls back. Iterating over it works as well: that waits on the thread
    that iterates.

    `finished` is True once `take` has given the last item; `error` then says whether the source failed.
    """

    finished: bool = False
    error: BaseException | None = None
    wake: Callable[[], object]
    """What `start` was given. A source that calls it from here, not from a copy, is told when it changes hands: that
    is one call less for each event of each stream."""

    @property
    def local(self) -> bool:
        """Whether it hears of nothing but what happens in this process."""
        return False

    def resume_after(self, last_event_id: str | None) -> None:  # noqa: B027 - most sources cannot resume
        """Begin after the event with this id, what a client gave back as `Last-Event-ID`. Called before `start`, if
        at all; a source that cannot resume, or was told where to begin already, does nothing.
        """

    @abstractmethod
    def start(self, wake: Callable[[], object]) -> None:
        """Begin. From now on `wake()` is called once whenever there is something to take, or the end to be seen.

        Must not block. What it raises is raised as what a generator raises at its first item.
        """

    @abstractmethod
    def take(self) -> Sequence[object]:
        """What is ready now, in order, at most one step's worth; empty where nothing is. Must not block.

        Where more is ready already, `wake` is called once more before this returns.
        """

    @abstractmethod
    def cancel(self) -> None:
        """End as soon as possible: `finished` becomes True and `wake` is called. Any thread, any number of times,
        before `start` and after `close` too; must not block.
        """

    @abstractmethod
    def close(self) -> None:
        """Release everything. Called once by a stream, by the one that took last; a second call does nothing. Must not
        block.
        """

    def __iter__(self) -> Iterator[object]:
        """The items, waited for by the thread that iterates. Raises `error` at the end, if there is one."""
        woken = threading.Event()  # set by whoever wakes, waited for by this thread alone
        self.start(woken.set)
        try:
            while not self.finished:
                woken.wait()
                woken.clear()
                yield from self.take()
            if self.error is not None:
                raise self.error
        finally:
            self.close()
