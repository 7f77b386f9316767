"""Admission: limits that hold under threads, and places that cannot leak."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from streamkit import (
    CSVResponse,
    EventSourceResponse,
    FileResponse,
    Limiter,
    NDJSONResponse,
    StreamingResponse,
)
from streamkit.errors import TooManyStreams
from tests.conftest import ROOT, eventually
from tests.responses.test_streamed import Answer

pytestmark = pytest.mark.usefixtures("nothing_left")


def test_the_total_is_bounded_and_places_come_back() -> None:
    limiter = Limiter(2)
    first, second = limiter.acquire(), limiter.acquire()
    with pytest.raises(TooManyStreams) as caught:
        limiter.acquire()
    assert (caught.value.status, caught.value.retry_after) == (503, 5)
    first.release()
    first.release()
    assert len(limiter) == 1
    limiter.acquire()
    second.release()


def test_a_forked_process_gives_back_no_place_of_its_parent() -> None:
    limiter = Limiter(1, per_key=1)
    slot = limiter.acquire("ada")
    limiter._forget()  # as in a child
    slot.release()
    assert len(limiter) == 0
    limiter.acquire("ada")
    with pytest.raises(TooManyStreams):
        limiter.acquire("ada")


def test_each_key_has_its_share() -> None:
    limiter = Limiter(per_key=1, retry_after=9)
    ada = limiter.acquire("ada")
    limiter.acquire("grace")
    with pytest.raises(TooManyStreams) as caught:
        limiter.acquire("ada")
    assert (caught.value.status, caught.value.retry_after) == (429, 9)
    ada.release()
    limiter.acquire("ada").release()
    assert set(limiter._by_key) == {"grace"}  # a key without streams leaves nothing behind


def test_a_forked_process_has_all_its_places() -> None:
    """The streams are the parent's; so may the lock have been."""
    limiter = Limiter(1, per_key=1)
    limiter.acquire("ada")
    with limiter._lock:
        child = os.fork()
        if not child:
            try:
                signal.alarm(10)  # ends it, should it wait for the lock
                limiter.acquire("ada").release()
                os._exit(len(limiter))
            finally:
                os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(limiter) == 1


def test_a_key_that_is_refused_takes_no_place_of_the_total() -> None:
    limiter = Limiter(10, per_key=1)
    limiter.acquire("ada")
    with pytest.raises(TooManyStreams):
        limiter.acquire("ada")
    assert len(limiter) == 1


@pytest.mark.parametrize(
    "wrong",
    [{}, {"max_streams": 0}, {"per_key": -1}, {"max_streams": True}, {"max_streams": 1, "retry_after": 0}],
)
def test_limits_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the message is the parameter's own
        Limiter(**wrong)
    with pytest.raises(ValueError, match="event_streams"):
        Limiter(1, event_streams="pigeon")  # type: ignore[arg-type]


def test_a_limit_per_key_needs_a_key() -> None:
    with pytest.raises(ValueError, match="limit_key"):
        EventSourceResponse([], limiter=Limiter(per_key=1))
    with pytest.raises(ValueError, match="limit_key"):
        Limiter(per_key=1).acquire()


def test_a_limiter_tells_its_state() -> None:
    limiter = Limiter(max_streams=3, per_key=2)
    slot = limiter.acquire("a")
    assert repr(limiter) == "<Limiter 1 of 3 taken, 2 a key>"
    slot.release()
    assert repr(Limiter(per_key=1)) == "<Limiter 0 taken, 1 a key>"


def test_many_threads_never_get_more_than_there_is() -> None:
    limiter = Limiter(5)
    most = 0
    barrier = threading.Barrier(8)

    def take() -> None:
        nonlocal most
        barrier.wait()
        for _ in range(500):
            try:
                slot = limiter.acquire()
            except TooManyStreams:
                continue
            most = max(most, len(limiter))
            slot.release()

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 1 <= most <= 5
    assert len(limiter) == 0


def failing() -> Iterator[str]:
    yield "x"
    raise LookupError


def failing_at_once() -> Iterator[str]:
    raise LookupError
    yield "x"


def test_every_ending_gives_the_place_back() -> None:
    limiter = Limiter(1)

    def free() -> bool:
        return len(limiter) == 0

    for response, method in (
        (EventSourceResponse(["x"], limiter=limiter), "GET"),
        (EventSourceResponse(failing(), limiter=limiter), "GET"),
        (EventSourceResponse(["x"] * 100, limiter=limiter, max_bytes=20), "GET"),
        (EventSourceResponse(["x"], limiter=limiter), "HEAD"),
        (FileResponse(ROOT / "README.md", limiter=limiter), "GET"),
        (CSVResponse([["a"], ["too", "wide"]], limiter=limiter), "GET"),
    ):
        assert Answer(response, method).status == "200 OK"
        eventually(free)  # the thread of a producer may be the last to leave
    with pytest.raises(LookupError):
        NDJSONResponse(failing_at_once(), limiter=limiter)({"REQUEST_METHOD": "GET"}, lambda *_: None)
    eventually(free)
    with pytest.raises(ZeroDivisionError):
        StreamingResponse([], limiter=limiter, limit_key=lambda environ: str(1 / 0))(
            {"REQUEST_METHOD": "GET"}, lambda *_: None
        )
    assert free()
    body: Any = iter(EventSourceResponse(["x"], limiter=limiter)({"REQUEST_METHOD": "GET"}, lambda *_: None))
    assert len(limiter) == 1
    body.close()  # left before a byte was taken
    eventually(free)


def test_the_producer_of_a_refused_stream_is_closed_and_never_started() -> None:
    limiter = Limiter(1)
    held = limiter.acquire()
    ran: list[str] = []
    closed: list[str] = []

    def rows() -> Iterator[list[int]]:
        ran.append("ran")
        yield [1]

    response = CSVResponse(rows(), limiter=limiter)
    response.call_on_close(lambda: closed.append("closed"))
    answer = Answer(response)
    assert answer.status == "503 Service Unavailable"
    assert answer.headers["Retry-After"] == "5"
    assert answer.headers["Cache-Control"] == "no-store"
    assert (ran, closed) == ([], ["closed"])
    held.release()


def test_a_browsers_event_source_is_told_to_come_back_by_the_stream_itself() -> None:
    limiter = Limiter(per_key=1, retry_after=3)
    held = limiter.acquire("192.0.2.1")

    def ask(limiter: Limiter, **headers: str) -> Answer:
        response = EventSourceResponse(
            ["x"], limiter=limiter, limit_key=lambda environ: environ["REMOTE_ADDR"]
        )
        return Answer(response, REMOTE_ADDR="192.0.2.1", **headers)

    browser = ask(limiter, HTTP_ACCEPT="text/event-stream")
    assert browser.status == "200 OK"
    assert browser.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert browser.body.startswith(b":\nretry: ")
    bodies = [browser.body, *(ask(limiter, HTTP_ACCEPT="text/event-stream").body for _ in range(20))]
    waits = [int(body.split(b"retry: ")[1]) for body in bodies]
    assert 3000 <= min(waits) < max(waits) <= 6000  # not all at once
    assert ask(limiter).status.startswith("429 ")
    strict = Limiter(per_key=1, event_streams="status")
    strict.acquire("192.0.2.1")
    assert ask(strict, HTTP_ACCEPT="text/event-stream").status.startswith("429 ")
    held.release()
    assert ask(limiter).body == b":\ndata: x\n\n"
