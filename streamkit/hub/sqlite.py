"""The log in an SQLite file, for all processes of one machine: `sqlite:///relative/path` or `sqlite:////absolute/path`.

Law of this file
- Write-ahead logging, `synchronous=NORMAL`: a publication survives the death of any process; the last few may be lost
  when the machine loses power, never a part of the middle.
- Every write is one BEGIN IMMEDIATE transaction. Positions are row ids; the newest row is never deleted, so they are
  dense and never used twice. The log's epoch is in the file: a file made anew is another log.
- One connection for the reader and one for everybody else, each with a turn of its own (see `sqlite_turns`).
- `close` waits for nobody who waits for the file: whoever is inside when it is closed puts its connection away.
- Readers of other processes are woken by a *bell* (see `bells`). A look every second is the fallback.
"""

from __future__ import annotations

import secrets
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar

from streamkit.errors import DuplicateEvent, HubClosed
from streamkit.hub import sqlite_leases as leases
from streamkit.hub.bells import Bell, Bells
from streamkit.hub.broker import RETAIN, Entry, HistoryLost, LeaseState, Position, Record
from streamkit.hub.memory import number_of
from streamkit.hub.sqlite_file import Connection, path_of, suffix_of
from streamkit.hub.sqlite_turns import HOLD_SECONDS, Turn

T = TypeVar("T")
Retention = tuple[int, float | None]
"""Records, and seconds or None."""

# Rows that one publication deletes beyond twice its own number: about a millisecond.
TRIM_ROWS: Final = 500
# Trim when this many more than asked for are held, so that most publications delete nothing.
TRIM_SLACK: Final = 100
# Text that one read returns before it stops early, in characters: bounds the memory of a replay.
READ_CHARACTERS: Final = 2 * 1024 * 1024
# Seconds between two looks of a reader that no bell reaches (a file system without FIFOs).
DEAF_SECONDS: Final = 0.02

_INSERT: Final = "INSERT INTO log (position, topic, event, data, id, time) VALUES (?, ?, ?, ?, ?, ?)"
_READ: Final = (
    "SELECT position, topic, event, data, id, time FROM log WHERE position > ? ORDER BY position LIMIT ?"
)
_HEAD: Final = "SELECT max(position) FROM log"
_FLOOR: Final = "SELECT min(position) - 1 FROM log"


class SQLiteBroker:
    """See `Broker`. Nothing is opened before it is used; the folder must exist."""

    local = False

    def __init__(self, url: str, *, retain: int | None = None, retain_seconds: float | None = None) -> None:
        self.url = url
        self._path = path_of(url)
        self._declared: Retention | None = None
        if retain is not None or retain_seconds is not None:
            self._declared = (RETAIN if retain is None else retain, retain_seconds)
        self._closed = False
        self._reset()

    def _reset(self) -> None:
        # Each is owned by one thread for one transaction; nothing but SQLite is waited for under it, and, by the reader
        # whose bell must be written into the file, the turn to write: so that is made second (see `Turn`).
        self._read_turn = Turn(self._path)
        self._write_turn = Turn(self._path)
        # Whose presence is whose; made when it is needed, because not every server tells Python that it forks (uWSGI).
        self._process: str | None = None
        self._bells = Bells(self._path)
        self._bell: Bell | None = None
        self._woken = False
        self._declared_to: str | None = None  # the epoch of the log that knows what is retained here

    # -- the log ----------------------------------------------------------------------------------------------------

    def append(self, entries: Sequence[Entry]) -> list[str]:
        """Add to the log; see `Broker.append`."""
        if not entries:
            self._check_open()
            return []

        def add(connection: Connection) -> tuple[list[str], list[str], str]:
            execute, prefix = connection.execute, connection.prefix
            before = int(execute(_HEAD).fetchone()[0] or connection.base)
            last = execute("SELECT time FROM log WHERE position = ?", (before,)).fetchone()
            now = time.time()
            if last is not None and last[0] > now:
                now = last[0]  # a clock that jumped back: ages are only ever compared with each other
            rows, ids, suffix = [], [], suffix_of(now)
            for position, (topic, data, event, id) in enumerate(entries, before + 1):
                if id is not None and id.startswith(prefix):
                    raise DuplicateEvent(
                        f"id {id!r} begins as the hub's own ids do; choose another, or leave it out"
                    )
                rows.append((position, topic, event, data, id, now))
                ids.append(f"{prefix}{position - connection.base}{suffix}" if id is None else id)
            try:
                connection.executemany(_INSERT, rows)
            except sqlite3.IntegrityError:
                raise _duplicate(connection, entries, before) from None
            self._trim(connection, before + len(rows), len(rows), now)
            bells = [str(name) for (name,) in execute("SELECT name FROM bells")]
            dead = self._bells.take_dead()
            if dead:
                connection.executemany("DELETE FROM bells WHERE name = ?", [(name,) for name in dead])
            return ids, bells, connection.epoch

        ids, bells, self._declared_to = self._write(add)
        self._bells.ring(bells)
        if self._closed:  # in between: what has just been opened to ring is closed by nobody else
            self._bells.close()
        return ids

    def _trim(self, connection: Connection, head: int, added: int, now: float) -> None:
        """Delete what is too much or too old, in a step that is bounded by what this publication has added itself."""
        retain, seconds = self._retention(connection)
        floor = int(connection.execute(_FLOOR).fetchone()[0])
        most = 2 * added + TRIM_ROWS
        until = head - retain
        if until - floor < TRIM_SLACK:
            until = floor
        if seconds is not None:
            sql = "SELECT max(position) FROM (SELECT position, time FROM log ORDER BY position LIMIT ?) WHERE time < ?"
            (late,) = connection.execute(sql, (most, now - seconds)).fetchone()
            until = max(until, late or 0)
        if until > floor:
            connection.execute("DELETE FROM log WHERE position <= ?", (min(until, floor + most, head - 1),))

    def _retention(self, connection: Connection) -> Retention:
        """What the log retains: what was declared last. This process declares with its first publication."""
        stored: Retention | None = connection.execute("SELECT records, seconds FROM retention").fetchone()
        declared = self._declared
        if declared is None or self._declared_to == connection.epoch:
            return stored or (RETAIN, None)
        if stored != declared:
            connection.execute("DELETE FROM retention")
            connection.execute("INSERT INTO retention (records, seconds) VALUES (?, ?)", declared)
        return declared

    def read(self, after: Position, limit: int) -> list[Record]:
        """What follows `after`; see `Broker.read`."""
        return self._read(lambda connection: _records(connection, after, limit))

    def follow(self, after: Position, limit: int, timeout: float) -> list[Record]:
        """What follows `after`, waited for; see `Broker.follow`."""
        deadline = time.monotonic() + timeout
        while True:
            found = self._read(lambda connection: self._listen(connection, after, limit))
            left = deadline - time.monotonic()
            if found or self._woken or left <= 0:
                self._woken = False
                return found
            bell = self._bell
            if bell is None:
                time.sleep(min(left, DEAF_SECONDS))
            else:
                bell.wait(min(left, 1.0))

    def _listen(self, connection: Connection, after: Position, limit: int) -> list[Record]:
        """Look into the log; before the first look hang the bell, so that what is published after it rings."""
        if self._read_turn.replaced:
            # By an older copy of it, perhaps, which was given other records at these positions.
            self._read_turn.replaced = False
            raise HistoryLost(f"{str(self._path)!r} was replaced by another file")
        if self._bell is not None and not self._bell.hangs:  # somebody removed it, perhaps with the file
            self._bell.take_down()
            self._bell, connection.bell_is_known = None, False
        if not connection.bell_is_known:
            if self._bell is None:
                self._bell = self._bells.hang()
            if self._bell is not None:
                self._write(self._register)
            connection.bell_is_known = True
        return _records(connection, after, limit)

    def _register(self, connection: Connection) -> None:
        assert self._bell is not None
        known = [str(name) for (name,) in connection.execute("SELECT name FROM bells")]
        dead = [(name,) for name in known if self._bells.is_dead(name)]
        connection.executemany("DELETE FROM bells WHERE name = ?", dead)
        connection.execute("INSERT OR IGNORE INTO bells (name) VALUES (?)", (self._bell.name,))

    def wake(self) -> None:
        """Make `follow` return; see `Broker.wake`."""
        self._woken = True
        bell = self._bell
        if bell is not None:
            bell.ring()

    def head(self) -> Position:
        """The newest position."""
        return self._call(lambda connection: int(connection.execute(_HEAD).fetchone()[0] or 0))

    def floor(self) -> Position:
        """The position before the oldest record that is held."""

        def ask(connection: Connection) -> Position:
            (floor,) = connection.execute(_FLOOR).fetchone()
            return 0 if floor is None or floor == connection.base else int(floor)

        return self._call(ask)

    def locate(self, id: str) -> Position | None:
        """Where this id is; see `Broker.locate`."""
        self._check_open()
        try:
            id.encode()
        except UnicodeEncodeError:
            return None  # a lone surrogate: SQLite could not even be asked

        def find(connection: Connection) -> Position | None:
            row = connection.execute("SELECT position FROM log WHERE id = ?", (id,)).fetchone()
            if row is not None:
                return int(row[0])
            number = number_of(id.rpartition("-")[0], connection.epoch)
            if number is None:
                return None
            position = connection.base + number
            if position > int(connection.execute(_HEAD).fetchone()[0] or 0):
                return None
            row = connection.execute("SELECT id, time FROM log WHERE position = ?", (position,)).fetchone()
            if row is None:
                return position  # trimmed
            # A record with an own id has no second one: that id was never given out.
            own, at = row
            return position if own is None and id == f"{connection.prefix}{number}{suffix_of(at)}" else None

        return self._read(find)

    # -- leases and presence ----------------------------------------------------------------------------------------

    def claim(self, name: str, holder: str, seconds: float) -> str:
        """Take a lease; see `Broker.claim`."""
        return self._write(lambda connection: leases.claim(connection, name, holder, seconds))

    def renew(self, leases_held: Sequence[tuple[str, str]], seconds: float) -> list[LeaseState]:
        """Extend leases; see `Broker.renew`."""
        return self._write(lambda connection: leases.renew(connection, leases_held, seconds))

    def release(self, name: str, holder: str) -> bool:
        """Give a lease up; see `Broker.release`."""
        return self._write(lambda connection: leases.release(connection, name, holder))

    def holder(self, name: str) -> str | None:
        """Who has a lease."""
        return self._call(lambda connection: leases.holder(connection, name))

    def expired(self) -> list[tuple[str, str]]:
        """Leases that nobody renewed in time; see `Broker.expired`. A write: in a locked file nobody can renew."""
        return self._write(leases.expired)

    def request_stop(self, name: str, holder: str) -> bool:
        """Ask the holder of a lease to stop; see `Broker.request_stop`."""
        return self._write(lambda connection: leases.request_stop(connection, name, holder))

    def announce(self, counts: Mapping[str, int], seconds: float) -> None:
        """Say how many listen here; see `Broker.announce`."""
        process = self._process = self._process or secrets.token_hex(8)
        self._write(lambda connection: leases.announce(connection, process, counts, seconds))

    def present(self, topic: str) -> int | None:
        """How many listen; see `Broker.present`."""
        return self._call(lambda connection: leases.present(connection, topic))

    # -- life -------------------------------------------------------------------------------------------------------

    def after_fork(self) -> None:
        """Begin anew; the parent's connections were closed before, if at all possible."""
        for turn in (self._write_turn, self._read_turn):
            turn.forget()
        if self._bell is not None:
            self._bell.forget()
        self._bells.forget()
        self._reset()

    def close(self) -> None:
        """Close the connections, take the bell down, and wake `follow`."""
        if self._closed:
            return
        self._closed = True
        self.wake()
        for turn in (self._read_turn, self._write_turn):
            if turn.hold(HOLD_SECONDS):
                try:
                    if not turn.taken:  # else this is a finalizer, in the midst of a call of its own thread
                        self._put_away(turn)
                finally:
                    turn.let_go()
        self._bells.close()

    def _put_away(self, turn: Turn) -> None:
        """Close what belongs to a turn, once the broker is closed: by whoever is in that turn then, or comes next."""
        if turn is self._read_turn and self._bell is not None:
            self._bell.take_down()
        if turn is self._write_turn and turn.connection is not None:
            self._say_goodbye(turn.connection)
        turn.disconnect()

    def _say_goodbye(self, connection: Connection) -> None:
        try:
            connection.execute(f"PRAGMA busy_timeout = {HOLD_SECONDS * 1000:.0f}")
            connection.execute("BEGIN IMMEDIATE")
            if self._process is not None:
                leases.leave(connection, self._process)
            if self._bell is not None:
                connection.execute("DELETE FROM bells WHERE name = ?", (self._bell.name,))
            connection.execute("COMMIT")
        except sqlite3.Error:
            pass  # whoever comes next cleans up

    # -- transactions -----------------------------------------------------------------------------------------------

    def _write(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in one transaction: committed if it returns, undone if it raises."""

        def transaction(connection: Connection) -> T:
            connection.execute("BEGIN IMMEDIATE")
            try:
                result = work(connection)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:  # some errors (a full disk) undo it by themselves
                    connection.execute("ROLLBACK")
                raise
            return result

        return self._call(transaction)

    def _call(self, work: Callable[[Connection], T]) -> T:
        return self._in_turn(self._write_turn, work)

    def _read(self, work: Callable[[Connection], T]) -> T:
        return self._in_turn(self._read_turn, work)

    def _in_turn(self, turn: Turn, work: Callable[[Connection], T]) -> T:
        with turn:
            try:
                self._check_open()
                return work(turn.current())
            finally:
                if self._closed:
                    self._put_away(turn)

    def _check_open(self) -> None:
        if self._closed:
            raise HubClosed(f"the hub on {self.url} is closed; make a new one to publish or subscribe")


def _records(connection: Connection, after: Position, limit: int) -> list[Record]:
    if after >= 1 << 63:
        raise HistoryLost(f"no file has a position {after}")  # SQLite could not even be asked
    after = after or connection.base
    found: list[Record] = []
    prefix, base = connection.prefix, connection.base
    characters, since, suffix = 0, None, ""
    rows = connection.execute(_READ, (after, limit))
    for position, topic, event, data, id, at in rows:
        if id is None:
            if at != since:  # what is published together has one time
                since, suffix = at, suffix_of(at)
            id = f"{prefix}{position - base}{suffix}"
        found.append(Record(position, id, topic, data, event))
        characters += len(data)
        if characters > READ_CHARACTERS:
            rows.close()
            break
    if found:
        if found[0].position == after + 1:
            return found
    elif base <= after <= int(connection.execute(_HEAD).fetchone()[0] or base):
        return found
    raise HistoryLost(f"the file does not hold what follows position {after}")


def _duplicate(connection: Connection, entries: Sequence[Entry], before: Position) -> DuplicateEvent:
    """Which id it was; `before` is the last position that was there before these entries."""
    seen: set[str] = set()
    for entry in entries:
        if entry.id is None:
            continue
        sql = "SELECT 1 FROM log WHERE id = ? AND position <= ?"
        if entry.id in seen or connection.execute(sql, (entry.id, before)).fetchone() is not None:
            break
        seen.add(entry.id)
    return DuplicateEvent(f"id {entry.id!r} was published already; nothing of this call was published")
