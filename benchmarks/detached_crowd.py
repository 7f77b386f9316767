"""10,000 open event streams on one stock gunicorn worker, sync and `--threads 4`: memory of each, an ordinary page
meanwhile, and what their heartbeats cost.

One event is published first, so that the heartbeats of all streams fall due at the same moment, 15 seconds later: the
worst case for the pages, which are asked for throughout, one every 20 ms. Memory is what the worker's resident set
has grown by after a first stream; the heartbeats' processor time is that of the event loop's thread over the 15
seconds.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from benchmarks.detached_rig import crowd, gunicorn, in_milliseconds, page_seconds, percentile
from benchmarks.measure import Figure

STREAMS = 10_000
HEARTBEAT_SECONDS = 15.0  # the default of EventSourceResponse
PAGE_GAP = 0.02
WORKERS = {"sync": (), "--threads 4": ("--threads", "4")}


def figures() -> Iterator[Figure]:
    """Three figures for each kind of worker."""
    for worker, options in WORKERS.items():
        with gunicorn(*options) as server:
            with crowd(server, 1) as first:
                loop_thread = int(server.get("/loop"))
                first.leave()
            before = server.memory()
            with crowd(server, STREAMS) as clients:
                time.sleep(0.5)
                memory = (server.memory() - before) / STREAMS
                server.publish(1, 0.5)
                busy = server.cpu(loop_thread)
                start = time.monotonic()
                pages = page_seconds(server, int((HEARTBEAT_SECONDS + 1) / PAGE_GAP), PAGE_GAP)
                busy = server.cpu(loop_thread) - busy
                lasted = time.monotonic() - start
                live = int(server.get("/page"))
                arrived = clients.leave()
            arrived.must_be_whole(f"{worker}, {STREAMS:,} streams", events=1)
            if live != STREAMS or lasted > 1.9 * HEARTBEAT_SECONDS:
                raise AssertionError(f"{live} streams are left of {STREAMS} after {lasted:.1f} s")
        opened = f"all open after {clients.open_seconds:.1f} s"
        yield Figure(f"{worker}: memory of a stream", memory / 1024, 8, False, opened, unit="KiB")
        yield Figure(
            f"{worker}: a page meanwhile, p99",
            percentile(pages, 0.99) * 1e3,
            20,
            False,
            f"{in_milliseconds(pages)}, {len(pages)} pages",
            unit="ms",
        )
        yield Figure(
            f"{worker}: heartbeats to all, of a core",
            100 * busy / HEARTBEAT_SECONDS,
            3,
            False,
            f"{busy * 1e3:.0f} ms every {HEARTBEAT_SECONDS:g} s, {busy / STREAMS * 1e6:.1f} µs each",
            unit="%",
        )
