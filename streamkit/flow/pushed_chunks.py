"""The chunks of a pushed source: no thread produces, whoever sends takes what is there.

Law of this file
- The sending side alone calls the source, but for `cancel`: a thread of the server, which waits here with a deadline,
  or the event loop, which is called and never waits.
- Everything that a source gives is due at once: it came one by one, and somebody is waiting for it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextvars import Context
from time import monotonic
from typing import Any

from streamkit.flow.chunks import Chunks, failure
from streamkit.flow.flush import FLUSH
from streamkit.flow.framing import Frame, Framing
from streamkit.flow.pushed import PushedSource
from streamkit.flow.stream import Stream


class PushedChunks(Chunks[Frame]):
    """What a `PushedSource` gives, framed."""

    calls = True

    def __init__(
        self,
        source: PushedSource,
        framing: Framing[Frame],
        stream: Stream,
        context: Context,
        **_limits: Any,  # of chunks that are gathered; these are not
    ) -> None:
        self.finished = False
        self.error: BaseException | None = None
        self.source: PushedSource | None = source
        self._framing = framing
        self._stream = stream
        self._context = context
        self._opening = True
        self._special = True  # something comes before what the source has: the head, a wait, the end
        # Set by whoever wakes, waited for by the sending thread; None once the event loop sends.
        self._woken: threading.Event | None = threading.Event()
        self._wake: Callable[[], object] = self._woken.set

    def start(self) -> None:
        """Start the source. Raises what that raises."""
        source = self._source_now()
        self._stream.call_on_cancel(source.cancel)
        self._context.run(source.start, self._call)

    def _source_now(self) -> PushedSource:
        assert self.source is not None, "a closed source was used"
        return self.source

    def _call(self) -> None:
        wake = self._wake
        wake()
        if wake is not self._wake:  # `notify` came in between: nobody asks any more what was just called
            self._wake()

    def ready(self, until: float, *, opened_only: bool = False) -> bool:
        """Wait until there is something to take; `start` has opened the source."""
        return opened_only or self._wait(until)

    def _wait(self, until: float) -> bool:
        woken = self._woken
        left = until - monotonic()
        return woken is None or woken.wait(max(0.0, min(left, threading.TIMEOUT_MAX)))

    def take(self, until: float) -> bytes:
        """What the source has ready; the head with the first. Waits until `until` if nothing is."""
        source = self.source
        if self._special or source is None:
            if self._opening:
                self._opening = False
                self._special = self._woken is not None
                head = self._framing.head()
                if head:
                    return self._framing.join([head])
            if self.finished or source is None:
                return b""
            if self._woken is not None:
                if not self._wait(until):
                    return b""
                self._woken.clear()
        try:
            items = source.take()
        except BaseException as error:
            self.fail(error)
            return b""
        return self.chunk_of(items)

    def fail(self, error: BaseException) -> None:
        """The source raised `error` where it was asked for items: that is its end."""
        self.finished, self.error, self._special = True, failure(error), True

    def chunk_of(self, items: Sequence[object]) -> bytes:
        """Frame what was just taken from the source, and see whether that was its last."""
        source = self.source
        assert source is not None
        frames: list[Frame] = []
        encode = self._framing.encode
        try:
            try:
                for item in items:
                    if item is not FLUSH:
                        frames.append(encode(item))  # noqa: PERF401 - a failing item keeps those before it
            finally:
                self._stream.produced += len(frames)
            if source.finished:
                self.finished, self._special = True, True
                self.error = None if source.error is None else failure(source.error)
                if self.error is None and self._stream.outcome is None:
                    frames.append(self._framing.tail())
        except BaseException as error:  # what came before it is sent all the same
            self.fail(error)
        return self._framing.join(frames) if frames else b""

    def notify(self, wake: Callable[[], object]) -> None:
        """Call `wake()` instead of waiting in `take`."""
        woken, self._woken = self._woken, None
        self._special = self._opening or self.finished
        self._wake = wake
        if self.source is not None:
            self.source.wake = wake
        if woken is not None and woken.is_set():
            wake()

    @property
    def steady(self) -> bool:
        """Whether nothing but items comes from the source now, and an event's frame is the event's own."""
        return not self._special and self._framing.keeps_frames

    def abandon(self) -> None:
        """Close the source, which does not wait."""
        source, self.source = self.source, None
        self.finished = self._special = True
        if source is not None:
            self._context.run(source.close)

    def close(self) -> None:
        """Close the source, once. Raises what that raises."""
        self.abandon()
