"""The hub on a real Redis: everything that it promises on the other brokers, and what Redis may do to it."""

from __future__ import annotations

import inspect
import itertools
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("redis")

from streamkit.errors import BrokerUnavailable
from streamkit.hub.gap import Gap
from streamkit.hub.hub import Hub
from streamkit.hub.redis import RedisBroker
from tests.conftest import eventually
from tests.hub import test_hub, test_run
from tests.hub.conftest import Viewer, hears
from tests.redis_server import RedisServer, redis_server

NAMES = (f"hub{number}" for number in itertools.count())


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis"), appendonly=False) as server:
        yield server
        eventually(lambda: server.connections() <= 0, what="connections that nobody closed")


@pytest.fixture
def url(shared: RedisServer) -> str:
    """In place of the one for the other brokers."""
    return shared.url(stream=next(NAMES))


# Every other test of the hub and of runs that asks for a hub, and so for a `url`.
for _module in (test_hub, test_run):
    for _name, _test in vars(_module).items():
        if _name.startswith("test_") and {"hub", "make"} & set(inspect.signature(_test).parameters):
            globals()[f"{_name}_on_redis"] = _test


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path / "redis") as server:
        yield server


@pytest.fixture
def hubs(server: RedisServer) -> Iterator[Callable[[], Hub]]:
    """Hubs on one Redis, each as a process of its own has it."""
    made: list[Hub] = []

    def hub() -> Hub:
        made.append(Hub(server.url()))
        return made[-1]

    yield hub
    for one in made:
        one.close()


def published(hub: Hub, data: str) -> str:
    """Publish as an application does that tries again."""
    found: list[str] = []

    def tried() -> bool:
        try:
            found.append(hub.publish("news", data))
        except BrokerUnavailable:
            return False
        return True

    eventually(tried)
    return found[0]


@pytest.mark.parametrize("fault", ["stop", "kill"])
def test_viewers_miss_nothing_over_a_restart(
    server: RedisServer, hubs: Callable[[], Hub], fault: str
) -> None:
    publisher, reader = hubs(), hubs()
    viewer = Viewer(reader.subscribe("news"))
    hears(reader)
    ids = [publisher.publish("news", str(number)) for number in range(20)]
    viewer.take(20)
    getattr(server, fault)()
    server.start()
    ids += [published(publisher, str(number)) for number in range(20, 40)]
    assert [event.id for event in viewer.take(40)] == ids
    again = Viewer(reader.subscribe("news", last_event_id=ids[9]))
    assert [event.id for event in again.take(30)] == ids[10:]


def test_viewers_of_a_redis_that_restarted_empty_get_a_gap(
    server: RedisServer, hubs: Callable[[], Hub]
) -> None:
    hub = hubs()
    live = Viewer(hub.subscribe("news"))
    old = hub.publish("news", "before")
    live.take(1)
    server.restart(empty=True)
    new = published(hub, "after")
    live.until(lambda: len(live.events) >= 3)
    assert [type(event) is Gap for event in live.events] == [False, True, False]
    assert [event.id for event in live.events if not isinstance(event, Gap)] == [old, new]
    back = Viewer(hub.subscribe("news", last_event_id=old))
    back.until(lambda: len(back.events) >= 2)
    assert isinstance(back.events[0], Gap)
    assert (back.events[0].asked, back.events[0].oldest) == (old, new)
    assert back.events[1].id == new


def test_viewers_of_a_redis_that_comes_later(tmp_path: Path) -> None:
    with (
        redis_server(tmp_path / "redis", started=False) as server,
        Hub(RedisBroker(server.url(), timeout=0.3)) as hub,
    ):
        with pytest.raises(BrokerUnavailable):
            hub.publish("news", "x")
        viewer = Viewer(hub.subscribe("news"))
        server.start()
        eventually(lambda: published(hub, "x") and (viewer.subscription.take() or viewer.events))


def test_a_paused_redis_goes_on(server: RedisServer, hubs: Callable[[], Hub]) -> None:
    publisher, reader = hubs(), hubs()
    viewer = Viewer(reader.subscribe("news"))
    hears(reader)
    ids = [publisher.publish("news", "before")]
    viewer.take(1)
    with server.paused():
        waiting = threading.Thread(target=lambda: ids.append(publisher.publish("news", "meanwhile")))
        waiting.start()
        waiting.join(0.2)
        assert waiting.is_alive()
    waiting.join(30)
    ids.append(publisher.publish("news", "after"))
    assert [event.id for event in viewer.take(3)] == ids


def test_the_command_publishes(server: RedisServer, hubs: Callable[[], Hub]) -> None:
    hub = hubs()
    viewer = Viewer(hub.subscribe("prices"))
    hears(hub)
    command = [sys.executable, "-m", "streamkit", "publish", server.url(), "prices", '{"EUR": 1}']
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
    (event,) = viewer.take(1)
    assert (event.data, event.id) == ('{"EUR": 1}', said.strip())


_RUN = """
import sys, threading
from streamkit.hub import run as runs
from streamkit.hub.hub import Hub
runs.LEASE_SECONDS = 1.0
hub = Hub(sys.argv[1])
def answer():
    yield "one"
    threading.Event().wait()
run = hub.run("answer", answer)
print(run.id, flush=True)
sys.stdin.read()
"""


def test_a_run_whose_process_was_killed_has_failed(server: RedisServer, hubs: Callable[[], Hub]) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _RUN, server.url()], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        id = process.stdout.readline().strip()
        hub = hubs()
        viewer = Viewer(hub.attach("answer", id).events())
        viewer.until(lambda: any(event.data == "one" for event in viewer.events))
    finally:
        process.kill()
        process.communicate()
    events = viewer.end()
    assert "code" in json.loads(str(events[-1].data))
