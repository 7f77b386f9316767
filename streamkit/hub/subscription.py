"""One subscriber: a bounded buffer between the hub's reader, which fills it, and a stream, which empties it.

Law of this file
- The reader's thread alone appends to the buffer, and owns the fields below "the reader's". The stream's thread alone
  takes from it. `deque.append` and `popleft` are atomic, so there is no lock, and one event costs a subscriber an
  append and the look at a flag.
- The flag `asleep`: the stream sets it and then looks into the buffer; the reader appends and then looks at the flag.
  So one of the two always sees the other. Whoever clears it wakes the stream.
- A buffer that is full drops nothing: the subscription leaves the live audience, keeps its place in the log, and goes
  on reading there when the stream has taken half of what was ready.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, Literal

from streamkit.errors import SubscriberTooSlow
from streamkit.flow.failure_log import log_surely
from streamkit.flow.pushed import PushedSource
from streamkit.formats.event_stream import ServerSentEvent
from streamkit.hub.topics import check_pattern, is_pattern, matcher

if TYPE_CHECKING:
    from streamkit.hub.broker import Position
    from streamkit.hub.hub import Hub

# What one subscriber may have waiting: as many events, and as many bytes (of events of about one size) as the queue of
# a pump. The events are shared by all subscribers, so this bounds how far behind one may be, more than memory.
BUFFER_EVENTS: Final = 1000
BUFFER_BYTES: Final = 256 * 1024
# What one `take` gives: a few hundred small events are one or two full segments of TCP, and soon encoded.
STEP_EVENTS: Final = 250

Filter = Callable[[str, ServerSentEvent], object]
Place = Literal["new", "catching up", "waiting", "live", "gone"]


def _nobody() -> None:
    pass


class Subscription(PushedSource):
    """The events of some topics, in the order of their publication; made by `Hub.subscribe`.

    Give it to `EventSourceResponse`, or iterate over it. Nothing happens before it is started; then it is registered
    first, history after its last event id is replayed, and live events follow, none lost or doubled at the seam.
    Items are ServerSentEvent, the same object for all subscribers; a `Gap` where history does not reach back.

    It ends with `cancel`, with the hub (`HubClosed`), when its filter raises (with that error), or as
    SubscriberTooSlow, when it has read so slowly that the log no longer holds what comes next for it.
    """

    # No dictionary beside the object: thousands of subscribers fit into no cache, and an event touches each twice.
    __slots__ = (
        "_cancelled",
        "_closed",
        "_ending",
        "_exact",
        "_given",
        "_hub",
        "_joined",
        "_matchers",
        "_started",
        "asked",
        "asleep",
        "buffer",
        "choosy",
        "end_id",
        "ends_with_history",
        "error",
        "filter",
        "finished",
        "give_up_at",
        "offered",
        "place",
        "position",
        "queued",
        "resume_below",
        "run",
        "stalled",
        "topics",
        "wake",
    )

    def __init__(
        self,
        hub: Hub,
        topics: Sequence[str],
        last_event_id: str | None = None,
        filter: Filter | None = None,
        *,
        begin: str | None = None,
        end: str | None = None,
        run: tuple[str, str] | None = None,
    ) -> None:
        if not topics:
            raise ValueError("subscribe to at least one topic; '*' is all of them")
        self.topics: tuple[str, ...] = tuple(dict.fromkeys(check_pattern(topic) for topic in topics))
        if last_event_id is not None and not isinstance(last_event_id, str):
            raise TypeError(f"last_event_id must be str or None, not {type(last_event_id).__name__}")
        if filter is not None and not callable(filter):
            raise TypeError(f"filter must be a function of topic and event, not {type(filter).__name__}")
        self._hub = hub
        self._given = bool(last_event_id)
        self._started = False
        self._joined = False
        self._cancelled = False
        self._closed = False
        self._ending = False  # the reader has appended the last event
        self.finished = False
        self.error = None
        # Shared with the reader; see the law.
        self.buffer: deque[ServerSentEvent] = deque()
        self.asleep = False
        self.wake: Callable[[], object] = _nobody
        self.stalled = False
        self.resume_below = 0
        # The reader's.
        self.filter = filter
        self.asked = last_event_id or begin
        self.end_id = end
        self.run = run
        self.ends_with_history = False
        self.give_up_at: float | None = None  # waiting for the first event of a run
        self.place: Place = "new"
        self.queued = False  # to catch up
        self.position: Position | None = None
        self.offered: Position | None = None
        patterns = [topic for topic in self.topics if is_pattern(topic)]
        self.choosy = filter is not None or end is not None or (len(self.topics) > 1 and bool(patterns))
        self._exact = frozenset(topic for topic in self.topics if not is_pattern(topic))
        self._matchers = [matcher(pattern) for pattern in patterns]

    def __repr__(self) -> str:
        return f"<Subscription to {', '.join(map(repr, self.topics))}, {self.place}>"

    @property
    def local(self) -> bool:
        """Whether it hears only what this very process publishes (a hub on `memory://`)."""
        return self._hub.local

    # -- the stream's -----------------------------------------------------------------------------------------------

    def resume_after(self, last_event_id: str | None) -> None:
        """Begin after this event, unless `subscribe` was told where to begin. Not after the start."""
        if last_event_id and not self._given and not self._started:
            self.asked = last_event_id

    def start(self, wake: Callable[[], object]) -> None:
        """Register. What is published from now on is seen. Raises HubClosed, or Draining where the process ends;
        TooManyStreams where the hub gets no thread."""
        if self._started:
            raise RuntimeError(
                "this subscription was started already; subscribe once more for another stream"
            )
        self._started = True
        self.wake = wake
        self.asleep = True
        if self._cancelled:
            wake()
            return
        self._hub._join(self)
        self._joined = True

    def take(self) -> Sequence[ServerSentEvent]:
        """What is ready, at most 250 events."""
        ending = self._ending  # before the look into the buffer: nothing is appended after it was set
        self.asleep = True
        buffer = self.buffer
        items: Sequence[ServerSentEvent]
        if len(buffer) == 1 and not ending:  # what an event to thousands finds
            items = (buffer.popleft(),)
            if not self.stalled:  # asked after the buffer has room, as `stall` looks in the opposite order
                return items
        else:
            items = [buffer.popleft() for _ in range(min(len(buffer), STEP_EVENTS))]
        if buffer:
            self.nudge()
        elif ending or self._cancelled:
            self.finished = True
        if self.stalled and len(buffer) <= self.resume_below:
            self.stalled = False
            self._hub._resume(self)
        return items

    def cancel(self) -> None:
        """End now; what is in the buffer is not given any more."""
        self._cancelled = True
        self.finished = True
        self.wake()

    def close(self) -> None:
        """Leave the hub. Any thread, any number of times."""
        if self._closed:
            return
        self._closed = True
        self._cancelled = True
        self.finished = True
        self.wake = _nobody  # the reader may hold this object for another second, but not the stream
        if self._joined:
            self._hub._leave(self)

    # -- the reader's -----------------------------------------------------------------------------------------------

    @property
    def over(self) -> bool:
        """Whether nothing more need be offered."""
        return self._cancelled or self._ending

    def wants(self, topic: str) -> bool:
        """Whether one of its topics or patterns means this topic."""
        if topic in self._exact:
            return True
        return bool(self._matchers) and any(matches(topic) for matches in self._matchers)

    def admits(self, topic: str, event: ServerSentEvent) -> bool:
        """Ask the filter. One that raises ends this subscription, and no other."""
        if self.filter is None:
            return True
        try:
            return bool(self.filter(topic, event))
        except BaseException as error:  # user code: what it raises is this subscriber's end, not the reader's
            self.finish(error)
            return False

    def stall(self, room: int) -> bool:
        """The buffer is full: ask for a `resume`. False where the stream has emptied it in the meantime."""
        self.resume_below = room // 2
        self.stalled = True
        if len(self.buffer) > self.resume_below:
            return True
        self.stalled = False
        return False

    def finish(self, error: BaseException | None = None) -> None:
        """No more events come; the stream still gets what is in the buffer."""
        self.place = "gone"
        if self.error is None:
            self.error = error
        self._ending = True
        self.nudge()

    def fall_behind(self) -> None:
        """The log does not hold what comes next."""
        self.finish(
            SubscriberTooSlow(
                f"a subscriber of {', '.join(self.topics)!r} read too slowly: the hub no longer holds what comes next"
                " for it; it resumes by its last id (a larger `retain` holds more)"
            )
        )

    def nudge(self) -> None:
        """Wake the stream, if it sleeps."""
        if self.asleep:
            self.asleep = False
            try:
                self.wake()
            except Exception as error:
                self.sleep_on(error)

    def sleep_on(self, error: Exception) -> None:
        """`wake` raised, which it never should: no other stream misses an event for that; the next one tries again."""
        log_surely(logging.ERROR, "hub: waking a stream failed", error=error)
        self.asleep = True


def room_for(event: ServerSentEvent) -> int:
    """With how many events waiting this one still fits into a buffer: 1,000 small ones, or 256 KiB of its size."""
    return min(BUFFER_EVENTS, max(1, BUFFER_BYTES // len(event.encode())))
