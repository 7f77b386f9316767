"""Streams as Flask views return them: context, class, error handlers, test client."""

from __future__ import annotations

import inspect
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

flask = pytest.importorskip("flask")

from streamkit import (  # noqa: E402
    CSVResponse,
    EventSourceResponse,
    FileResponse,
    NDJSONResponse,
    StreamingResponse,
    ZipResponse,
)
from tests.apps.flask_app import app  # noqa: E402

pytestmark = pytest.mark.usefixtures("nothing_left")


@pytest.fixture
def client() -> Any:
    return app.test_client()


def test_request_and_g_work_inside_the_generator(client: Any) -> None:
    response = client.get("/events?user=Ada")
    assert response.data == b":\n" + b"".join(b"data: Ada asked for /events, %d\n\n" % n for n in range(3))
    assert response.mimetype == "text/event-stream"


def test_a_cursor_opened_in_the_view(client: Any) -> None:
    response = client.get("/cursor")
    assert response.data == b"i,square\r\n1,1\r\n2,4\r\n3,9\r\n"
    assert response.headers["Content-Disposition"] == 'attachment; filename="squares.csv"'
    assert response.headers["Content-Type"] == "text/csv; charset=utf-8; header=present"
    assert client.get("/records").data == b"[1]\n"


def test_abort_before_the_first_row_shows_the_applications_own_page(client: Any) -> None:
    response = client.get("/missing")
    assert (response.status_code, response.text) == (404, "the application's own page")


def test_abort_in_a_callable(client: Any) -> None:
    assert client.get("/callable").status_code == 403


@pytest.mark.skipif(
    "ctx" in inspect.signature(flask.Flask.finalize_request).parameters, reason="this Flask shows it itself"
)
def test_the_methods_of_flask_that_make_an_error_page_may_take_its_context(
    client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As from Flask 3.2 on."""
    given: list[Any] = []

    def taking_context(name: str) -> Any:
        method = getattr(flask.Flask, name)

        def wrapper(self: Any, ctx: Any, *arguments: Any, **named: Any) -> Any:
            if isinstance(ctx, flask.ctx.AppContext):
                given.append(name)
            else:  # a call of Flask's own
                arguments = (ctx, *arguments)
            return method(self, *arguments, **named)

        return wrapper

    for name in ("handle_user_exception", "handle_exception", "finalize_request"):
        monkeypatch.setattr(flask.Flask, name, taking_context(name))
    assert client.get("/missing").text == "the application's own page"
    assert given == ["handle_user_exception", "finalize_request"]


def test_the_response_keeps_its_class_and_gets_what_flask_adds() -> None:
    own = flask.Flask(__name__)
    own.secret_key = "test"
    seen: list[Any] = []

    @own.get("/")
    def view() -> Any:
        flask.session["a"] = 1
        return EventSourceResponse(["x"])

    @own.after_request
    def after(response: Any) -> Any:
        seen.append(type(response))
        response.headers["X-After"] = "yes"
        return response

    response = own.test_client().get("/")
    assert seen == [EventSourceResponse]
    assert response.headers["X-After"] == "yes"
    assert "session=" in response.headers["Set-Cookie"]
    assert response.data == b":\ndata: x\n\n"


def test_an_unhandled_error_before_the_first_row_is_flasks_500() -> None:
    own = flask.Flask(__name__)

    @own.get("/")
    def view() -> Any:
        def rows() -> Iterator[list[int]]:
            raise LookupError("secret")
            yield [1]

        return CSVResponse(rows())

    response = own.test_client().get("/")
    assert response.status_code == 500
    assert b"secret" not in response.data


@pytest.mark.parametrize(
    "kind", [EventSourceResponse, StreamingResponse, CSVResponse, NDJSONResponse, ZipResponse]
)
def test_a_generator_that_flask_has_wrapped_is_refused_and_let_go(kind: type[Any]) -> None:
    own = flask.Flask(__name__)
    messages: list[str] = []
    popped: list[str] = []

    @own.teardown_request
    def teardown(error: BaseException | None) -> None:
        popped.append("teardown")

    @own.get("/")
    def view() -> Any:
        with pytest.raises(TypeError) as caught:
            kind(flask.stream_with_context(item for item in ["a"]))
        messages.append(str(caught.value))
        if kind is not ZipResponse:  # which takes no function
            with pytest.raises(TypeError, match=r"wrapped by stream_with_context\(\)"):
                kind(flask.stream_with_context(lambda: iter(["a"])))
        return EventSourceResponse(item for item in [flask.request.path])

    assert own.test_client().get("/").data == b":\ndata: /\n\n"
    assert "give the generator itself" in messages[0]
    assert popped == ["teardown"]


def test_tuples_and_wrapped_bodies() -> None:
    """A view may return a status and headers beside the response, and a middleware may wrap what it iterates."""
    own = flask.Flask(__name__)

    @own.get("/tuple")
    def with_status() -> Any:
        return StreamingResponse([b"made"]), 201, {"X-More": "1"}

    @own.get("/wrapped")
    def wrapped() -> Any:
        response = NDJSONResponse([1, 2])
        response.response = (chunk.upper() for chunk in response.iter_encoded())
        return response

    client = own.test_client()
    made = client.get("/tuple")
    assert (made.status_code, made.data, made.headers["X-More"]) == (201, b"made", "1")
    assert client.get("/wrapped").data == b"1\n2\n"


@pytest.mark.parametrize(
    ("hook", "body"),
    [
        (lambda response: response.get_data(), b"0123456789" * 10),
        (lambda response: response.freeze(), b"0123456789" * 10),
        (lambda response: response.set_data(response.get_data() + b"more"), b"0123456789" * 10 + b"more"),
    ],
    ids=["read", "frozen", "replaced"],
)
def test_a_hook_that_reads_a_file_gets_it_sent_whole(tmp_path: Path, hook: Any, body: bytes) -> None:
    path = tmp_path / "digits.txt"
    path.write_bytes(b"0123456789" * 10)
    os.utime(path, (1e9, 1e9))
    own = flask.Flask(__name__)

    @own.get("/")
    def view() -> Any:
        return FileResponse(path, precompressed=True)

    @own.after_request
    def after(response: Any) -> Any:
        hook(response)
        return response

    client = own.test_client()
    plain = client.get("/")
    for headers in ({}, {"Range": "bytes=40-49"}, {"Range": "bytes=0-1,5-6"}, {"Range": "bytes=5000-"}):
        answer = client.get("/", headers=headers)
        assert (answer.status_code, answer.data) == (200, body)
        assert answer.headers["Content-Length"] == str(len(body))
        assert "Content-Range" not in answer.headers
    assert client.head("/").headers["Content-Length"] == str(len(body))
    assert client.get("/", headers={"If-None-Match": plain.headers["ETag"]}).status_code == 304
    refused = client.get("/", headers={"If-Match": '"other"'})
    assert (refused.status_code, refused.data, refused.headers["Content-Length"]) == (412, b"", "0")


def test_a_stream_is_made_conditional_without_reading_it() -> None:
    """Werkzeug would look for a Content-Length in the body."""
    own = flask.Flask(__name__)
    closed = threading.Event()

    def events() -> Iterator[str]:
        try:
            while True:
                yield "again"
        finally:
            closed.set()

    @own.get("/")
    def view() -> Any:
        return EventSourceResponse(events()).make_conditional(flask.request)

    answer = own.test_client().get("/")
    assert "Content-Length" not in answer.headers
    assert next(answer.iter_encoded()).startswith(b":\n")
    answer.close()
    assert closed.wait(10)


def test_a_hook_that_wraps_a_file_sees_the_range(tmp_path: Path) -> None:
    path = tmp_path / "letters.txt"
    path.write_bytes(b"abcdefghij" * 10)
    own = flask.Flask(__name__)

    @own.get("/")
    def view() -> Any:
        response = FileResponse(path)
        response.response = (chunk.upper() for chunk in response.iter_encoded())
        return response

    answer = own.test_client().get("/", headers={"Range": "bytes=43-46"})
    assert (answer.status_code, answer.data) == (206, b"DEFG")
    assert answer.headers["Content-Range"] == "bytes 43-46/100"
    assert answer.headers["Content-Length"] == "4"


def test_teardown_does_not_take_the_connection_from_the_stream() -> None:
    own = flask.Flask(__name__)
    order: list[str] = []

    @own.teardown_request
    def teardown(error: BaseException | None) -> None:
        order.append("teardown")

    @own.get("/")
    def view() -> Any:
        connection = sqlite3.connect(":memory:")

        def close() -> None:
            connection.close()
            order.append("connection")

        response = CSVResponse(connection.execute("SELECT 1 AS one"))
        response.call_on_close(close)
        return response

    assert own.test_client().get("/").data == b"one\r\n1\r\n"
    assert sorted(order) == ["connection", "teardown"]
