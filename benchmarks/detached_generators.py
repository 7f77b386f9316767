"""200 generators that each send 20 events a second, on stock gunicorn `--threads 4`: an ordinary page meanwhile.

Each generator runs on a thread of its own, outside the server's pool. Every stream's numbers must be without a gap,
and at the rate that was asked for, but for what the generator's own waiting adds.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from benchmarks.detached_rig import crowd, gunicorn, in_milliseconds, page_seconds, percentile
from benchmarks.measure import Figure

STREAMS = 200
RATE = 20  # events a second, of each
PAGES = 1_000
PAGE_GAP = 0.015


def figures() -> Iterator[Figure]:
    """The page's p99, and how much of the rate arrives."""
    with gunicorn("--threads", "4") as server, crowd(server, STREAMS, f"/ticks?rate={RATE}") as clients:
        start = time.monotonic()
        busy = server.cpu()
        pages = page_seconds(server, PAGES, PAGE_GAP)
        lasted = time.monotonic() - start
        busy = server.cpu() - busy
        arrived = clients.leave()
    arrived.must_be_whole(f"{STREAMS} generators")
    yield Figure(
        "a page meanwhile, p99",
        percentile(pages, 0.99) * 1e3,
        50,
        False,
        f"{in_milliseconds(pages)}, {PAGES} pages",
        unit="ms",
    )
    least = arrived.least / lasted
    yield Figure(
        "events a second of the slowest stream / asked for",
        least / RATE,
        0.9,
        True,
        f"{least:.1f} / {RATE}, nothing missing; delay p50 {arrived.p50_ms:.1f}, p99 {arrived.p99_ms:.1f} ms; "
        f"{100 * busy / lasted:.0f} % of a core",
    )
