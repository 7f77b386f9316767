"""A pushed source that is simply iterated: the waiting is done by the thread that iterates."""

from __future__ import annotations

import threading

import pytest

from tests.flow.by_hand import ByHand


def test_iterating_gives_all_items_and_closes() -> None:
    source = ByHand(*range(10), step=3)
    source.ended = True
    assert list(source) == list(range(10))
    assert source.closed == 1


def test_iterating_waits_for_items_of_other_threads() -> None:
    source = ByHand()

    def push() -> None:
        for n in range(100):
            source.push(n)
        source.end()

    pusher = threading.Timer(0.02, push)
    pusher.start()
    assert list(source) == list(range(100))
    pusher.join()


def test_a_failed_source_raises_after_its_last_item() -> None:
    source = ByHand("a")
    source.ended, source.failure = True, RuntimeError("gone")
    items = iter(source)
    assert next(items) == "a"
    with pytest.raises(RuntimeError, match="gone"):
        next(items)
    assert source.closed == 1


def test_leaving_early_closes() -> None:
    source = ByHand("a", "b")
    for _ in source:
        break
    assert source.closed == 1


def test_cancelling_ends_the_iteration() -> None:
    source = ByHand()
    threading.Timer(0.02, source.cancel).start()
    assert list(source) == []
    assert source.cancelled == 1
