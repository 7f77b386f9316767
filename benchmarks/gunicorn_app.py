"""The applications that gunicorn runs for the benchmarks."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from benchmarks.tables import Row, rows
from streamkit import (
    CSVResponse,
    EventSourceResponse,
    FileResponse,
    JSONArrayResponse,
    JSONSeqResponse,
    NDJSONResponse,
    StreamingResponse,
)

PAUSE = 0.03  # seconds; well above what is allowed for the first byte
CSV_ROWS = 200_000

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]


def bare(environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
    """What a stream costs at the least: a generator, no framework."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield b"first\n"
    time.sleep(PAUSE)
    yield b"second\n"


# ---- the export


def csv_application() -> Application:
    """A Flask application with the usual recipe for CSV, and the same table by streamkit."""
    from flask import Flask, Response

    app = Flask(__name__)
    table: list[Row] = []

    def prepared() -> list[Row]:
        if not table:
            table.extend(rows(CSV_ROWS))
        return table

    @app.get("/bare")
    def up() -> str:
        prepared()
        return "up"

    @app.get("/recipe")
    def recipe() -> Response:
        def generate() -> Iterator[str]:
            data = io.StringIO()
            writer = csv.writer(data)
            for row in prepared():
                writer.writerow(row)
                yield data.getvalue()
                data.seek(0)
                data.truncate(0)

        return Response(generate(), mimetype="text/csv")

    @app.get("/streamkit")
    def streamkit() -> CSVResponse:
        return CSVResponse(prepared())

    return app


# ---- the first byte of every class


def _paused(*items: Any) -> Iterator[Any]:
    for item in items:
        yield item
        time.sleep(PAUSE)


def _silent() -> Iterator[str]:
    time.sleep(PAUSE)
    yield "late"


def _write(out: Any) -> None:
    out.write(b"first\n")
    out.flush()
    time.sleep(PAUSE)
    out.write(b"second\n")


_RESPONSES: dict[str, Callable[[], Any]] = {
    "/EventSourceResponse": lambda: EventSourceResponse(_paused("first", "second")),
    "/EventSourceResponse-silent-producer": lambda: EventSourceResponse(_silent()),
    "/EventSourceResponse-on-the-request-thread": lambda: EventSourceResponse(
        _paused("first", "second"), delivery="threaded", heartbeat=None
    ),
    "/StreamingResponse": lambda: StreamingResponse(_paused(b"first\n", b"second\n")),
    "/StreamingResponse.from_writer": lambda: StreamingResponse.from_writer(_write),
    "/CSVResponse": lambda: CSVResponse(_paused((1, "first"), (2, "second"))),
    "/NDJSONResponse": lambda: NDJSONResponse(_paused({"n": 1}, {"n": 2})),
    "/JSONSeqResponse": lambda: JSONSeqResponse(_paused({"n": 1}, {"n": 2})),
    "/JSONArrayResponse": lambda: JSONArrayResponse(_paused({"n": 1}, {"n": 2})),
    "/FileResponse": lambda: FileResponse(__file__),
}

FIRST_BYTE_PATHS = tuple(_RESPONSES)


def first_byte_app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Each response class under a path of its own, without a framework around it."""
    path = environ["PATH_INFO"]
    if path == "/bare":
        return bare(environ, start_response)
    answer: Iterable[bytes] = _RESPONSES[path]()(environ, start_response)
    return answer


def __getattr__(name: str) -> Application:
    # Flask is imported only by the server that needs it, and the rest of the module stays plain WSGI.
    if name == "csv_app":
        return csv_application()
    raise AttributeError(name)
