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
from tests.ports import free_port
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


# Serves the demo with one more script in its page, which does what a visitor would.
DRIVEN = """
import os, pathlib
from app import HERE, app as demo

def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path not in ("/", "/visitor.js"):
        return demo(environ, start_response)
    script = '<script type="module" src="visitor.js"></script>'
    page = (HERE / "page.html").read_text().replace("</head>", script + "</head>")
    kind = "text/javascript" if path == "/visitor.js" else "text/html"
    start_response("200 OK", [("Content-Type", kind + "; charset=utf-8")])
    return [(pathlib.Path(os.environ["VISITOR"]).read_text() if path == "/visitor.js" else page).encode()]
"""

TOLD = """
const $ = (id) => document.getElementById(id);
const text = (id) => $(id).textContent;
const until = async (condition) => { while (!condition()) await new Promise((done) => setTimeout(done, 20)); };
const report = (name, seen) =>
  fetch(`REPORTS/${name}`, { method: "POST", mode: "no-cors", body: JSON.stringify(seen) });
"""


class Reports:
    """What visitors tell, by name: on a server of its own, so that it is told also when the demo is not there."""

    def __init__(self) -> None:
        self.told: dict[str, Any] = {}

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        text = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        self.told[environ["PATH_INFO"].removeprefix("/")] = json.loads(text)
        start_response("204 No Content", [])
        return []

    def wait(self, *names: str) -> list[Any]:
        eventually(lambda: set(names) <= set(self.told), 60, f"{names} of {list(self.told)}")
        return [self.told[name] for name in names]


@contextlib.contextmanager
def reports() -> Iterator[tuple[Reports, str]]:
    told = Reports()
    with StreamServer(told, port=0) as server:
        server.start()
        yield told, server.url


@contextlib.contextmanager
def driven(folder: Path, visitor: str, port: int = 0) -> Iterator[str]:
    """The demo with a visitor's script in its page; its address."""
    (folder / "driven.py").write_text(DRIVEN)
    (folder / "visitor.js").write_text(visitor)
    printed = folder / "printed"
    with printed.open("wb") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", "streamkit", "serve", "driven:app", "--port", str(port)],
            cwd=folder,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "examples" / "demo")]),
                "STREAMKIT_DEMO_VAR": str(folder / "var"),
                "STREAMKIT_DEMO_FILES": "20",
                "VISITOR": str(folder / "visitor.js"),
            },
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        eventually(lambda: "http://" in printed.read_text())
        found = re.search(r"http://127\.0\.0\.1:\d+", printed.read_text())
        assert found
        yield found[0]
    finally:
        server.terminate()
        server.wait(20)


TWO_PAGES = """
const name = location.search.slice(1);
const files = new Set();
new MutationObserver(() => files.add(text("job-files"))).observe(
  $("job-files"), { childList: true, characterData: true, subtree: true });
const seen = () => ({ files: [...files], note: text("job-note") });

if (name === "starts") {
  await until(() => text("pages") === "2 viewers");
  $("job-start").click();
  await until(() => text("job-note").startsWith("Stopped"));
  report(name, seen());
} else if (!sessionStorage.stopped) {
  await until(() => files.size > 8);
  $("job-stop").click();
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
    with (
        reports() as (told, address),
        driven(tmp_path, TOLD.replace("REPORTS", address) + TWO_PAGES) as url,
        browsing(chromium, f"{url}/?starts", tmp_path / "one"),
        browsing(chromium, f"{url}/?stops", tmp_path / "other"),
    ):
        starts, stops, again = told.wait("starts", "stops", "loaded-again")
    assert len(set(starts["files"]) & set(stops["files"])) > 3, "both have shown the same progress"
    assert (
        starts["note"]
        == stops["note"]
        == again["note"]
        == "Stopped, for every page. Its generator was closed."
    )
    assert again["files"][-1] == stops["files"][-1], "a page that is loaded again knows how far it came"


NO_ANSWER = "The server does not answer; is it running?"
LEFT_ALONE = """
const notes = ["job", "crowd", "answer", "search", "csv", "zip", "range"].map((name) => `${name}-note`);
const counted = new Set();
for (const id of ["pages", "server-streams"]) {
  new MutationObserver(() => counted.add(text(id))).observe($(id), { childList: true });
}
const seen = () => ({
  badge: text("connection"), pages: $("pages").checkVisibility(), opacity: getComputedStyle($("cpu")).opacity,
  notes: Object.fromEntries(notes.map((id) => [id, text(id)])), story: text("broken-story"),
});
await until(() => text("pages") === "1 viewer" && !$("csv-start").disabled);
await until(() => text("server-streams") === "1");
await report("live", { ...seen(), counted: [...counted] });
await until(() => text("connection") === "NO_ANSWER");
for (const id of ["job-start", "crowd-start", "csv-start", "broken-events"]) $(id).click();
for (const name of ["answer", "search", "zip", "range"]) $(`${name}-form`).requestSubmit();
await until(() => notes.every((id) => text(id) === "NO_ANSWER") && text("broken-story"));
await report("lost", seen());
await until(() => text("connection") === "live");
report("back", seen());
"""


def test_the_demo_says_that_its_server_is_gone_and_comes_back_to_life(tmp_path: Path) -> None:
    chromium = program("chromium", "chromium-browser", "google-chrome")
    with reports() as (told, address), contextlib.ExitStack() as browser:
        visitor = TOLD.replace("REPORTS", address) + LEFT_ALONE.replace("NO_ANSWER", NO_ANSWER)
        with driven(tmp_path, visitor, free_port()) as url:  # which nobody is given while the demo is away
            browser.enter_context(browsing(chromium, url, tmp_path / "profile"))
            (live,) = told.wait("live")
        (lost,) = told.wait("lost")
        with driven(tmp_path, visitor, int(url.rpartition(":")[2])):
            (back,) = told.wait("back")
    assert (live["badge"], live["pages"], live["opacity"]) == ("live", True, "1")
    assert (lost["badge"], lost["pages"]) == (NO_ANSWER, False)
    assert not {"0", "0 viewers"} & set(live["counted"]), "a page that counts is one"
    assert float(lost["opacity"]) < 0.5, "what was measured is grey"
    assert set(lost["notes"].values()) == {lost["story"]} == {NO_ANSWER}
    assert (back["badge"], back["pages"], back["opacity"]) == ("live", True, "1")
    assert NO_ANSWER not in back["notes"].values()


ASKS = """
const shut = (name) => [$(`${name}-start`).disabled, $(`${name}-stop`)?.disabled];
await until(() => !$("csv-start").disabled);
for (const name of ["search", "zip"]) {
  $(`${name}-start`).click();
  const runs = shut(name);
  $(`${name}-stop`).click();
  await until(() => !$(`${name}-start`).disabled);
  report(name, { runs, stopped: shut(name), note: text(`${name}-note`) });
}
const range = async (first, last) => {
  $("range-first").value = first;
  $("range-last").value = last;
  $("range-start").click();
  const runs = $("range-start").disabled;
  await until(() => !$("range-start").disabled);
  return [runs, text("range-note"), text("range-dump").length > 0];
};
report("ranges", [await range(0, 95), await range(95, 0)]);
"""


def test_what_a_page_of_the_demo_asks_for_runs_once_and_is_stopped_or_explained(tmp_path: Path) -> None:
    chromium = program("chromium", "chromium-browser", "google-chrome")
    with (
        reports() as (told, address),
        driven(tmp_path, TOLD.replace("REPORTS", address) + ASKS) as url,
        browsing(chromium, url, tmp_path / "profile"),
    ):
        search, archive, (good, backwards) = told.wait("search", "zip", "ranges")
    for run in (search, archive):
        assert run["runs"] == [True, False], "its button is grey, and Stop is not"
        assert run["stopped"] == [False, True]
        assert run["note"].startswith("Stopped after ")
    assert good == [True, "96 bytes.", True]
    assert not backwards[2]
    assert "First after last is no range (RFC 9110" in backwards[1]


CROWDED = """
const figures = () => ["ping-alone", "ping-among", "crowd-open"].map(text);
await until(() => text("connection") === "live");
if (!sessionStorage.crowded) {
  $("zip-start").click();
  $("crowd-start").click();
  await until(() => text("crowd-open") === "100" && text("ping-among") !== "\\u2013");
  await report("busy", figures());
  $("zip-stop").click();
  await until(() => !$("crowd-start").disabled);
  await report("over", [text("crowd-note"), ...figures()]);
  sessionStorage.crowded = "yes";
  location.reload();
} else {
  await until(() => text("load") !== "\\u2013" && $("log").textContent); // what is held of the past has come
  report("loaded-again", [text("crowd-note"), ...figures()]);
}
"""


def test_the_demo_compares_a_crowd_with_a_quiet_page_and_shows_no_figures_of_the_past(tmp_path: Path) -> None:
    chromium = program("chromium", "chromium-browser", "google-chrome")
    with (
        reports() as (told, address),
        driven(tmp_path, TOLD.replace("REPORTS", address) + CROWDED) as url,
        browsing(chromium, url, tmp_path / "profile"),
    ):
        busy, over, again = told.wait("busy", "over", "loaded-again")
    assert busy[0] == "\u2013", "measured beside another panel's work, which is not the crowd's"
    assert all(figure.endswith(" ms") for figure in over[1:3])
    assert "Other panels were busy too" in over[0]
    assert "no longer than" in over[0] or float(over[1].split()[0]) <= float(over[2].split()[0])
    assert again[0].startswith("The server connects to itself")
    assert again[1:] == ["\u2013"] * 3


READS = """
const box = $("log");
const left = () => box.scrollHeight - box.scrollTop - box.clientHeight;
const lines = async () => { // the log has one more line of each request
  const before = box.lastElementChild;
  await fetch("/range-of-nothing");
  await until(() => box.lastElementChild !== before);
  await new Promise((done) => setTimeout(done, 100));
};
await until(() => box.childElementCount > 3 && box.scrollHeight > box.clientHeight + 100);
await until(() => left() < 2);
box.style.width = "12em"; // the same lines take more room: their end is out of sight
const moved = left();
await lines();
const followed = left();
box.scrollTop = 0;
await new Promise((done) => setTimeout(done, 100));
await lines();
report("read", { moved, followed, top: box.scrollTop });
"""


def test_a_log_stays_at_its_end_in_a_narrower_window_but_not_under_who_reads_what_was_before(
    tmp_path: Path,
) -> None:
    chromium = program("chromium", "chromium-browser", "google-chrome")
    with (
        reports() as (told, address),
        driven(tmp_path, TOLD.replace("REPORTS", address) + READS) as url,
        browsing(chromium, url, tmp_path / "profile"),
    ):
        (read,) = told.wait("read")
    assert read["moved"] > 30
    assert read["followed"] < 2
    assert read["top"] == 0
