"""The demo of streamkit: one page, every panel on real data, its code in need of nothing but Python and streamkit.

    python -m streamkit serve
    gunicorn --threads 4 --chdir examples/demo app:app

A page that is in view holds one stream, `/live`, with everything that all pages share (see `together`). What a page
asks for itself (a search, an export, a range) is a stream of its own, and ends by itself.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from crowd import NoAddress, crowd, own_address
from job import pack_installation
from library import EXPORTED, Library, search, source_files
from server_log import keep_server_log
from together import Together
from tokens import UnknownModule, text_about, words

from streamkit import (
    FLUSH,
    CSVResponse,
    EventSourceResponse,
    FileResponse,
    NDJSONResponse,
    StreamingResponse,
    ZipResponse,
    every,
    tail_file,
)
from streamkit.servers.routes import routes_app

Environ = dict[str, Any]

HERE = Path(__file__).resolve().parent
SCRIPTS = ("page.js", "live.js", "parts.js", "plot.js", "readers.js", "requests.js", "runs.js", "server.js")
ASSETS = {"/": "page.html"} | {f"/{name}": name for name in ("page.css", "icon.svg", *SCRIPTS)}
MAX_BODY_BYTES = 4096
MIN_RATE, MAX_RATE = 10_000, 1_000_000_000
BREAK_AFTER_EVENTS, BREAK_AFTER_ROWS = 3, 2500

# Nothing but this server's own files: no inline script, no foreign address, no frame around it.
SECURITY_HEADERS = [
    (
        "Content-Security-Policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("Referrer-Policy", "no-referrer"),
]

log = logging.getLogger("streamkit.demo")


def writable_folder() -> Path:
    """Where log, database and hub live: $STREAMKIT_DEMO_VAR, `var/` beside this file, or a folder of this user's own.

    All worker processes have to come to the same answer. Beside a demo that was unpacked for one run (streamkit.pyz)
    nothing can live: it is removed before the hub is closed.
    """
    own = Path(tempfile.gettempdir(), f"streamkit-demo-{os.getuid()}")
    beside = own if HERE.parent.name.startswith("streamkit-demo-") else HERE / "var"
    for folder in (Path(os.environ.get("STREAMKIT_DEMO_VAR") or beside), own):
        try:
            folder.mkdir(mode=0o700, exist_ok=True, parents=True)
            if folder.stat().st_uid == os.getuid():
                with tempfile.TemporaryFile(dir=folder):
                    return folder.resolve()
        except OSError:
            continue
    return Path(tempfile.mkdtemp(prefix="streamkit-demo-"))


VAR = writable_folder()
LOG = VAR / "server.log"
keep_server_log(LOG)
library = Library(VAR / "library.db")
together = Together(VAR, LOG, library.state)


# -- what all pages share ---------------------------------------------------------------------------------------


def live(environ: Environ) -> EventSourceResponse:
    """Everything that is shared, on one connection; `?lastEventId=` or the browser's header says where to go on."""
    return EventSourceResponse(together.subscribe(), retry=1000)


def server_log(environ: Environ) -> EventSourceResponse:
    """The last lines of the log, then each as it is written: the same as on `/live`, for `curl -N`."""
    return EventSourceResponse(tail_file(LOG, lines=40), retry=2000)


def long_job(environ: Environ) -> Any:
    """POST starts it or joins it, DELETE stops it, GET shows it from its beginning and ends with it."""
    return shared_run(environ, "job", lambda: pack_installation)


def answer(environ: Environ) -> Any:
    """As the job. POST {"module": name}: the words of its docstring, or of Python's licence without a name."""

    def ask() -> Callable[[], Iterator[Any]]:
        length = int(environ.get("CONTENT_LENGTH") or 0)
        if length > MAX_BODY_BYTES:
            raise TooLong(f"The request has {length} bytes, {MAX_BODY_BYTES} are taken.")
        module = str(json.loads(environ["wsgi.input"].read(length) or b"{}").get("module", "")).strip()
        text = text_about(module)
        return lambda: words(module, text)

    try:
        return shared_run(environ, "answer", ask)
    except TooLong as error:
        return refusal(413, str(error))
    except UnknownModule as error:
        return refusal(404, str(error))
    except (ValueError, AttributeError):
        return refusal(400, 'The body has to be JSON: {"module": "json"}')


def a_hundred_streams(environ: Environ) -> Any:
    """As the job: a hundred clients of this server, for some seconds."""
    path = environ.get("SCRIPT_NAME", "") + "/crowd/stream"
    try:
        address = own_address(environ)
    except NoAddress as error:
        return refusal(501, str(error))
    return shared_run(environ, "crowd", lambda: lambda: crowd(address, path))


def crowd_stream(environ: Environ) -> EventSourceResponse:
    """What one of the crowd reads."""
    return EventSourceResponse(together.hub.subscribe("machine"))


def ping(environ: Environ) -> dict[str, bool]:
    """An ordinary answer: the page measures how long it takes."""
    return {"pong": True}


class TooLong(ValueError):
    """The request is larger than anything that makes sense here."""


def shared_run(environ: Environ, topic: str, ask: Callable[[], Callable[[], Any]]) -> Any:
    """Start, stop or show what runs on a topic. `ask` reads the request and returns the producer."""
    method = environ["REQUEST_METHOD"]
    if method == "POST":
        return together.start(topic, ask())
    if method == "DELETE":
        return together.stop(topic)
    if method not in ("GET", "HEAD"):
        return refusal(405, "POST starts, DELETE stops, GET shows.", {"Allow": "GET, HEAD, POST, DELETE"})
    run = together.hub.attach(topic)
    if run is None:
        return refusal(404, "Nothing runs here now. POST starts it.")
    return EventSourceResponse(run.events(), complete="over")


# -- streams that end -------------------------------------------------------------------------------------------


def library_csv(environ: Environ) -> Any:
    """Every function and class with its file's size and lines, compressed for clients that accept it."""
    if (busy := library_is_busy()) is not None:
        return busy
    connection = library.connect()
    cursor = connection.execute(EXPORTED)
    return CSVResponse(
        cursor,
        filename="python-definitions.csv",
        compress=True,
        on_close=lambda stream: connection.close(),
    )


def library_search(environ: Environ) -> Any:
    """?text=…: a JSON line for each line of Python's own source that contains it, as they are found."""
    text = parse_qs(environ.get("QUERY_STRING", "")).get("text", [""])[0]
    if len(text) < 3:
        return refusal(400, "Give at least three characters to search for.")
    return NDJSONResponse(search(text), flush_seconds=0.1)


def library_file(environ: Environ) -> Any:
    """The database itself, whole or a range of its bytes."""
    if (busy := library_is_busy()) is not None:
        return busy
    return FileResponse(library.path, as_attachment=True, headers={"Cache-Control": "no-cache"})


def sources_zip(environ: Environ) -> Any:
    """?rate=BYTES: Python's own source as an archive, made while it is sent, at most so many bytes a second."""
    rate = parse_qs(environ.get("QUERY_STRING", "")).get("rate", [""])[0]
    if rate and not (rate.isascii() and rate.isdigit() and MIN_RATE <= int(rate) <= MAX_RATE):
        return refusal(400, f"rate has to be a whole number of bytes a second, {MIN_RATE} to {MAX_RATE}.")
    return ZipResponse(
        source_files(), filename="python-sources.zip", max_rate=int(rate) if rate else None, deflate=True
    )


# -- streams that break -----------------------------------------------------------------------------------------


class DemonstrationError(RuntimeError):
    """Raised on purpose, in the middle of a stream."""


def broken_events(environ: Environ) -> EventSourceResponse:
    """Three events, then the producer raises: the client gets an `error` event and no clean end."""

    def events() -> Iterator[dict[str, int]]:
        for number in every(0.4, lambda: time.time_ns(), times=BREAK_AFTER_EVENTS):
            yield {"time_ns": number}
        raise DemonstrationError("the producer failed on purpose")

    return EventSourceResponse(events, on_error=lambda error: f"The producer raised {type(error).__name__}.")


def broken_csv(environ: Environ) -> Any:
    """The table again, but its producer raises after 2,500 rows: the download must not look complete."""
    if (busy := library_is_busy()) is not None:
        return busy

    def rows() -> Iterator[tuple[Any, ...]]:
        with closing(library.connect()) as connection:
            for number, row in enumerate(connection.execute(EXPORTED)):
                if number == BREAK_AFTER_ROWS:
                    break
                yield row
        yield FLUSH
        time.sleep(0.5)  # a reset overtakes what is on its way: let the rows be seen first
        raise DemonstrationError("the producer failed on purpose")

    header = ["path", "size", "lines", "line", "kind", "name"]
    return CSVResponse(rows, header=header, filename="broken.csv", flush_bytes=8192)


# -- the site ---------------------------------------------------------------------------------------------------


def refusal(status: int, words: str, headers: dict[str, str] | None = None) -> StreamingResponse:
    """A status with a sentence that the page shows."""
    return StreamingResponse(
        [words + "\n"],
        mimetype="text/plain",
        status=status,
        headers={"Cache-Control": "no-store", **(headers or {})},
    )


def library_is_busy() -> StreamingResponse | None:
    """503 with the progress while the database is being built, 500 where that failed; None when it is there."""
    state = library.state()
    if state.get("ready"):
        return None
    if "error" in state:
        return refusal(500, f"The library database could not be built: {state['error']}")
    so_far = (
        f"{state['files']} of {state['total']} files are read" if "files" in state else "it has just begun"
    )
    return refusal(
        503, f"The library database is being built: {so_far}. Try again soon.", {"Retry-After": "2"}
    )


def asset(environ: Environ) -> FileResponse:
    """One of the page's files; `no-cache` lets a browser keep it, and ask each time whether it is still the same."""
    return FileResponse(HERE / ASSETS[environ["PATH_INFO"] or "/"], headers={"Cache-Control": "no-cache"})


routes = routes_app(
    {
        **dict.fromkeys(ASSETS, asset),
        "/live": live,
        "/log": server_log,
        "/job": long_job,
        "/answer": answer,
        "/crowd": a_hundred_streams,
        "/crowd/stream": crowd_stream,
        "/ping": ping,
        "/definitions.csv": library_csv,
        "/search.ndjson": library_search,
        "/sources.zip": sources_zip,
        "/library.db": library_file,
        "/broken/events": broken_events,
        "/broken/definitions.csv": broken_csv,
    }
)


def from_another_site(environ: Environ) -> bool:
    """Whether a browser says that the page of another site asks (Fetch Metadata); others say nothing."""
    return environ.get("HTTP_SEC_FETCH_SITE") in ("cross-site", "same-site")


def app(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
    """The WSGI application: the routes, security headers, and a sentence for what goes wrong before the first byte."""

    def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        return start_response(status, [*headers, *SECURITY_HEADERS], exc_info)

    try:
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD") and from_another_site(environ):
            return refusal(403, "This comes from another site's page.")(environ, start)  # type: ignore[no-any-return]
        return routes(environ, start)
    except Exception as error:
        log.exception("%s %s failed", environ["REQUEST_METHOD"], ascii(environ.get("PATH_INFO", "")))
        words = f"The server made a mistake ({type(error).__name__}); its log has the traceback.\n"
        headers = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(words)))]
        start(status="500 Internal Server Error", headers=headers)
        return [words.encode()]
