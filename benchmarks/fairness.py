"""Twenty exports at full speed on gunicorn's threads, and a small request beside them.

Python threads share one interpreter lock; producers of rows take turns, so that a request meets one of them and not
twenty. The same without turns stands beside it.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.detached_rig import crowd, gunicorn, in_milliseconds, page_seconds, percentile
from benchmarks.measure import Figure

EXPORTS = 20
PAGES = 200
PAGE_GAP = 0.02


def figures() -> Iterator[Figure]:
    """The small request's p99, with turns and without."""
    with gunicorn("--threads", "32") as server, crowd(server, EXPORTS, "/rows"):
        pages = page_seconds(server, PAGES, PAGE_GAP)
    with gunicorn("--threads", "32", TURNS="off") as server, crowd(server, EXPORTS, "/rows"):
        without = page_seconds(server, PAGES // 4, PAGE_GAP)
    yield Figure(
        f"a small request beside {EXPORTS} exports, p99",
        percentile(pages, 0.99) * 1e3,
        60,
        False,
        f"{in_milliseconds(pages)}; without turns {in_milliseconds(without)}",
        unit="ms",
    )
