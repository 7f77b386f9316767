"""A hub on each broker that needs no service, and a viewer that takes what a stream would take."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from streamkit.formats.event_stream import ServerSentEvent
from streamkit.hub import reader, runs
from streamkit.hub.hub import Hub
from streamkit.hub.subscription import Subscription
from tests.conftest import eventually

SECONDS = 40.0


class Viewer:
    """Takes from a subscription as a stream does: once for each wake-up."""

    def __init__(self, subscription: Subscription) -> None:
        self.subscription = subscription
        self.events: list[ServerSentEvent] = []
        self._woken = threading.Event()
        subscription.start(self._woken.set)

    def until(self, condition: Callable[[], object]) -> list[ServerSentEvent]:
        deadline = time.monotonic() + SECONDS
        while not condition():
            left = deadline - time.monotonic()
            woken = left > 0 and self._woken.wait(left)
            assert woken, f"not so after {SECONDS} s, with {len(self.events)} events"
            self._woken.clear()
            self.events += self.subscription.take()
        return self.events

    def take(self, count: int) -> list[ServerSentEvent]:
        """Wait for this many events in all, and not one more."""
        self.until(lambda: len(self.events) >= count)
        assert len(self.events) == count, self.events[count:]
        return self.events

    def data(self, count: int) -> list[str | None]:
        return [event.data for event in self.take(count)]

    def end(self) -> list[ServerSentEvent]:
        return self.until(lambda: self.subscription.finished)

    def close(self) -> None:
        self.subscription.close()


def hears(hub: Hub) -> None:
    """Wait until a hub that has a subscription hears what others publish; `subscribe` itself does so for 0.2 s."""
    eventually(lambda: hub._reader._position is not None)


@pytest.fixture(params=["memory", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/events.db"


@pytest.fixture
def make(url: str) -> Iterator[Callable[..., Hub]]:
    made: list[Hub] = []

    def hub(**options: Any) -> Hub:
        made.append(Hub(url, **options))
        return made[-1]

    with pytest.MonkeyPatch.context() as patch:
        # What closing a hub waits for at most is not to pass while a thread waits for the processor.
        patch.setattr(reader, "STOP_SECONDS", SECONDS)
        patch.setattr(runs, "CLOSE_SECONDS", SECONDS)
        yield hub
        for one in made:
            one.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "streamkit-hub"]


@pytest.fixture
def hub(make: Callable[..., Hub]) -> Hub:
    return make()
