"""CSV of 200,000 rows of ten mixed cells: the chunks alone against a bare `csv.writer` loop, and a whole export through
gunicorn against the usual Flask recipe (one `yield` per row). In wall time.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

from benchmarks.gunicorn_server import gunicorn, read_all, read_body
from benchmarks.measure import Figure, chunks_of, medians, must_agree
from benchmarks.tables import Row, rows
from streamkit import CSVResponse

ROWS = 200_000
ROUNDS = 7
EXPORT_ROUNDS = 5


def bare(table: list[Row]) -> str:
    """What the encoding costs at the least: nothing is checked, and the text is not even turned into bytes."""
    text = io.StringIO()
    writer = csv.writer(text)
    for row in table:
        writer.writerow(row)
    return text.getvalue()


def chunks(table: list[Row]) -> list[bytes]:
    """All chunks of the response, as a server would get them."""
    return list(chunks_of(CSVResponse(table)))


def figures() -> Iterator[Figure]:
    """Two figures."""
    table = list(rows(ROWS))
    must_agree("the table", {"bare": bare(table).encode(), "streamkit": b"".join(chunks(table))})
    taken = medians(
        {"bare": lambda: bare(table), "streamkit": lambda: chunks(table)},
        rounds=ROUNDS,
    )
    yield _figure("chunks: streamkit / csv.writer loop", taken, "bare", 0.85)
    with gunicorn("benchmarks.gunicorn_app:csv_app") as port:
        must_agree("the export", {path: read_body(port, path) for path in ("/recipe", "/streamkit")})
        taken = medians(
            {"recipe": lambda: read_all(port, "/recipe"), "streamkit": lambda: read_all(port, "/streamkit")},
            rounds=EXPORT_ROUNDS,
        )
    yield _figure("export through gunicorn: streamkit / Flask recipe", taken, "recipe", 4.0)


def _figure(name: str, taken: dict[str, float], peer: str, wanted: float) -> Figure:
    own = taken["streamkit"]
    thousands = f"{ROWS / own / 1e3:.0f} / {ROWS / taken[peer] / 1e3:.0f} k rows/s"
    return Figure(name, taken[peer] / own, wanted, True, thousands)
