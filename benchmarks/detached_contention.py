"""Fan-out to 1,000 streams while one request computes: the delay from the publication of an event to its arrival.

`socket.send` gives up the interpreter lock for the call, and has to win it back from the thread that computes, which
may keep it for 5 ms, for each stream. The event loop therefore calls `send` with the lock held. Both ways, with and
without the computing request, on `--threads 4`, in turns; medians of the rounds. Processor time is the server's for
each event that a client receives, without the computing request.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from statistics import median

from benchmarks.detached_rig import Arrivals, Server, crowd, gunicorn
from benchmarks.measure import Figure

STREAMS = 1_000
EVENTS = 8
ROUNDS = 3
SENDS = {"lock kept": "", "socket.send": "socket"}


def fan_out(server: Server, gap: float) -> tuple[Arrivals, float]:
    """What arrived of `EVENTS` events, and microseconds of processor time for each that a client received."""
    with crowd(server, STREAMS) as clients:
        time.sleep(0.3)
        before = server.cpu()
        server.publish(EVENTS, gap)
        time.sleep(0.5)
        taken = server.cpu() - before
        arrived = clients.leave()
    arrived.must_be_whole(f"{STREAMS} streams", EVENTS)
    return arrived, taken / EVENTS / STREAMS * 1e6


def beside_a_computing_request(server: Server, gap: float) -> Arrivals:
    """The same beside a request that computes throughout."""
    with crowd(server, STREAMS) as clients:
        seconds = EVENTS * gap + 1.0
        burning = threading.Thread(target=server.get, args=(f"/burn?seconds={seconds}",))
        burning.start()
        try:
            time.sleep(0.3)
            server.publish(EVENTS, gap)
        finally:
            burning.join()
        time.sleep(0.5)
        arrived = clients.leave()
    arrived.must_be_whole(f"{STREAMS} streams beside a computing request", EVENTS)
    return arrived


def figures() -> Iterator[Figure]:
    """The delay with a computing request against its bound, and both ways of sending against each other."""
    delays: dict[str, list[Arrivals]] = defaultdict(list)
    quiet: dict[str, list[Arrivals]] = defaultdict(list)
    costs: dict[str, list[float]] = defaultdict(list)
    with ExitStack() as stack:
        servers = {
            name: stack.enter_context(gunicorn("--threads", "4", SEND=send)) for name, send in SENDS.items()
        }
        order = list(servers)
        for _ in range(ROUNDS):
            for name in order:
                arrived, cost = fan_out(servers[name], 0.1)
                quiet[name].append(arrived)
                costs[name].append(cost)
                delays[name].append(beside_a_computing_request(servers[name], 0.4))
            order.reverse()
    own, other = SENDS
    half = {name: median(arrived.p50_ms for arrived in all_of_it) for name, all_of_it in delays.items()}
    alone = {name: median(arrived.p50_ms for arrived in all_of_it) for name, all_of_it in quiet.items()}
    late = {name: median(arrived.p99_ms for arrived in all_of_it) for name, all_of_it in delays.items()}
    yield Figure(
        "beside a computing request: median delay",
        half[own],
        50,
        False,
        f"p99 {late[own]:.0f} ms; with socket.send {half[other]:.0f}, p99 {late[other]:.0f} ms",
        unit="ms",
    )
    yield Figure(
        "without it: median delay, lock kept / socket.send",
        alone[own] / alone[other],
        1.1,
        False,
        f"{alone[own]:.1f} / {alone[other]:.1f} ms",
    )
    spent = {name: median(values) for name, values in costs.items()}
    yield Figure(
        "without it: processor time, lock kept / socket.send",
        spent[own] / spent[other],
        1.1,
        False,
        f"{spent[own]:.1f} / {spent[other]:.1f} µs an event",
    )
