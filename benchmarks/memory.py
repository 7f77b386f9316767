"""Peak memory of an export of 1,000,000 rows, less that of 1,000 rows, each in a process of its own."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from statistics import median

from benchmarks.gunicorn_server import ROOT
from benchmarks.measure import Figure, chunks_of
from benchmarks.tables import records, rows
from streamkit import CSVResponse, NDJSONResponse

FEW = 1_000
MANY = 1_000_000
MEBIBYTE = 1 << 20


def export(kind: str, count: int) -> None:
    """Run in a process of its own: take all chunks, print the bytes sent and the peak of the memory in bytes."""
    response = CSVResponse(rows(count)) if kind == "csv" else NDJSONResponse(records(count))
    sent = 0
    for chunk in chunks_of(response):
        sent += len(chunk)
    print(sent, peak_bytes())


def peak_bytes() -> int:
    """The highest resident memory of this process so far.

    `ru_maxrss` survives exec on Linux and would show the parent's, if that is larger; `VmHWM` is this program's alone.
    """
    try:
        with open("/proc/self/status", encoding="ascii") as status:
            for line in status:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    except FileNotFoundError:
        pass
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def measured(kind: str, count: int) -> tuple[int, int]:
    """Bytes sent and the peak in bytes of such a process."""
    program = f"from benchmarks.memory import export; export({kind!r}, {count})"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    sent, peak = done.stdout.split()
    return int(sent), int(peak)


def figures() -> Iterator[Figure]:
    """Two figures, in MiB."""
    for kind in ("csv", "ndjson"):
        before = median(measured(kind, FEW)[1] for _ in range(3))
        sent, after = measured(kind, MANY)
        yield Figure(
            f"{kind}: growth of the peak from {FEW:,} to {MANY:,} rows",
            (after - before) / MEBIBYTE,
            8.0,
            False,
            f"{before / MEBIBYTE:.1f} to {after / MEBIBYTE:.1f} MiB, {sent / MEBIBYTE:.0f} MiB sent",
            unit="MiB",
        )
