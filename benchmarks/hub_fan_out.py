"""Processor time for each event of each subscriber, in a gunicorn worker: a hub on `memory://`, and the least that a
pushed source can be (`fan_out_app`: no topics, no history, no ids of its own). Both hold their streams detached, both
publish the same; their turns alternate. It is what the kernel counted for all threads of the worker, so the reader's
and the event loop's are in it, and what they take from each other.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from statistics import median

from benchmarks.detached_rig import crowd, gunicorn
from benchmarks.measure import Figure

SIDES = {"bare": {}, "hub": {"SOURCE": "hub"}}
# Subscribers: events in a round, and seconds between them: so many that the loop has slept before the next one.
CROWDS = {1000: (40, 0.03), 10_000: (8, 0.3)}
ROUNDS = 5
MOST = 1.15


def fan_out(count: int) -> Figure:
    """Both, with so many subscribers each."""
    events, gap = CROWDS[count]
    taken: dict[str, list[float]] = {name: [] for name in SIDES}
    with ExitStack() as stack:
        servers = {
            name: stack.enter_context(gunicorn("--threads", "4", **environment))
            for name, environment in SIDES.items()
        }
        crowds = {name: stack.enter_context(crowd(server, count)) for name, server in servers.items()}
        order = list(SIDES)
        for turn in range(ROUNDS + 1):
            for name in order:
                before = servers[name].cpu()
                servers[name].publish(events, gap)
                time.sleep(gap)
                if turn:  # the first one warms up
                    taken[name].append((servers[name].cpu() - before) / (count * events))
            order.reverse()
        for name, clients in crowds.items():
            clients.leave().must_be_whole(name, events * (ROUNDS + 1))
    each = {name: median(values) * 1e6 for name, values in taken.items()}
    absolute = f"hub {each['hub']:.2f} µs, bare {each['bare']:.2f} µs an event of a subscriber"
    return Figure(f"CPU, {count:,} subscribers", each["hub"] / each["bare"], MOST, False, absolute)


def figures() -> Iterator[Figure]:
    """One for each size of the crowd."""
    for count in CROWDS:
        yield fan_out(count)
