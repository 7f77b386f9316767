"""Streams as Flask views return them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

from flask import Flask, abort, g, request

from streamkit import CSVResponse, EventSourceResponse, NDJSONResponse

app = Flask(__name__)


@app.before_request
def name() -> None:
    g.user = request.args.get("user", "nobody")


@app.errorhandler(404)
def missing(error: Exception) -> tuple[str, int]:
    return "the application's own page", 404


@app.get("/events")
def events() -> Any:
    def generate() -> Iterator[str]:
        for n in range(3):
            yield f"{g.user} asked for {request.path}, {n}"

    return EventSourceResponse(generate())


@app.get("/cursor")
def cursor() -> Any:
    connection = sqlite3.connect(":memory:")
    rows = connection.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n LIMIT 3) SELECT i, i*i AS square FROM n"
    )
    response = CSVResponse(rows, filename="squares.csv")
    response.call_on_close(connection.close)
    return response


@app.get("/records")
def records() -> Any:
    connection = sqlite3.connect(":memory:")
    return NDJSONResponse(connection.execute("SELECT 1 AS a"), on_close=lambda stream: connection.close())


@app.get("/missing")
def abort_early() -> Any:
    def rows() -> Iterator[list[int]]:
        abort(404)
        yield [1]

    return CSVResponse(rows())


@app.get("/callable")
def callable_events() -> Any:
    def start() -> Iterator[str]:
        abort(403)
        return iter(())

    return EventSourceResponse(start)
