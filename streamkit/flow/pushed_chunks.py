"""The chunks of a pushed source: no thread produces, whoever sends takes what is there.

Law of this file
- The sending side alone calls the source, but for `cancel`: a thread of the server, which waits here with a deadline,
  or the event loop, which is called and never waits.
- Everything that a source gives is due at once: it came one by one, and somebody is waiting for it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import Context
from time import monotonic
from typing import Any

from streamkit.flow.chunks import Chunks
from streamkit.flow.flush import FLUSH
from streamkit.flow.framing import Frame, Framing
from streamkit.flow.pushed import PushedSource
from streamkit.flow.stream import Stream


class PushedChunks(Chunks[Frame]):
    """What a `PushedSource` gives, framed."""

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
        framing = self._framing
        frames: list[Frame] = []
        if self._opening:
            self._opening = False
            head = framing.head()
            if head:
                return framing.join([head])
        if self.finished or self.source is None:
            return b""
        woken = self._woken
        if woken is not None:
            if not self._wait(until):
                return b""
            woken.clear()
        source = self.source
        try:
            for item in source.take():
                if item is not FLUSH:
                    frames.append(framing.encode(item))  # noqa: PERF401 - a failing item keeps those before it
            self._stream.events += len(frames)
            if source.finished:
                self.finished, self.error = True, source.error
                if self.error is None and self._stream.outcome is None:
                    frames.append(framing.tail())
        except BaseException as error:  # what came before it is sent all the same
            self.finished, self.error = True, error
        if len(frames) == 1:
            frame = frames[0]
            if isinstance(frame, bytes):
                return frame  # the very object, so that one that goes to thousands is framed once
        return framing.join(frames) if frames else b""

    def notify(self, wake: Callable[[], object]) -> None:
        """Call `wake()` instead of waiting in `take`."""
        woken, self._woken = self._woken, None
        self._wake = wake
        if woken is not None and woken.is_set():
            wake()

    def abandon(self) -> None:
        """Close the source, which does not wait."""
        source, self.source = self.source, None
        self.finished = True
        if source is not None:
            self._context.run(source.close)

    def close(self) -> None:
        """Close the source, once. Raises what that raises."""
        self.abandon()
