"""Leases and presence in the file of an SQLite hub. Every function runs inside one transaction of its caller.

Law of this file
- Times are those of `time.monotonic()`, which no clock that is set can disturb and all processes of a machine share. It
  begins again when the machine does, so each row says of which start it is: what is of another has expired.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from streamkit.hub.broker import LeaseState
from streamkit.hub.sqlite_file import BOOT, Connection

_LATE = "expires <= ? OR boot <> ?"


def claim(connection: Connection, name: str, holder: str, seconds: float) -> str:
    """Take a lease where it is free; who has it now."""
    held_by = _holder(connection, name)
    if held_by is not None:
        return held_by
    connection.execute(
        "INSERT INTO leases (name, holder, expires, boot, stop) VALUES (?, ?, ?, ?, 0)",
        (name, holder, time.monotonic() + seconds, BOOT),
    )
    return holder


def renew(connection: Connection, leases: Sequence[tuple[str, str]], seconds: float) -> list[LeaseState]:
    """Extend leases; how each one stands."""
    states: list[LeaseState] = []
    for name, holder in leases:
        row = connection.execute(
            "SELECT stop FROM leases WHERE name = ? AND holder = ?", (name, holder)
        ).fetchone()
        if row is None:
            states.append("lost")
            continue
        connection.execute(
            "UPDATE leases SET expires = ?, boot = ? WHERE name = ?", (time.monotonic() + seconds, BOOT, name)
        )
        states.append("stopping" if row[0] else "held")
    return states


def release(connection: Connection, name: str, holder: str) -> bool:
    """Give a lease up; whether it was this holder's."""
    sql = "DELETE FROM leases WHERE name = ? AND holder = ?"
    return connection.execute(sql, (name, holder)).rowcount == 1


def holder(connection: Connection, name: str) -> str | None:
    """Who has a lease, or None."""
    return _holder(connection, name)


def _holder(connection: Connection, name: str) -> str | None:
    row = connection.execute("SELECT holder FROM leases WHERE name = ?", (name,)).fetchone()
    return None if row is None else str(row[0])


def expired(connection: Connection) -> list[tuple[str, str]]:
    """Leases that nobody renewed in time, at most 100."""
    sql = f"SELECT name, holder FROM leases WHERE {_LATE} LIMIT 100"
    return connection.execute(sql, (time.monotonic(), BOOT)).fetchall()


def request_stop(connection: Connection, name: str, holder: str) -> bool:
    """Note that the holder is to stop; whether it has the lease."""
    sql = "UPDATE leases SET stop = 1 WHERE name = ? AND holder = ?"
    return connection.execute(sql, (name, holder)).rowcount == 1


def announce(connection: Connection, process: str, counts: Mapping[str, int], seconds: float) -> None:
    """Note how many listen in this process, and forget the processes that have died."""
    execute, now = connection.execute, time.monotonic()
    for (dead,) in execute(f"SELECT process FROM processes WHERE {_LATE}", (now, BOOT)).fetchall():
        leave(connection, dead)
    execute(
        "REPLACE INTO processes (process, expires, boot) VALUES (?, ?, ?)", (process, now + seconds, BOOT)
    )
    connection.executemany(
        "REPLACE INTO present (topic, process, count) VALUES (?, ?, ?)",
        [(topic, process, count) for topic, count in counts.items() if count],
    )
    connection.executemany(
        "DELETE FROM present WHERE topic = ? AND process = ?",
        [(topic, process) for topic, count in counts.items() if not count],
    )


def leave(connection: Connection, process: str) -> None:
    """Forget what a process announced."""
    connection.execute("DELETE FROM present WHERE process = ?", (process,))
    connection.execute("DELETE FROM processes WHERE process = ?", (process,))


def present(connection: Connection, topic: str) -> int:
    """How many listen, in all processes that live."""
    row = connection.execute(
        "SELECT coalesce(sum(count), 0) FROM present JOIN processes USING (process)"
        " WHERE topic = ? AND expires > ? AND boot = ?",
        (topic, time.monotonic(), BOOT),
    ).fetchone()
    return int(row[0])
