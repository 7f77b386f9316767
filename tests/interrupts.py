"""What a signal handler may do to a thread at any moment: raise."""

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
