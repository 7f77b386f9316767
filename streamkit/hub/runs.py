"""The runs of one hub in this process: how they begin, keep their leases, and are stopped with the hub.

Law of this file
- A run is in `_producing` from before its first event until its end is published, so that whoever closes the hub finds
  every run that was begun; none begins after that.
- Leases are renewed by `heartbeat`, on the reader's thread. Everything else may be called by any thread.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextvars import copy_context
from time import monotonic
from typing import TYPE_CHECKING, Final

from streamkit.errors import DuplicateEvent
from streamkit.flow.stream_threads import stream_threads
from streamkit.hub import lifetime
from streamkit.hub import run as one_run
from streamkit.hub.run import (
    NOT_STARTED,
    Producing,
    Run,
    bury,
    end_of,
    lease_name,
    new_holder,
    publish_end,
    publish_start,
    run_of,
    topic_of,
)

if TYPE_CHECKING:
    from streamkit.hub.hub import Hub

# Seconds without a look into the log after which nobody is declared dead for as long: what kept this process from it (a
# locked file, a server that was away) may have kept others from renewing. More than the longest pause of a reader.
RENEWAL_SECONDS: Final = 3.0
# Seconds that `close` waits for the producers of runs, all together; a supervisor expects a worker to be gone soon.
CLOSE_SECONDS: Final = 1.0


class Runs:
    """See the law."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        # Owned for an operation on the two fields below it; nothing is called under it. A finalizer may stop a run in
        # the midst of it.
        self._lock = threading.RLock()
        self._producing: dict[str, Producing] = {}
        self._looked_at: float | None = None  # when the log was last asked for the dead
        self._patient_until = 0.0
        self._closing = False

    def run(self, topic: str, producer: object, id: str) -> Run:
        """Start a run, or attach to the one that lives on the topic, or was there with this id; see `Hub.run`."""
        broker, name = self._hub.broker, lease_name(topic)
        holder = new_holder(id)
        held_by = broker.claim(name, holder, one_run.LEASE_SECONDS)
        if held_by != holder:
            if (name, held_by) in self._dead():
                bury(self._hub, topic, held_by)
            if broker.holder(name) != held_by:  # buried, here or by a reader, or over since
                held_by = broker.claim(name, holder, one_run.LEASE_SECONDS)
        started = held_by == holder and self._start(topic, holder, producer)
        if not started and not callable(producer):
            close = getattr(producer, "close", None)
            if close is not None:
                close()
        return Run(self._hub, topic, run_of(held_by), attached=not started)

    def _start(self, topic: str, holder: str, producer: object) -> bool:
        """Start what has the lease. False where it was run before: nobody else ends it while the lease is held."""
        hub = self._hub
        producing = Producing(hub, topic, holder, producer, copy_context(), self._over)
        with self._lock:
            closing = self._closing
            if not closing:
                self._producing[holder] = producing
        begun = False
        try:
            if closing:
                raise hub.refusal()
            # Its start may be missing all the same: it was trimmed, or the process died before it published that.
            if end_of(hub.broker, producing.id) is not None:
                raise DuplicateEvent(f"run {producing.id} is over")
            publish_start(hub, topic, producing.id)
            begun = True
            stream_threads.run(producing.work)
        except BaseException as error:
            self._over(producing)
            if begun:
                publish_end(hub, topic, holder, "error", NOT_STARTED)
            else:
                hub.broker.release(lease_name(topic), holder)
            if isinstance(error, DuplicateEvent):
                return False
            raise
        lifetime.be_first_at_exit()
        return True

    def _over(self, producing: Producing) -> None:
        with self._lock:
            self._producing.pop(producing.holder, None)
        producing.done.set()

    def stop(self, topic: str, id: str) -> bool:
        """Stop a run, in whichever process it is; False where it is over."""
        broker, name = self._hub.broker, lease_name(topic)
        holder = broker.holder(name)
        if holder is None or run_of(holder) != id:
            return False
        with self._lock:
            producing = self._producing.get(holder)
        if producing is None:
            return broker.request_stop(name, holder)
        producing.cancel()
        return True

    def heartbeat(self) -> None:
        """Renew the leases of this process, and publish the end of those that any process has let expire."""
        broker = self._hub.broker
        with self._lock:
            producing = list(self._producing.values())
        if producing:
            leases = [(lease_name(one.topic), one.holder) for one in producing]
            asked_at = monotonic()
            for one, state in zip(producing, broker.renew(leases, one_run.LEASE_SECONDS), strict=True):
                one.saw(state, asked_at)
        for name, holder in self._dead():
            topic = topic_of(name)
            if topic is not None:
                bury(self._hub, topic, holder)

    def _dead(self) -> list[tuple[str, str]]:
        """The leases that expired although whoever has them could have renewed them."""
        began, before = monotonic(), self._looked_at
        expired = self._hub.broker.expired()
        self._looked_at = now = monotonic()
        if now > (began if before is None else before) + RENEWAL_SECONDS:
            self._patient_until = now + RENEWAL_SECONDS
        return expired if now >= self._patient_until else []

    def close(self, finish_seconds: float) -> None:
        """Give them that long to finish, then stop them; those that do not stop are left behind. Once."""
        with self._lock:
            self._closing = True
            producing = list(self._producing.values())
        try:
            _wait_for(producing, finish_seconds)
        finally:  # also where the wait is interrupted
            for one in producing:
                one.cancel()
        left = _wait_for(producing, CLOSE_SECONDS)
        deadline = monotonic() + CLOSE_SECONDS
        for one in left:
            one.give_up(publish=monotonic() < deadline)


def _wait_for(producing: Sequence[Producing], seconds: float) -> list[Producing]:
    """Those that have not ended within `seconds`."""
    deadline = monotonic() + seconds
    return [one for one in producing if not one.done.wait(max(0.0, deadline - monotonic()))]
