"""The pool of stream threads: reuse, bounds, forks, and the end of the interpreter."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from streamkit.errors import TooManyStreams
from streamkit.flow.stream_threads import StreamThreads
from tests.conftest import ROOT, eventually
from tests.interrupts import interrupt_thread_start


def run_and_wait(pool: StreamThreads) -> int:
    """Run a task, wait until its thread is idle again; the thread's identity."""
    found: list[int] = []
    pool.run(lambda: found.append(threading.get_ident()))
    eventually(lambda: found and pool.working == 0)
    return found[0]


def test_a_thread_serves_one_task_after_another() -> None:
    pool = StreamThreads(idle_seconds=30)
    assert {run_and_wait(pool) for _ in range(5)} == {run_and_wait(pool)}
    assert len(pool) == 1


def test_every_task_has_a_thread_at_once_up_to_the_maximum() -> None:
    pool = StreamThreads(maximum=3)
    barrier = threading.Barrier(4)
    for _ in range(3):
        pool.run(lambda: barrier.wait(10))
    with pytest.raises(TooManyStreams, match="3 stream threads"):
        pool.run(lambda: None)
    barrier.wait(10)  # all three were at work together
    eventually(lambda: pool.working == 0)
    run_and_wait(pool)


def test_an_idle_thread_leaves() -> None:
    pool = StreamThreads(idle_seconds=0.01)
    run_and_wait(pool)
    eventually(lambda: len(pool) == 0)
    run_and_wait(pool)


def test_a_task_that_fails_does_not_take_its_thread_along(caplog: pytest.LogCaptureFixture) -> None:
    pool = StreamThreads(idle_seconds=30)
    pool.run(lambda: 1 / 0)
    eventually(lambda: pool.working == 0)
    assert len(pool) == 1
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize("begun", [True, False])
def test_a_signal_handler_that_raises_beside_the_start_of_a_thread(begun: bool) -> None:
    pool = StreamThreads(idle_seconds=30)
    at_work, going_on = threading.Event(), threading.Event()

    def task() -> None:
        at_work.set()
        going_on.wait(10)

    interrupt_thread_start(lambda: pool.run(task), at_work if begun else None)
    assert pool.working == begun
    going_on.set()
    eventually(lambda: pool.working == 0)
    run_and_wait(pool)


def test_a_log_handler_that_raises_takes_no_thread_along(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **named: object) -> None:
        raise ValueError("no log to be had")

    monkeypatch.setattr("streamkit.flow.failure_log.log.log", fail)
    pool = StreamThreads(idle_seconds=30)
    pool.run(lambda: 1 / 0)
    eventually(lambda: pool.working == 0)
    assert len(pool) == 1


def run_script(script: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_a_child_process_starts_with_a_pool_of_its_own() -> None:
    script = """
import os, threading, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of forks beside threads: that is the test
from streamkit.flow.streams import streams
from streamkit.flow.stream_threads import stream_threads
done = threading.Event()
stream_threads.run(done.wait)
with streams._lock, stream_threads._lock:  # as another thread may at the moment of the fork
    child = os.fork()
if child == 0:
    assert len(stream_threads) == 0 and len(list(streams)) == 0
    ran = threading.Event()
    stream_threads.run(ran.set)
    os._exit(0 if ran.wait(10) else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
done.set()
"""
    assert run_script(script) == ["0"]


def test_an_interpreter_that_ends_closes_the_producers() -> None:
    script = """
import threading
from streamkit import EventSourceResponse, streams
import streamkit.flow.streams as module
module.EXIT_SECONDS = 20.0  # the producer's thread may wait for the processor

def events():
    stream = streams.current()
    try:
        yield "first"
        stream.cancelled.wait(60)
    finally:
        print("closed", stream.outcome, flush=True)

body = iter(EventSourceResponse(events())({"REQUEST_METHOD": "GET"}, lambda *_: None))
while b"first" not in next(body):
    pass
def send():
    for _ in body:
        pass
    body.close()
threading.Thread(target=send, daemon=True).start()  # as a server's thread does
print("leaving", flush=True)
"""
    assert run_script(script) == ["leaving", "closed drained"]


def test_an_interpreter_that_ends_does_not_wait_for_a_blocked_producer() -> None:
    script = """
import queue
from streamkit import EventSourceResponse

def events():
    yield "first"
    queue.Queue().get()

body = iter(EventSourceResponse(events())({"REQUEST_METHOD": "GET"}, lambda *_: None))
while b"first" not in next(body):
    pass
print("leaving", flush=True)
"""
    assert run_script(script) == ["leaving"]
