"""The page for those who come from `Response(generate())`, and the README's own "after": their code runs."""

from __future__ import annotations

import itertools
import queue
import re
from typing import Any

import pytest

from streamkit import EventSourceResponse, EventStreamDecoder
from tests.conftest import ROOT

pytest.importorskip("flask")

PAGE = (ROOT / "docs" / "plain-generators.md").read_text()
BEFORE, AFTER = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
README = (ROOT / "README.md").read_text()


def received(code: str) -> tuple[bytes, dict[str, str]]:
    names: dict[str, Any] = {"__name__": __name__}  # Flask asks for the module's place
    exec(compile(code, "docs/plain-generators.md", "exec"), names)
    names["app"].testing = True  # what a view raises is raised here
    response = names["app"].test_client().get("/progress")
    return response.get_data(), dict(response.headers)


def test_a_client_sees_the_same_events_before_and_after() -> None:
    (before, old_headers), (after, headers) = received(BEFORE), received(AFTER)
    events = EventStreamDecoder().feed(after)
    assert [event.json()["percent"] for event in events[:3]] == [0, 50, 100]
    assert [(event.event, event.id, event.data) for event in events[:3]] == [
        (event.event, event.id, event.data.replace(" ", ""))
        for event in EventStreamDecoder().feed(before)[:3]
    ]
    assert events[3].data == "finished" == EventStreamDecoder().feed(before)[3].data
    assert old_headers["X-Accel-Buffering"] == headers["X-Accel-Buffering"] == "no"
    assert "no-cache" in headers["Cache-Control"]


def test_a_generator_that_flask_has_wrapped_is_refused() -> None:
    wrapped = AFTER.replace("(generate())", "(stream_with_context(generate()))").replace(
        "import Flask", "import Flask, stream_with_context"
    )
    with pytest.raises(TypeError, match="stream_with_context"):
        received(wrapped)


def test_the_readme_before_and_after() -> None:
    before, after = re.findall(r"```python\n(def events\(\).*?)```", README, re.DOTALL)
    sent = []
    for code, framed in ((before, True), (after, False)):
        waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
        for item in ("one", "two"):
            waiting.put(item)
        names: dict[str, Any] = {"queue": waiting}
        exec(compile(code, "README.md", "exec"), names)
        items = itertools.islice(names["events"](), 2)
        frames = [item.encode() for item in items] if framed else items
        response = EventSourceResponse(frames)
        sent.append(b"".join(response({"REQUEST_METHOD": "GET", "PATH_INFO": "/"}, lambda *_: None)))
    assert sent[0] == sent[1] == b":\ndata: one\n\ndata: two\n\n"
