"""The response of a process without Werkzeug beside Werkzeug's: what is written for one works with the other."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import pytest

from streamkit import CSVResponse
from streamkit.responses.plain import PlainResponse
from tests.responses.test_streamed import Answer


@pytest.fixture(params=["plain", "werkzeug"])
def kind(request: pytest.FixtureRequest) -> Any:
    if request.param == "plain":
        return PlainResponse
    return pytest.importorskip("werkzeug.wrappers").Response


@pytest.mark.parametrize(
    ("status", "code", "line"),
    [
        (None, 200, "200 OK"),
        (404, 404, "404 NOT FOUND"),
        (HTTPStatus.NOT_FOUND, 404, "404 NOT FOUND"),
        ("404", 404, "404 NOT FOUND"),
        ("404 Gone fishing", 404, "404 GONE FISHING"),
        ("299 ", 299, "299 UNKNOWN"),
        (599, 599, "599 UNKNOWN"),
    ],
)
def test_status(kind: Any, status: Any, code: int, line: str) -> None:
    made = kind([b"x"], status=status)
    assert (made.status_code, made.status.upper()) == (code, line)
    if status is not None:
        changed = kind([b"x"])
        changed.status = status
        assert (changed.status_code, changed.status.upper()) == (code, line)
        assert Answer(changed).status.upper() == line


@pytest.mark.parametrize("status", ["", "teapot", "99 a", "200 OK\r\nX: y", "200 \u20ac", 99, 600])
def test_what_is_no_status(status: Any) -> None:
    for make in (PlainResponse, lambda status: setattr(PlainResponse(), "status", status)):
        with pytest.raises(ValueError, match=r"status is .*; give a number from 200 to 599"):
            make(status=status)


def test_no_content_has_no_length(kind: Any) -> None:  # RFC 9110 section 8.6
    response = kind([b"x"], status=204, headers={"Content-Length": "1", "X-A": "b"})
    answer = Answer(response)
    assert (answer.body, answer.headers.get("Content-Length"), answer.headers["X-A"]) == (b"", None, "b")
    response.status = 200
    assert Answer(response).headers["Content-Length"] == "1"


def test_content_type(kind: Any) -> None:
    response = kind([b"x"], content_type="text/plain")
    response.content_type = "application/json; x=1"
    assert (response.content_type, response.mimetype) == ("application/json; x=1", "application/json")
    response.mimetype = "image/png"
    assert response.content_type == "image/png"
    response.mimetype = "text/csv"
    assert Answer(response).headers["Content-Type"] == "text/csv; charset=utf-8"


@pytest.mark.parametrize("value", ["a/b\r\nX: y", "a/\u20ac"])
def test_a_header_that_no_server_may_be_given(value: str) -> None:
    """wsgiref sends it as it is."""
    made = [PlainResponse(content_type=value), PlainResponse(), PlainResponse(), PlainResponse()]
    made[1].mimetype = value
    made[2].headers["X-A"] = value
    made[3].headers.add_header("X-A", "a", b=value)
    for response in made:
        with pytest.raises(ValueError, match=r"header '(Content-Type|X-A)' holds"):
            response({"REQUEST_METHOD": "GET"}, lambda *_: pytest.fail("started"))


@pytest.mark.skipif(not issubclass(CSVResponse, PlainResponse), reason="Werkzeug refuses it when it is set")
def test_a_stream_with_such_a_header_is_ended() -> None:
    closed: list[str | None] = []
    response = CSVResponse([["a"]], on_close=lambda stream: closed.append(stream.outcome))
    response.headers["X-A"] = "a\r\nSet-Cookie: b=c"
    with pytest.raises(ValueError, match="header 'X-A' holds the control character"):
        response({"REQUEST_METHOD": "GET"}, lambda *_: pytest.fail("started"))
    assert closed == ["failed"]
