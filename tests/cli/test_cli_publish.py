"""`publish`: what another process hears, and how a hub that cannot be used is told."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from streamkit.cli import main


def published(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    assert main(["publish", *arguments]) == 0
    return capsys.readouterr().out.splitlines()


def heard(url: str, topic: str, count: int) -> list[tuple[str | None, str | None]]:
    from streamkit.hub.hub import Hub

    hub = Hub(url)
    try:
        subscription = hub.subscribe(topic, last_event_id="0")
        events = iter(subscription)
        found = []
        while len(found) < count:
            event = next(events)
            if event.event != "gap":
                found.append((event.event, event.data))
        subscription.close()
        return found
    finally:
        hub.close()


def test_an_event_and_its_id(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"sqlite:///{tmp_path}/events.db"
    (first,) = published(capsys, url, "news", "hello", "--event", "greeting")
    assert first
    (second,) = map(json.loads, published(capsys, url, "news", '{"n": 1}', "--json"))
    assert second["topic"] == "news"
    assert second["id"] != first
    assert heard(url, "news", 2) == [("greeting", "hello"), (None, '{"n": 1}')]


def test_lines_of_the_standard_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    wire = b"one\ntwo\r\n40%\r50%\n\xc3\xa9 \xff!\n\nlast"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(wire), encoding="utf-8"))
    url = f"sqlite:///{tmp_path}/events.db"
    assert len(published(capsys, url, "log", "-")) == 6
    lines = [
        "one",
        "two",
        "40%\n50%",
        "é \N{REPLACEMENT CHARACTER}!",
        "",
        "last",
    ]  # data has no CR of its own
    assert [data for _, data in heard(url, "log", 6)] == lines


def test_an_id_that_was_published_before_is_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"sqlite:///{tmp_path}/events.db"
    assert published(capsys, url, "news", "hello", "--id", "c") == ["c"]
    assert main(["publish", url, "news", "again", "--id", "c"]) == 1
    assert "cannot publish" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words", "code"),
    [
        (["memory://", "news", "x"], "inside one process", 2),
        (["kafka://host", "news", "x"], "kafka", 2),
        (["sqlite:////no/such/folder/events.db", "news", "x"], "hub", 1),
        (["sqlite:///{folder}/events.db", "news", "-", "--id", "1"], "--id names one event", 2),
        (["sqlite:///{folder}/events.db", "news", "x", "--event", "a\nb"], "event", 2),
        (["sqlite:///{folder}/events.db", "news"], "DATA", 2),
    ],
)
def test_what_a_user_gets_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str, code: int
) -> None:
    assert main(["publish", *(argument.format(folder=tmp_path) for argument in arguments)]) == code
    error = capsys.readouterr().err
    assert words in error
    assert "Traceback" not in error
