"""The code of docs/hub.md runs: the views in Flask, and the check of a broker on the one in a file."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import pytest

from streamkit import EventStreamDecoder
from streamkit.hub.sqlite import SQLiteBroker
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "hub.md").read_text()
FIRST, RUN, CHECK = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_the_views_of_the_page(tmp_path: Path) -> None:
    flask = pytest.importorskip("flask")
    names: dict[str, Any] = {"app": flask.Flask(__name__), "ask_the_model": lambda number: iter(["Hello"])}
    exec(FIRST.replace("/var/lib/app", str(tmp_path)) + RUN, names)
    client = names["app"].test_client()
    with names["hub"]:
        assert client.post("/orders").text == "ok"
        response = client.get("/events", headers={"Last-Event-ID": "unknown"}, buffered=False)
        received = b""
        for chunk in response.response:
            received += chunk
            if b"paid" in received:
                break
        response.close()
        gap, order = EventStreamDecoder().feed(received)
        assert (gap.event, order.event, order.json()) == ("gap", "order", {"id": 7, "state": "paid"})
        for _ in ("asked", "refreshed"):
            events = EventStreamDecoder().feed(client.get("/answer/7").data)
            assert [event.event for event in events] == ["message", "complete", "over"]
        last = {"Last-Event-ID": str(events[-1].id)}
        assert client.get("/answer/7", headers=last).status_code == 204


def test_the_check_of_a_broker(tmp_path: Path) -> None:
    class MyBroker(SQLiteBroker):
        def __init__(self, place: str, retain: int = 10_000) -> None:
            super().__init__(place, retain=retain)
            self.place = place

    places = (f"sqlite:///{tmp_path}/{number}.db" for number in itertools.count())
    exec(CHECK, {"MyBroker": MyBroker, "new_empty_place": lambda: next(places)})
