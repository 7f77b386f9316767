"""The hub's one thread in a process: it follows the log, and hands each event to whoever listens.

Law of this file
- The reader owns the audience, the places of all subscriptions and the connection behind `follow` and `read`. No other
  thread touches them, so nothing here is locked; others speak to it through `inbox`.
- The order of a turn is: follow, then let in who waits in the inbox, then dispatch. Whoever was in the inbox before an
  event was published is in the audience before it is dispatched.
- History is read on this thread too, in steps of `STEP_SECONDS` between two looks at what is live. So the seam needs
  no care: a subscription that has read up to the event dispatched last becomes live, between two events.
- User code that runs here: filters, which must be quick, and the `wake` of streams, which never blocks.
- It waits for the broker, at most until the next tick, and for nothing else. It starts with the first subscription
  and ends with the hub; a process without subscriptions and runs has none. Nobody waits until it has reached the log,
  but whoever publishes before finds its place for it (`place`), so that its subscriptions hear that.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import monotonic
from typing import Final

from streamkit.errors import BrokerUnavailable, HubClosed, TooManyStreams
from streamkit.flow.failure_log import log_failure, log_surely
from streamkit.formats.event_stream import ServerSentEvent
from streamkit.hub.broker import Broker, HistoryLost, Position, Record
from streamkit.hub.gap import Gap
from streamkit.hub.history import History, Sent, encoded
from streamkit.hub.run import end_of, is_over, start_id
from streamkit.hub.subscription import Subscription
from streamkit.hub.topics import Audience

# Records in one batch: small enough that even to many subscribers it takes a few milliseconds.
LIVE_RECORDS: Final = 500
# Seconds of reading history before the next look at what is live.
STEP_SECONDS: Final = 0.005
# Seconds between two ticks: heartbeats of runs, presence. A run that is stopped from another process notices then.
TICK_SECONDS: Final = 0.5
# Seconds before the log is asked again after it was unavailable; doubled up to the second number.
BACK_OFF_SECONDS: Final = (0.05, 2.0)
# Seconds that the viewer of a run waits for its first event, which follows the lease within milliseconds.
START_SECONDS: Final = 1.0
# Seconds after a loss within which the end of a run comes, if it comes: a producer learns at its next heartbeat, half a
# second later at most, that its lease went with the log.
END_SECONDS: Final = 1.0
# Seconds that `stop` waits for the thread; it may be inside a broker that is not answering.
STOP_SECONDS: Final = 1.0


class Reader:
    """See the law. `tick` is called on its thread twice a second."""

    def __init__(self, broker: Broker, tick: Callable[[], object]) -> None:
        self._broker = broker
        self._tick = tick
        self.inbox: deque[Subscription] = deque()
        # Owned for a few assignments by whoever starts, stops or places the reader; nobody waits for anything in it.
        self._lock = threading.RLock()
        self._starting = False  # seen by a finalizer alone that subscribes in the midst of it
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()  # set by `stop`, awaited by the reader where it pauses
        self.placing = False  # the thread was started, and does not know yet where the log ends
        # Awaited by who starts it, for a moment. No `threading.Event`: a finalizer that publishes in the midst of the
        # wait would wait for the lock of that.
        self._placed: queue.SimpleQueue[None] = queue.SimpleQueue()
        # The reader's own, the position from the moment when it is known.
        self._position: Position | None = None
        self._audience = Audience()
        self._catching_up: deque[Subscription] = deque()
        self._waiting: set[Subscription] = set()  # with a full buffer
        self._history = History(broker)
        self._next_tick = 0.0
        self._adrift: set[Subscription] = set()  # viewers of runs whose end may be among what was lost
        self._adrift_until = 0.0

    # -- any thread -------------------------------------------------------------------------------------------------

    def start(self, seconds: float = 0.0) -> None:
        """Start the thread, if it is not running, and wait until it knows where the log ends, `seconds` at most.

        Where the log cannot be asked now, it is followed from where it ends when it can, or from what this process
        publishes first (see `place`). Raises TooManyStreams where no thread can be started.
        """
        if self._thread is not None:
            return
        with self._lock:
            if self._thread is not None or self._starting or self._stopping.is_set():
                return
            self._starting = True
            # A daemon, because it waits for others; nothing is in its hands that is not in the log. `Hub.close` stops
            # it, at exit too.
            thread = threading.Thread(target=self._run, name="streamkit-hub", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # the system refuses another thread, or the interpreter is stopping
                raise TooManyStreams(f"the thread of the hub cannot be started: {error}") from error
            finally:
                self._starting = False
            self._thread = thread
            self.placing = self._position is None
        with suppress(queue.Empty):
            self._placed.get(timeout=seconds)

    def place(self) -> Position:
        """Find where the log ends, unless that is known: what is appended after this returns is seen.

        The thread does it first of all, and so does who publishes before that is done; they wait for the broker and
        not for each other. Raises BrokerUnavailable, HubClosed.
        """
        if self._position is None:
            head = self._broker.head()
            with self._lock:
                if self._position is None:  # who is later must not skip what the other has appended since
                    self._position = head
                    self.placing = False
                    self._placed.put(None)
        assert self._position is not None
        return self._position

    def stop(self) -> None:
        """End the thread and every subscription."""
        self._stopping.set()
        with self._lock:
            thread = self._thread
        self._broker.wake()
        if thread is not None and thread is not threading.current_thread():
            thread.join(STOP_SECONDS)

    # -- the reader's thread ----------------------------------------------------------------------------------------

    def _run(self) -> None:
        back_off = BACK_OFF_SECONDS[0]
        while not self._stopping.is_set():
            try:
                self._turn()
                if back_off > BACK_OFF_SECONDS[0]:
                    back_off = BACK_OFF_SECONDS[0]
                    log_surely(logging.WARNING, "hub: reading again")
                continue
            except HubClosed:
                break
            except BrokerUnavailable as error:
                if back_off == BACK_OFF_SECONDS[0]:
                    log_surely(logging.WARNING, "hub: %s; trying again", error)
            except BaseException:  # SystemExit and its kin, of a user's code: the thread serves all others on
                log_failure("hub: reading failed; trying again")
            self._forget_who_left()
            self._stopping.wait(back_off)
            back_off = min(2 * back_off, BACK_OFF_SECONDS[1])
        self._finish()

    def _finish(self) -> None:
        """Hand out what was published before the hub was closed, then end every subscription."""
        closed = HubClosed("the hub was closed")
        deadline = monotonic() + STOP_SECONDS / 2
        self._welcome()
        try:
            while self._position is not None and monotonic() < deadline:
                records = self._broker.read(self._position, LIVE_RECORDS)
                if not records:
                    break
                self._dispatch(records)
        except Exception:
            pass  # whoever comes back elsewhere has it from the log
        for subscription in [*self._audience.everyone(), *self._catching_up, *self._waiting]:
            subscription.finish(closed)

    def _forget_who_left(self) -> None:
        """While the log cannot be read: streams come and go all the same, and must not pile up here."""
        self._welcome()
        waiting, self._catching_up = self._catching_up, deque()
        for subscription in waiting:
            if subscription.over:
                subscription.finish()
            else:
                self._catching_up.append(subscription)

    def _turn(self) -> None:
        position = self.place()
        now = monotonic()
        if now >= self._next_tick:
            self._next_tick = now + TICK_SECONDS
            self._tick()
            if self._adrift and now >= self._adrift_until:
                self._end_adrift()
        timeout = 0.0 if self._catching_up else max(0.0, self._next_tick - now)
        try:
            records: Sequence[Record] = self._broker.follow(position, LIVE_RECORDS, timeout)
        except HistoryLost:
            self._welcome()
            self._skip()
            return
        self._welcome()
        if records:
            self._dispatch(records)
        if self._catching_up:
            self._catch_up()
        else:
            self._history.forget()

    def _welcome(self) -> None:
        """Let in who is new, send away who is over, and let those go on that have room again."""
        inbox = self.inbox
        for _ in range(len(inbox)):
            subscription = inbox.popleft()
            self._waiting.discard(subscription)
            if subscription.over:
                self._audience.discard(subscription)
                if subscription.place != "gone":
                    subscription.finish()
            elif subscription.place == "waiting":
                self._queue(subscription)
            elif subscription.place == "new":
                if subscription.asked is None:
                    self._go_live(subscription)
                else:
                    self._queue(subscription)

    def _queue(self, subscription: Subscription) -> None:
        subscription.place = "catching up"
        subscription.queued = True
        self._catching_up.append(subscription)

    def _stall(self, subscription: Subscription, position: Position, room: int) -> None:
        """Its buffer is full: it waits at `position` until the stream has taken half."""
        subscription.position = position
        subscription.place = "waiting"
        self._waiting.add(subscription)
        if not subscription.stall(room):
            self._waiting.discard(subscription)
            self._queue(subscription)

    def _go_live(self, subscription: Subscription) -> None:
        if subscription.ends_with_history:
            subscription.finish()
            return
        subscription.place = "live"
        subscription.position = None
        self._audience.add(subscription)

    # -- live -------------------------------------------------------------------------------------------------------

    def _dispatch(self, records: Sequence[Record]) -> None:
        """The hot path: for each subscriber of each event an append, and a wake-up where the stream sleeps."""
        for sent in encoded(records):
            record, event, room = sent
            before = self._position
            assert before is not None
            late: list[Subscription] = []
            for group in self._audience.of(record.topic):
                for subscription in group.plain:
                    buffer = subscription.buffer
                    if len(buffer) >= room:
                        late.append(subscription)
                        continue
                    buffer.append(event)
                    if subscription.asleep:
                        subscription.asleep = False
                        try:
                            subscription.wake()
                        except Exception as error:
                            subscription.sleep_on(error)
                if group.choosy:
                    self._dispatch_carefully(sent, list(group.choosy), late)
            self._position = record.position
            for subscription in late:
                self._audience.discard(subscription)
                if not subscription.over:
                    self._stall(subscription, before, room)
        self._position = records[-1].position

    def _dispatch_carefully(
        self, sent: Sent, subscriptions: Sequence[Subscription], late: list[Subscription]
    ) -> None:
        record, event, room = sent
        for subscription in subscriptions:
            if subscription.offered == record.position:
                continue  # it listens to two patterns that both match
            subscription.offered = record.position
            if len(subscription.buffer) >= room:
                late.append(subscription)
                continue
            _offer(subscription, record, event)
            if subscription.over:
                self._audience.discard(subscription)

    def _skip(self) -> None:
        """The log does not hold what comes next for this process: say so to everybody, and go on with what it holds."""
        # Both are asked before anything changes: where one fails, the next turn comes here again.
        floor, oldest = self._broker.floor(), self._history.oldest()
        log_surely(
            logging.WARNING,
            "hub: events were lost between two reads (more than is retained, or the log was replaced);"
            " every subscriber is told by a gap event",
        )
        self._position = floor
        self._history.forget()
        gap = Gap(None, oldest)
        if not self._adrift:
            self._adrift_until = monotonic() + END_SECONDS
        for subscription in self._audience.everyone():
            if subscription.run is not None:
                self._adrift.add(subscription)
            buffer = subscription.buffer
            try:
                last = buffer[-1]
                if isinstance(last, Gap):  # not taken yet, and it tells of this loss too: gaps do not pile up
                    buffer[-1] = Gap(last.asked, gap.oldest)
                    continue
            except IndexError:  # empty, perhaps since a moment ago
                pass
            buffer.append(gap)
            subscription.nudge()

    def _end_adrift(self) -> None:
        """Let go the viewers whose run is over, and its end lost: it would never come."""
        broker = self._broker
        viewed = {subscription.run for subscription in self._adrift if subscription.run is not None}
        lost = {run for run in viewed if is_over(broker, *run) and end_of(broker, run[1]) is None}
        adrift, self._adrift = self._adrift, set()
        for subscription in adrift:
            if subscription.run in lost and not subscription.over:
                subscription.ends_with_history = True
                if subscription.place == "live":
                    self._audience.discard(subscription)
                    subscription.finish()

    # -- history ----------------------------------------------------------------------------------------------------

    def _catch_up(self) -> None:
        """One step for each in turn, until the time is over."""
        deadline = monotonic() + STEP_SECONDS
        while self._catching_up:
            subscription = self._catching_up.popleft()
            subscription.queued = False
            if subscription.over:
                subscription.finish()
                continue
            try:
                self._advance(subscription)
            except Exception:  # unavailable now, or closed
                self._queue(subscription)
                raise
            if subscription.place == "catching up" and not subscription.queued:
                self._queue(subscription)
            if monotonic() > deadline:
                return

    def _advance(self, subscription: Subscription) -> None:
        if subscription.position is None and not self._put_in_place(subscription):
            return
        position, end = subscription.position, self._position
        assert position is not None
        assert end is not None
        if position > end:
            # It has seen more than this process has, and waits here until this process has caught up. Or its position
            # is of a log that is no more.
            if position > self._broker.head():
                subscription.fall_behind()
            return
        try:
            sent, last = self._history.after(position) if position < end else ((), end)
        except HistoryLost:
            subscription.fall_behind()
            return
        for record, event, room in sent:
            if record.position > end:
                last = end  # the rest is live, soon
                break
            if subscription.wants(record.topic):
                if len(subscription.buffer) >= room:
                    self._stall(subscription, position, room)
                    return
                _offer(subscription, record, event)
                if subscription.over:
                    return
            position = record.position
        subscription.position = last
        if last >= end:
            self._go_live(subscription)

    def _put_in_place(self, subscription: Subscription) -> bool:
        """Find where it was. False where it is at its end already, or its beginning is still to come."""
        broker, asked = self._broker, subscription.asked
        assert asked is not None
        if asked == subscription.end_id:
            subscription.finish()
            return False
        run, ended = subscription.run, None
        over = run is not None and is_over(broker, *run)
        if run is not None and over:
            ended = end_of(broker, run[1])
            subscription.ends_with_history = ended is None
        position = broker.locate(asked)
        if position is None and not over and self._comes_early(subscription):
            return False
        if position is not None:
            try:
                self._history.after(position)
            except HistoryLost:
                position = None
        if position is None:
            gap, position = Gap(asked, self._history.oldest()), broker.floor()
            subscription.buffer.append(gap)
            subscription.nudge()
        if ended is not None and position >= ended:
            subscription.finish()  # what follows is of others
            return False
        subscription.position = position
        return True

    def _comes_early(self, subscription: Subscription) -> bool:
        """Whether it asks for a run that has its lease, but not its first event yet; then it asks again soon.

        That event ends the wait of `follow`, so this is not asked more often than something comes.
        """
        run = subscription.run
        if run is None or subscription.asked != start_id(run[1]):
            return False
        now = monotonic()
        if subscription.give_up_at is None:
            subscription.give_up_at = now + START_SECONDS
        if now > subscription.give_up_at:
            return False  # trimmed
        subscription.place = "new"
        self.inbox.append(subscription)
        return True


def _offer(subscription: Subscription, record: Record, event: ServerSentEvent) -> None:
    """Ask the filter, append, wake, and see whether this was the last one."""
    admitted = subscription.admits(record.topic, event)
    if admitted:
        subscription.buffer.append(event)
    if record.id == subscription.end_id:
        subscription.finish()
    elif admitted:
        subscription.nudge()
