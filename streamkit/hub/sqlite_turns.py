"""Who is inside of SQLite, with which connection: one thread for each, and none while the process forks.

Law of this file
- Each connection is behind a lock that is held for one transaction. Who waits for it longer than `BUSY_SECONDS`, or for
  another process's, gets BrokerUnavailable. So does at once who is inside of one already: a signal handler, or a
  finalizer that the garbage collector runs, in the midst of a call.
- Who has a turn may wait for one that was made later, never for an earlier one. So nobody waits in a circle.
- While the process forks, nobody is inside of SQLite, else its allocator's mutex were locked for ever in the child, and
  no connection is open: SQLite keeps in memory which locks its process has on a file, and a child has none of them; the
  next process that closes the file would delete the write-ahead log under it. So who forks takes all turns for that
  moment, in the order in which they were made, and closes what is open; parent and child open the file anew.
"""

from __future__ import annotations

import itertools
import os
import sqlite3
import threading
import weakref
from pathlib import Path
from typing import Final

from streamkit.errors import BrokerUnavailable
from streamkit.hub.sqlite_file import Connection, explained, inode, open_file

# Seconds that a call waits for other threads and processes to be done with the file; the default of Python's sqlite3.
BUSY_SECONDS: Final = 5.0
# Seconds that `close` waits for a transaction to be over; those take a millisecond, unless the file is locked. (A fork
# waits for those too: as long as for two of them.)
HOLD_SECONDS: Final = 0.5

_inherited: Final[list[Connection]] = []
"""Connections of a parent process that could not be closed before: a signal handler forked in the midst of a call, or a
server that tells Python of its forks only afterwards. Nothing in the child closes them
(https://sqlite.org/howtocorrupt.html section 2.6)."""

_turns: Final[weakref.WeakValueDictionary[int, Turn]] = weakref.WeakValueDictionary()
"""In the order in which they were made."""
_numbers: Final = itertools.count()
_forking: Final[dict[int, list[Turn]]] = {}
"""What a thread that forks has taken."""


class Turn:
    """A connection, and the lock of whoever uses it, for which nobody waits longer than `BUSY_SECONDS`.

    A context manager: to be in it is to have the turn. It raises BrokerUnavailable, and turns what SQLite raises in the
    block into that.
    """

    def __init__(self, path: Path) -> None:
        self.connection: Connection | None = None
        self.replaced = False  # the file, since `follow` looked
        self.taken = False
        self._path = path
        self._inode: tuple[int, int] | None = None
        self._lock = threading.RLock()
        _turns[next(_numbers)] = self

    def __enter__(self) -> None:
        if not self._lock.acquire(timeout=BUSY_SECONDS):
            raise BrokerUnavailable(
                f"{str(self._path)!r} was in use by other threads of this process for more than {BUSY_SECONDS:g} s"
            )
        if self.taken:
            self._lock.release()
            raise BrokerUnavailable(
                f"{str(self._path)!r} is in use by this very thread: a signal handler, or the finalizer of something"
                " that was dropped (the `finally` of a generator), calls the hub in the midst of another call; let a"
                " thread do that, and close generators where they are used"
            )
        self.taken = True

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self.taken = False
        self._lock.release()
        if isinstance(error, sqlite3.Error):
            raise explained(self._path, error, BUSY_SECONDS) from error

    def hold(self, seconds: float) -> bool:
        """Keep all other threads out, if that can be had so soon."""
        return self._lock.acquire(timeout=seconds)

    def let_go(self) -> None:
        """Let them in again."""
        self._lock.release()

    def current(self) -> Connection:
        """The connection, opened where there is none, and anew where the file was replaced. For who has the turn.

        Raises BrokerUnavailable, and sqlite3.Error, which the block turns into that.
        """
        if self.connection is not None and self.connection.inode != inode(self._path):
            self.connection.remove_journal()
            self.disconnect()
        if self.connection is None:
            self.connection = open_file(self._path, BUSY_SECONDS)
            self.replaced |= self._inode not in (None, self.connection.inode)
            self._inode = self.connection.inode
        self.connection.check_journal()
        return self.connection

    def disconnect(self) -> None:
        """Close the connection, if there is one. For who has the turn."""
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.close()

    def forget(self) -> None:
        """In a child: what is still open is the parent's."""
        if self.connection is not None:
            _inherited.append(self.connection)


def _before_fork() -> None:
    held: list[Turn] = []
    try:
        for reference in _turns.valuerefs():  # a list, made in one step: other threads make turns meanwhile
            turn = reference()
            if turn is not None and turn.hold(2 * BUSY_SECONDS):
                held.append(turn)
    finally:  # where a signal handler raises while this waits, Python prints that and forks all the same
        _forking[threading.get_ident()] = held
        for turn in held:
            if not turn.taken:  # else this is a signal handler, in the midst of a call of its own thread
                turn.disconnect()


def _after_fork() -> None:
    for turn in _forking.pop(threading.get_ident(), ()):
        turn.let_go()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
