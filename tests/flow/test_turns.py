"""Turns: those who compute a lot do it one after the other; one that is alone, or waits for others, never sleeps."""

from __future__ import annotations

import gc
import weakref

import pytest

from streamkit.flow import turns as turns_module
from streamkit.flow.turns import LONGEST, SLACK, Turns


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(turns_module, "monotonic", lambda: now[0])
    return now


def test_one_that_is_alone_goes_on_at_once(clock: list[float]) -> None:
    turns = Turns()
    for _ in range(100):
        assert turns.reserve("a", 0.002) == clock[0]
        clock[0] += 0.002  # it computes, and is back


def test_many_stand_in_line(clock: list[float]) -> None:
    turns = Turns()
    starts = [turns.reserve(number, 0.002) for number in range(20)]
    assert starts == pytest.approx([100.0 + number * 0.002 * SLACK for number in range(20)])


def test_two_take_turns(clock: list[float]) -> None:
    turns = Turns()
    starts = [turns.reserve(name, 0.002) for name in ("a", "b", "a", "b")]
    assert starts == pytest.approx([100.0 + number * 0.002 * SLACK for number in range(4)])


def test_one_that_computes_for_seconds_does_not_hold_up_the_others_for_as_long(clock: list[float]) -> None:
    turns = Turns()
    turns.reserve("a hash", 3.0)
    assert turns.reserve("rows", 0.002) == pytest.approx(100.0 + LONGEST * SLACK)


def test_one_that_waits_for_others_takes_no_time_from_them(clock: list[float]) -> None:
    turns = Turns()
    for number in range(1000):
        turns.reserve(number, 0.0)
    assert turns.reserve("a", 0.002) == clock[0]


def test_time_that_nobody_took_is_not_owed(clock: list[float]) -> None:
    turns = Turns()
    turns.reserve("a", 0.002)
    clock[0] += 60
    assert turns.reserve("b", 0.002) == clock[0]


def test_one_that_left_is_not_remembered(clock: list[float]) -> None:
    turns = Turns()
    turns.reserve("a", 0.002)
    turns.leave("a")
    assert turns.reserve("a", 0.002) == pytest.approx(100.0 + 0.002 * SLACK)


def test_one_that_was_dropped_is_not_kept() -> None:
    """With its error it would keep the whole response, which is closed when nobody holds it any more."""

    class Producer:
        pass

    turns, producer = Turns(), Producer()
    turns.reserve(producer, 0.002)
    dropped = weakref.ref(producer)
    del producer
    gc.collect()
    assert dropped() is None
