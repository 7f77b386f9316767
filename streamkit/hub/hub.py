"""Publish once, reach everyone, lose nothing: the front of the hub.

Law of this file
- A hub has one broker and one reader. Publishing goes to the broker, on the thread that publishes; the reader brings
  it back, in every process, this one included, in the one order that the log has.
- Nothing is opened, and no thread started, before it is needed. After a fork the child begins anew on the same log.
- Any line of any thread may be interrupted by the garbage collector, which runs the `finally` of a generator that
  nobody held any more, and lines of the main thread by signal handlers; and those may close a subscription, publish,
  stop a run. So what such code calls takes no lock or one that its own thread may take again, and what is under such a
  lock is right also where it is entered twice.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from math import inf
from time import monotonic
from types import TracebackType
from typing import Any, Final, NamedTuple

from streamkit.errors import Draining, HubClosed, StreamkitError, TooManyStreams
from streamkit.flow.streams import streams
from streamkit.formats.event_stream import ServerSentEvent, declared_event
from streamkit.hub import lifetime
from streamkit.hub.broker import RETAIN, Broker, Entry
from streamkit.hub.open_broker import open_broker
from streamkit.hub.reader import Reader
from streamkit.hub.run import Run, lease_name, new_id, run_of
from streamkit.hub.runs import Runs
from streamkit.hub.subscription import Filter, Subscription
from streamkit.hub.topics import check_topic

log: Final = logging.getLogger("streamkit")

# Characters of an id of the publisher's own: what WHATWG HTML lets a cross-origin client send without a preflight.
MAX_ID_CHARACTERS: Final = 128
# The hub makes the ids of the first and last event from it, and the name of the holder.
MAX_RUN_ID_CHARACTERS: Final = 100
# Seconds that an announcement of presence is good for, between two of all that there is, and between two at all.
PRESENCE_SECONDS: Final = 30.0
PRESENCE_AGAIN_SECONDS: Final = 10.0
PRESENCE_PAUSE_SECONDS: Final = 1.0
# Seconds that the first `subscribe` of a process waits for the log to be opened; after that it is opened while streams
# have begun already. SQLite and Redis take milliseconds where they are well.
READER_SECONDS: Final = 0.2


class Presence(NamedTuple):
    """How many subscribers a topic has: `here` in this process; `everywhere`, or None where that cannot be known."""

    here: int
    everywhere: int | None


class Hub:
    """One place to publish, any number of subscribers, in any number of processes; thread-safe and fork-safe.

    url: where the log is. "memory://": this process alone. "sqlite:///path/events.db": all processes of this machine.
        "redis://host:6379/0?stream=name": many machines. Or a `Broker` of your own.
    retain: how many events are held at least, of all topics together, for those who come back.
    retain_seconds: events older than that need not be held; None is off.
        The log keeps both numbers: where neither is given, they are what a hub has said that published to it before,
        else 10,000 and off. Of several hubs that say something, the last to begin publishing decides.
    finish_runs: seconds that runs of this process get to finish by themselves when the hub is closed, at exit too,
        before they are stopped. Default 0. Let it be below the time after which a supervisor kills (gunicorn's
        `--graceful-timeout`, 30), and an answer survives a reload: other workers show it meanwhile.
    max_event_bytes: a larger event, encoded, is refused. Default 1 MiB, what Redis proxies and browsers take easily.

    Raises ValueError for a URL or a number out of range, TypeError for None or a path, BrokerUnavailable where the
    folder of the file does not exist.
    Nothing is connected before the first use. `close()` it, or use it as a context manager; at exit it closes itself.
    """

    def __init__(
        self,
        url: str | Broker = "memory://",
        *,
        retain: int | None = None,
        retain_seconds: float | None = None,
        max_event_bytes: int = 1024 * 1024,
        finish_runs: float = 0.0,
    ) -> None:
        for name, number in (
            ("retain", RETAIN if retain is None else retain),
            ("max_event_bytes", max_event_bytes),
        ):
            if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= sys.maxsize:
                raise ValueError(f"{name} cannot be {number!r}: give an int from 1 to sys.maxsize")
        if retain_seconds is not None and not 0 < retain_seconds < inf:
            raise ValueError(
                f"retain_seconds cannot be {retain_seconds!r}: give seconds above 0, or None for off"
            )
        if not 0 <= finish_runs <= threading.TIMEOUT_MAX:
            raise ValueError(f"finish_runs cannot be {finish_runs!r}: give seconds, 0 to stop runs at once")
        if url is None or isinstance(url, (bytes, os.PathLike)):
            raise TypeError(
                f'url is {url!r}; give "memory://", "sqlite:///path/events.db", "redis://..." or a Broker'
                " (is an environment variable unset?)"
            )
        self.broker: Broker = (
            open_broker(url, retain=retain, retain_seconds=retain_seconds) if isinstance(url, str) else url
        )
        self._max_event_bytes = max_event_bytes
        self._finish_runs = finish_runs
        self._closed = False
        self._warn_of_fork = False
        self._begin()
        lifetime.watch(self)

    def _begin(self) -> None:
        """The state of a process that has just begun to use this hub."""
        # Who has joined and not left. Only atomic operations, so any thread may join and leave, a finalizer too.
        self._listening: dict[Subscription, None] = {}
        self._closing = threading.Lock()  # taken by the one that closes, for ever; nobody waits for it
        self._runs = Runs(self)
        self._reader = Reader(self.broker, self._tick)
        # The reader's thread's.
        self._announced: dict[str, int] = {}
        self._announcing: dict[str, int] = {}  # set before the broker is told, the other one after that
        self._announced_at = 0.0
        self._announced_all_at = 0.0

    def __repr__(self) -> str:
        return f"<Hub on {self.broker.url}, {'closed' if self._closed else 'open'}>"

    @property
    def local(self) -> bool:
        """Whether only this process hears what is published here."""
        return self.broker.local

    # -- publishing -------------------------------------------------------------------------------------------------

    def publish(
        self, topic: str, data: object, *, event: str | None = None, id: str | int | None = None
    ) -> str:
        """Publish one event from anywhere (a view, a thread, a task, a script); return its id.

        topic: 1 to 1024 bytes of printable text without `*`, `?` and `[`. data: `str` as it is; a declared event under
        its name; a ServerSentEvent with its data, and its event and id where none is given here (its retry and comment
        are for one stream, not for the log); anything else but None as compact JSON. event: its type. id: your own,
        printable, at most 128 characters, never used before; an int becomes text; None: the hub makes one.

        When this returns, the event is in the log, in an order that all subscribers share. Raises ValueError or
        TypeError for what cannot be sent or is too large (EventSchemaError, a ValueError, for a declared event that
        does not fit its declaration), DuplicateEvent, BrokerUnavailable (after a bounded time; it may be tried again,
        with an own id safely), HubClosed.
        """
        return self._append((self._entry(topic, data, event, id),))[0]

    def publish_many(self, events: Iterable[tuple[Any, ...]]) -> list[str]:
        """Publish several, each (topic, data), (topic, data, event) or (topic, data, event, id); return their ids.

        All or none, next to each other, in this order; many times faster than one by one. Raises as `publish`.
        """
        entries = []
        for item in events:
            if not isinstance(item, tuple) or not 2 <= len(item) <= 4:
                raise TypeError(
                    "an event to publish is (topic, data), (topic, data, event) or (topic, data, event, id),"
                    f" not {item!r:.80}"
                )
            entries.append(self._entry(*item))
        return self._append(entries)

    def _append(self, entries: Sequence[Entry]) -> list[str]:
        if self._reader.placing:
            self._reader.place()  # who subscribed in this process before hears it
        return self.broker.append(entries)

    def _entry(
        self, topic: str, data: object, event: str | None = None, id: str | int | None = None
    ) -> Entry:
        if self._warn_of_fork:
            self._warn()
        check_topic(topic)
        data = declared_event(data)
        if isinstance(data, ServerSentEvent):
            event = data.event if event is None else event
            id = (data.id or None) if id is None else id
            data = data.data
        if data is None:
            raise TypeError('data cannot be None, which clients are never told; publish "null", "" or {}')
        if id is not None:
            id = _check_id(str(id) if id.__class__ is int else id)
        sent = ServerSentEvent(data, event=event, id=id)
        size = len(sent.encode())
        if size > self._max_event_bytes:
            raise ValueError(
                f"the event has {size} bytes, and at most {self._max_event_bytes} are allowed (max_event_bytes):"
                " publish where the data can be fetched instead"
            )
        assert sent.data is not None
        return Entry(topic, sent.data, event or None, id)

    # -- subscribing ------------------------------------------------------------------------------------------------

    def subscribe(
        self, *topics: str, last_event_id: str | None = None, filter: Filter | None = None
    ) -> Subscription:
        """The events of these topics, exact or as `fnmatch` patterns (`*`, `?`, `[...]`), in the order of the log.

        Lazy: a response that starts it continues after the `Last-Event-ID` of its request, unless `last_event_id` is
        given; without any it begins with what is published from now on. filter: `filter(topic, event)` decides
        whether this subscriber gets an event, replayed ones too; it runs on the hub's thread, so it must be quick and
        not block; if it raises, this subscription ends with that error.

        The first one of a process opens the log in the background and waits for that 0.2 s at most. Raises ValueError
        or TypeError for topics, HubClosed.
        """
        subscription = Subscription(self, topics, last_event_id, filter)
        if not streams.closing:  # a view of a process that is about to end; its response says so better
            self._check_open()
            with suppress(TooManyStreams):  # no thread: `start` says so, to whom it can be said
                self._start_reader(READER_SECONDS)  # here, and not in `start`, which must not wait
        return subscription

    def presence(self, topic: str) -> Presence:
        """How many subscribers gave just this topic or pattern. Other processes are known with a second's delay.

        Raises BrokerUnavailable.
        """
        here = sum(topic in one.topics for one in list(self._listening))
        own = self._own(topic)
        everywhere = self.broker.present(topic)
        if everywhere is not None:
            # An announcement may be under way. Rather fewer of the others for a moment than those here twice.
            everywhere = max(here, everywhere - max(own, self._own(topic)) + here)
        return Presence(here, everywhere)

    def _own(self, topic: str) -> int:
        """How many of those that the broker counts may be of this process."""
        return max(self._announcing.get(topic, 0), self._announced.get(topic, 0))

    # -- running ----------------------------------------------------------------------------------------------------

    def run(self, topic: str, producer: object, *, id: str | None = None) -> Run:
        """Run a producer apart from any connection and publish its items; or attach, where one runs on this topic.

        producer: a function that returns an iterable or generator, or one itself; it runs on a stream thread, in a
        copy of this context. Items: `str`, JSON values and declared events as in `publish`, of a ServerSentEvent its
        data and event count (ids are the hub's), FLUSH means nothing. Where a run lives on the topic already, in any
        process, the producer is not started (a generator is closed), and the handle is on the one that lives.

        id: your own, at most 100 characters; then the run happens **once**: where the log holds its start or end, alive
        or over, the handle is on that one. So a view may just say `hub.run(...)` each time a client asks.

        It begins with the event `start` and ends with `complete`, `stopped` or `error`, each with `{"run": id}`; an
        `error` also has `message` and `code` and tells nothing of the exception, which is logged. If the process dies,
        another one publishes the error (`code` "run_lost") within about ten seconds.

        Raises BrokerUnavailable, HubClosed, TooManyStreams, ValueError for the topic or id, TypeError for them or for a
        producer that is none (text or bytes, of which each character would be an event; None).
        """
        check_topic(topic)
        if id is not None:
            _check_id(id, MAX_RUN_ID_CHARACTERS)
        if isinstance(producer, (str, bytes, bytearray)) or not (
            callable(producer) or hasattr(producer, "__iter__") or hasattr(producer, "__next__")
        ):
            raise TypeError(
                f"producer is {type(producer).__name__}; give an iterable of events, or a function that returns one"
            )
        self._check_open()
        self._start_reader()  # its thread has the heartbeat
        return self._runs.run(topic, producer, new_id() if id is None else id)

    def attach(self, topic: str, id: str | None = None) -> Run | None:
        """A handle on the run that lives on a topic, or None; with its `id`, also on one that is over.

        To view or stop, from any process. Raises BrokerUnavailable.
        """
        check_topic(topic)
        if id is None:
            holder = self.broker.holder(lease_name(topic))
            id = None if holder is None else run_of(holder)
        return None if id is None else Run(self, topic, id, attached=True)

    # -- what subscriptions and the reader call ---------------------------------------------------------------------

    def _start_reader(self, seconds: float = 0.0) -> None:
        if self._warn_of_fork:
            self._warn()
        self._reader.start(seconds)

    def _join(self, subscription: Subscription) -> None:
        self._check_open()
        self._start_reader()
        self._listening[subscription] = None
        self._reader.inbox.append(subscription)
        if self._closed:  # in between: the reader may not have seen it any more
            subscription.finish(self.refusal())
        if subscription.asked is not None:
            self.broker.wake()  # history is wanted now; who only waits for what comes is let in when it comes

    def _resume(self, subscription: Subscription) -> None:
        self._reader.inbox.append(subscription)
        self.broker.wake()

    def _leave(self, subscription: Subscription) -> None:
        self._listening.pop(subscription, None)
        self._reader.inbox.append(subscription)

    def _tick(self) -> None:
        """On the reader's thread, twice a second: keep leases, see who lost one, say who listens."""
        self._runs.heartbeat()
        self._announce()

    def _announce(self) -> None:
        now = monotonic()
        if now < self._announced_at + PRESENCE_PAUSE_SECONDS:
            return
        here = Counter(topic for one in list(self._listening) for topic in one.topics)
        announced = self._announced
        # All of it, now and then: the broker has forgotten it where this process stood still, or the log was lost.
        everything = now >= self._announced_all_at + PRESENCE_AGAIN_SECONDS
        changes = {
            topic: count for topic, count in here.items() if everything or announced.get(topic) != count
        }
        changes.update((topic, 0) for topic in announced.keys() - here.keys())
        if changes:
            self._announcing = here
            self.broker.announce(changes, PRESENCE_SECONDS)
            self._announced = here
            self._announced_at = now
            if everything:
                self._announced_all_at = now

    # -- life -------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Stop the runs of this process, end its subscriptions (`HubClosed`), release everything. Once is enough.

        Takes `finish_runs` seconds at most, and one more for producers that do not let themselves be stopped; those
        are left behind, and their end is published for them. A log that does not answer holds it up for two seconds
        more, and five where such an end is to be published.
        """
        if not self._closing.acquire(blocking=False):
            return
        try:
            self._runs.close(self._finish_runs)
        finally:  # also where somebody interrupts the wait for runs
            self._closed = True
            self._reader.stop()
            self.broker.close()

    def __enter__(self) -> Hub:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._closed:
            raise self.refusal()

    def refusal(self) -> StreamkitError:
        """What is raised where this hub is wanted after its end."""
        if streams.closing:
            return Draining("this process is stopping, and its hubs are closed")
        return HubClosed(f"the hub on {self.broker.url} is closed; make a new one to publish or subscribe")

    def after_fork(self) -> None:
        """In a child: begin anew on the same log. Called by itself."""
        if self._closed:
            return
        self.broker.after_fork()
        self._warn_of_fork = self.broker.local
        self._begin()

    def _warn(self) -> None:
        self._warn_of_fork = False
        log.warning(
            "this hub was made before the process forked, and memory:// reaches one process only: what is published in"
            ' one worker is not heard in the others; use Hub("sqlite:////path/to/events.db")'
        )


def _check_id(id: object, most: int = MAX_ID_CHARACTERS) -> str:
    if not isinstance(id, str):
        raise TypeError(f"id must be str or None, not {type(id).__name__}")
    if not id.isprintable() or id != id.strip() or not 1 <= len(id) <= most:
        raise ValueError(
            f"id {id[:40]!r} cannot be used: give 1 to {most} printable characters without white space at either end,"
            " or None"
        )
    return id
