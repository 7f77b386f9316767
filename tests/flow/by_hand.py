"""A pushed source that a test feeds by hand, and a framing of words whose every method leaves a mark."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from streamkit.flow.pushed import PushedSource


class ByHand(PushedSource):
    """Gives what `push` was given, at most `step` items at a time. Any thread may push, end and cancel."""

    def __init__(self, *items: object, step: int = 100) -> None:
        self.items: list[object] = list(items)
        self.step = step
        self.ended = False
        self.closed = 0
        self.cancelled = 0
        self.takes = 0
        self.failure: BaseException | None = None
        self.wake: Callable[[], object] = bool
        self._lock = threading.RLock()  # owned for a few list operations, by whoever pushes or takes

    def start(self, wake: Callable[[], object]) -> None:
        self.wake = wake
        if self.items or self.ended:
            wake()

    def push(self, *items: object) -> None:
        with self._lock:
            self.items += items
            self.wake()

    def end(self, error: BaseException | None = None) -> None:
        self.ended, self.failure = True, error
        self.wake()

    def take(self) -> Sequence[object]:
        with self._lock:
            self.takes += 1
            taken, self.items = self.items[: self.step], self.items[self.step :]
            if self.items:
                self.wake()
            elif self.ended:
                self.finished, self.error = True, self.failure
            return taken

    def cancel(self) -> None:
        self.cancelled += 1
        self.ended = True
        self.wake()

    def close(self) -> None:
        self.closed += 1


class Words:
    """`<` opens, each word is followed by a space, `>` is a clean end, `!` a failed one, `...` a planned one."""

    heartbeat: bytes | None = b"~"
    resets = False
    head_first = True
    keeps_frames = True
    encode_batch = None

    def __init__(self, pause: bytes | None = b"...") -> None:
        self.pause = pause

    def head(self) -> bytes:
        return b"<"

    def encode(self, item: object) -> bytes:
        if isinstance(item, bytes):
            return item
        if not isinstance(item, str):
            raise TypeError(f"a word is text, got {type(item).__name__}")
        return item.encode() + b" "

    def tail(self) -> bytes:
        return b">"

    def join(self, frames: Sequence[bytes]) -> bytes:
        return b"".join(frames)

    def finish(self) -> bytes:
        return b""

    def failed(self, error: BaseException) -> bytes:
        return b"!"

    def paused(self) -> bytes | None:
        return self.pause
