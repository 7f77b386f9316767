"""What the tests of the event loop and of its connections have in common."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from streamkit import streams
from streamkit.delivery.event_loop import event_loop
from tests.conftest import eventually
from tests.delivery import loop_by_hand
from tests.delivery.loop_by_hand import ByHandLoop


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Iterator[ByHandLoop]:
    loop = ByHandLoop()
    for module in ("event_loop", "detached", "outflow"):
        monkeypatch.setattr(f"streamkit.delivery.{module}.monotonic", loop.clock)
    yield loop
    for connection in [*loop._connections.values(), *loop._new]:
        connection._socket.close()
        if connection.outflow is not None:
            connection._release()
    if loop._selector is not None:
        loop._selector.close()


@pytest.fixture
def running_loop() -> None:
    """The process' own: its descriptors stay, and are none that a test has left open."""
    event_loop.start()


@pytest.fixture
def all_ended() -> Iterator[None]:
    yield
    clients = loop_by_hand.opened[:]
    loop_by_hand.opened.clear()
    for client in clients:
        client.socket.close()
    eventually(lambda: len(event_loop) == 0)
    for client in clients:  # of a test that failed
        if client.stream.state != "ended":
            client.stream.end("failed")
            client.stream.leave()
    eventually(lambda: len(streams) == 0, what=str(list(streams)))
