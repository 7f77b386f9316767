"""The conformance suite of brokers over a real Redis; and what is particular to its log."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("redis")

from streamkit.errors import BrokerUnavailable, DuplicateEvent, HubClosed
from streamkit.hub import redis_calls
from streamkit.hub.broker import Broker, Entry, HistoryLost
from streamkit.hub.redis import RedisBroker
from streamkit.hub.redis_address import RedisAddress
from streamkit.testing.check_broker import CHECKS, all_after
from tests.conftest import eventually
from tests.redis_server import RedisServer, redis_server

NAMES = (f"log{number}" for number in itertools.count())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis"), appendonly=False) as server:
        yield server
        eventually(lambda: server.connections() <= 0, what="connections that nobody closed")


def new(server: RedisServer, **options: object) -> RedisBroker:
    return RedisBroker(server.url(stream=next(NAMES)), **options)  # type: ignore[arg-type]


def same(server: RedisServer, broker: Broker, **options: object) -> RedisBroker:
    stream = broker.url.rpartition("=")[2]
    return RedisBroker(server.url(stream=stream), **options)  # type: ignore[arg-type]


def entry(data: str = "x", id: str | None = None, topic: str = "a") -> Entry:
    return Entry(topic, data, None, id)


@pytest.mark.parametrize("name", CHECKS)
def test_conformance(server: RedisServer, name: str) -> None:
    CHECKS[name](lambda retain: new(server, retain=retain), lambda broker: same(server, broker))


# -- the log ----------------------------------------------------------------------------------------------------


def test_what_was_trimmed_is_known_to_the_entry(server: RedisServer) -> None:
    """`read` raises from the first position whose successor is gone, and not one later."""
    broker = new(server, retain=10)
    for number in range(250):
        broker.append([entry(str(number))])
    floor = broker.floor()
    first = broker.read(floor, 1)[0]
    kept = 250 - int(first.data)
    assert 10 <= kept < 250
    assert len(broker.read(floor, 1000)) == kept
    assert broker.read(first.position, 1)[0].data == str(int(first.data) + 1)
    with pytest.raises(HistoryLost):
        broker.read(floor - (1 << 48), 1)
    epoch, number, _ = first.id.split("-")
    assert broker.locate(f"{epoch}-{int(number) - 5}-00000") is None
    broker.close()


def test_who_names_no_retention_trims_by_that_of_the_log(server: RedisServer) -> None:
    application = new(server, retain=20_000)
    script, operator = same(server, application), same(server, application, retain=1000)

    def held() -> int:
        return int(server.command("XLEN", application.url.rpartition("=")[2])[1:])

    for _ in range(24):
        application.append([entry()] * 500)
    for _ in range(5):
        script.append([entry()] * 10)
    assert held() == 12_050
    for _ in range(5):  # Redis trims 10,000 at once, at most
        operator.append([entry()] * 100)
    assert held() <= 1200
    application.append([entry()] * 1000)
    assert held() <= 1200, "the last to begin decides"
    server.command("FLUSHALL")
    for _ in range(30):
        operator.append([entry()] * 100)
    assert held() <= 1200, "a log that was lost is told again"
    for broker in (application, script, operator):
        broker.close()


def test_retain_seconds_lets_old_entries_go_but_the_newest(server: RedisServer) -> None:
    broker = new(server, retain_seconds=0.05)
    broker.append([entry("old") for _ in range(20)])
    newest = broker.read(0, 100)[-1]

    def trimmed() -> bool:
        broker.append([entry("new")])
        return broker.floor() >= newest.position

    eventually(trimmed)
    assert {record.data for record in broker.read(broker.floor(), 100)} == {"new"}
    broker.close()


def test_ids_of_trimmed_entries_are_free_again_and_hold_no_memory(server: RedisServer) -> None:
    broker = new(server, retain=10)
    for number in range(500):
        broker.append([entry(id=f"mine {number}")])
    broker.append([entry(id="mine 0")])
    with pytest.raises(DuplicateEvent):
        broker.append([entry(id="mine 499")])
    name = broker.url.rpartition("=")[2]
    held = len(broker.read(broker.floor(), 1000))
    assert int(server.command("ZCARD", f"{{{name}}}:ids")[1:]) <= held + 100
    broker.close()


def test_one_read_is_bounded_in_bytes(server: RedisServer) -> None:
    broker = new(server)
    large = "é" * 300_000
    broker.append([entry(large) for _ in range(6)])
    found = broker.read(0, 100)
    assert 1 <= len(found) < 6
    while len(found) < 6:
        found += broker.read(found[-1].position, 100)
    assert [record.data for record in found] == [large] * 6
    broker.close()


def test_reading_a_long_history_is_complete(server: RedisServer) -> None:
    broker = new(server)
    broker.append(
        [entry(str(number), id=f"id {number}" if number % 7 == 0 else None) for number in range(3000)]
    )
    found = broker.read(0, 1000)
    while len(found) < 3000:
        found += broker.read(found[-1].position, 1000)
    assert [record.data for record in found] == [str(number) for number in range(3000)]
    assert found[7].id == "id 7"
    broker.close()


def test_reading_without_waiting_between_two_waits(server: RedisServer) -> None:
    """What a hub does that replays history meanwhile: the question that stays asked is not in the way."""
    broker = new(server)
    broker.append([entry("0")])
    after = broker.head()
    for number in range(1, 20):
        assert broker.follow(after, 10, 0.001) == []
        connected = server.command("CLIENT", "LIST")
        broker.append([entry(str(number))])
        (record,) = broker.follow(after, 10, 0.0)
        assert record.data == str(number)
        after = record.position
    assert broker.follow(after, 10, 0.001) == []
    assert ids_of(server.command("CLIENT", "LIST")) == ids_of(connected), "the reader had to connect again"
    broker.close()


def ids_of(listed: bytes) -> list[bytes]:
    """Who is connected; the last one asks."""
    return [line.split()[0] for line in listed.splitlines() if b"id=" in line][:-1]


def test_follow_keeps_up_with_many_publishers(server: RedisServer) -> None:
    """Also where it is woken all the time, and where more came than one answer holds."""
    broker = new(server)
    publishers = [same(server, broker) for _ in range(3)]

    def publish(publisher: RedisBroker) -> None:
        for number in range(100):
            publisher.append([entry(str(number))] * (1 + number % 20))
        publisher.close()

    threads = [threading.Thread(target=publish, args=(publisher,)) for publisher in publishers]
    for thread in threads:
        thread.start()
    total = 3 * sum(1 + number % 20 for number in range(100))
    found: list[int] = []
    while len(found) < total:
        broker.wake()
        found += [record.position for record in broker.follow(found[-1] if found else 0, 50, 5.0)]
    for thread in threads:
        thread.join()
    assert found == [record.position for record in all_after(broker, 0, 1000)]
    broker.close()


def test_a_log_that_was_flushed_while_followed_is_a_gap(server: RedisServer) -> None:
    broker = new(server)
    broker.append([entry()] * 5)
    head = broker.head()
    assert broker.follow(head, 10, 0.05) == []
    name = broker.url.rpartition("=")[2]
    server.command("DEL", name, f"{{{name}}}:log", f"{{{name}}}:ids")
    broker.append([entry("new log")])
    with pytest.raises(HistoryLost):
        broker.follow(head, 10, 10.0)
    assert broker.floor() == 0
    assert [record.data for record in broker.follow(0, 10, 10.0)] == ["new log"]
    broker.close()


def test_a_log_that_came_back_with_less_is_a_gap(server: RedisServer) -> None:
    """A failover to a replica that lagged: numbers are given out twice, ids and positions are not."""
    broker = new(server)
    ids = broker.append([entry("one"), entry("two"), entry("three")])
    positions = [record.position for record in broker.read(0, 10)]
    name = broker.url.rpartition("=")[2]
    dump = [f"{position >> 48}-{position & ((1 << 48) - 1)}" for position in positions]
    # What the replica had: one entry.
    server.command("DEL", name)
    server.command("XADD", name, dump[0], "topic", "a", "data", "one")
    epoch = ids[0].partition("-")[0]
    base = (positions[0] >> 48) - 1
    server.command("SET", f"{{{name}}}:log", f"{epoch} {base} {' '.join(dump[0].split('-'))}")
    threading.Event().wait(0.002)  # a failover takes longer than the millisecond that has to differ
    broker.append([entry("other two"), entry("other three"), entry("four")])
    assert broker.locate(ids[0]) == positions[0]
    assert broker.locate(ids[1]) is None
    with pytest.raises(HistoryLost):
        broker.read(positions[1], 10)
    assert [record.data for record in broker.read(positions[0], 10)] == ["other two", "other three", "four"]
    broker.close()


def test_keys_of_somebody_else_are_left_alone(server: RedisServer) -> None:
    server.command("XADD", "theirs", "*", "temperature", "21")
    server.command("SET", "text", "x")
    for name, message in (("theirs", "no hub wrote"), ("text", "something else")):
        broker = RedisBroker(server.url(stream=name))
        with pytest.raises(BrokerUnavailable, match=message):
            broker.append([entry()])
        broker.close()
    assert server.command("XLEN", "theirs") == b":1\r\n"


# -- processes and threads --------------------------------------------------------------------------------------


def test_presence_of_a_process_that_died_expires(server: RedisServer) -> None:
    broker = new(server)
    dead = same(server, broker)
    dead.announce({"a": 5}, 0.05)
    broker.announce({"a": 1}, 60)
    eventually(lambda: broker.present("a") == 1)
    dead.close()
    broker.close()


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_clock_that_is_set_ends_no_lease(server: RedisServer, hours: int) -> None:
    broker = new(server)
    broker.claim("run", "one", 60)
    name = broker.url.rpartition("=")[2]
    wall = server.command("HGET", f"{{{name}}}:clock", "wall").split()[1]
    # What the clock said before it was set, as it is remembered.
    server.command("HSET", f"{{{name}}}:clock", "wall", str(int(wall) - hours * 3_600_000))
    assert broker.expired() == []
    assert broker.renew([("run", "one")], 0.001) == ["held"]
    eventually(lambda: broker.expired() == [("run", "one")])
    broker.close()


def test_connections_are_few_however_many_threads_call(server: RedisServer) -> None:
    eventually(lambda: server.connections() <= 0)
    broker = new(server)
    seen: list[int] = []
    done = threading.Event()

    def follow() -> None:
        try:
            while True:
                broker.follow(broker.head(), 10, 5.0)
        except HubClosed:
            done.set()

    threads = [threading.Thread(target=follow)]
    threads += [
        threading.Thread(target=lambda: [broker.append([entry()]) for _ in range(30)]) for _ in range(30)
    ]
    for thread in threads:
        thread.start()
    at_work = True
    while at_work:
        at_work = any(thread.is_alive() for thread in threads[1:])
        seen.append(server.connections())
    broker.close()
    assert done.wait(10)
    for thread in threads:
        thread.join()
    assert max(seen) <= 9


def test_a_connection_that_cannot_be_made_takes_no_place(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = new(server, timeout=1.0)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(broker._calls, "new_connection", lambda: 1 / 0)
            for _ in range(2 * redis_calls.CONNECTIONS):
                with pytest.raises(ZeroDivisionError):
                    broker.head()
        assert broker.append([entry()])
    finally:
        broker.close()


_FORK = """
import json, os, sys, threading
from streamkit.hub.broker import Entry
from streamkit.hub.redis import RedisBroker
broker = RedisBroker(sys.argv[1])
broker.append([Entry("a", "parent", None, None)])
reading = threading.Event()
def read():
    reading.set()
    print(json.dumps([r.data for r in broker.follow(broker.head(), 9, 20.0)]), flush=True)
reader = threading.Thread(target=read)
reader.start()
reading.wait()
os.register_at_fork(after_in_child=broker.after_fork)
child = os.fork()
if not child:
    broker.append([Entry("a", "child", None, None)])
    assert [r.data for r in broker.follow(0, 9, 20.0)] == ["parent", "child"]
    broker.close()
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
reader.join()
broker.append([Entry("a", "parent again", None, None)])
print(len(broker.read(0, 10)))
broker.close()
"""


def test_a_forked_child_has_connections_of_its_own(server: RedisServer) -> None:
    url = server.url(stream=next(NAMES))
    ran = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", _FORK, url],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    lines = ran.stdout.splitlines()
    assert json.loads(lines[0]) in (["child"], [])
    assert lines[1] == "3"


# -- URLs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "options", "shown"),
    [
        ("redis://", {"host": "localhost", "port": 6379, "db": 0}, "redis://?stream=streamkit"),
        (
            "redis://me:p%40ss%23@[::1]:7000/3?stream=news",
            {"host": "::1", "port": 7000, "db": 3, "username": "me", "password": "p@ss#"},
            "redis://[::1]:7000/3?stream=news",
        ),
        ("valkey://h", {"host": "h", "port": 6379, "db": 0}, "valkey://h?stream=streamkit"),
        (
            "unix://me:secret@/run/redis.sock?db=2&stream=s",
            {"path": "/run/redis.sock", "db": 2, "username": "me", "password": "secret"},
            "unix:///run/redis.sock?stream=s",
        ),
        (
            "rediss://:secret@h/0?ssl_ca_certs=/ca.pem&ssl_cert_reqs=none",
            {
                "host": "h",
                "port": 6379,
                "db": 0,
                "password": "secret",
                "ssl_ca_certs": "/ca.pem",
                "ssl_cert_reqs": "none",
                "ssl_check_hostname": False,
            },
            "rediss://h/0?stream=streamkit",
        ),
    ],
)
def test_urls(url: str, options: dict[str, object], shown: str) -> None:
    address = RedisAddress.of(url)
    assert address.options == {**options, **({} if "path" in options else {"socket_keepalive": True})}
    assert address.shown == shown


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost",
        "redis://:secret@localhost:port/0",
        "redis://:secret@localhost:99999/0",
        "redis://:secret@localhost/zero",
        "redis://:secret@localhost/0/1",
        "redis://:secret@localhost/0?stream=",
        "redis://:secret@localhost/0?stream=a%0Ab",
        "redis://:secret@localhost/0?strem=a",
        "redis://:secret@localhost/0?ssl_ca_certs=a",
        "rediss://:secret@localhost/0?ssl_check_hostname=perhaps",
        "unix://:secret@host/run/redis.sock",
        "unix://",
        "unix:///run/redis.sock?db=two",
        "redis://:sec#ret@localhost/0",
    ],
)
def test_urls_that_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"://") as raised:
        RedisAddress.of(url)
    assert "secret" not in str(raised.value)


def test_without_redis_py_the_error_says_what_to_install(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['redis'] = None\n"
        "from streamkit.hub.redis import RedisBroker\n"
        "try: RedisBroker('redis://localhost')\n"
        "except ModuleNotFoundError as error: print(error)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert "pip install 'redis>=5'" in ran.stdout
