"""A steady beat, on a clock that the tests move."""

from __future__ import annotations

import threading
from itertools import count, islice

import pytest

from streamkit.flow.every import Beats, every


class FakeTime:
    """A clock and the event that is waited on: to wait is to move the clock."""

    def __init__(self, start: float = 1000.0) -> None:
        self.now = start
        self.waits: list[float] = []
        self.set_after: int | None = None

    def clock(self) -> float:
        return self.now

    def wait(self, timeout: float) -> bool:
        self.waits.append(timeout)
        self.now += timeout
        return self.is_set()

    def is_set(self) -> bool:
        return self.set_after is not None and len(self.waits) >= self.set_after

    def set(self) -> None:
        self.set_after = 0


def beats(
    seconds: float, time: FakeTime, work: dict[int, float] | None = None, times: int | None = None
) -> Beats[float]:
    """The moments at which the function is called; call number n takes `work[n]` seconds."""
    calls = count()

    def fn() -> float:
        called = time.now - 1000
        time.now += (work or {}).get(next(calls), 0)
        return called

    source = every(seconds, fn, times=times, clock=time.clock)
    assert isinstance(source, Beats)
    source._wake = time  # type: ignore[assignment]
    return source


def test_the_first_value_comes_at_once_and_then_one_a_period() -> None:
    time = FakeTime()
    assert list(beats(5, time, times=4)) == [0, 5, 10, 15]
    assert time.waits == [5, 5, 5]


def test_the_time_that_the_function_takes_does_not_add_up() -> None:
    time = FakeTime()
    assert list(beats(4, time, {0: 1, 1: 3, 2: 2}, times=4)) == [0, 4, 8, 12]
    assert time.waits == [3, 1, 2]


def test_missed_beats_are_skipped_and_the_schedule_is_kept() -> None:
    time = FakeTime()
    assert list(beats(4, time, {1: 9}, times=4)) == [0, 4, 16, 20]  # busy from 4 to 13: 8 and 12 are gone


def test_a_function_that_takes_exactly_one_period_misses_nothing() -> None:
    time = FakeTime()
    assert list(beats(2, time, {0: 2, 1: 2}, times=3)) == [0, 2, 4]
    assert time.waits == []


def test_a_slow_consumer_skips_beats_too() -> None:
    time = FakeTime()
    source = beats(4, time, times=3)
    assert next(source) == 0
    time.now += 6
    assert list(source) == [8, 12]


def test_a_day_of_tenths_does_not_drift() -> None:
    time = FakeTime()
    source = beats(0.1, time)
    *_, last = islice(source, 864_001)
    assert last == pytest.approx(86_400, abs=1e-6)


def test_cancel_ends_a_wait_at_once() -> None:
    called = threading.Event()
    source = every(3600, called.set)
    values: list[None] = []
    thread = threading.Thread(target=lambda: values.extend(source))
    thread.start()
    assert called.wait(10)
    source.cancel()
    thread.join(10)
    assert not thread.is_alive()
    assert values == [None]
    source.close()


def test_cancel_before_the_first_value_means_no_call() -> None:
    calls: list[int] = []
    source = every(1, lambda: calls.append(1))
    source.cancel()
    assert list(source) == []
    assert calls == []


def test_what_the_function_raises_ends_it() -> None:
    def fn() -> int:
        raise OSError("gauge is gone")

    source = every(1, fn)
    with pytest.raises(OSError, match="gauge"):
        next(source)
    assert list(source) == []
    source.close()
    source.close()


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), 0.0])
def test_a_period_is_more_than_nothing(seconds: float) -> None:
    with pytest.raises(ValueError, match="more than 0"):
        every(seconds, lambda: 1)


@pytest.mark.parametrize("times", [0, -1])
def test_a_number_of_values_is_one_or_more(times: int) -> None:
    with pytest.raises(ValueError, match="1 or more, or None"):
        every(1, lambda: 1, times=times)


def test_swapped_parameters_are_told() -> None:
    with pytest.raises(TypeError, match=r"the seconds come first: every\(1.0, fn\)"):
        every(print, 1)  # type: ignore[arg-type]


def test_the_function_must_be_one() -> None:
    with pytest.raises(TypeError, match="give a function"):
        every(1, "not a function")  # type: ignore[arg-type]
