"""The first byte of the body of every response class through gunicorn: how much later than that of a bare WSGI
application on the same server. Each producer pauses for 30 ms after its first item, so an answer that is held back
shows. In wall time; each round asks every path once.
"""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from benchmarks.gunicorn_app import FIRST_BYTE_PATHS
from benchmarks.gunicorn_server import first_byte, gunicorn
from benchmarks.measure import Figure

ROUNDS = 31
WANTED = 5.0  # milliseconds


def figures() -> Iterator[Figure]:
    """A figure for every class, in milliseconds."""
    paths = ["/bare", *FIRST_BYTE_PATHS]
    taken: dict[str, list[float]] = {path: [] for path in paths}
    with gunicorn("benchmarks.gunicorn_app:first_byte_app") as port:
        for path in paths:
            first_byte(port, path)
        for _ in range(ROUNDS):
            for path in paths:
                taken[path].append(first_byte(port, path) * 1e3)
            paths.reverse()
    bare = median(taken["/bare"])
    for path in FIRST_BYTE_PATHS:
        own = median(taken[path])
        yield Figure(path[1:], own - bare, WANTED, False, f"{own:.2f} / {bare:.2f} ms", unit="ms")
