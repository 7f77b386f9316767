"""Shared fixtures: what a test took (threads of streams, descriptors, records) it must have given back."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# A shell starts what it puts into the background with Ctrl+C ignored, and the programs that tests start inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """What the imports have made stays to the end; hundreds of tests collect garbage, and need not search that too."""
    gc.collect()
    gc.freeze()


def eventually(condition: Callable[[], object], seconds: float = 30.0, what: str = "") -> None:
    """Wait until `condition()` is true; a test that waits for another thread or process has no event to await."""
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, f"still not so after {seconds} s: {what or condition}"
        pause.wait(0.01)


def descriptors() -> set[str]:
    """What the open descriptors of this process point at."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            found.add(f"{number} {os.readlink(f'/proc/self/fd/{number}')}")
        except OSError:
            pass  # the one that listed the folder
    return found


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """After the test every stream has ended, its thread is idle, and every descriptor that it opened is closed."""
    from streamkit import streams
    from streamkit.flow.stream_threads import stream_threads

    eventually(lambda: len(streams) == 0, what=f"streams of the test before this one {list(streams)}")
    before = descriptors()
    yield
    eventually(lambda: len(streams) == 0, what=f"live streams {list(streams)}")
    eventually(lambda: stream_threads.working == 0, what=f"{stream_threads.working} threads at work")
    eventually(lambda: not (descriptors() - before), what=f"descriptors {descriptors() - before}")
