"""The file behind `sqlite://`: its URL, its tables, how it is opened, and what its errors mean.

Law of this file
- The file is the hub's own: one that holds something else is refused, never altered.
- Positions begin at a random multiple of 2**32, which is also the epoch in the ids. So neither an id nor a position of
  another file, or of this one before it was deleted and made again, can be taken for one of this file's.
- A file that lost its end (a power failure, a copy that was put back) gives positions again. So an id ends with digits
  of its record's time.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import time
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from streamkit.errors import BrokerUnavailable

# Marks the file as a hub's (`PRAGMA application_id`): "skit" in ASCII.
APPLICATION_ID: Final = 0x736B6974
# The version of the tables (`PRAGMA user_version`).
VERSION: Final = 1
# Of the write-ahead log, in pages of 4 KiB: what is truncated to after a burst. 4 MiB, SQLite's own checkpoint size.
JOURNAL_BYTES: Final = 4 * 1024 * 1024
# Between two attempts to open a file that another process is making: about as long as that takes.
RETRY_SECONDS: Final = 0.01

SCHEMA: Final = """
CREATE TABLE meta (epoch TEXT NOT NULL);
CREATE TABLE log (
    position INTEGER PRIMARY KEY, topic TEXT NOT NULL, event TEXT, data TEXT NOT NULL, id TEXT, time REAL NOT NULL
);
CREATE UNIQUE INDEX log_id ON log (id) WHERE id IS NOT NULL;
CREATE TABLE leases (
    name TEXT PRIMARY KEY, holder TEXT NOT NULL, expires REAL NOT NULL, boot TEXT NOT NULL, stop INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE processes (process TEXT PRIMARY KEY, expires REAL NOT NULL, boot TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE present (
    topic TEXT NOT NULL, process TEXT NOT NULL, count INTEGER NOT NULL, PRIMARY KEY (topic, process)
) WITHOUT ROWID;
CREATE TABLE bells (name TEXT PRIMARY KEY) WITHOUT ROWID;
"""
# One row, or none where no hub has said what it wants. Not among the tables above: files were made without it.
RETENTION: Final = "CREATE TABLE IF NOT EXISTS retention (records INTEGER NOT NULL, seconds REAL)"


def boot_id() -> str:
    """What differs from one start of the machine to the next; `time.monotonic()` counts from there in all processes."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


BOOT: Final = boot_id()


class Connection(sqlite3.Connection):
    """A connection that knows which log it is of."""

    epoch: str
    base: int  # the position before the very first record
    prefix: str  # of the ids
    inode: tuple[int, int]
    file: str  # the path without links, beside which SQLite has the rest
    journal: str  # the path of the write-ahead log
    journal_inode: tuple[int, int]
    bell_is_known: bool

    def remove_journal(self) -> None:
        """Of a file that was replaced: SQLite would take this log for the new file's, and damage that."""
        if inode(self.file) != self.inode and inode(self.journal) == self.journal_inode:
            for path in (self.journal, f"{self.file}-shm"):
                with suppress(OSError):
                    os.unlink(path)

    def check_journal(self) -> None:
        """Raise where the write-ahead log was removed: what is written to this one reaches nobody who opens the file.

        SQLite removes none that is in use. But a process that opens and closes the file by itself, to copy it, gives
        up the locks by which others see that (https://sqlite.org/howtocorrupt.html section 2.2).
        """
        if inode(self.journal) != self.journal_inode:
            raise sqlite3.OperationalError("write-ahead log was removed")


def suffix_of(at: float) -> str:
    """What an id ends with: digits of the time of its record."""
    return f"-{int(at * 1000) % 100_000:05d}"


def path_of(url: str) -> Path:
    """The path in `sqlite:///relative/path` or `sqlite:////absolute/path`. Raises ValueError for any other URL.

    Relative to the working directory of this moment. Raises BrokerUnavailable where the folder does not exist.
    """
    scheme, _, rest = url.partition(":///")
    if scheme != "sqlite" or not rest or "?" in rest or "#" in rest:
        raise ValueError(
            f"{url!r} is not the URL of an SQLite file: write sqlite:///relative/path.db or sqlite:////absolute/path.db"
            " (a ? or # in the path as %3F or %23)"
        )
    if rest == ":memory:":
        raise ValueError(f"{url!r}: SQLite in memory reaches nobody else; write memory://")
    path = Path(unquote(rest)).absolute()
    if not os.path.isdir(path.parent):
        raise BrokerUnavailable(
            f"{str(path)!r}: there is no folder {str(path.parent)!r}, or none that this process may enter; make it"
            " first"
        )
    if os.path.isdir(path):
        raise BrokerUnavailable(f"{str(path)!r} is a folder; give the path of a file in it")
    return path


def inode(path: Path | str) -> tuple[int, int]:
    """Which file this is; (0, 0) for none. A file deleted and made again is another one."""
    try:
        found = os.stat(path)
    except OSError:
        return (0, 0)
    return found.st_dev, found.st_ino


def open_file(path: Path, busy_seconds: float) -> Connection:
    """Open the file, made first where there is none. Raises sqlite3.Error (see `explained`).

    While another process makes the file, SQLite says "locked" at once in some places; those are tried again.
    """
    deadline = time.monotonic() + busy_seconds
    while True:
        try:
            before = inode(path)
            connection = _open(path, busy_seconds)
            if connection.inode == before != (0, 0):
                return connection
            connection.close()  # it was made or replaced in between: perhaps this is a file that is there no more
            continue
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
        time.sleep(RETRY_SECONDS)


def _open(path: Path, busy_seconds: float) -> Connection:
    connection = sqlite3.connect(
        path, timeout=busy_seconds, isolation_level=None, check_same_thread=False, factory=Connection
    )
    try:
        connection.inode = inode(path)  # at once: SQLite has just opened it
        _prepare(connection)
        connection.file = os.path.realpath(path)
        connection.journal = f"{connection.file}-wal"
        connection.journal_inode = inode(connection.journal)
        connection.bell_is_known = False
        (connection.epoch,) = connection.execute("SELECT epoch FROM meta").fetchone()
        connection.base = int(connection.epoch, 16) << 32
        connection.prefix = f"{connection.epoch}-"
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: Connection) -> None:
    execute = connection.execute
    if execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        # Two processes may both come here. SQLite's busy handler is not asked when two change the journal mode at
        # once, so only one does: the transaction that makes the tables is what both queue for.
        execute("BEGIN IMMEDIATE")
        try:
            if execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
                if execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                    raise sqlite3.DatabaseError("file holds other tables")
                for statement in SCHEMA.split(";"):
                    execute(statement)
                # 31 bits, so that every position fits into SQLite's 63.
                execute("INSERT INTO meta VALUES (?)", (f"{secrets.randbelow(2**30) + 2**30:x}",))
                execute(f"PRAGMA application_id = {APPLICATION_ID}")
                execute(f"PRAGMA user_version = {VERSION}")
            execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                execute("ROLLBACK")
            raise
    version = execute("PRAGMA user_version").fetchone()[0]
    if version != VERSION:
        raise sqlite3.DatabaseError(f"file has version {version}, and this streamkit knows {VERSION}")
    _use_write_ahead_log(connection)
    execute(RETENTION)
    execute("PRAGMA synchronous = NORMAL")
    execute(f"PRAGMA journal_size_limit = {JOURNAL_BYTES}")


def _use_write_ahead_log(connection: Connection) -> None:
    if connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal":
        return
    mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise sqlite3.OperationalError(f"this file system has no write-ahead log (journal mode is {mode})")


def explained(path: Path, error: sqlite3.Error, busy_seconds: float) -> BrokerUnavailable:
    """What an error of SQLite means for whoever runs the hub, and what to do."""
    said = str(error)
    if "locked" in said or "busy" in said:
        what = f"was held by another process for more than {busy_seconds:g} s; keep no transaction on it open"
    elif "readonly" in said or "read-only" in said:
        what = "cannot be written; let this process write to the file and to its folder"
    elif "full" in said:
        what = "cannot grow: its disk is full; make room (what was published before is kept)"
    elif "not a database" in said or "malformed" in said:
        what = "is damaged, or not a hub's file; move it away and a new one is made (clients are told of the gap)"
    elif "other tables" in said:
        what = "holds other tables; give the hub a file of its own"
    elif "log was removed" in said:
        what = (
            "lost its -wal while this process used it (it was removed, or this process opened and closed the file"
            " itself, which takes SQLite's locks from it); restart this process"
        )
    elif "version" in said:
        what = "was made by another version of streamkit; move it away, or use that version"
    elif "unable to open" in said:
        what = "cannot be opened; see that its folder exists and that this process may write there"
    else:
        what = "cannot be used now"
    return BrokerUnavailable(f"{str(path)!r} {what} ({said})")
