"""Tables from a real SQLite table of ten mixed columns against the bare loops that people write, in wall time (the
lower quartile of the turns: a busy neighbour makes one half as long again); what flushing costs gzip; and the peak of
the memory of large exports over that of the idle process.
"""

from __future__ import annotations

import csv
import itertools
import os
import sqlite3
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measure import Figure, chunks_of, lower_quartiles, medians, must_agree
from streamkit import CSVResponse, NDJSONResponse
from streamkit.responses.zip_archive import ZipResponse

ROOT = Path(__file__).resolve().parent.parent
MEBIBYTE = 1 << 20
GIBIBYTE = 1 << 30
STORED_ROWS = 100_000
ROUNDS = 21
CHUNK_BYTES = 64 * 1024
EXPORT_ROWS = 5_000_000
ZIP_BYTES = 4 * GIBIBYTE

Row = tuple[int, str, float, str, int, bool, None, float, str, str]


def row(n: int) -> Row:
    """Ten mixed cells, about 90 bytes as CSV; one of them has to be quoted."""
    return (
        n,
        f"customer {n % 1000}",
        n / 7,
        "DE",
        n % 50,
        n % 2 == 0,
        None,
        19.99,
        "2026-11-21",
        'a "note", quoted' if n % 10 == 0 else "a plain note",
    )


def record(n: int) -> dict[str, object]:
    """About 150 bytes as a line of JSON."""
    return {
        "id": n,
        "customer": f"customer {n % 1000}",
        "price": 19.99,
        "country": "DE",
        "count": n % 50,
        "paid": n % 2 == 0,
        "voucher": None,
        "day": "2026-11-21",
        "note": "a plain note",
    }


def rows(count: int) -> Iterator[Row]:
    """`count` rows, one at a time."""
    return map(row, range(count))


def records(count: int) -> Iterator[dict[str, object]]:
    """`count` records, one at a time."""
    return map(record, range(count))


class Stored:
    """`STORED_ROWS` rows in an SQLite file, and the two ways of sending them, each from a cursor of its own."""

    QUERY = "SELECT * FROM orders"

    def __init__(self, path: Path) -> None:
        names = ["id", "customer", "price", "country", "count", "paid", "voucher", "total", "day", "note"]
        self.connection = sqlite3.connect(path)
        self.connection.execute(f"CREATE TABLE orders ({', '.join(names)})")
        self.connection.executemany(f"INSERT INTO orders VALUES ({'?, ' * 9}?)", rows(STORED_ROWS))
        self.connection.commit()
        self.names = names

    def bare_csv(self) -> list[str]:
        """`csv.writer` into a list, the cheapest file there is; no header, no bytes, no chunks, no checks."""
        lines: list[str] = []

        class Lines:
            write = lines.append

        writer = csv.writer(Lines())
        for row in self.connection.execute(self.QUERY):
            writer.writerow(row)
        return lines

    def csv(self) -> list[bytes]:
        """All chunks of the response, as a server would get them."""
        return list(chunks_of(CSVResponse(self.connection.execute(self.QUERY))))

    def records(self) -> sqlite3.Cursor:
        """A cursor whose rows are dicts, by the recipe of the `sqlite3` documentation."""
        cursor = self.connection.cursor()
        names = self.names
        cursor.row_factory = lambda _, row: dict(zip(names, row, strict=True))
        return cursor.execute(self.QUERY)

    def bare_ndjson(self) -> list[bytes]:
        """`orjson.dumps` of every row."""
        from orjson import dumps

        lines = []
        for item in self.records():
            lines.append(dumps(item) + b"\n")  # noqa: PERF401 (the loop that people write)
        return lines

    def ndjson(self) -> list[bytes]:
        """All chunks of the response, as a server would get them."""
        from orjson import dumps

        return list(chunks_of(NDJSONResponse(self.records(), dumps=dumps)))


def figures() -> Iterator[Figure]:
    """Five figures."""
    with tempfile.TemporaryDirectory() as folder:
        stored = Stored(Path(folder) / "orders.db")
        text = "".join(stored.bare_csv()).encode()
        body = b"".join(stored.csv())
        must_agree("the table", {"bare": text, "streamkit": body.partition(b"\r\n")[2]})
        taken = lower_quartiles({"bare": stored.bare_csv, "streamkit": stored.csv}, rounds=ROUNDS)
        yield _speed("CSV from SQLite: streamkit / cursor to csv.writer", taken, 0.9)
        answers = {"bare": b"".join(stored.bare_ndjson()), "streamkit": b"".join(stored.ndjson())}
        must_agree("the records", answers)
        taken = lower_quartiles({"bare": stored.bare_ndjson, "streamkit": stored.ndjson}, rounds=ROUNDS)
        yield _speed("NDJSON from SQLite: streamkit / cursor to orjson.dumps", taken, 0.8)
        stored.connection.close()
    yield _flushing(body)
    for what, wanted in (("csv", f"{EXPORT_ROWS:,} rows"), ("zip", f"{ZIP_BYTES / GIBIBYTE:.0f} GiB")):
        sent, idle, peak = _measured(what)
        yield Figure(
            f"{what}: peak of the memory over idle, {wanted}",
            (peak - idle) / MEBIBYTE,
            16.0,
            False,
            f"{idle / MEBIBYTE:.1f} to {peak / MEBIBYTE:.1f} MiB, {sent / MEBIBYTE:,.0f} MiB sent",
            unit="MiB",
        )


def _speed(name: str, taken: dict[str, float], wanted: float) -> Figure:
    own, peer = taken["streamkit"], taken["bare"]
    thousands = f"{STORED_ROWS / own / 1e3:.0f} / {STORED_ROWS / peer / 1e3:.0f} k rows/s"
    return Figure(name, peer / own, wanted, True, thousands)


def _flushing(body: bytes) -> Figure:
    """gzip of a table in chunks of 64 KiB, each flushed, against the same compressor that is never flushed."""
    from streamkit.formats import content_codings as codings

    chunks = [body[start : start + CHUNK_BYTES] for start in range(0, len(body), CHUNK_BYTES)]

    def flushed() -> int:
        coder = codings.compressor("gzip")
        return sum([len(coder.compress(chunk)) for chunk in chunks]) + len(coder.finish())

    def unflushed() -> int:
        window = codings.GZIP_FORMAT + codings.GZIP_WINDOW_BITS
        coder = zlib.compressobj(codings.GZIP_LEVEL, zlib.DEFLATED, window, codings.GZIP_MEMORY_LEVEL)
        return sum([len(coder.compress(chunk)) for chunk in chunks]) + len(coder.flush())

    taken = medians({"flushed": flushed, "unflushed": unflushed}, rounds=ROUNDS)
    percents = f"{100 * flushed() / len(body):.1f} / {100 * unflushed() / len(body):.1f} % of the size"
    speeds = " / ".join(f"{len(body) / taken[side] / 1e6:.0f}" for side in ("flushed", "unflushed"))
    return Figure(
        "gzip flushed every 64 KiB / never, time",
        taken["flushed"] / taken["unflushed"],
        1.1,
        False,
        f"{speeds} MB/s, {percents}",
    )


def export(what: str) -> None:
    """Run in a process of its own: print the bytes sent, and the peaks of the memory when idle and at the end."""
    from benchmarks.memory import peak_bytes

    with tempfile.TemporaryDirectory() as folder:
        sparse = Path(folder) / "zeros"  # takes no space on the disk, and is read like any other
        sparse.touch()
        os.truncate(sparse, ZIP_BYTES if what == "zip" else 0)
        table = itertools.repeat(row(7), EXPORT_ROWS)
        response = ZipResponse([("zeros", sparse)]) if what == "zip" else CSVResponse(table)
        idle = peak_bytes()
        sent = 0
        for chunk in chunks_of(response):
            sent += len(chunk)
        print(sent, idle, peak_bytes())


def _measured(what: str) -> tuple[int, int, int]:
    done = subprocess.run(
        [sys.executable, "-c", f"from benchmarks.tables import export; export({what!r})"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
        capture_output=True,
        text=True,
        timeout=300,
    )
    sent, idle, peak = map(int, done.stdout.split())
    return sent, idle, peak
