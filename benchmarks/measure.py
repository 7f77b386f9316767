"""Medians of interleaved rounds, the ratio of two of them, and the table that is printed.

The law of every figure:

- It is a ratio of two things measured in one run on one machine; absolute numbers stand beside it and are not compared
  with those of another day.
- Its sides take turns (A B, B A, A B, ...), so that a neighbour who takes the processor away slows all of them, and the
  median of the rounds is taken, so that one bad round counts for nothing.
- The garbage collector has run before every turn and is off during it, for every side alike.
- What is compared does the same work: the sides are checked to give the same answer before they are timed.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from statistics import median, quantiles
from time import perf_counter, process_time

from streamkit.responses.streamed import StreamedResponse

Clock = Callable[[], float]

wall: Clock = perf_counter
cpu: Clock = process_time
"""Processor seconds of this process, all threads: for work that never waits, where wall time would also count the
neighbours of a busy machine."""

TABLE_HEAD = "| figure | measured | wanted | verdict | absolute |\n|---|---:|---:|---|---|"


@dataclass(frozen=True)
class Figure:
    """One row of the table. `wanted` is the bound, `at_least` says on which side of it `measured` has to be."""

    name: str
    measured: float
    wanted: float
    at_least: bool
    absolute: str
    unit: str = "x"

    @property
    def ok(self) -> bool:
        """Whether the bound is kept; a figure that is not a number is not."""
        if math.isnan(self.measured):
            return False
        return self.measured >= self.wanted if self.at_least else self.measured <= self.wanted

    def row(self) -> str:
        """The figure as a row of Markdown."""
        sign = "≥" if self.at_least else "≤"
        wanted = f"{sign} {self.wanted:g} {self.unit}"
        verdict = "ok" if self.ok else "**MISSED**"
        return f"| {self.name} | {self.measured:.2f} {self.unit} | {wanted} | {verdict} | {self.absolute} |"


def medians(
    sides: Mapping[str, Callable[[], object]], *, rounds: int = 9, clock: Clock = wall
) -> dict[str, float]:
    """Seconds that each side takes, the median of `rounds` turns, after one turn to warm up."""
    return {name: median(values) for name, values in _turns(sides, rounds, clock).items()}


def lower_quartiles(
    sides: Mapping[str, Callable[[], object]], *, rounds: int = 101, clock: Clock = wall
) -> dict[str, float]:
    """As `medians`, the lower quartile: where a turn takes either once or thrice its time, as chance has it, a median
    is the one in one run and the other in the next."""
    return {name: quantiles(values, n=4)[0] for name, values in _turns(sides, rounds, clock).items()}


def _turns(sides: Mapping[str, Callable[[], object]], rounds: int, clock: Clock) -> dict[str, list[float]]:
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for side in sides.values():
        side()
    order = list(sides)
    enabled = gc.isenabled()
    try:
        for _ in range(rounds):
            for name in order:
                side = sides[name]
                gc.collect()
                gc.disable()
                start = clock()
                side()
                taken[name].append(clock() - start)
                gc.enable()
            order.reverse()
    finally:
        if enabled:
            gc.enable()
        else:
            gc.disable()
    return taken


def must_agree(what: str, answers: Mapping[str, object]) -> None:
    """Raise `AssertionError` unless all sides gave the same answer: else they would not do the same work."""
    first_name, first = next(iter(answers.items()))
    for name, answer in answers.items():
        if answer != first:
            raise AssertionError(
                f"{what}: {name} gives another answer than {first_name}: {answer!r:.200}, {first!r:.200}"
            )


def chunks_of(response: StreamedResponse) -> Iterable[bytes]:
    """What a server gets to send."""
    return response.get_wsgi_response({"REQUEST_METHOD": "GET"})[0]
