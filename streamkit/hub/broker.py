"""What a hub stands on: one append-only log, and a way to wait for more of it. The docstrings are the contract.

Law of this file
- A broker keeps **one log** in one total order, whatever the topics are: that is why one `Last-Event-ID` is enough for
  any number of topics. It knows nothing of subscribers, patterns, buffers or frames; the hub does all that.
- Store before announce: a record that `follow` gives in any process is in the log, and `append` returns only when the
  log has it. `read` and `follow` never skip a record and never show a later one before an earlier one.
- A broker never hands out silence for history that it does not hold: it raises `HistoryLost`.

`streamkit.testing.check_broker` tests all of this, for the three brokers here and for one of your own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Literal, NamedTuple, Protocol

from streamkit.errors import StreamkitError

Position = int
"""A place in the log, made by the broker: larger means later. Not necessarily dense; 0 is before the first record.

Nothing but the broker that made it takes it apart, so it may be packed (`milliseconds << 64 | sequence`)."""

RETAIN: Final = 10_000
"""Records that a log holds at least where no hub has said otherwise: hours of most applications, a few MB."""

LeaseState = Literal["held", "stopping", "lost"]
"""What `renew` says of a lease: still ours; ours, but somebody asked the holder to stop; somebody else's or gone."""


class HistoryLost(StreamkitError):
    """The log does not hold everything after the position that was asked for.

    It was trimmed, or it is another log than the one the position came from (a file deleted and made again, a server
    restarted empty). Between a broker and its hub; subscribers see a `Gap`, or `SubscriberTooSlow`.
    """

    code = "history_lost"


class Entry(NamedTuple):
    """What is to be appended. The hub has checked every field: `topic` is valid, all text can be sent."""

    topic: str
    data: str
    event: str | None
    id: str | None
    """The publisher's own id, printable, at most 128 characters; None: the broker makes one."""


class Record(NamedTuple):
    """One entry of the log. `id` is what a client brings back: the publisher's own, or the broker's."""

    position: Position
    id: str
    topic: str
    data: str
    event: str | None


class Broker(Protocol):
    """An append-only log with ids, leases and a wake-up: everything that a hub asks of the world outside.

    **Threads.** `follow` is called by one thread per process (the hub's reader), again and again, and `read` by the
    same one. Everything else, `append` first of all, is called by any thread at any time, also while the reader is
    inside `follow`. One connection for the reader and a few for everybody else are enough: never one for each
    subscriber.

    **Ids.** A broker's own ids carry an *epoch*, a short random text that belongs to the log: made when the log is made
    and stored with it (memory: with the process). So the id of another log, or of a log before it was lost, is unknown
    instead of wrong. They are at most 64 characters of `A-Z a-z 0-9 - _ .`, and positions, hence ids, rise with the
    order of the log also when the system's clock jumps back.

    **Faults.** What cannot be done now (unreachable, busy, full, corrupted) raises `BrokerUnavailable`, after a bounded
    time and with a message that says what to do; nothing that was appended before is lost by it, and an `append` that
    raised it can be repeated (with an own id: safely). The reader calls again after a pause of its own, so `follow`
    need not retry. A broker reconnects by itself at the next call.

    **Fork.** `after_fork` is called in the child before anything else. Nothing is opened before it is needed.

    **After close** every method but `close` and `wake` raises `HubClosed`.

    The brokers of this package are made as `SomeBroker(url, retain=None, retain_seconds=None)`. What is retained is
    stored with the log: one that names neither number trims by what another has said, so that a script which publishes
    once cuts no application's history. One of your own is made in any way you like and given to the hub:
    `Hub(MyBroker(...))`.
    """

    url: str
    """For messages; without a password."""

    local: bool
    """True where only this process sees what is appended (memory); then a hub warns when there are more processes."""

    def append(self, entries: Sequence[Entry]) -> list[str]:
        """Add the entries to the log, in order and next to each other, all or none; return their ids.

        Raises DuplicateEvent where an own id is in the log already, or twice in `entries` (then nothing is added), or
        begins like one of the broker's own ids; BrokerUnavailable. Trims old records in bounded steps: at least
        `retain` stay; records older than `retain_seconds` may go (the newest one never does).
        """
        ...

    def read(self, after: Position, limit: int) -> list[Record]:
        """The records that follow `after`, in order; at most `limit`, fewer where they are large, none at the end only.

        Does not wait. Raises HistoryLost where a record after `after` is no longer held, or `after` is later than the
        newest one. (A broker that cannot tell whether the very next one is missing may raise; it must not keep silent.)
        """
        ...

    def follow(self, after: Position, limit: int, timeout: float) -> list[Record]:
        """As `read`, but where nothing follows yet wait up to `timeout` seconds (0: not at all) for what does.

        Empty after the time, or because of `wake`. What any process appended arrives within a few milliseconds.
        """
        ...

    def wake(self) -> None:
        """Make a waiting `follow` of this process return, within a few milliseconds; or the next one, if none waits.

        Any thread; does not block; never raises.
        """
        ...

    def head(self) -> Position:
        """The position of the newest record; 0 where there never was one. What is appended later comes after it."""
        ...

    def floor(self) -> Position:
        """A position after which everything that is still held follows, and from which `read` does not raise now.

        0 where nothing has been trimmed yet.
        """
        ...

    def locate(self, id: str) -> Position | None:
        """The position of the record that has this id; None where there is none, and there never was one in this log.

        `id` is whatever a client sent, up to 4096 characters: garbage, another log's, one from the future. Never
        raises for any of it. The position of a record that was trimmed may be given still (`read` will raise), or None.
        """
        ...

    # -- leases: at most one holder at a time, of all processes ------------------------------------------------------

    def claim(self, name: str, holder: str, seconds: float) -> str:
        """Take the lease `name` for `holder` where it is free, or say who has it. Returns the holder now in force.

        A lease that has expired and was not released is **not** free: it stays with its dead holder until somebody
        calls `release` with that holder, so that nobody's end goes unnoticed. `holder` is at most 128 characters.
        Expiry counts on a clock that does not jump.
        """
        ...

    def renew(self, leases: Sequence[tuple[str, str]], seconds: float) -> list[LeaseState]:
        """Extend these leases, each a (name, holder), by `seconds` from now; say how each one stands."""
        ...

    def release(self, name: str, holder: str) -> bool:
        """Give up the lease, also somebody else's that has expired. True for exactly one caller."""
        ...

    def holder(self, name: str) -> str | None:
        """Who has the lease (also an expired one), or None."""
        ...

    def expired(self) -> list[tuple[str, str]]:
        """The leases, each a (name, holder), that nobody renewed in time and nobody released; at most 100.

        Raises BrokerUnavailable at a time when nobody could renew one, although it could be read.
        """
        ...

    def request_stop(self, name: str, holder: str) -> bool:
        """Ask the holder to stop; its next `renew` says "stopping". False where it does not hold the lease."""
        ...

    # -- presence: how many listen, in all processes -----------------------------------------------------------------

    def announce(self, counts: Mapping[str, int], seconds: float) -> None:
        """Say how many subscribers this process has for the topics (or patterns) in `counts`; 0 removes one.

        Topics that are not named stay as they were. All that this process announced is forgotten `seconds` after its
        last call. May do nothing where the broker cannot know.
        """
        ...

    def present(self, topic: str) -> int | None:
        """The sum of what live processes, this one included, announced for this very text; None where unknown."""
        ...

    # -- life --------------------------------------------------------------------------------------------------------

    def after_fork(self) -> None:
        """Forget connections, threads and locks: they are the parent's. Do not close them: the parent uses them."""
        ...

    def close(self) -> None:
        """Release everything and wake `follow`, which then raises HubClosed. A second call does nothing."""
        ...
