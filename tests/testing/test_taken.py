"""The first n of an endless stream, taken in this process."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import Any
from wsgiref.validate import validator

import pytest

from streamkit import EventSourceResponse, ServerSentEvent, last_event_id
from streamkit.testing import cuts, running, take_chunks, take_events, take_json_lines
from tests.testing.applications import Application

pytestmark = pytest.mark.usefixtures("nothing_left")


def test_three_events_of_an_endless_stream() -> None:
    app = Application()
    taken = take_events(app, "/events", 3)
    assert [event.json() for event in taken] == [{"n": 0}, {"n": 1}, {"n": 2}]
    assert taken[2] == ServerSentEvent('{"n":2}', event="message", id="2")
    assert taken.status == 200
    assert taken.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert taken.body.startswith(b":\n")
    assert not taken.complete


def test_the_producer_is_closed_when_it_returns() -> None:
    app = Application()
    assert len(take_events(app, "/plain", 2)) == 2
    assert app.ended == ["plain"]


def test_coming_back_with_an_id() -> None:
    taken = take_events(Application(), "/events", 2, headers={"Last-Event-ID": "41"})
    assert [event.id for event in taken] == ["42", "43"]


def test_the_id_to_come_back_with_is_in_force_until_another_comes() -> None:
    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Content-Type", "text/event-stream")])
        return [b"data: a\n\nid: 8\ndata: b\n\n"]

    for name in ("Last-Event-ID", "last-event-id"):
        assert [event.id for event in take_events(app, "/", headers={name: "7"})] == ["7", "8"]


def test_an_id_beyond_ascii_comes_back_as_it_does_through_a_server() -> None:
    def app(environ: Any, start_response: Any) -> Any:
        seen = [last_event_id(environ), environ["QUERY_STRING"].encode("latin-1").decode()]
        events = [ServerSentEvent(seen, id="é7")]
        return EventSourceResponse(events, delivery="threaded")(environ, start_response)

    for headers in (None, {"Last-Event-ID": "é7"}):
        event = take_events(app, "/?name=é", 1, headers=headers)[0]
        assert event.json() == [headers and "é7", "name=é"]
    with running(app) as server, server.client() as client:
        client.open("/?name=%C3%A9", last_event_id="é7")
        assert client.take(1)[0].json() == ["é7", "name=%C3%A9"]


def test_a_stream_that_ends_first() -> None:
    app = Application()
    taken = take_events(app, "/three", 10)
    assert [event.data for event in taken] == ["0", "1", "2"]
    assert taken.complete
    assert take_events(app, "/three") == taken
    assert app.ended == ["three", "three"]


def test_chunks_and_json_lines() -> None:
    app = Application()
    assert take_chunks(app, "/plain", 2) == [b"data: 0\n\n", b"data: 1\n\n"]
    assert take_json_lines(app, "/lines", 3) == [{"n": 0}, {"n": 1}, {"n": 2}]
    assert "plain" in app.ended


@pytest.mark.parametrize("pieces", list(cuts('{"a":"ü"}\n\x1e[2]\n\n3\n4'.encode())))
def test_json_lines_cut_anywhere(pieces: list[bytes]) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "application/x-ndjson")])
        return pieces

    assert take_json_lines(app, "/") == [{"a": "ü"}, [2], 3]


def test_the_request_is_the_one_that_was_asked_for() -> None:
    taken = take_events(
        Application(), "/echo?a=b%20c", method="POST", headers={"X-Name": "Ada"}, body=b"hello"
    )
    assert taken[0].data == "POST /echo?a=b%20c Ada hello"


def test_it_is_a_server_that_wsgiref_accepts() -> None:
    """`validator` checks the environ, the order of calls, and that the body is closed."""
    inner = Application()

    def app(environ: Any, start_response: Any) -> Any:
        environ["wsgi.errors"] = _Errors()
        return inner(environ, start_response)

    taken = take_chunks(validator(app), "/plain", 1)
    assert taken == [b"data: 0\n\n"]
    assert inner.ended == ["plain"]


class _Errors:
    def write(self, text: str) -> None: ...
    def writelines(self, lines: list[str]) -> None: ...
    def flush(self) -> None: ...


def test_an_answer_that_is_no_stream() -> None:
    taken = take_events(Application(), "/missing", 1)
    assert (taken.status, taken, taken.body) == (404, [], b"no such stream\n")
    with pytest.raises(AssertionError, match="answered application/x-ndjson"):
        take_events(Application(), "/lines", 1)


def test_what_the_application_raises_comes_through() -> None:
    app = Application()
    with pytest.raises(LookupError, match="out of numbers"):
        take_events(app, "/failing", 2)
    assert app.ended == ["failing"]


@pytest.mark.usefixtures("time_from_the_first_item")
def test_a_streamkit_response_that_is_silent_is_told_that_the_client_left() -> None:
    app = Application()
    with pytest.raises(TimeoutError, match=r"^GET /silent: after 0.2 s 1 of 2 events \(\d+ bytes\) came$"):
        take_events(app, "/silent", 2, timeout=0.2)


@pytest.mark.usefixtures("time_from_the_first_item")
def test_a_producer_that_cannot_be_told_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamkit.testing.taken.LEAVE_SECONDS", 0.05)
    release, closed = queue.Queue[None](), threading.Event()

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        try:
            yield b"one"
            release.get()
            yield b"two"
        finally:
            closed.set()

    with pytest.raises(TimeoutError, match=r"1 of 2 chunks .* producer is still at work"):
        take_chunks(app, "/", 2, timeout=0.1)
    release.put(None)
    assert closed.wait(10)  # at its next chunk


def test_write_of_old_applications() -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        write = start_response("200 OK", [("Content-Type", "text/plain")])
        write(b"one,")
        return [b"", b"two"]

    assert take_chunks(app, "/") == [b"one,", b"two"]


@pytest.mark.parametrize(
    ("body", "error"), [([b"x"], AssertionError), (["text"], TypeError), ([], AssertionError)]
)
def test_an_application_that_breaks_the_rules(body: list[Any], error: type[Exception]) -> None:
    def app(environ: Any, start_response: Any) -> list[Any]:
        return body

    with pytest.raises(error, match="PEP 3333"):
        take_chunks(app, "/")


def test_an_endless_stream_without_events_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamkit.testing.in_process.MAX_BYTES", 1000)
    with pytest.raises(OverflowError, match="more than 1000 bytes"):
        take_chunks(Application(), "/plain")


@pytest.mark.parametrize(
    "options",
    [
        *({"path": "events"}, {"n": 0}, {"n": -1}, {"n": "2"}, {"n": 1.5}, {"n": True}),
        *({"timeout": 0}, {"timeout": -1}, {"timeout": float("inf")}, {"timeout": None}, {"timeout": "5"}),
    ],
)
def test_parameters_that_make_no_sense(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"give|begins with"):
        take_chunks(Application(), **{"path": "/plain", "n": 1, **options})
