"""NDJSON of 100,000 records of about 150 bytes: the chunks against a bare loop of `json.dumps`. In wall time."""

from __future__ import annotations

import json
from collections.abc import Iterator

from benchmarks.measure import Figure, chunks_of, medians, must_agree
from benchmarks.tables import records
from streamkit import NDJSONResponse

RECORDS = 100_000
ROUNDS = 7

Record = dict[str, object]


def bare(table: list[Record]) -> list[str]:
    """What most applications write; with the spaces that `json.dumps` leaves, and not turned into bytes."""
    lines = []
    for record in table:
        lines.append(json.dumps(record) + "\n")  # noqa: PERF401 (the loop that people write)
    return lines


def chunks(table: list[Record]) -> list[bytes]:
    """All chunks of the response, as a server would get them."""
    return list(chunks_of(NDJSONResponse(table)))


def figures() -> Iterator[Figure]:
    """One figure."""
    table = list(records(RECORDS))
    must_agree(
        "the records",
        {
            "bare": [json.loads(line) for line in bare(table)],
            "streamkit": [json.loads(line) for line in b"".join(chunks(table)).splitlines()],
        },
    )
    taken = medians({"bare": lambda: bare(table), "streamkit": lambda: chunks(table)}, rounds=ROUNDS)
    own, peer = taken["streamkit"], taken["bare"]
    yield Figure(
        "chunks: streamkit / json.dumps loop",
        peer / own,
        0.85,
        True,
        f"{RECORDS / own / 1e3:.0f} / {RECORDS / peer / 1e3:.0f} k records/s",
    )
