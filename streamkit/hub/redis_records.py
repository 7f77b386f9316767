"""Positions, ids and records of the log in Redis: what the replies of `redis_scripts` mean. No connection here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from streamkit.hub.broker import HistoryLost, Position, Record

# A position is the two parts of an entry's id, `number << MS_BITS | ms`: 48 bits of milliseconds last 8,900 years.
MS_BITS: Final = 48
# Bytes of topics and data that one read returns before it stops early: bounds the memory of a replay.
READ_BYTES: Final = 1024 * 1024

_LARGEST_NUMBER: Final = 1 << 53  # see redis_scripts
_ID: Final = re.compile(r"([0-9a-f]{8})-([1-9][0-9]{0,14})-([0-9]{5})")


class Log(NamedTuple):
    """Which log it is: the epoch in its ids, and the number before its first one."""

    epoch: str
    base: int

    def id(self, number: int, ms: int) -> str:
        """The id of an entry. The last digits of its time tell it from another one that got the same number."""
        return f"{self.epoch}-{number - self.base}-{ms % 100_000:05d}"


def parts_of(id: str) -> tuple[str, ...]:
    """Epoch, number after the base and last digits of the time in an id that `Log.id` could have made; else ()."""
    match = _ID.fullmatch(id)
    return match.groups() if match else ()


def number_of(position: Position) -> int:
    """The number of the entry at this position."""
    return position >> MS_BITS


def position_in(reply: Sequence[bytes]) -> Position:
    """The position in a reply of number and ms."""
    return int(reply[0]) << MS_BITS | int(reply[1])


def read_words(after: Position, limit: int) -> tuple[int, int, int, int]:
    """The arguments of READ. Raises HistoryLost for a position that no log can have."""
    number = number_of(after)
    if not 0 <= number < _LARGEST_NUMBER:
        raise HistoryLost(f"position {after} is later than everything that was ever appended")
    return number, after & ((1 << MS_BITS) - 1), limit, READ_BYTES


def records_in(reply: Sequence[bytes], url: str) -> tuple[Log | None, list[Record]]:
    """The log and the records in a reply of READ. Raises HistoryLost."""
    if reply[0] == b"empty":
        return (Log(reply[1].decode(), int(reply[2])) if len(reply) > 1 else None), []
    if reply[0] == b"lost":
        raise HistoryLost(f"{url} does not hold everything that follows the position asked for")
    log, text = Log(reply[0].decode(), int(reply[1])), reply[2]
    records = []
    start, end = 0, len(text)
    while start < end:
        line = text.index(b"\n", start)
        stamp, topic, event, own, data = text[start:line].split(b" ")
        number, ms = map(int, stamp.split(b"-"))
        topic_end = line + 1 + int(topic)
        event_end = topic_end + max(0, int(event))
        own_end = event_end + int(own)
        start = own_end + int(data)
        records.append(
            Record(
                number << MS_BITS | ms,
                text[event_end:own_end].decode() or log.id(number, ms),
                text[line + 1 : topic_end].decode(),
                text[own_end:start].decode(),
                None if event == b"-1" else text[topic_end:event_end].decode(),
            )
        )
    return log, records


def records_of(entries: Sequence[Any], log: Log) -> list[Record]:
    """The records in a reply of XREAD, as far as they follow each other without a hole."""
    records: list[Record] = []
    for stamp, pairs in entries:
        number, ms = map(int, stamp.split(b"-"))
        if records and number != number_of(records[-1].position) + 1:
            break
        fields = dict(zip(pairs[::2], pairs[1::2], strict=True))
        event = fields.get(b"event")
        records.append(
            Record(
                number << MS_BITS | ms,
                fields[b"id"].decode() if b"id" in fields else log.id(number, ms),
                fields.get(b"topic", b"").decode(),
                fields.get(b"data", b"").decode(),
                None if event is None else event.decode(),
            )
        )
    return records
