"""What the streams of this process that have ended add up to, by kind and outcome.

Law of this file
- A stream is counted once, when it has ended; a stream that lives costs nothing here, and neither does an event.
- Memory is bounded: kinds are those of the response classes, outcomes are six, and times are kept in buckets.
- No lock of its own: the registry of streams calls it under its own.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from streamkit.flow.stream import Stream

DURATION_BUCKETS: Final = (0.1, 1.0, 10.0, 60.0, 600.0, 3600.0, 21600.0)
"""Seconds, upper bounds: from a small export to a tab that stays open for a working day."""

FIRST_BYTE_BUCKETS: Final = (0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""Seconds, upper bounds: some of the default buckets of Prometheus' client libraries, whose first is 5 ms."""


class Total(NamedTuple):
    """The ended streams of one kind and one outcome; all figures only ever grow.

    kind, outcome: as in a stream's record. streams: how many. events, chunks, bytes: the sums of theirs. seconds: the
        sum of their ages at the end. first_bytes: how many of them sent a byte. first_byte_seconds: the sum of their
        delays until then.
    durations, first_byte_delays: how many lie in each of `DURATION_BUCKETS` and `FIRST_BYTE_BUCKETS`, not added up;
        the last figure is of those above all bounds.
    """

    kind: str
    outcome: str
    streams: int
    events: int
    chunks: int
    bytes: int
    seconds: float
    first_bytes: int
    first_byte_seconds: float
    durations: tuple[int, ...]
    first_byte_delays: tuple[int, ...]

    def as_dict(self) -> dict[str, Any]:
        """The figures as JSON values, without the buckets; durations in seconds."""
        figures = self._asdict()
        del figures["durations"], figures["first_byte_delays"]
        figures["seconds"] = round(self.seconds, 3)
        figures["first_byte_seconds"] = round(self.first_byte_seconds, 6)
        return figures


class Totals:
    """Sums that grow, a `Total` for each kind and outcome that has occurred. Its owner's lock guards it."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, str], _Sum] = {}

    def add(self, stream: Stream) -> None:
        """Count a stream that has ended."""
        key = (stream.kind, stream.outcome or "client_gone")
        found = self._sums.get(key)
        if found is None:
            found = self._sums[key] = _Sum()
        found.add(stream)

    def now(self) -> list[Total]:
        """The totals of this moment, by kind and outcome."""
        return [self._sums[key].total(*key) for key in sorted(self._sums)]


class _Sum:
    """The sums behind one `Total`."""

    __slots__ = (
        "bytes",
        "chunks",
        "durations",
        "events",
        "first_byte_delays",
        "first_byte_seconds",
        "seconds",
    )

    def __init__(self) -> None:
        self.events = self.chunks = self.bytes = 0
        self.seconds = self.first_byte_seconds = 0.0
        self.durations = [0] * (len(DURATION_BUCKETS) + 1)
        self.first_byte_delays = [0] * (len(FIRST_BYTE_BUCKETS) + 1)

    def add(self, stream: Stream) -> None:
        # Calls first, then sums: what the garbage collector ends in a call is counted here as well.
        events, chunks, size, age = stream.events, stream.chunks, stream.bytes, stream.age
        delay = stream.first_byte_delay
        bucket = bisect_left(DURATION_BUCKETS, age)
        self.events += events
        self.chunks += chunks
        self.bytes += size
        self.seconds += age
        self.durations[bucket] += 1
        if delay is not None:
            bucket = bisect_left(FIRST_BYTE_BUCKETS, delay)
            self.first_byte_seconds += delay
            self.first_byte_delays[bucket] += 1

    def total(self, kind: str, outcome: str) -> Total:
        return Total(
            kind,
            outcome,
            sum(self.durations),
            self.events,
            self.chunks,
            self.bytes,
            self.seconds,
            sum(self.first_byte_delays),
            self.first_byte_seconds,
            tuple(self.durations),
            tuple(self.first_byte_delays),
        )
