"""What docs/faq.md claims beside its recipes (those are in `test_readme`): its scripts in a browser, its platforms.

And the one line of script in the README.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import queue
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from streamkit import EventSourceResponse, FileResponse, ServerSentEvent
from streamkit.servers.http_server import StreamServer
from tests.conftest import ROOT
from tests.live_server import LiveServer
from tests.services import program
from tests.test_examples import started
from tests.test_readme import BLOCKS, RECIPES
from tests.wire.test_browser import browsing

FAQ = (ROOT / "docs" / "faq.md").read_text()
SCRIPTS = {
    name[1]: text
    for language, text in BLOCKS
    if language == "javascript" and (name := re.match(r"// (\w+\.js)", text))
}
REPORT = 'const report = (seen) => fetch("/report", { method: "POST", body: JSON.stringify(seen) });\n'

WSGIApplication = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def application(recipe: str, **replaced: str) -> Any:
    """The `app` of a recipe, as it is or with some of its words replaced."""
    code = RECIPES[recipe]
    for old, new in replaced.items():
        code = code.replace(old, new)
    names: dict[str, Any] = {"__name__": __name__}
    exec(compile(code, f"{recipe}.py", "exec"), names)
    return names["app"]


@contextlib.contextmanager
def page(files: dict[str, str], folder: Path, beside: WSGIApplication | None = None) -> Iterator[Any]:
    """Serve a page that runs `page.js` and is logged in. Yields its URL and a queue of what it reports."""
    reports: queue.Queue[Any] = queue.Queue()
    for name, text in files.items():
        (folder / name).write_text(text)

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        name = environ["PATH_INFO"].removeprefix("/")
        if name == "report":
            reports.put(json.loads(environ["wsgi.input"].read()))
        elif name in files:
            response: Iterable[bytes] = FileResponse(name, directory=folder)(environ, start_response)
            return response
        elif beside is not None and name:
            return beside(environ, start_response)
        cookie = ("Set-Cookie", "login=Ada; Path=/")
        start_response("200 OK", [("Content-Type", "text/html; charset=utf-8"), cookie])
        return [b'<!doctype html><title>test</title><script type="module" src="page.js"></script>']

    with StreamServer(app, port=0) as server:
        server.start()
        yield server.url, reports


def reported(files: dict[str, str], folder: Path, beside: WSGIApplication) -> Any:
    """What the page reports, shown by Chromium."""
    chromium = program("chromium", "chromium-browser", "google-chrome")
    with page(files, folder, beside) as (url, reports), browsing(chromium, url, folder / "profile"):
        return reports.get(timeout=60)


def test_the_line_of_the_readme_reads_its_first_recipe(tmp_path: Path) -> None:
    pytest.importorskip("flask")
    (line,) = re.findall(r"^`(new EventSource\(.*)`", (ROOT / "README.md").read_text(), re.MULTILINE)
    collect = "const seen = []; console.log = (data) => { if (seen.push(data) === 3) report(seen); };\n"
    seen = reported({"page.js": REPORT + collect + line}, tmp_path, application("ticks"))
    assert seen == [f'{{"hello":"Ada","tick":{number}}}' for number in range(3)]


def test_the_script_reads_the_answer_of_the_readme(tmp_path: Path) -> None:
    pytest.importorskip("flask")
    seen = reported(
        {
            "ask.js": SCRIPTS["ask.js"],
            "page.js": SCRIPTS["answer.js"] + REPORT + "report({ answer, complete });",
        },
        tmp_path,
        application("answer"),
    )
    assert seen == {"answer": "Hello world", "complete": True}


def test_the_script_reads_events_cut_anywhere_and_leaves(tmp_path: Path) -> None:
    left = threading.Event()
    events = [
        ServerSentEvent("two\nlines: \u00e4 \U0001f600", event="named", id="a: 1"),
        ServerSentEvent(comment="nothing"),
        ServerSentEvent(""),
        ServerSentEvent({"n": 1}, retry=5),
    ]
    wire = b"".join([b":\n", *(event.encode() for event in events), b"data: unfinished"])

    def endless() -> Iterator[object]:
        try:
            for number in itertools.count():
                yield number
                assert not left.wait(0.05)
        finally:
            left.set()

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        assert environ["REQUEST_METHOD"] == "POST"
        if environ["PATH_INFO"] == "/refused":
            start_response("403 Forbidden", [("Content-Length", "0")])
            return []
        if environ["PATH_INFO"] == "/endless":
            response: Iterable[bytes] = EventSourceResponse(endless())(environ, start_response)
            return response
        start_response("200 OK", [("Content-Type", "text/event-stream")])
        return [bytes([byte]) for byte in wire]

    script = """import { ask } from "./ask.js";
    const seen = [];
    for await (const event of ask("/cut")) seen.push(event);
    for await (const { data } of ask("/endless")) { seen.push(data); break; }
    try { for await (const event of ask("/refused")); } catch (error) { seen.push(error.message); }
    report(seen);"""
    seen = reported({"ask.js": SCRIPTS["ask.js"], "page.js": REPORT + script}, tmp_path, app)
    assert seen == [
        {"event": "named", "id": "a: 1", "data": "two\nlines: \u00e4 \U0001f600"},
        {"event": "message", "id": "", "data": ""},
        {"event": "message", "id": "", "data": '{"n":1}'},
        "0",
        "the server answered 403",
    ]
    assert left.wait(30)


def test_a_page_of_another_origin_reads_with_its_cookies_and_comes_back_without_a_preflight(
    tmp_path: Path,
) -> None:
    pytest.importorskip("flask")
    chromium = program("chromium", "chromium-browser", "google-chrome")
    requests: list[tuple[str, str | None, str | None]] = []
    recipe: list[Any] = []

    def stream(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        names = ("REQUEST_METHOD", "HTTP_LAST_EVENT_ID", "HTTP_COOKIE")
        requests.append(tuple(environ.get(name) for name in names))  # type: ignore[arg-type]
        response: Iterable[bytes] = recipe[0](environ, start_response)
        return response

    collect = """const seen = [];
    console.log = (id, data) => { if (seen.push([id, data.tick]) === 4) report(seen); };
    """
    with StreamServer(stream, port=0) as server:
        server.start()
        script = SCRIPTS["cors.js"].replace("http://127.0.0.1:8000", server.url)
        assert server.url in script
        with page({"page.js": REPORT + collect + script}, tmp_path) as (url, reports):
            recipe.append(application("cors", **{"http://127.0.0.1:9000": url}))
            with browsing(chromium, url, tmp_path / "profile"):
                assert reports.get(timeout=60) == [["1", 1], ["2", 2], ["3", 3], ["4", 4]]
    assert requests[:2] == [("GET", None, "login=Ada"), ("GET", "2", "login=Ada")]
    assert {method for method, _, _ in requests} == {"GET"}


DJANGO = """
import os
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse, StreamingHttpResponse
from django.urls import path
from streamkit import EventSourceResponse, every

settings.configure(
    ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="only here", MIDDLEWARE=os.environ["MIDDLEWARE"].split()
)


def beats(request):
    response = EventSourceResponse(every(0.1, lambda: "beat"))
    body, status, headers = response.get_wsgi_response(request.environ)
    return StreamingHttpResponse(body, status=int(status.split()[0]), headers=dict(headers))


urlpatterns = [
    path("", beats),
    path("page", lambda request: HttpResponse("page")),
    path("itself", lambda request: EventSourceResponse([])),
]
app = get_wsgi_application()
"""


def open_stream(server: LiveServer) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", server.port), timeout=30)
    sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip\r\n\r\n")
    return sock


def test_django_streams_leave_the_threads_and_its_gzip_holds_them_back(tmp_path: Path) -> None:
    pytest.importorskip("django")
    pytest.importorskip("gunicorn")
    lines = re.search(r"    body, status, headers = .*\n    return StreamingHttpResponse.*\n", FAQ)
    assert lines
    assert lines[0] in DJANGO
    assert lines[0] in (ROOT / "examples" / "04_django_view.py").read_text()
    (tmp_path / "beats.py").write_text(DJANGO)
    with (
        started("MIDDLEWARE= gunicorn --threads 2 beats:app", tmp_path, cwd=tmp_path) as server,
        contextlib.ExitStack() as stack,
    ):
        for _ in range(4):
            sock = stack.enter_context(open_stream(server))
            received = b""
            while b"data: beat" not in received:
                received += sock.recv(4096)
        assert server.get("/page")[1] == b"page"
        assert server.get("/itself")[0].status == 500
    gzip = "django.middleware.gzip.GZipMiddleware"
    with (
        started(f"MIDDLEWARE={gzip} gunicorn --threads 2 beats:app", tmp_path, cwd=tmp_path) as server,
        open_stream(server) as sock,
        sock.makefile("rb") as answer,
    ):
        for line in answer:
            if line == b"\r\n":
                break
        size = int(answer.readline(), 16)
        assert len(answer.read(size + 2)) == size + 2  # one chunk, the head of gzip
        sock.settimeout(1)
        with pytest.raises(TimeoutError):  # and none of some ten events
            answer.read(1)


ENDURING = """
import os
from streamkit import EventSourceResponse, every

def app(environ, start_response):
    times = int(os.environ["BEATS"])
    return EventSourceResponse(every(0.2, lambda: "beat", times=times))(environ, start_response)
"""


@pytest.mark.parametrize(
    ("environ", "options", "killed"),
    [
        ("STREAMKIT_DELIVERY=auto", "", False),
        ("STREAMKIT_DELIVERY=auto", "--threads 2 ", False),
        ("STREAMKIT_DELIVERY=threaded", "", True),
        ("STREAMKIT_DELIVERY=threaded", "--threads 2 ", False),
    ],
)
def test_whom_the_timeout_of_gunicorn_kills(environ: str, options: str, killed: bool, tmp_path: Path) -> None:
    pytest.importorskip("gunicorn")
    (tmp_path / "enduring.py").write_text(ENDURING)
    # Longer than the timeout, which is one that a worker on a busy machine keeps; who is killed has time to be.
    beats = 200 if killed else 25
    command = f"BEATS={beats} {environ} gunicorn --timeout 3 {options}enduring:app"
    with started(command, tmp_path, cwd=tmp_path) as server:
        if killed:
            with pytest.raises((http.client.IncompleteRead, ConnectionError)):
                server.get("/")
        else:
            assert server.get("/")[1].count(b"data: beat") == beats
        assert ("WORKER TIMEOUT" in server.log()) is killed


def test_four_threaded_streams_fill_four_threads(tmp_path: Path) -> None:
    """Each holds one, which is what STREAMKIT_DELIVERY=threaded asks for."""
    pytest.importorskip("gunicorn")
    (tmp_path / "enduring.py").write_text(ENDURING)
    command = "BEATS=200 STREAMKIT_DELIVERY=threaded gunicorn --threads 4 enduring:app"
    with started(command, tmp_path, cwd=tmp_path) as server, contextlib.ExitStack() as stack:
        for _ in range(4):
            sock = stack.enter_context(open_stream(server))
            assert b"HTTP/1.1 200" in sock.recv(4096)
        with open_stream(server) as fifth:
            fifth.settimeout(1)
            with pytest.raises(TimeoutError):
                fifth.recv(1)


def test_on_windows_a_response_cannot_be_imported_and_the_client_can() -> None:
    """Where there is no `fcntl` and no `resource`, as on Windows."""
    code = """
import sys
sys.modules["fcntl"] = sys.modules["resource"] = None
import streamkit
streamkit.EventSource, streamkit.Hub("memory://").close()
try:
    streamkit.EventSourceResponse
except ModuleNotFoundError as error:
    print(error.name)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=30, env={**os.environ}
    )
    assert (done.stdout, done.stderr) == ("fcntl\n", "")
