"""What all pages share: one hub, and what is published on it however many pages there are.

Law of this file
- A page holds one stream, a subscription to all topics. It is pushed: a page costs no thread.
- What is measured is measured once, by a run of the hub. The machine and the log are one run for all worker
  processes; each process reports on itself. The first page starts them, and they end when no page is left.
- A job, an answer and a crowd are runs too: they belong to no page, so a page may be closed, loaded again, or joined
  by another, and any of them may stop them.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from machine import Meter, process_size

from streamkit import Hub, ServerSentEvent, every, streams, tail_file

PAGES = "pages"
"""Nothing is published here; its subscribers are the pages in view, so their number is the topic's presence."""
TOPICS = (PAGES, "machine", "process/*", "log", "job", "answer", "crowd")

RETAIN = 3000  # events that a page loaded again may still get: about ten minutes
KEEP_SECONDS = {"machine": 60.0, "process": 3.0}  # what the page has a use for: the plot shows a minute
ALONE_SECONDS = 5  # without a page, after which measuring ends: longer than loading the page again takes
MAX_GROUPS = 12  # of streams in one report
LOG_LINES = 40


class Together:
    """The hub of the demo, in the folder `var`, with what is published on it. Thread-safe and fork-safe."""

    def __init__(self, var: Path, log: Path, library_state: Callable[[], dict[str, Any]]) -> None:
        self.hub = Hub(f"sqlite:///{var / 'hub.db'}", retain=RETAIN)
        self._log = log
        self._library_state = library_state

    def subscribe(self) -> Any:
        """All topics for one page: what it has missed, or what is worth seeing of the past, then what comes."""
        self.hub.run("machine", self._measure_machine)
        self.hub.run(f"process/{os.getpid()}", self._report_process)
        self.start("log", lambda: tail_file(self._log, lines=LOG_LINES))
        return self.hub.subscribe(*TOPICS, filter=is_of_use)

    def start(self, topic: str, producer: Callable[[], Any]) -> dict[str, object]:
        """Run it, or join what runs there; `run` is its id, which begins with the topic."""
        run = self.hub.run(topic, producer, id=f"{topic}-{secrets.token_hex(6)}")
        return {"run": run.id, "joined": run.attached}

    def stop(self, topic: str) -> dict[str, object]:
        """Stop what runs on a topic, in whichever process."""
        run = self.hub.attach(topic)
        return {"stopped": run is not None and run.stop()}

    def _measure_machine(self) -> Any:
        meter = Meter()
        return self._while_viewed("machine", lambda pages: {**meter.read(), "pages": pages})

    def _report_process(self) -> Any:
        return self._while_viewed("process", lambda pages: process_report(self._library_state()))

    def _while_viewed(self, event: str, read: Callable[[int], dict[str, Any]]) -> Any:
        """Once a second what `read` says, until nobody has been there for a while."""
        alone = 0

        def sample() -> ServerSentEvent:
            nonlocal alone
            pages = self.hub.presence(PAGES).everywhere or 0
            alone = 0 if pages else alone + 1
            if alone > ALONE_SECONDS:
                samples.cancel()
            return ServerSentEvent(read(pages), event=event)

        samples = every(1.0, sample)
        return samples


def process_report(library: dict[str, Any]) -> dict[str, Any]:
    """This process and its streams, alike ones together; `held` is how many of the server's threads streams hold."""
    groups: dict[tuple[str, str, str], dict[str, Any]] = {}
    detached = threaded = 0
    for stream in streams:
        if stream.delivery == "detached":
            detached += 1
        else:
            threaded += 1
        group = groups.setdefault(
            (stream.path, stream.kind, stream.delivery),
            {
                "path": stream.path[:80],
                "kind": stream.kind,
                "delivery": stream.delivery,
                "count": 0,
                "age": 0.0,
                "events": 0,
                "bytes": 0,
            },
        )
        group["count"] += 1
        group["age"] = round(max(group["age"], stream.age), 1)
        group["events"] += stream.events
        group["bytes"] += stream.bytes
    oldest = sorted(groups.values(), key=lambda group: -float(group["age"]))
    return {
        "time": time.time(),
        "id": os.getpid(),
        **process_size(),
        "detached": detached,
        "held": threaded,
        "streams": oldest[:MAX_GROUPS],
        "library": library,
    }


def is_of_use(topic: str, event: ServerSentEvent) -> bool:
    """Whether a page has a use for this event: measurements only while they are fresh, everything else always."""
    seconds = KEEP_SECONDS.get(topic.partition("/")[0])
    if seconds is None:
        return True
    assert event.data is not None
    taken: float = json.loads(event.data).get("time", 0.0)  # runs begin and end with events that have none
    return taken > time.time() - seconds
