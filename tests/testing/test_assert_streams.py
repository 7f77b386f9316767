"""`assert_streams` and the two middlewares: right applications pass, and each wrong one is told what is wrong."""

from __future__ import annotations

import gzip
import itertools
import queue
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from streamkit import EventSourceResponse
from streamkit.testing import (
    BufferingMiddleware,
    GzipMiddleware,
    assert_streams,
    take_chunks,
    take_events,
)
from tests.testing.applications import EVENT_STREAM, Application, Numbers

pytestmark = pytest.mark.usefixtures("nothing_left")

App = Callable[..., Any]


@pytest.mark.parametrize("path", ["/events", "/plain", "/three", "/lines", "/silent"])
def test_right_applications_pass(path: str) -> None:
    app = Application()
    assert_streams(app, path)
    assert app.ended == ([path[1:]] if path != "/silent" else [])


@pytest.mark.parametrize("middleware", [BufferingMiddleware, GzipMiddleware])
def test_streamkit_refuses_to_be_held_back_and_compressed(middleware: Callable[[App], App]) -> None:
    app = Application()
    wrapped = middleware(app)
    assert_streams(wrapped, "/events")
    taken = take_events(wrapped, "/events", 2, headers={"Accept-Encoding": "gzip"})
    assert [event.json()["n"] for event in taken] == [0, 1]
    assert app.ended == ["events"] * 2


def wrong(app: App, path: str = "/", **options: Any) -> str:
    with pytest.raises(AssertionError, match="does not stream as it should") as caught:
        assert_streams(app, path, **options)
    return str(caught.value)


def answering(body: Callable[[], Iterable[bytes]], headers: Any = EVENT_STREAM) -> App:
    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", list(headers))
        return body()

    return app


def test_a_buffer_that_obeys_nobody_is_found() -> None:
    held_back = BufferingMiddleware(Application(), obey=False)
    assert "one piece of 27 bytes, at its end: something holds it back" in wrong(held_back, "/three")


def test_a_buffer_before_a_slow_stream_is_found() -> None:
    """Nothing comes: the first event is in the buffer, and the second never is made."""
    held_back = BufferingMiddleware(Application(), obey=False)
    assert "no byte came in 0.3 s" in wrong(held_back, "/silent", timeout=0.3)


def test_gzip_that_obeys_nobody_is_found() -> None:
    message = wrong(GzipMiddleware(Application(), obey=False), "/plain")
    assert "Content-Encoding: gzip" in message
    assert "no-transform" in message


def test_a_body_made_beforehand_is_found() -> None:
    assert "the body is a list" in wrong(answering(lambda: [b"data: 1\n\n", b"data: 2\n\n"]))


def test_headers_that_are_missing_or_too_many_are_all_named() -> None:
    headers = [("Content-Type", "text/event-stream"), ("Content-Length", "18"), ("Connection", "keep-alive")]
    message = wrong(answering(lambda: (b"data: 1\n\n" for _ in range(2)), headers))
    for part in (
        "Content-Length: 18",
        "Connection: keep-alive",
        "no-transform",
        "no-cache",
        "X-Accel-Buffering",
    ):
        assert part in message
    assert message.count("\n") == 5


def test_other_media_types_need_no_headers_of_event_streams() -> None:
    assert_streams(answering(lambda: (b"a,b\r\n" for _ in range(2)), [("Content-Type", "text/csv")]), "/")


def test_an_error_page_is_no_stream() -> None:
    assert "the status is 404: b'no such stream\\n'" in wrong(Application(), "/missing")


def test_a_middleware_without_close_is_found() -> None:
    class DropsClose:
        def __init__(self, inner: App) -> None:
            self.inner = inner

        def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
            return map(bytes, self.inner(environ, start_response))

    message = wrong(DropsClose(Application()), "/plain")
    assert "close() of the body does not reach the generator '_noting'" in message
    assert "applications.py" in message


@pytest.mark.usefixtures("time_from_the_first_item")
def test_a_streamkit_body_that_is_never_closed_is_found() -> None:
    kept: list[Any] = []

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        body = Application()(environ, start_response)
        kept.append(body)
        yield from map(bytes, body)

    message = wrong(app, "/events", timeout=1)
    assert "lives on 1 s after its body was closed" in message
    kept[0].close()


@pytest.mark.usefixtures("time_from_the_first_item")
def test_a_producer_of_another_kind_is_asked_for() -> None:
    numbers = Numbers()
    assert_streams(
        lambda environ, start: EventSourceResponse(numbers)(environ, start),
        "/",
        closed=lambda: numbers.closed,
    )
    never = Numbers()
    lost = answering(lambda: (b"data: %d\n\n" % n for n in never))
    assert "closed() is still not true" in wrong(lost, timeout=1, closed=lambda: never.closed)


@pytest.mark.usefixtures("time_from_the_first_item")
def test_a_blocked_producer_that_nobody_tells_is_found() -> None:
    release: queue.Queue[bytes] = queue.Queue()

    def body() -> Iterator[bytes]:
        yield b"data: 1\n\n"
        yield release.get()

    message = wrong(answering(body), timeout=1)
    assert "the producer is still at work 1 s after the reader has left" in message
    release.put(b"")


def test_what_the_application_raises_comes_through() -> None:
    with pytest.raises(LookupError, match="out of numbers"):
        assert_streams(Application(), "/failing")
    with pytest.raises(ValueError, match="timeout"):
        assert_streams(Application(), "/plain", timeout=0)


# -- the middlewares --------------------------------------------------------------------------------------------------


def test_a_buffer_passes_on_what_is_full() -> None:
    app = Application()
    first, *_ = take_chunks(BufferingMiddleware(app, size=100, obey=False), "/plain", 1)
    assert first == b"".join(b"data: %d\n\n" % n for n in range(len(first.split(b"\n\n")) - 1))
    assert 100 <= len(first) < 120
    assert app.ended == ["plain"]


def test_a_compressed_stream_can_be_read_but_comes_late() -> None:
    app = GzipMiddleware(Application(), obey=False)
    taken = take_chunks(app, "/three", headers={"Accept-Encoding": "gzip"})
    assert gzip.decompress(taken.body) == b"data: 0\n\ndata: 1\n\ndata: 2\n\n"
    assert len(taken) == 2  # the gzip header, and everything else at the end
    assert taken.headers["Vary"] == "Accept-Encoding"
    assert take_chunks(app, "/three").body == gzip.decompress(
        taken.body
    )  # who does not accept gzip gets none


@pytest.mark.parametrize("middleware", [BufferingMiddleware, GzipMiddleware])
def test_middlewares_keep_to_the_rules(middleware: Callable[..., App]) -> None:
    def late(environ: Any, start_response: Any) -> Iterator[bytes]:
        """The head comes with the first chunk, and `write` is used."""
        write = start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "7")])
        write(b"one,")
        yield b"two"

    def empty(environ: Any, start_response: Any) -> list[bytes]:
        start_response("204 No Content", [])
        return []

    for obey in (True, False):
        assert take_chunks(middleware(late, obey=obey), "/").body == b"one,two"
        taken = take_chunks(middleware(empty, obey=obey), "/", headers={"Accept-Encoding": "gzip"})
        assert (taken.status, taken.body) == (204, b"")
        with pytest.raises(AssertionError, match="start_response"):
            take_chunks(middleware(lambda *_: itertools.repeat(b"", 2), obey=obey), "/")
    encoded = [("Content-Type", "text/plain"), ("Content-Encoding", "br")]
    taken = take_chunks(
        GzipMiddleware(answering(lambda: [b"x"], encoded)), "/", headers={"Accept-Encoding": "gzip"}
    )
    assert taken.headers.get_all("Content-Encoding") == ["br"]


def test_a_buffer_has_a_size() -> None:
    with pytest.raises(ValueError, match="1 or more"):
        BufferingMiddleware(Application(), size=0)
