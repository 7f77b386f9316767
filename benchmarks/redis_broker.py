"""Publishing to a real redis-server of this machine against bare redis-py, which keeps no ids, epochs or duplicates
apart; and how long it takes until a subscriber has what was published. In wall time: both wait for Redis."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from statistics import median

import redis

from benchmarks.measure import Figure, medians, must_agree, wall
from streamkit.hub.broker import Entry, Position
from streamkit.hub.hub import Hub
from streamkit.hub.redis import RedisBroker
from tests.redis_server import redis_server

RETAIN = 10_000
SINGLE = 2_000
BATCH = 100
BATCHED = 10_000
REPLAYED = 10_000
RECEIPTS = 500
DATA = "x" * 100


def bare(client: redis.Redis, stream: str) -> None:
    """One XADD after the other, capped as the hub's log is."""
    for _ in range(SINGLE):
        client.xadd(stream, {"topic": "news", "data": DATA}, maxlen=RETAIN, approximate=True)


def bare_batches(client: redis.Redis, stream: str) -> None:
    """XADD in transactions, as redis-py batches them."""
    for _ in range(BATCHED // BATCH):
        with client.pipeline() as pipeline:
            for _ in range(BATCH):
                pipeline.xadd(stream, {"topic": "news", "data": DATA}, maxlen=RETAIN, approximate=True)
            pipeline.execute()


def publish(hub: Hub) -> None:
    """One event after the other."""
    for _ in range(SINGLE):
        hub.publish("news", DATA)


def publish_batches(hub: Hub) -> None:
    """The same events in calls of `BATCH`."""
    for _ in range(BATCHED // BATCH):
        hub.publish_many([("news", DATA)] * BATCH)


def replay(broker: RedisBroker, after: Position, events: int) -> int:
    """How many events the log gives after a position, read as a hub reads it, up to `events`."""
    found = 0
    while found < events:
        records = broker.read(after, 500)
        after = records[-1].position
        found += len(records)
    return found


def receipts(url: str) -> list[float]:
    """Seconds from `append` in one connection until a reader on another has each of some events."""
    publisher, reader = RedisBroker(url), RedisBroker(url)
    publisher.append([Entry("news", DATA, None, None)])
    sent: list[float] = []
    took: list[float] = []
    heard = threading.Event()
    after = publisher.head()

    def follow() -> None:
        position = after
        while len(took) < RECEIPTS:
            for record in reader.follow(position, 500, 5.0):
                took.append(wall() - sent[len(took)])
                position = record.position
                heard.set()

    thread = threading.Thread(target=follow)
    thread.start()
    pause = threading.Event()
    for _ in range(RECEIPTS):
        pause.wait(0.001)  # the reader is waiting again
        heard.clear()
        sent.append(wall())
        publisher.append([Entry("news", DATA, None, None)])
        heard.wait(10)
    thread.join()
    publisher.close()
    reader.close()
    return took


def same_logs(client: redis.Redis, stream: str) -> None:
    """Both sides leave the same number of entries with the same topic and data in a stream."""
    held = {}
    for name in ("bare", stream):
        entries = client.xrange(name, count=SINGLE)
        held[name] = [(fields[b"topic"], fields[b"data"]) for _, fields in entries]
    must_agree("the entries", held)


def figures() -> Iterator[Figure]:
    """Publishing one by one and in batches, the way to a reader, and a long replay."""
    streams = (f"log{number}" for number in count())
    with tempfile.TemporaryDirectory() as folder, redis_server(Path(folder), appendonly=False) as server:
        client = redis.Redis(port=server.port)
        stream = next(streams)
        hub = Hub(server.url(stream=stream), retain=RETAIN)
        bare(client, "bare")
        publish(hub)
        same_logs(client, stream)
        taken = medians({"bare": lambda: bare(client, "bare"), "hub": lambda: publish(hub)})
        yield Figure(
            "publish, one by one: streamkit / redis-py XADD",
            taken["bare"] / taken["hub"],
            0.7,
            True,
            f"{SINGLE / taken['hub'] / 1e3:.1f} / {SINGLE / taken['bare'] / 1e3:.1f} k events/s",
        )
        taken = medians({"bare": lambda: bare_batches(client, "bare"), "hub": lambda: publish_batches(hub)})
        yield Figure(
            f"publish, {BATCH} at once: streamkit / redis-py transaction of XADD",
            taken["bare"] / taken["hub"],
            0.7,
            True,
            f"{BATCHED / taken['hub'] / 1e3:.0f} / {BATCHED / taken['bare'] / 1e3:.0f} k events/s",
        )
        took = sorted(receipts(server.url(stream=next(streams))))
        yield Figure(
            "append until a reader has it, median",
            median(took) * 1e3,
            10,
            False,
            f"99 %: {took[len(took) * 99 // 100] * 1e3:.1f} ms",
            "ms",
        )
        broker = RedisBroker(server.url(stream=stream), retain=RETAIN)
        floor = broker.floor()
        taken = medians({"replay": lambda: replay(broker, floor, REPLAYED)}, rounds=5)
        yield Figure(
            f"reading {REPLAYED:,} events of history",
            taken["replay"] * 1e3,
            150,
            False,
            f"{REPLAYED / taken['replay'] / 1e3:.0f} k events/s",
            "ms",
        )
        for each in (hub, broker, client):
            each.close()
