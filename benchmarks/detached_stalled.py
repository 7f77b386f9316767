"""Readers that stall, beside 200 streams that read: how much later an event comes to the others.

With none, one and fifty further clients that stall, in turns, on the same server (stock gunicorn, `--threads 4`):
first events of 64 KiB fill what the kernel holds for those that do not read, then small events are timed from
publication to arrival at the 200 that do. Judged by the p99 of the delays of a round against the p99 of a round without
stalled readers, each the median of the rounds.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from statistics import median

from benchmarks.detached_rig import Arrivals, Server, crowd, gunicorn
from benchmarks.measure import Figure

READERS = 200
STALLED = (0, 1, 50)
ROUNDS = 5
EVENTS = 40
GAP = 0.02
FILLING = 100  # events of 64 KiB: more than a socket on loopback takes (net.ipv4.tcp_wmem ends at 4 MiB)


def arrivals(server: Server, stalled: int) -> Arrivals:
    """What those that read have received."""
    with ExitStack() as stack:
        if stalled:
            stack.enter_context(crowd(server, stalled, stalled=stalled))
            server.get(f"/fill?count={FILLING}&gap=0.01&size=65536")
        _await_behind(server, stalled)
        with crowd(server, READERS) as readers:
            server.publish(EVENTS, GAP)
            _await_behind(server, stalled)
            arrived = readers.leave()
    arrived.must_be_whole(f"{READERS} readers, {stalled} others stalled", EVENTS)
    return arrived


def _await_behind(server: Server, stalled: int) -> None:
    """Wait until those that stall are behind, and nobody else."""
    end = time.monotonic() + 10
    while int(server.get("/behind")) != stalled:
        if time.monotonic() > end:
            raise AssertionError(f"{stalled} streams are to stall, and {server.get('/behind')!r} are behind")
        time.sleep(0.02)


def figures() -> Iterator[Figure]:
    """A figure for one, and for many."""
    rounds: dict[int, list[Arrivals]] = defaultdict(list)
    with gunicorn("--threads", "4") as server:
        order = list(STALLED)
        for _ in range(ROUNDS):
            for stalled in order:
                rounds[stalled].append(arrivals(server, stalled))
            order.reverse()
    late = {stalled: median(arrived.p99_ms for arrived in all_of_it) for stalled, all_of_it in rounds.items()}
    worst = {
        stalled: median(arrived.max_ms for arrived in all_of_it) for stalled, all_of_it in rounds.items()
    }
    for stalled in STALLED[1:]:
        yield Figure(
            f"{stalled} stalled: p99 of the others' delay, more than without",
            late[stalled] - late[0],
            10,
            False,
            f"p99 {late[stalled]:.1f} / {late[0]:.1f} ms; the worst of a round {worst[stalled]:.1f} / {worst[0]:.1f}",
            unit="ms",
        )
