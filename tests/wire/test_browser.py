"""A real browser's EventSource: it gets the events, and a finished job stays finished when it reconnects."""

from __future__ import annotations

import json
import queue
import subprocess
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from streamkit import EventSourceResponse, ServerSentEvent
from streamkit.servers.http_server import StreamServer
from tests.services import program

PAGE = b"""<!doctype html><title>test</title><script>
const seen = [];
const source = new EventSource("/job");
source.onopen = () => seen.push("open");
source.onmessage = event => seen.push(["message", event.data, event.lastEventId]);
source.addEventListener("progress", event => seen.push(["progress", JSON.parse(event.data).percent]));
source.addEventListener("done", event => seen.push(["done", event.lastEventId]));
source.onerror = () => {
  seen.push("readyState " + source.readyState);
  if (source.readyState === EventSource.CLOSED) fetch("/report", {method: "POST", body: JSON.stringify(seen)});
};
</script>"""


def test_event_source_in_chromium(tmp_path: Path) -> None:
    chromium = program("chromium", "chromium-browser", "google-chrome")
    reports: queue.Queue[list[Any]] = queue.Queue()
    runs: list[int] = []

    def job() -> Iterator[object]:
        runs.append(1)
        yield "two\nlines \u2028 and a separator"
        yield ServerSentEvent({"percent": 100}, event="progress", id="1")

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == "/job":
            response: Iterable[bytes] = EventSourceResponse(job(), complete="done", retry=50)(
                environ, start_response
            )
            return response
        if path == "/report":
            reports.put(json.loads(environ["wsgi.input"].read()))
        start_response("200 OK", [("Content-Type", "text/html; charset=utf-8")])
        return [PAGE]

    with StreamServer(app, port=0) as server:
        server.start()
        flags = (
            "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
            " --disable-component-update --disable-sync --remote-debugging-port=0"
        )
        browser = subprocess.Popen(
            [chromium, *flags.split(), f"--user-data-dir={tmp_path}/profile", server.url],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            seen = reports.get(timeout=60)
        finally:
            browser.terminate()
            browser.wait(20)
    assert seen == [
        "open",
        ["message", "two\nlines \u2028 and a separator", ""],
        ["progress", 100],
        ["done", "streamkit-complete"],
        "readyState 0",  # the body ended, so it reconnects by itself, with the terminal id
        "readyState 2",  # and the 204 stops it
    ]
    assert runs == [1]
