"""The demo of streamkit: one page, every panel on real data, nothing installed but Python and streamkit.

    python -m streamkit serve
    gunicorn --threads 4 --chdir examples/demo app:app

A page that is in view holds two streams: `/live` (machine, list of streams, state of the library) and `/log`.
Everything else ends by itself.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from job import pack_installation
from library import Library, search
from machine import Meter
from server_log import keep_server_log
from tokens import UnknownModule, text_about, words

from streamkit import (
    FLUSH,
    CSVResponse,
    EventSourceResponse,
    FileResponse,
    NDJSONResponse,
    ServerSentEvent,
    StreamingResponse,
    every,
    streams,
    tail_file,
)
from streamkit.servers.routes import routes_app

Environ = dict[str, Any]

HERE = Path(__file__).resolve().parent
ASSETS = {"/": "page.html"} | {
    f"/{name}": name for name in ("page.css", "page.js", "plot.js", "readers.js", "icon.svg")
}
MAX_BODY_BYTES = 4096
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
    """Where the log and the database live: $STREAMKIT_DEMO_VAR, `var/` beside this file, or a temporary folder."""
    folder = Path(os.environ.get("STREAMKIT_DEMO_VAR") or HERE / "var")
    try:
        folder.mkdir(exist_ok=True, parents=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder.resolve()
    except OSError:
        return Path(tempfile.mkdtemp(prefix="streamkit-demo-"))


VAR = writable_folder()
LOG = VAR / "server.log"
keep_server_log(LOG)
library = Library(VAR / "library.db")
ended: deque[dict[str, object]] = deque(maxlen=8)
"""The records of the last token streams that ended, so that the page can say how the server saw it."""


# -- the two streams that a page holds --------------------------------------------------------------------------


def live(environ: Environ) -> EventSourceResponse:
    """Once a second: `machine`, `streams`, and `library` while that is news."""

    def events() -> Iterator[ServerSentEvent]:
        told: dict[str, Any] | None = None
        for sample in every(1.0, Meter().read):
            yield ServerSentEvent(sample, event="machine")
            records = [stream.as_dict() for stream in streams]
            yield ServerSentEvent({"live": records, "ended": list(ended)}, event="streams")
            state = library.state()
            if state != told:
                told = state
                yield ServerSentEvent(state, event="library")

    return EventSourceResponse(events, retry=2000)


def server_log(environ: Environ) -> EventSourceResponse:
    """The last lines of the log, then each as it is written."""
    return EventSourceResponse(tail_file(LOG, lines=40), retry=2000)


# -- streams that end -------------------------------------------------------------------------------------------


def token_stream(environ: Environ) -> Any:
    """POST {"module": name}: the words of its docstring (of Python's licence without a name), then `[DONE]`."""
    if environ["REQUEST_METHOD"] != "POST":
        return refusal(405, "Send the name of a module by POST.", {"Allow": "POST"})
    try:
        length = int(environ.get("CONTENT_LENGTH") or 0)
        if length > MAX_BODY_BYTES:
            return refusal(413, f"The request has {length} bytes, {MAX_BODY_BYTES} are taken.")
        module = json.loads(environ["wsgi.input"].read(length) or b"{}").get("module", "")
        text = text_about(str(module).strip())
    except UnknownModule as error:
        return refusal(404, str(error))
    except (ValueError, AttributeError):
        return refusal(400, 'The body has to be JSON: {"module": "json"}')
    return EventSourceResponse(
        lambda: words(text), done="[DONE]", on_close=lambda stream: ended.append(stream.as_dict())
    )


def long_job(environ: Environ) -> EventSourceResponse:
    """`progress` events, one `result`, and a `done` event under an id that no reconnect runs twice."""
    return EventSourceResponse(pack_installation, complete="done")


def library_csv(environ: Environ) -> Any:
    """The whole table `definitions` as a download."""
    if (busy := library_is_busy()) is not None:
        return busy
    connection = library.connect()
    cursor = connection.execute("select path, line, kind, name from definitions order by rowid")
    return CSVResponse(cursor, filename="python-definitions.csv", on_close=lambda stream: connection.close())


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
            for number, row in enumerate(
                connection.execute("select path, line, kind, name from definitions")
            ):
                if number == BREAK_AFTER_ROWS:
                    break
                yield row
        yield FLUSH
        time.sleep(0.5)  # a reset overtakes what is on its way: let the rows be seen first
        raise DemonstrationError("the producer failed on purpose")

    return CSVResponse(rows, header=["path", "line", "kind", "name"], filename="broken.csv", flush_bytes=8192)


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
        "/tokens": token_stream,
        "/job": long_job,
        "/definitions.csv": library_csv,
        "/search.ndjson": library_search,
        "/library.db": library_file,
        "/broken/events": broken_events,
        "/broken/definitions.csv": broken_csv,
    }
)


def app(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
    """The WSGI application: the routes, security headers, and a sentence for what goes wrong before the first byte."""

    def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        return start_response(status, [*headers, *SECURITY_HEADERS], exc_info)

    try:
        return routes(environ, start)
    except Exception as error:
        log.exception("%s %s failed", environ["REQUEST_METHOD"], ascii(environ.get("PATH_INFO", "")))
        words = f"The server made a mistake ({type(error).__name__}); its log has the traceback.\n"
        headers = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(words)))]
        start(status="500 Internal Server Error", headers=headers)
        return [words.encode()]
