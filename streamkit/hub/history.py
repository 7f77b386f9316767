"""The log as the reader reads it for those who come back: in steps, each encoded once for all of them.

Law of this file
- It belongs to the reader's thread alone.
- The log only grows, so what followed a position once follows it for ever: steps that were read are kept, up to
  `KEPT_BYTES`, while somebody catches up. After a restart all clients come back at about the same place.
"""

from __future__ import annotations

import logging
from bisect import bisect_right, insort
from collections.abc import Sequence
from typing import Final, NamedTuple

from streamkit.flow.failure_log import log_surely
from streamkit.formats.event_stream import ServerSentEvent
from streamkit.hub.broker import Broker, HistoryLost, Position, Record
from streamkit.hub.subscription import room_for

# Records in one step: a few tenths of a millisecond.
STEP_RECORDS: Final = 250
# What is kept while somebody catches up: the default retention of 10,000 events of 3 KiB.
KEPT_BYTES: Final = 32 * 1024 * 1024


class Sent(NamedTuple):
    """A record, the one event made of it, and with how many events in a buffer it still fits."""

    record: Record
    event: ServerSentEvent
    room: int


class Step(NamedTuple):
    """What follows one position: the positions and what is there, and the last position that was read."""

    positions: list[Position]
    sent: list[Sent]
    last: Position
    size: int


class History:
    """Steps of the log, some of them kept."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._starts: list[Position] = []  # sorted
        self._steps: dict[Position, Step] = {}
        self._size = 0

    def after(self, position: Position) -> tuple[Sequence[Sent], Position]:
        """A step of what follows `position`, and up to where it goes: `position` itself at the end of the log.

        Raises HistoryLost, BrokerUnavailable.
        """
        index = bisect_right(self._starts, position) - 1
        if index >= 0:
            start = self._starts[index]
            step = self._steps[start]
            if start == position:
                return step.sent, step.last
            if position < step.last:
                return step.sent[bisect_right(step.positions, position) :], step.last
        records = self._broker.read(position, STEP_RECORDS)
        if not records:
            return (), position
        sent = encoded(records)
        size = sum(len(one.event.encode()) for one in sent)
        step = Step([one.record.position for one in sent], sent, records[-1].position, size)
        if self._size + size > KEPT_BYTES:
            self.forget()
        insort(self._starts, position)
        self._steps[position] = step
        self._size += size
        return sent, step.last

    def oldest(self) -> str | None:
        """The id of the oldest record that is held, or None."""
        for _ in range(3):
            try:
                first = self._broker.read(self._broker.floor(), 1)
            except HistoryLost:
                continue  # trimmed between the two calls
            return first[0].id if first else None
        return None

    def forget(self) -> None:
        """Keep nothing."""
        if self._steps:
            self._starts.clear()
            self._steps.clear()
            self._size = 0


def encoded(records: Sequence[Record]) -> list[Sent]:
    """One event for each record. A record that cannot be sent was written by something else than a hub."""
    sent = []
    for record in records:
        try:
            event = ServerSentEvent(record.data, event=record.event, id=record.id)
        except (TypeError, ValueError) as error:
            text = "hub: the record at %s cannot be sent and is left out: %s"
            log_surely(logging.WARNING, text, record.position, error)
            continue
        sent.append(Sent(record, event, room_for(event)))
    return sent
