"""The demo in a process of its own: every panel's stream really streams, and ends as the page says it does."""

from __future__ import annotations

import contextlib
import csv
import http.client
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent


class Demo:
    """A running demo on `port`. `get` takes a whole answer, `opened` one that is still arriving."""

    def __init__(self, port: int) -> None:
        self.port = port

    @contextlib.contextmanager
    def opened(
        self,
        path: str,
        *,
        method: str = "GET",
        body: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> Iterator[http.client.HTTPResponse]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, body=body, headers=headers or {})
            with connection.getresponse() as response:
                yield response
        finally:
            connection.close()

    def get(self, path: str, **request: Any) -> tuple[http.client.HTTPResponse, bytes]:
        with self.opened(path, **request) as response:
            return response, response.read()


def next_event(response: http.client.HTTPResponse) -> tuple[str, str]:
    """(name, data) of the next event; ("", "") where the stream ends."""
    name, data = "message", ""
    while line := response.readline().decode():
        if line == "\n" and data:
            return name, data
        field, _, value = line.rstrip("\n").partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            data = value
    return "", ""


def all_events(response: http.client.HTTPResponse) -> list[tuple[str, str]]:
    return list(iter(lambda: next_event(response), ("", "")))


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    var = tmp_path_factory.mktemp("var")
    with (var / "stderr").open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "streamkit", "serve", "--port", "0"],
            cwd=var,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "STREAMKIT_DEMO_VAR": str(var),
                "STREAMKIT_DEMO_FILES": "200",
            },
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    assert process.stdout is not None
    try:
        first = process.stdout.readline()
        address = re.search(r"http://127\.0\.0\.1:(\d+)", first)
        assert address, f"{first!r}, {(var / 'stderr').read_text()}"
        yield Demo(int(address[1]))
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture(scope="module")
def library(demo: Demo) -> dict[str, Any]:
    """What `/live` says of the database once it is built."""
    with demo.opened("/live") as response:
        while True:
            name, data = next_event(response)
            assert name, "the live stream ended"
            if name == "library":
                state: dict[str, Any] = json.loads(data)
                assert "error" not in state
                if state.get("ready"):
                    return state


@pytest.mark.parametrize(
    ("path", "mimetype"),
    [
        ("/", "text/html"),
        ("/page.css", "text/css"),
        ("/page.js", "javascript"),
        ("/plot.js", "javascript"),
        ("/readers.js", "javascript"),
        ("/icon.svg", "image/svg+xml"),
    ],
)
def test_the_page_and_its_files_load(demo: Demo, path: str, mimetype: str) -> None:
    response, body = demo.get(path)
    assert response.status == 200
    assert mimetype in response.headers["Content-Type"]
    assert "script-src 'self'" in response.headers["Content-Security-Policy"]
    assert len(body) == int(response.headers["Content-Length"]) > 100


def test_the_page_names_no_other_site_and_holds_no_script_of_its_own(demo: Demo) -> None:
    page = demo.get("/")[1].decode()
    assert not re.findall(r"(?:src|href)=\"(?:https?:)?//", page)
    assert not re.findall(r"<script(?![^>]*\bsrc=)|\son\w+=|\sstyle=|<style", page)


def test_the_files_of_the_demo_are_all_that_is_served(demo: Demo) -> None:
    for path in ("/app.py", "/../app.py", "/var/server.log", "//page.css"):
        assert demo.get(path)[0].status == 404, path


def test_machine_and_streams_arrive_while_the_stream_is_open(demo: Demo) -> None:
    with demo.opened("/live") as response:
        samples = []
        while len(samples) < 2:
            name, data = next_event(response)
            if name == "machine":
                samples.append(json.loads(data))
            elif name == "streams":
                records = json.loads(data)["live"]
                assert any(record["path"] == "/live" for record in records)
        assert not response.isclosed()
    if "note" not in samples[1]:  # a system without /proc says so
        assert samples[1]["time"] > samples[0]["time"]
        assert 0 <= samples[1]["cpu"] <= 1
        assert 0 < samples[1]["memory_used"] < samples[1]["memory_total"]


def test_the_log_is_followed(demo: Demo) -> None:
    with demo.opened("/log") as response:
        demo.get("/looked-for-in-the-log")
        while "/looked-for-in-the-log" not in next_event(response)[1]:
            assert not response.isclosed()


def test_words_come_one_by_one_until_done(demo: Demo) -> None:
    with demo.opened("/tokens", method="POST", body='{"module": "string"}') as response:
        assert response.headers["Content-Type"].startswith("text/event-stream")
        first = json.loads(next_event(response)[1])
        assert not response.isclosed()
        words = all_events(response)
    assert words.pop() == ("message", "[DONE]")
    assert len(words) == first["words"] > 5
    assert "string" in "".join(json.loads(data)["word"] for _, data in words)


def test_the_server_notices_who_stops_the_words(demo: Demo) -> None:
    with demo.opened("/tokens", method="POST", body="{}") as response:
        first = json.loads(next_event(response)[1])
        next_event(response)
    with demo.opened("/live") as response:
        while True:
            name, data = next_event(response)
            if name == "streams":
                ended = [record for record in json.loads(data)["ended"] if record["id"] == first["stream"]]
                if ended:
                    break
    assert ended[0]["outcome"] == "client_gone"
    assert ended[0]["events"] - 1 < first["words"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ('{"module": "no_such"}', 404),
        ('{"module": "../os"}', 404),
        ("[]", 400),
        ("{", 400),
        ("x" * 5000, 413),
    ],
)
def test_what_cannot_be_told_is_refused_in_words(demo: Demo, body: str, status: int) -> None:
    response, words = demo.get("/tokens", method="POST", body=body)
    assert response.status == status
    assert response.headers["Content-Type"].startswith("text/plain")
    assert len(words) > 20


def test_the_job_reports_until_it_is_done(demo: Demo) -> None:
    with demo.opened("/job") as response:
        events = [(next_event(response))]
        assert not response.isclosed()
        events += all_events(response)
    progress = [json.loads(data) for name, data in events if name == "progress"]
    assert [name for name, _ in events[-2:]] == ["result", "done"]
    done = [report["bytes"] for report in progress]
    assert done == sorted(done)
    result = json.loads(events[-2][1])
    assert result["bytes"] == progress[0]["total"] > result["packed"] > 0
    assert re.fullmatch("[0-9a-f]{64}", result["sha256"])
    # A browser that comes back with the id of the end is told to stay away.
    assert demo.get("/job", headers={"Last-Event-ID": "streamkit-complete"})[0].status == 204


def test_the_export_has_every_row_of_the_table(demo: Demo, library: dict[str, Any]) -> None:
    response, body = demo.get("/definitions.csv")
    assert response.headers["Content-Type"].startswith("text/csv")
    rows = list(csv.reader(io.StringIO(body.decode())))
    assert rows[0] == ["path", "line", "kind", "name"]
    assert len(rows) - 1 == library["rows"] > 100


def test_search_finds_lines_and_ends_with_a_summary(demo: Demo) -> None:
    _, body = demo.get("/search.ndjson?text=yield%20from")
    *hits, end = [json.loads(line) for line in body.splitlines()]
    assert len(hits) == end["hits"] > 5
    assert all("yield from" in hit["text"] for hit in hits)
    assert demo.get("/search.ndjson?text=a")[0].status == 400


def test_a_range_of_the_file(demo: Demo, library: dict[str, Any]) -> None:
    response, body = demo.get("/library.db", headers={"Range": "bytes=0-15"})
    assert response.status == 206
    assert response.headers["Content-Range"] == f"bytes 0-15/{library['bytes']}"
    assert body == b"SQLite format 3\0"
    whole, data = demo.get("/library.db")
    assert whole.status == 200
    assert len(data) == library["bytes"]
    beyond, _ = demo.get("/library.db", headers={"Range": f"bytes={library['bytes']}-"})
    assert beyond.status == 416


@pytest.mark.usefixtures("library")
def test_a_broken_export_does_not_look_complete(demo: Demo) -> None:
    with (
        demo.opened("/broken/definitions.csv") as response,
        pytest.raises((http.client.IncompleteRead, OSError)),
    ):
        response.read()


def test_a_broken_event_stream_says_so_before_it_breaks(demo: Demo) -> None:
    with demo.opened("/broken/events") as response:
        assert [next_event(response)[0] for _ in range(3)] == ["message"] * 3
        name, data = next_event(response)
        assert name == "error"
        assert "DemonstrationError" in json.loads(data)["message"]
        with pytest.raises((http.client.IncompleteRead, OSError)):
            response.read()


def test_two_pages_in_view_leave_room_for_others(demo: Demo) -> None:
    with contextlib.ExitStack() as pages:
        for _ in range(2):
            pages.enter_context(demo.opened("/live"))
            pages.enter_context(demo.opened("/log"))
        assert demo.get("/")[0].status == 200


def test_a_database_is_built_once_by_several_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "examples" / "demo"))
    import library as demo_library

    monkeypatch.setattr(demo_library, "MAX_FILES", 20)
    built = []
    build = demo_library.Library._build
    monkeypatch.setattr(demo_library.Library, "_build", lambda self: (built.append(self), build(self)))
    libraries = [demo_library.Library(tmp_path / "library.db") for _ in range(3)]
    try:
        for each in libraries:
            each.state()
        deadline = time.monotonic() + 20
        while not all(each.state().get("ready") for each in libraries):
            assert time.monotonic() < deadline, [each.state() for each in libraries]
            threading.Event().wait(0.01)
    finally:
        sys.modules.pop("library", None)
    assert len(built) == 1
    assert not (tmp_path / "library.building").exists()
