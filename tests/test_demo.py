"""The demo in a process of its own: every panel's stream really streams, and ends as the page says it does."""

from __future__ import annotations

import contextlib
import csv
import gzip
import heapq
import http.client
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, eventually


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
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body=body, headers=headers or {})
            with connection.getresponse() as response:
                yield response
        finally:
            connection.close()

    def get(
        self, path: str, *, tolerant: bool = False, **request: Any
    ) -> tuple[http.client.HTTPResponse, bytes]:
        """tolerant: take what came of an answer that breaks off."""
        with self.opened(path, **request) as response:
            try:
                return response, response.read()
            except http.client.IncompleteRead as error:
                if not tolerant:
                    raise
                return response, error.partial


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


def until(response: http.client.HTTPResponse, wanted: Callable[[str, Any], object]) -> dict[str, Any]:
    """The data of the first event for which `wanted(name, data)` is true."""
    while True:
        name, text = next_event(response)
        assert name, "the stream ended"
        if name == "message":
            continue  # a line of the log
        data: dict[str, Any] = json.loads(text)
        if wanted(name, data):
            return data


@contextlib.contextmanager
def served(var: Path, command: list[str], **environment: str) -> Iterator[Demo]:
    """Run a server that prints its address; it ends by SIGTERM, without force."""
    with (var / "printed").open("wb") as printed:
        process = subprocess.Popen(
            command,
            cwd=var,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "STREAMKIT_DEMO_VAR": str(var),
                "STREAMKIT_DEMO_FILES": "200",
                **environment,
            },
            stdout=printed,
            stderr=subprocess.STDOUT,
        )

    def address() -> re.Match[str] | None:
        assert process.poll() is None, (var / "printed").read_text()
        return re.search(r"http://127\.0\.0\.1:(\d+)", (var / "printed").read_text())

    try:
        eventually(address)
        found = address()
        assert found
        yield Demo(int(found[1]))
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, (var / "printed").read_text()
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    var = tmp_path_factory.mktemp("var")
    with served(var, [sys.executable, "-m", "streamkit", "serve", "--port", "0"]) as demo:
        yield demo


@pytest.fixture(scope="module")
def library(demo: Demo) -> dict[str, Any]:
    """What `/live` says of the database once it is built."""
    with demo.opened("/live") as response:
        state: dict[str, Any] = until(
            response,
            lambda name, data: name == "process" and "files" in data["library"] and data["library"]["ready"],
        )["library"]
    return state


@pytest.mark.parametrize(
    ("path", "mimetype"),
    [
        ("/", "text/html"),
        ("/page.css", "text/css"),
        ("/page.js", "javascript"),
        *[
            (f"/{name}.js", "javascript")
            for name in ("live", "parts", "plot", "readers", "requests", "runs", "server")
        ],
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


def test_each_box_says_what_will_be_in_it(demo: Demo) -> None:
    page = demo.get("/")[1].decode()
    boxes = re.findall(r'<\w+ class="box [^>]*></\w+>', page)
    assert len(boxes) > 5
    for box in boxes:
        assert 'id="log"' in box or re.search(r'data-empty="[^"]{10,}"', box), box


def test_the_files_of_the_demo_are_all_that_is_served(demo: Demo) -> None:
    for path in ("/app.py", "/../app.py", "/var/server.log", "//page.css"):
        assert demo.get(path)[0].status == 404, path


def test_the_page_asks_for_no_element_that_it_does_not_have(demo: Demo) -> None:
    page = demo.get("/")[1].decode()
    known = set(re.findall(r'\bid="([\w-]+)"', page))
    labels = set(re.findall(r'aria-labelledby="([\w-]+)"', page))
    scripts = "".join(path.read_text() for path in (ROOT / "examples/demo").glob("*.js"))
    asked = set(re.findall(r'(?:\$|say)\("([\w-]+)"', scripts))
    assert not (asked | labels) - known
    assert len(asked) > 40


def test_machine_and_process_arrive_while_the_stream_is_open(demo: Demo) -> None:
    with demo.opened("/live") as response:
        samples = [until(response, lambda name, data: name == "machine") for _ in range(2)]
        report = until(response, lambda name, data: name == "process")
        assert not response.isclosed()
    assert samples[1]["time"] > samples[0]["time"]
    assert samples[1]["pages"] >= 1
    if "note" not in samples[1]:  # a system without /proc says so
        assert 0 <= samples[1]["cpu"] <= 1
        assert 0 < samples[1]["memory_used"] < samples[1]["memory_total"]
    own = [group for group in report["streams"] if group["path"] == "/live"]
    assert own
    assert report["detached"] + report["held"] >= own[0]["count"] >= 1


def test_pages_are_counted_and_cost_no_thread(demo: Demo) -> None:
    with contextlib.ExitStack() as pages:
        first = pages.enter_context(demo.opened("/live"))
        until(first, lambda name, data: name == "machine" and data["pages"] == 1)
        before = until(first, lambda name, data: name == "process")
        for _ in range(20):
            pages.enter_context(demo.opened("/live"))
        until(first, lambda name, data: name == "machine" and data["pages"] == 21)
        after = until(first, lambda name, data: name == "process" and data["detached"] >= 21)
    assert after["held"] == 0
    assert after.get("threads", 0) < before.get("threads", 0) + 20


@pytest.mark.parametrize("path", ["/log", "/live?lastEventId=0"])
def test_the_log_is_followed(demo: Demo, path: str) -> None:
    with demo.opened(path) as response:
        assert response.status == 200
        next_event(response)
        demo.get("/broken/events", tolerant=True)
        while "/broken/events" not in next_event(response)[1]:
            assert not response.isclosed()


def test_an_answer_is_the_same_for_all_and_survives_its_reader(demo: Demo) -> None:
    with demo.opened("/live") as other:
        started = json.loads(demo.get("/answer", method="POST", body='{"module": "fnmatch"}')[1])
        assert not started["joined"]
        with demo.opened("/answer") as reader:  # it leaves after two words
            until(reader, lambda name, data: name == "word")
            until(reader, lambda name, data: name == "word")
        again = json.loads(demo.get("/answer", method="POST", body='{"module": "json"}')[1])
        assert again == {"run": started["run"], "joined": True}
        with demo.opened("/answer") as response:  # from its beginning
            assert response.headers["Content-Type"].startswith("text/event-stream")
            events = all_events(response)
        until(other, lambda name, data: name == "complete" and data["run"] == started["run"])
    question = json.loads(events[0][1])
    words = [json.loads(data)["word"] for name, data in events if name == "word"]
    assert events[0][0] == "question"
    assert [name for name, _ in events[-2:]] == ["complete", "over"]
    assert question == {"module": "fnmatch", "words": len(words)}
    assert "Filename matching" in "".join(words)
    eventually(lambda: demo.get("/answer")[0].status == 404)  # its end is told before its place is free


def test_an_answer_is_stopped_for_all(demo: Demo) -> None:
    with demo.opened("/live") as one, demo.opened("/live") as other:
        demo.get("/answer", method="POST", body="{}")
        question = until(one, lambda name, data: name == "question")
        until(other, lambda name, data: name == "word")
        assert json.loads(demo.get("/answer", method="DELETE")[1]) == {"stopped": True}
        for page in (one, other):
            ended = until(page, lambda name, data: name in ("stopped", "complete"))
            assert ended["run"].startswith("answer-")
        eventually(lambda: json.loads(demo.get("/answer", method="DELETE")[1]) == {"stopped": False})
    assert question["words"] > 40  # or it could have been complete


def test_what_was_missed_comes_again_and_nothing_twice(demo: Demo) -> None:
    with demo.opened("/live") as response:
        demo.get("/answer", method="POST", body="{}")
        until(response, lambda name, data: name == "word")
        while not (line := response.readline().decode()).startswith("id: "):
            pass
        last = line.removeprefix("id: ").strip()
    demo.get("/answer", method="DELETE")
    with demo.opened("/live", headers={"Last-Event-ID": last}) as response:
        until(response, lambda name, data: name == "stopped")
    with demo.opened("/live?lastEventId=0") as response:  # a page that is loaded anew gets what is still held
        assert next_event(response)[0] == "gap"
        until(response, lambda name, data: name == "question" and data["module"] == "")
        until(response, lambda name, data: name == "stopped")


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
    response, words = demo.get("/answer", method="POST", body=body)
    assert response.status == status
    assert response.headers["Content-Type"].startswith("text/plain")
    assert len(words) > 20


@pytest.mark.parametrize("path", ["/answer", "/job", "/crowd"])
def test_methods_and_other_sites_are_refused(demo: Demo, path: str) -> None:
    response, _ = demo.get(path, method="PUT")
    assert response.status == 405
    assert "POST" in response.headers["Allow"]
    for method in ("POST", "DELETE"):
        assert demo.get(path, method=method, headers={"Sec-Fetch-Site": "cross-site"})[0].status == 403
    assert demo.get("/", headers={"Sec-Fetch-Site": "cross-site"})[0].status == 200  # a link


def test_the_job_reports_until_it_is_stopped(demo: Demo) -> None:
    with demo.opened("/live") as response:
        run = json.loads(demo.get("/job", method="POST")[1])["run"]
        progress = [until(response, lambda name, data: name == "progress") for _ in range(3)]
        assert json.loads(demo.get("/job", method="POST")[1]) == {"run": run, "joined": True}
        assert demo.get("/job", method="DELETE")[0].status == 200
        assert until(response, lambda name, data: name == "stopped") == {"run": run}
    done = [report["bytes"] for report in progress]
    assert done == sorted(done)
    assert 0 < done[-1] < progress[0]["total"]


def test_a_job_ends_with_its_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "examples" / "demo"))
    try:
        import job

        events = list(job.pack_installation(max_files=20))
    finally:
        for name in ("job", "library"):
            sys.modules.pop(name, None)
    first, result = json.loads(events[0].data or ""), json.loads(events[-1].data or "")
    assert result["files"] == first["of"] == 20
    assert result["bytes"] == first["total"] > result["packed"] > 0
    assert re.fullmatch("[0-9a-f]{64}", result["sha256"])


def test_a_hundred_streams_are_opened_and_the_page_goes_on(demo: Demo) -> None:
    with demo.opened("/live") as response:
        demo.get("/crowd", method="POST")
        until(response, lambda name, data: name == "crowd" and data["open"] == 100)
        report = until(
            response,
            lambda name, data: (
                name == "process"
                and any(
                    group["path"] == "/crowd/stream" and group["count"] == 100 for group in data["streams"]
                )
            ),
        )
        assert report["held"] == 0, "no thread of the server is held"
        assert json.loads(demo.get("/ping")[1]) == {"pong": True}
        assert json.loads(demo.get("/crowd", method="POST")[1])["joined"], "one crowd at a time"
        demo.get("/crowd", method="DELETE")
        until(response, lambda name, data: name == "stopped" and data["run"].startswith("crowd-"))
        until(response, lambda name, data: name == "process" and data["detached"] < 50)


def test_the_export_has_every_row_of_the_table(demo: Demo, library: dict[str, Any]) -> None:
    response, body = demo.get("/definitions.csv")
    assert response.headers["Content-Type"].startswith("text/csv")
    rows = list(csv.reader(io.StringIO(body.decode())))
    assert rows[0] == ["path", "size", "lines", "line", "kind", "name"]
    assert len(rows) - 1 == library["rows"] > 100
    response, packed = demo.get("/definitions.csv", headers={"Accept-Encoding": "gzip"})
    assert response.headers["Content-Encoding"] == "gzip"
    assert len(packed) < len(body) / 2
    assert gzip.decompress(packed) == body


def test_an_archive_of_the_sources(demo: Demo) -> None:
    response, body = demo.get("/sources.zip")
    assert response.headers["Content-Type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        assert archive.testzip() is None
        assert archive.read("python/heapq.py") == Path(heapq.__file__).read_bytes()


def test_an_archive_comes_no_faster_than_asked(demo: Demo) -> None:
    start = time.monotonic()
    with demo.opened("/sources.zip?rate=100000") as response:
        response.read(150_000)
        assert time.monotonic() - start > 0.2  # a second's worth at once, then at the rate
    for rate in ("0", "9", "-1", "fast", "1e6", "9999999999"):
        assert demo.get(f"/sources.zip?rate={rate}")[0].status == 400, rate


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


def test_two_worker_processes_are_one_demo(tmp_path: Path) -> None:
    pytest.importorskip("gunicorn")
    from tests.live_server import GUNICORN

    command = [sys.executable, *GUNICORN, "--workers", "2", "--threads", "4", "--bind", "127.0.0.1:0"]
    folder = str(ROOT / "examples/demo")
    # Loaded before the fork: hub, library and log have to begin anew in each worker.
    with served(tmp_path, [*command, "--preload", "--chdir", folder, "app:app"]) as demo:
        demo.get("/")
        with contextlib.ExitStack() as pages:
            seen: set[int] = set()
            while len(seen) < 2:  # until both have a page
                page = pages.enter_context(demo.opened("/live"))
                seen.add(until(page, lambda name, data: name == "process")["id"])
            demo.get("/answer", method="POST", body="{}")
            held = [pages.enter_context(demo.opened("/live?lastEventId=0")) for _ in range(4)]
            for page in held:
                until(page, lambda name, data: name == "word")
            demo.get("/answer", method="DELETE")
            for page in held:
                until(page, lambda name, data: name == "stopped")
    printed = (tmp_path / "printed").read_text()
    assert "Traceback" not in printed
    assert "WARNING" not in printed


def test_it_runs_from_one_file(tmp_path: Path) -> None:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    pyz = tmp_path / "streamkit.pyz"
    subprocess.run(["make", "-s", "pyz", f"PYZ={pyz}", f"PYTHON={sys.executable}"], cwd=ROOT, check=True)
    command = [sys.executable, "-I", "-S", str(pyz), "serve", "--port", "0"]
    with served(tmp_path, command, STREAMKIT_DEMO_VAR="", TMPDIR=str(tmp_path)) as demo:
        assert demo.get("/")[0].status == 200
        with demo.opened("/live") as response:
            until(response, lambda name, data: name == "machine")
    assert "Traceback" not in (tmp_path / "printed").read_text()


def test_make_run_installs_a_server_and_nothing_twice(tmp_path: Path) -> None:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    for name in ("Makefile", "setup.cfg", "pyproject.toml"):
        shutil.copy2(ROOT / name, tmp_path)
    (tmp_path / ".venv").mkdir()

    def installs(target: str) -> list[str]:
        """The extras that `make` would install for this target now."""
        command = ["make", "--dry-run", target]
        dry = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
        return re.findall(r"pip install .*\[(\w+)\]", dry.stdout)

    assert installs("run") == ["server"]
    assert installs("test") == installs("check") == ["server", "test"]
    (tmp_path / ".venv/.server").touch()
    assert installs("run") == []
    assert installs("test") == ["test"]
    (tmp_path / ".venv/.installed").touch()
    assert installs("run") == installs("test") == installs("check") == []
    assert installs("bench") == ["bench"]


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
