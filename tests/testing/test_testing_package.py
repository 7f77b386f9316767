"""The door of the package, the fake clock and the cuts."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import pytest

import streamkit.testing
from streamkit import EventStreamDecoder, every
from streamkit.testing import FakeClock, cuts
from tests.conftest import ROOT


def test_all_is_sorted_and_every_name_is_documented() -> None:
    names = streamkit.testing.__all__
    assert names == sorted(names)
    assert set(names) == set(streamkit.testing._HOME) <= set(dir(streamkit.testing))
    for name in names:
        assert getattr(streamkit.testing, name).__doc__, name


def test_no_name_means_one_of_the_modules_too() -> None:
    # Which of the two an import gave would depend on the imports before it.
    modules = {module.name for module in pkgutil.iter_modules(streamkit.testing.__path__)}
    assert not modules & set(streamkit.testing.__all__)


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        streamkit.testing.no_such_name  # noqa: B018


def test_importing_loads_neither_pytest_nor_anything_else() -> None:
    code = (
        "import sys, streamkit.testing\n"
        "before = [name for name in sys.modules if name.startswith('streamkit.')]\n"
        "from streamkit.testing import *\n"
        "print(before, 'pytest' in sys.modules, 'gunicorn' in sys.modules)"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout
    assert output.strip() == "['streamkit.testing'] False False"


def test_the_clock_moves_when_it_is_told() -> None:
    clock = FakeClock(100)
    assert (clock(), clock(), clock.now) == (100, 100, 100)
    clock.advance(2.5)
    clock.sleep(1)
    assert clock() == 103.5
    assert repr(clock) == "<FakeClock at 103.5>"


def test_a_clock_that_steps_leaves_every_nothing_to_wait_for() -> None:
    assert list(every(3600, lambda: "beat", times=3, clock=FakeClock(step=3600))) == ["beat"] * 3


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf")])
def test_a_clock_does_not_go_back(seconds: float) -> None:
    with pytest.raises(ValueError, match="from 0 on"):
        FakeClock().advance(seconds)
    with pytest.raises(ValueError, match="from 0 on"):
        FakeClock(step=seconds)


def test_cuts() -> None:
    assert list(cuts(b"ab")) == [[b"", b"ab"], [b"a", b"b"], [b"ab", b""], [b"a", b"b"]]
    assert list(cuts(b"")) == [[b"", b""], []]
    data = "event: é\r\ndata: 1\r\n\r\ndata: 2\n\n".encode()
    for pieces in cuts(data):
        assert b"".join(pieces) == data
        decoder = EventStreamDecoder()
        events = [event for piece in pieces for event in decoder.feed(piece)]
        assert [(event.event, event.data) for event in events] == [("é", "1"), ("message", "2")]
