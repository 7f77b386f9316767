"""What a signal handler may do to a thread at any moment: raise, or call what the thread is in the midst of."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest


class Interrupted(BaseException):
    """What the handler raises."""


def interrupted_at(number: int, use: Callable[[], object]) -> bool:
    """Run `use()`, interrupted at call or return `number`, from 1; whether it came that far."""
    left = number

    def interrupt(frame: Any, event: str, argument: Any) -> None:
        nonlocal left
        left -= 1
        if left == 0 and "exit" not in repr(argument):  # of a lock itself: C code, which nothing interrupts
            raise Interrupted

    try:
        sys.setprofile(interrupt)
        try:
            use()
        finally:
            sys.setprofile(None)
    except Interrupted:
        return True
    return False


def call_within(use: Callable[[], object], then: Callable[[], object], make: Callable[[], object]) -> None:
    """Run `make()` and `use()` again and again, and `then()` within `use`: at each of its calls and returns in turn."""
    number = 0
    came_that_far = True

    def work() -> None:
        nonlocal number, came_that_far
        while came_that_far:
            number += 1
            make()
            left = number

            def call(frame: Any, event: str, argument: Any) -> None:
                nonlocal left
                left -= 1
                if left == 0:
                    then()

            sys.setprofile(call)
            try:
                use()
            finally:
                sys.setprofile(None)
            came_that_far = left <= 0

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive(), f"at call {number} it waits for itself"
    assert number > 5


def interrupt_thread_start(use: Callable[[], object], at_work: threading.Event | None) -> None:
    """Run `use()`, interrupted where it starts a thread: before that, or as soon as the thread is `at_work`."""
    start = threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        if at_work is not None:
            start(thread)
            assert at_work.wait(10)
        raise Interrupted

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(Interrupted):
            use()
