"""A WSGI application of tables, records and archives, whole and broken, for tests with real clients."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from streamkit import CSVResponse, NDJSONResponse
from streamkit.responses.zip_archive import ZipResponse

ROWS = 20_000
SELECT = f"""
    with recursive n(id) as (select 1 union all select id + 1 from n limit {ROWS})
    select id, 'row ' || id as name, id * 0.5 as half from n
"""


def cursor() -> CSVResponse:
    connection = sqlite3.connect(":memory:")  # in the request: its cursor belongs to this thread
    response = CSVResponse(connection.execute(SELECT), filename="table.csv", compress=True)
    response.call_on_close(connection.close)
    return response


def broken(items: Iterable[Any]) -> Iterator[Any]:
    yield from items
    raise RuntimeError("the database went away")


def rows() -> Iterator[tuple[int, str]]:
    return ((n, f"row {n}") for n in range(ROWS))


def blocks() -> Iterator[bytes]:
    return (b"x" * 10_000 for _ in range(100))


ROUTES: dict[str, Callable[[], Any]] = {
    "/table.csv": cursor,
    "/broken.csv": lambda: CSVResponse(broken(rows()), header=["id", "name"], compress=True),
    "/records": lambda: NDJSONResponse(({"id": n} for n in range(ROWS)), closing_record=True),
    "/stored.zip": lambda: ZipResponse(
        [("a.txt", b"abc"), ("d\xe4/code.py", Path(__file__)), ("empty/", b"")]
    ),
    "/deflated.zip": lambda: ZipResponse([("a.txt", b"abc"), ("b", blocks())], deflate=True),
    "/broken.zip": lambda: ZipResponse([("a.txt", b"abc"), ("b", broken(blocks()))]),
}


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    route = ROUTES.get(environ["PATH_INFO"])
    if route is None:
        start_response("404 Not Found", [("Content-Type", "text/plain")])
        return [b"no such route"]
    return route()(environ, start_response)  # type: ignore[no-any-return]
