"""What reads streams: `python -m streamkit bench` holding 5,000 of them, and the decoder on one event of 10 MB.

The streams are those of the C server of the fan-out figures, which sends to all of them five times a second. Processor
time is that of the command, from its start to its end.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from time import perf_counter, process_time

from benchmarks.detached_rig import compiled, serving
from benchmarks.measure import Figure
from streamkit import EventStreamDecoder
from tests.ports import free_port

STREAMS = 5_000
SECONDS = 5
PIECE_BYTES = 64 * 1024


def figures() -> Iterator[Figure]:
    """Streams held, the share of one core that took, and how the decoder's time grows with the size of an event."""
    port = free_port()
    with serving([compiled("fan_out_server"), str(port)], port) as server:
        # Once they are open, which takes a second: the server does one thing at a time.
        publisher = threading.Timer(3.0, server.publish, (10, 0.2))
        began, before = perf_counter(), os.times()
        command = [
            sys.executable,
            "-m",
            "streamkit",
            "bench",
            "--json",
            "-n",
            str(STREAMS),
            "--for",
            f"{SECONDS}s",
        ]
        bench = subprocess.Popen(
            [*command, f"http://127.0.0.1:{port}/events"], stdout=subprocess.PIPE, text=True
        )
        publisher.start()
        told = json.loads(bench.communicate(timeout=90)[0])
        after, lasted = os.times(), perf_counter() - began
        publisher.join(60)
    used = after.children_user + after.children_system - before.children_user - before.children_system
    yield Figure(
        "streams that `bench` holds", told["opened"], STREAMS, True, f"{told['events']} events", unit=""
    )
    yield Figure("of one core", used / lasted, 1.0, False, f"{used:.1f} s in {lasted:.1f} s")
    small, large = (_seconds_to_decode(size) for size in (5_000_000, 10_000_000))
    yield Figure(
        "an event of 10 MB / one of 5 MB, time",
        large / small,
        2.6,
        False,
        f"{large * 1e3:.1f} / {small * 1e3:.1f} ms, in pieces of 64 KiB",
    )


def _seconds_to_decode(size: int) -> float:
    data = b"data: " + b"x" * size + b"\n\n"
    pieces = [data[start : start + PIECE_BYTES] for start in range(0, len(data), PIECE_BYTES)]
    taken = []
    for _ in range(9):
        decoder = EventStreamDecoder()
        start = process_time()
        events = [event for piece in pieces for event in decoder.feed(piece)]
        taken.append(process_time() - start)
        assert len(events) == 1
    return min(taken)
