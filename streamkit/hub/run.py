"""Producers that run apart from any connection, and publish what they produce.

Law of this file
- A run has one producer, on one stream thread, in one process: the one that holds the lease. The lease is renewed on
  the reader's thread; a process that dies, or stands still for `LEASE_SECONDS`, loses it.
- Nothing is published after the end: a process that stood still renews its lease first, and learns there that it has
  lost it. (The clock that tells stands still while a machine is suspended; then the next heartbeat stops the run.)
- The end is published once, under the run's own end id, which the log refuses a second time. The lease is released
  after that, never before: whoever finds an expired lease publishes the end and then releases it.
- First `next()` to `close()` of the producer happen on its own thread, in a copy of the caller's context.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable
from contextvars import Context
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from streamkit.errors import DuplicateEvent, StreamkitError
from streamkit.flow.failure_log import log_failure, log_surely
from streamkit.flow.flush import FLUSH
from streamkit.flow.pushed import PushedSource
from streamkit.flow.sources import Source, open_source
from streamkit.formats.event_stream import ServerSentEvent
from streamkit.hub.broker import Broker, Entry, LeaseState, Position
from streamkit.hub.subscription import Filter, Subscription

if TYPE_CHECKING:
    from streamkit.hub.hub import Hub


# Seconds without a heartbeat after which a run is given up as dead; heartbeats are 20 times as frequent, so a process
# that is merely busy is not taken for dead.
LEASE_SECONDS: Final = 10.0

_LEASE_PREFIX: Final = "run:"

GONE: Final = {"message": "The process that ran it is gone.", "code": "run_lost"}
"""What viewers are told of a run whose process died or stood still."""
NOT_STARTED: Final = {"message": "The run could not start.", "code": "run_lost"}
"""What they are told where there was no thread for it."""


class Run:
    """A run by its topic and id: a handle, valid in any process, while it lives and after its end.

    topic: where its events are. id: what another worker needs to `Hub.attach` to it. attached: whether somebody else
    had started it already.
    """

    def __init__(self, hub: Hub, topic: str, id: str, *, attached: bool) -> None:
        self._hub = hub
        self.topic = topic
        self.id = id
        self.attached = attached

    def __repr__(self) -> str:
        return f"<Run {self.id} on {self.topic!r}>"

    def events(self, *, last_event_id: str | None = None, filter: Filter | None = None) -> Subscription:
        """Its events from the first one on, or after the client's `Last-Event-ID`; ends after the event that ends it.

        Any number of viewers, in any worker, before its end and after (as far as history reaches back).
        """
        return Subscription(
            self._hub,
            [self.topic],
            last_event_id,
            filter,
            begin=start_id(self.id),
            end=end_id(self.id),
            run=(self.topic, self.id),
        )

    def stop(self) -> bool:
        """Cancel it, in whichever process it runs; False where it is over already.

        The producer is cancelled (within half a second, where another process has it), closed when it lets itself be
        closed, and its end is published as the event `stopped`. Raises BrokerUnavailable.
        """
        return self._hub._runs.stop(self.topic, self.id)


class Producing:
    """A run in the process that has it."""

    def __init__(
        self,
        hub: Hub,
        topic: str,
        holder: str,
        producer: object,
        context: Context,
        over: Callable[[Producing], object],
    ) -> None:
        self.topic = topic
        self.holder = holder
        self.id = run_of(holder)
        self._hub = hub
        self._producer: object | None = producer
        self._context = context
        self._over = over  # called when nothing more will be published
        # Owned for the look at two fields: nothing is called under it. A finalizer may cancel in the midst of it.
        self._lock = threading.RLock()
        self._source: Source[Any] | PushedSource | None = None
        self._renewed_at = monotonic()
        self._cancelled = False
        self._lost = False
        self._given_up = False
        self.done = threading.Event()

    def saw(self, state: LeaseState, asked_at: float) -> None:
        """What a heartbeat said that was sent at `asked_at`."""
        if state != "lost":
            self._renewed_at = asked_at
        if state == "lost":
            self._lost = True  # somebody has published its end
        if state != "held":
            self.cancel()

    def cancel(self) -> None:
        """Stop as soon as possible. Any thread, any number of times."""
        with self._lock:
            self._cancelled = True
            source = self._source
        if source is not None:
            try:
                source.cancel()
            except Exception:
                log_failure("run %s: cancelling its producer failed", self.id)

    def give_up(self, *, publish: bool) -> None:
        """It was cancelled and does not end, and the hub is about to be closed: publish the end in its place.

        Without `publish` (a broker that does not answer has taken the time) some other process will, as `run_lost`.
        """
        self._given_up = True
        log_surely(
            logging.WARNING, "run %s on %s does not stop; it is left behind", self.id, ascii(self.topic)
        )
        if publish:
            self._publish_end(None)

    def work(self) -> None:
        """Run the producer to its end. On a stream thread."""
        error: BaseException | None = None
        try:
            self._context.run(self._produce)
        except BaseException as caught:
            error = caught
        try:
            if not self._given_up:
                self._publish_end(error)
        finally:
            self._over(self)

    def _produce(self) -> None:
        producer, self._producer = self._producer, None
        source = open_source(producer, what="events")
        try:
            with self._lock:
                # A pushed source is iterated like any other, but can be cancelled itself.
                self._source = producer if isinstance(producer, PushedSource) else source
                cancelled = self._cancelled
            publish, topic = self._hub.publish, self.topic
            for item in () if cancelled else iter(source):
                if monotonic() > self._renewed_at + LEASE_SECONDS:
                    self._renew()
                if self._cancelled:
                    break
                if item is FLUSH:
                    continue
                if isinstance(item, ServerSentEvent):
                    if item.data is not None:
                        publish(topic, item.data, event=item.event)
                else:
                    publish(topic, item)
        finally:
            source.close()

    def _renew(self) -> None:
        asked_at = monotonic()
        (state,) = self._hub.broker.renew([(lease_name(self.topic), self.holder)], LEASE_SECONDS)
        self.saw(state, asked_at)

    def _publish_end(self, error: BaseException | None) -> None:
        if self._lost:
            # Its end is in the log already, unless the log itself was lost; then this one is the first.
            log_surely(
                logging.ERROR, "run %s on %s: its lease was lost; it was stopped", self.id, ascii(self.topic)
            )
            event, words = "error", GONE
        elif error is not None and not self._cancelled:
            log_surely(logging.ERROR, "run %s on %s failed", self.id, ascii(self.topic), error=error)
            code = error.code if isinstance(error, StreamkitError) else StreamkitError.code
            event, words = "error", {"message": "The run failed.", "code": code}
        else:
            event, words = "stopped" if self._cancelled else "complete", {}
        try:
            publish_end(self._hub, self.topic, self.holder, event, words)
        except StreamkitError:
            log_failure("run %s on %s: its end could not be published", self.id, ascii(self.topic))


def new_id() -> str:
    """An id for a run that no other has."""
    return f"run-{secrets.token_hex(8)}"


def new_holder(id: str) -> str:
    """Who holds the lease of a run: its id, and a text that no other attempt to start it has."""
    return f"{id}~{secrets.token_hex(8)}"


def run_of(holder: str) -> str:
    """The id of the run whose lease this holder has."""
    return holder.rpartition("~")[0]


def start_id(run: str) -> str:
    """The id of the event that a run begins with."""
    return f"{run}-start"


def end_id(run: str) -> str:
    """The id of the event that a run ends with."""
    return f"{run}-end"


def lease_name(topic: str) -> str:
    """The lease that stands for "somebody runs on this topic"."""
    return f"{_LEASE_PREFIX}{topic}"


def topic_of(lease: str) -> str | None:
    """The topic that a lease stands for; None where it is not one of a run."""
    return lease.removeprefix(_LEASE_PREFIX) if lease.startswith(_LEASE_PREFIX) else None


def publish_start(hub: Hub, topic: str, run: str) -> None:
    """Publish the start. Raises DuplicateEvent where the log holds it already."""
    _publish(hub, topic, "start", start_id(run), {"run": run})


def publish_end(hub: Hub, topic: str, holder: str, event: str, words: dict[str, str]) -> None:
    """Publish the end, if nobody has, and then release the lease."""
    run = run_of(holder)
    try:
        _publish(hub, topic, event, end_id(run), {"run": run, **words})
    except DuplicateEvent:
        pass  # another process was first, with the same end
    hub.broker.release(lease_name(topic), holder)


def _publish(hub: Hub, topic: str, event: str, id: str, words: dict[str, str]) -> None:
    """An event of the run's own: no `max_event_bytes` refuses it, else its viewers would wait for ever."""
    data = ServerSentEvent(words).data
    assert data is not None
    hub._append((Entry(topic, data, event, id),))


def bury(hub: Hub, topic: str, holder: str) -> None:
    """Publish the end of a run whose process has died."""
    log_surely(logging.ERROR, "run %s on %s: its process is gone", run_of(holder), ascii(topic))
    publish_end(hub, topic, holder, "error", GONE)


def is_over(broker: Broker, topic: str, run: str) -> bool:
    """Whether nobody has its lease any more: then its end is in the log already, or will never be."""
    holder = broker.holder(lease_name(topic))
    return holder is None or run_of(holder) != run


def end_of(broker: Broker, run: str) -> Position | None:
    """Where the log has the end of a run; None where it does not hold it."""
    position = broker.locate(end_id(run))
    return position if position is not None and position > broker.floor() else None
