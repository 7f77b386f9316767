"""The tools on a Flask application: what Flask wraps around a body neither hides nor fakes anything."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

flask = pytest.importorskip("flask")

from streamkit import CSVResponse, EventSourceResponse  # noqa: E402
from streamkit.testing import assert_streams, take_chunks, take_events  # noqa: E402

pytestmark = pytest.mark.usefixtures("nothing_left")

app = flask.Flask(__name__)


@app.get("/events")
def events() -> Any:
    return EventSourceResponse({"n": n, "path": flask.request.path} for n in itertools.count())


@app.get("/table")
def table() -> Any:
    return CSVResponse([n] for n in itertools.count())


@app.get("/by-hand")
def by_hand() -> Any:
    def lines() -> Iterator[str]:
        for n in itertools.count():
            yield f"data: {n} {flask.request.path}\n\n"

    return flask.Response(flask.stream_with_context(lines()), mimetype="text/event-stream")


@app.get("/page")
def page() -> str:
    return "hello"


def test_streamkit_in_flask_streams() -> None:
    assert_streams(app, "/events")
    assert_streams(app, "/table")
    assert take_events(app, "/events", 2)[1].json() == {"n": 1, "path": "/events"}


def test_what_is_written_by_hand_lacks_the_headers_and_nothing_else() -> None:
    with pytest.raises(AssertionError) as caught:
        assert_streams(app, "/by-hand")
    assert str(caught.value).count("\n") == 3
    for name in ("no-transform", "no-cache", "X-Accel-Buffering"):
        assert name in str(caught.value)


def test_a_page_is_no_stream() -> None:
    with pytest.raises(AssertionError, match=r"(?s)one piece of 5 bytes.*Content-Length: 5"):
        assert_streams(app, "/page")
    assert take_chunks(app, "/page") == [b"hello"]
