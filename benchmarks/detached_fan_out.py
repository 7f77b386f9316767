"""One event to 1,000 and to 10,000 streams: processor time of the server for each event that a client receives.

streamkit runs on one stock gunicorn worker, `--threads 4`. Against a loop around `send()` in C, Node's `http`,
gevent + Flask (`gunicorn -k gevent`), sse-starlette on uvicorn, and one thread for each client (1,000 clients only,
`gunicorn --threads 1100`); with a `Hub` beside it, that has no bound. All servers hold all their streams throughout and
publish in turns, forth and back; medians of the rounds. Every stream must have received every event. A peer that is not
installed is named and left out.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from statistics import median

from benchmarks.detached_rig import HERE, Server, compiled, crowd, gunicorn, serving
from benchmarks.measure import Figure
from tests.ports import free_port

SETTLE_SECONDS = 0.3
ROUNDS = {1_000: 5, 10_000: 3}
OWN = "streamkit"
WITH_HUB = "streamkit with a Hub"


@dataclass(frozen=True)
class Side:
    """A server, and how it is asked: `microseconds` is about what an event costs it, so that it is never asked for
    one while it is still busy with another; `events` is how many it publishes in a round to 1,000.
    """

    start: Callable[[], AbstractContextManager[Server]]
    wanted: float | None  # streamkit's time over its own, at most
    microseconds: float
    events: int = 5
    most: int = 10_000  # streams
    missing: str | None = None  # what would have to be installed

    def round(self, count: int) -> int:
        """How many events it publishes in a round to `count` streams."""
        return self.events if count <= 1_000 else max(1, self.events * 3 // 5)

    def gap(self, count: int) -> float:
        """Seconds between two events to `count` streams."""
        return 0.05 + 2e-6 * self.microseconds * count


def _on_free_port(*command: str) -> AbstractContextManager[Server]:
    port = free_port()
    return serving([word.format(port=port) for word in command], port)


def _floor() -> AbstractContextManager[Server]:
    return _on_free_port(compiled("fan_out_server"), "{port}")


def _missing(*modules: str) -> str | None:
    return next((module for module in modules if find_spec(module) is None), None)


def _sides() -> dict[str, Side]:
    queues = "benchmarks.peers.queues_app"
    uvicorn = [sys.executable, "-m", "uvicorn", "--log-level", "warning", "--backlog", "4096"]
    node = shutil.which("node")
    return {
        "C": Side(_floor, 1.3, 8),
        OWN: Side(partial(gunicorn, "--threads", "4"), None, 12),
        WITH_HUB: Side(partial(gunicorn, "--threads", "4", SOURCE="hub"), None, 12),
        "Node http": Side(
            partial(_on_free_port, node or "", str(HERE / "peers" / "fan_out.js"), "{port}"),
            0.7,
            18,
            missing=None if node else "node",
        ),
        "gevent + Flask": Side(
            partial(gunicorn, "-k", "gevent", "--worker-connections", "12000", app=f"{queues}:flask_app"),
            0.35,
            50,
            events=3,
            missing=_missing("gevent", "flask"),
        ),
        "sse-starlette": Side(
            partial(_on_free_port, *uvicorn, "--port", "{port}", "benchmarks.peers.starlette_app:app"),
            0.2,
            70,
            events=2,
            missing=_missing("sse_starlette", "uvicorn"),
        ),
        "a thread each": Side(
            partial(gunicorn, "--threads", "1100", "--worker-connections", "1200", app=f"{queues}:app"),
            0.06,
            250,
            events=2,
            most=1_000,
        ),
    }


def microseconds(sides: dict[str, Side], count: int) -> dict[str, float]:
    """Processor time of each server for one event to one of `count` streams, the median of the rounds."""
    taken: dict[str, list[float]] = {name: [] for name in sides}
    with ExitStack() as stack:
        servers = {name: stack.enter_context(side.start()) for name, side in sides.items()}
        crowds = {name: stack.enter_context(crowd(server, count)) for name, server in servers.items()}
        for name, server in servers.items():
            server.publish(1, sides[name].gap(count))
        order = list(sides)
        for _ in range(ROUNDS[count]):
            for name in order:
                events = sides[name].round(count)
                before = servers[name].cpu()
                servers[name].publish(events, sides[name].gap(count))
                time.sleep(SETTLE_SECONDS)
                taken[name].append((servers[name].cpu() - before) / events / count * 1e6)
            order.reverse()
        for name, clients in crowds.items():
            published = 1 + ROUNDS[count] * sides[name].round(count)
            clients.leave().must_be_whole(f"{name}, {count:,} streams", published)
    return {name: median(values) for name, values in taken.items()}


def figures() -> Iterator[Figure]:
    """A figure for every peer and number of streams."""
    installed = {}
    for name, side in _sides().items():
        if side.missing is None:
            installed[name] = side
        else:
            print(f"detached_fan_out: {name} is left out: {side.missing} is not installed", file=sys.stderr)
    for count in ROUNDS:
        sides = {name: side for name, side in installed.items() if count <= side.most}
        taken = microseconds(sides, count)
        own = taken[OWN]
        for name, side in sides.items():
            if side.wanted is not None:
                absolute = f"{own:.2f} / {taken[name]:.2f} µs an event"
                if name == "C":
                    absolute += f"; {taken[WITH_HUB]:.2f} with a Hub"
                yield Figure(
                    f"to {count:,}: streamkit / {name}", own / taken[name], side.wanted, False, absolute
                )
