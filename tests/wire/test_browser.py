"""A real browser: its EventSource, to which a finished job stays finished, and two pages of the demo on one job."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from streamkit import EventSourceResponse, ServerSentEvent
from streamkit.servers.http_server import StreamServer
from tests.conftest import ROOT, eventually
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


FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    " --disable-component-update --disable-sync --remote-debugging-port=0"
)


@contextlib.contextmanager
def browsing(chromium: str, url: str, profile: Path) -> Iterator[None]:
    """A browser of its own that shows `url`."""
    browser = subprocess.Popen(
        [chromium, *FLAGS.split(), f"--user-data-dir={profile}", url],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        browser.terminate()
        browser.wait(20)


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
        with browsing(chromium, server.url, tmp_path / "profile"):
            seen = reports.get(timeout=60)
    assert seen == [
        "open",
        ["message", "two\nlines \u2028 and a separator", ""],
        ["progress", 100],
        ["done", "streamkit-complete"],
        "readyState 0",  # the body ended, so it reconnects by itself, with the terminal id
        "readyState 2",  # and the 204 stops it
    ]
    assert runs == [1]


# Serves the demo with one more script in its page, which does what a visitor would and writes down what it sees.
DRIVEN = """
import json, os, pathlib
from app import HERE, app as demo

def app(environ, start_response):
    path, out = environ["PATH_INFO"], pathlib.Path(os.environ["REPORTS"])
    if path.startswith("/report/"):
        text = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        part = out / (path.removeprefix("/report/") + ".part")
        part.write_bytes(text)
        part.rename(part.with_suffix(".json"))
    if path not in ("/", "/visitor.js") and not path.startswith("/report/"):
        return demo(environ, start_response)
    script = '<script type="module" src="visitor.js"></script>'
    page = (HERE / "page.html").read_text().replace("</head>", script + "</head>")
    kind = "text/javascript" if path == "/visitor.js" else "text/html"
    start_response("200 OK", [("Content-Type", kind + "; charset=utf-8")])
    return [(pathlib.Path(os.environ["VISITOR"]).read_text() if path == "/visitor.js" else page).encode()]
"""

VISITOR = """
const text = (id) => document.getElementById(id).textContent;
const until = async (condition) => { while (!condition()) await new Promise((done) => setTimeout(done, 20)); };
const report = (name, seen) => fetch(`report/${name}`, { method: "POST", body: JSON.stringify(seen) });
const name = location.search.slice(1);
const files = new Set();
new MutationObserver(() => files.add(text("job-files"))).observe(
  document.getElementById("job-files"), { childList: true, characterData: true, subtree: true });
const seen = () => ({ files: [...files], note: text("job-note") });

if (name === "starts") {
  await until(() => text("pages") === "2 viewers");
  document.getElementById("job-start").click();
  await until(() => text("job-note").startsWith("Stopped"));
  report(name, seen());
} else if (!sessionStorage.stopped) {
  await until(() => files.size > 8);
  document.getElementById("job-stop").click();
  await until(() => text("job-note").startsWith("Stopped"));
  await report(name, seen());
  sessionStorage.stopped = "yes";
  location.reload();
} else {
  await until(() => files.size && text("job-note").startsWith("Stopped"));
  report("loaded-again", seen());
}
"""


def test_two_pages_of_the_demo_show_one_job_and_either_stops_it(tmp_path: Path) -> None:
    chromium = program("chromium", "chromium-browser", "google-chrome")
    (tmp_path / "driven.py").write_text(DRIVEN)
    (tmp_path / "visitor.js").write_text(VISITOR)
    printed = tmp_path / "printed"
    with printed.open("wb") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", "streamkit", "serve", "driven:app", "--port", "0"],
            cwd=tmp_path,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "examples" / "demo")]),
                "STREAMKIT_DEMO_VAR": str(tmp_path / "var"),
                "STREAMKIT_DEMO_FILES": "20",
                "REPORTS": str(tmp_path),
                "VISITOR": str(tmp_path / "visitor.js"),
            },
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    names = ("starts", "stops", "loaded-again")
    try:
        eventually(lambda: "http://" in printed.read_text(), 20)
        found = re.search(r"http://127\.0\.0\.1:\d+", printed.read_text())
        assert found
        with (
            browsing(chromium, f"{found[0]}/?starts", tmp_path / "one"),
            browsing(chromium, f"{found[0]}/?stops", tmp_path / "other"),
        ):
            eventually(lambda: all((tmp_path / f"{name}.json").exists() for name in names), 60)
    finally:
        server.terminate()
        server.wait(20)
    starts, stops, again = (json.loads((tmp_path / f"{name}.json").read_text()) for name in names)
    assert len(set(starts["files"]) & set(stops["files"])) > 3, "both have shown the same progress"
    assert (
        starts["note"]
        == stops["note"]
        == again["note"]
        == "Stopped, for every page. Its generator was closed."
    )
    assert again["files"][-1] == stops["files"][-1], "a page that is loaded again knows how far it came"
