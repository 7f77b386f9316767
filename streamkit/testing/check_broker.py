"""The conformance suite of brokers: what `streamkit.hub.broker.Broker` promises, tested on any implementation.

    check_broker(lambda retain: MyBroker(new_empty_place(), retain=retain), lambda broker: MyBroker(broker.place))

Each check is a function of its own in `CHECKS`, for test runners that want to name them one by one. They need no test
runner: they raise AssertionError.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from typing import Final

from streamkit.errors import DuplicateEvent, HubClosed
from streamkit.hub.broker import Broker, Entry, HistoryLost, Record

Fresh = Callable[[int], Broker]
"""Makes a broker with a new, empty log that retains this many records."""

Again = Callable[[Broker], Broker]
"""Opens the log of a broker once more, as another process would."""

Check = Callable[[Fresh, Again | None], None]

PATIENCE: Final = 10.0  # seconds; what takes longer hangs. Nothing here asserts that something is fast


def check_broker(fresh: Fresh, again: Again | None = None) -> None:
    """Run every check. Raises AssertionError, or what the broker raised, at the first promise that is not kept.

    fresh: makes a broker with a new, empty log that retains the given number of records. again: opens the log of a
    given broker once more, as another process would; None for a broker that is `local`. The checks close every broker
    that they made.
    """
    for check in CHECKS.values():
        check(fresh, again)


def entry(topic: str = "a", data: str = "x", event: str | None = None, id: str | None = None) -> Entry:
    """An entry with what a check does not care about filled in."""
    return Entry(topic, data, event, id)


def all_after(broker: Broker, after: int, limit: int = 7) -> list[Record]:
    """Everything that `read` gives after a position, step by step."""
    found: list[Record] = []
    while True:
        step = broker.read(found[-1].position if found else after, limit)
        if not step:
            return found
        assert len(step) <= limit, f"read gave {len(step)} records where {limit} were asked for"
        found += step


def _appends_in_order(fresh: Fresh, again: Again | None) -> None:
    broker = fresh(100)
    try:
        assert broker.head() == broker.floor() == 0
        assert broker.read(0, 10) == []
        ids = broker.append([entry("a", "one"), entry("b", "two\nlines", "named"), entry("a", "")])
        ids += broker.append([entry("c", "\u00e9\u2028\U0001f600", "\u00e9")])
        records = all_after(broker, 0, 2)
        assert [record.id for record in records] == ids
        assert [(record.topic, record.data, record.event) for record in records] == [
            ("a", "one", None),
            ("b", "two\nlines", "named"),
            ("a", "", None),
            ("c", "\u00e9\u2028\U0001f600", "\u00e9"),
        ]
        positions = [record.position for record in records]
        assert positions == sorted(set(positions))
        assert positions[0] > 0
        assert broker.head() == positions[-1]
        assert all_after(broker, positions[1]) == records[2:]
        assert broker.append([]) == []
    finally:
        broker.close()


def _makes_ids_that_can_be_sent(fresh: Fresh, again: Again | None) -> None:
    broker, other = fresh(100), fresh(100)
    try:
        ids = [broker.append([entry()])[0] for _ in range(20)]
        assert len(set(ids)) == 20
        for id in ids:
            assert re.fullmatch(r"[A-Za-z0-9._-]{1,64}", id), id
        foreign = other.append([entry()])[0]
        assert foreign not in ids, "two logs give the same ids: an id needs its log's epoch"
        assert broker.locate(foreign) is None
    finally:
        broker.close()
        other.close()


def _locates_ids(fresh: Fresh, again: Again | None) -> None:
    broker = fresh(100)
    try:
        ids = broker.append([entry(), entry(id="my-own:1"), entry(id="\u00e9\u00e8 2"), entry()])
        assert ids[1:3] == ["my-own:1", "\u00e9\u00e8 2"]
        for record in broker.read(0, 10):
            assert broker.locate(record.id) == record.position
        for nonsense in garbage(ids[0]):
            assert broker.locate(nonsense) is None, nonsense[:60]
    finally:
        broker.close()


def garbage(id: str) -> list[str]:
    """Cursors that no broker gave out, some of them made from one that it did."""
    ahead = re.sub(r"\d", "9", id) + "9" * 3
    return [
        "",
        " ",
        "-",
        "0",
        "1",
        "-1",
        "0-0",
        "\ufffd",
        "\0",
        "%s%n",
        "'; DROP TABLE log; --",
        "x" * 4096,
        "9" * 4096,
        "\u0661-\u0661",
        "\ud800",
        id + " ",
        " " + id,
        id + "x",
        "x" + id,
        ahead,
    ]


def _refuses_duplicates(fresh: Fresh, again: Again | None) -> None:
    broker = fresh(100)
    try:
        (made,) = broker.append([entry(id=None)])
        broker.append([entry(id="one")])
        for entries in ([entry(id="one")], [entry(), entry(id="two"), entry(id="two")]):
            _raises(DuplicateEvent, lambda entries=entries: broker.append(entries))  # type: ignore[misc]
        _raises(DuplicateEvent, lambda: broker.append([entry(id=made)]))
        assert len(all_after(broker, 0)) == 2, "a refused batch left something in the log"
        broker.append([entry(id="two")])
    finally:
        broker.close()


def _trims(fresh: Fresh, again: Again | None) -> None:
    broker = fresh(50)
    try:
        first = broker.append([entry(data="first", id="first")])[0]
        start = broker.read(0, 1)[0].position
        assert broker.floor() == 0
        for number in range(200):
            broker.append([entry(data=f"{number}-{step}") for step in range(10)])
        held = all_after(broker, broker.floor(), 100)
        assert 50 <= len(held) <= 1500, f"{len(held)} records are held where 50 should be"
        assert [record.data for record in held][-50:] == [
            f"{n}-{s}" for n in range(195, 200) for s in range(10)
        ]
        _raises(HistoryLost, lambda: broker.read(start, 10))
        _raises(HistoryLost, lambda: broker.follow(start, 10, 0.0))
        assert broker.locate(first) in (None, start)
        assert broker.head() == held[-1].position
    finally:
        broker.close()


def _refuses_the_future(fresh: Fresh, again: Again | None) -> None:
    broker = fresh(50)
    try:
        broker.append([entry()])
        _raises(HistoryLost, lambda: broker.read(broker.head() + (1 << 80), 10))
    finally:
        broker.close()


def _follow_waits(fresh: Fresh, again: Again | None) -> None:
    broker = fresh(50)
    try:
        assert broker.follow(0, 10, 0.0) == []
        began = time.monotonic()
        assert broker.follow(0, 10, 0.05) == []
        assert time.monotonic() - began >= 0.04
        found: list[Record] = []
        reader = threading.Thread(target=lambda: found.extend(_follow(broker, 0)))
        reader.start()
        (id,) = broker.append([entry(data="awaited")])
        reader.join(PATIENCE)
        assert [record.id for record in found] == [id]
        assert broker.follow(0, 10, PATIENCE) == found, "what is there already need not be waited for"
    finally:
        broker.close()


def _follow(broker: Broker, after: int) -> list[Record]:
    """`follow` until there is something: it may return early with nothing."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        found = broker.follow(after, 100, 1.0)
        if found:
            return found
    raise AssertionError(f"follow gave nothing for {PATIENCE} s")


def _wake_ends_follow(fresh: Fresh, again: Again | None) -> None:
    broker = fresh(50)
    try:
        broker.wake()
        began = time.monotonic()
        assert broker.follow(0, 10, PATIENCE) == []  # the wake-up came first, and is not lost
        done = threading.Event()

        def wait() -> None:
            broker.follow(0, 10, PATIENCE)
            done.set()

        reader = threading.Thread(target=wait)
        reader.start()
        while not done.wait(0.02):
            broker.wake()
        reader.join()
        assert time.monotonic() - began < PATIENCE
    finally:
        broker.close()


def _appends_from_threads(fresh: Fresh, again: Again | None) -> None:
    broker = fresh(10_000)
    try:
        ids: list[list[str]] = [[] for _ in range(4)]
        unknown: list[str] = []

        def publish(number: int) -> None:
            for step in range(50):
                ids[number] += broker.append(
                    [entry(data=f"{number} {step} {part}") for part in range(3)] if step % 2 else [entry()]
                )
                if broker.locate(ids[number][-1]) is None:
                    unknown.append(ids[number][-1])

        threads = [threading.Thread(target=publish, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        found: list[Record] = []
        while len(found) < 400:
            found += _follow(broker, found[-1].position if found else 0)
        for thread in threads:
            thread.join()
        assert found == all_after(broker, 0, 100), "follow and read disagree"
        assert not unknown, f"locate did not know {unknown[0]!r} when append had returned it"
        for own in ids:
            assert [record.id for record in found if record.id in set(own)] == own
        batches = [record.data.split() for record in found if " " in record.data]
        for first in range(0, len(batches), 3):
            assert [words[2] for words in batches[first : first + 3]] == ["0", "1", "2"], "a batch was torn"
    finally:
        broker.close()


def _others_see_it(fresh: Fresh, again: Again | None) -> None:
    broker = fresh(50)
    try:
        assert broker.local == (again is None)
        if again is None:
            return
        other = again(broker)
        try:
            ids = broker.append([entry(id="mine"), entry()])
            records = _follow(other, 0)
            assert [record.id for record in records] == ids
            assert other.locate(ids[1]) == records[1].position
            _raises(DuplicateEvent, lambda: other.append([entry(id="mine")]))
            ids += other.append([entry("b")])
            assert [record.id for record in _follow(broker, records[-1].position)] == ids[2:]
        finally:
            other.close()
        third = again(broker)
        try:
            assert [record.id for record in all_after(third, 0)] == ids, (
                "the log changed when it was reopened"
            )
        finally:
            third.close()
    finally:
        broker.close()


def _leases(fresh: Fresh, again: Again | None) -> None:
    broker = fresh(50)
    try:
        assert broker.holder("run") is None
        assert broker.claim("run", "one", 60) == "one"
        assert broker.claim("run", "two", 60) == "one"
        assert broker.holder("run") == "one"
        assert broker.renew([("run", "one"), ("run", "two"), ("no", "one")], 60) == ["held", "lost", "lost"]
        assert not broker.request_stop("run", "two")
        assert broker.request_stop("run", "one")
        assert broker.renew([("run", "one")], 60) == ["stopping"]
        assert broker.expired() == []
        assert not broker.release("run", "two")
        assert broker.release("run", "one")
        assert not broker.release("run", "one")
        assert broker.claim("run", "two", 60) == "two"
        assert broker.renew([("run", "two")], 60) == ["held"], "a new lease began with an old request to stop"
    finally:
        broker.close()


def _leases_expire(fresh: Fresh, again: Again | None) -> None:
    broker = fresh(50)
    try:
        broker.claim("run", "dead", 0.02)
        broker.claim("other", "alive", 60)
        deadline = time.monotonic() + PATIENCE
        while broker.expired() != [("run", "dead")]:
            assert time.monotonic() < deadline, f"still not expired: {broker.expired()}"
            time.sleep(0.01)
        assert broker.claim("run", "next", 60) == "dead", "an end that nobody has seen was passed over"
        assert broker.release("run", "dead")
        assert broker.expired() == []
        assert broker.claim("run", "next", 60) == "next"
    finally:
        broker.close()


def _leases_are_shared(fresh: Fresh, again: Again | None) -> None:
    if again is None:
        return
    broker = fresh(50)
    other = again(broker)
    try:
        won: list[str] = []
        threads = [
            threading.Thread(target=lambda b=b, n=n: won.append(b.claim("run", n, 60)))
            for b, n in ((broker, "one"), (other, "two"))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert won[0] == won[1]
        assert other.request_stop("run", won[0])
        assert broker.renew([("run", won[0])], 60) == ["stopping"]
        assert sorted([broker.release("run", won[0]), other.release("run", won[0])]) == [False, True]
    finally:
        broker.close()
        other.close()


def _presence(fresh: Fresh, again: Again | None) -> None:
    broker = fresh(50)
    try:
        if broker.present("a") is None:
            return  # it cannot know, and says so
        broker.announce({"a": 2, "b*": 1}, 60)
        assert (broker.present("a"), broker.present("b*"), broker.present("c")) == (2, 1, 0)
        broker.announce({"a": 0}, 60)
        assert (broker.present("a"), broker.present("b*")) == (0, 1)
        if again is not None:
            other = again(broker)
            other.announce({"a": 3, "b*": 3}, 60)
            assert (broker.present("a"), broker.present("b*")) == (3, 4)
            other.close()
            assert broker.present("b*") == 1, "a process that has closed is counted still"
    finally:
        broker.close()


def _closes(fresh: Fresh, again: Again | None) -> None:
    broker = fresh(50)
    broker.append([entry()])
    head = broker.head()
    ended = threading.Event()

    def follow() -> None:
        try:
            while True:
                broker.follow(head, 10, PATIENCE)
        except HubClosed:
            ended.set()

    reader = threading.Thread(target=follow)
    reader.start()
    broker.close()
    broker.close()
    assert ended.wait(PATIENCE), "close() did not end a waiting follow()"
    reader.join()
    broker.wake()
    for call in (
        lambda: broker.append([entry()]),
        lambda: broker.append([]),
        lambda: broker.read(0, 1),
        lambda: broker.follow(0, 1, 0.0),
        lambda: broker.locate("x"),
        lambda: broker.locate("\ud800"),
        broker.head,
        broker.floor,
        lambda: broker.claim("run", "one", 1),
        lambda: broker.renew([("run", "one")], 1),
        lambda: broker.release("run", "one"),
        lambda: broker.holder("run"),
        broker.expired,
        lambda: broker.request_stop("run", "one"),
    ):
        _raises(HubClosed, call)


def _raises(kind: type[BaseException], call: Callable[[], object]) -> None:
    try:
        given = call()
    except kind:
        return
    raise AssertionError(f"{kind.__name__} was not raised; it returned {given!r}")


CHECKS: Final[dict[str, Check]] = {
    "appends in order": _appends_in_order,
    "makes ids that can be sent": _makes_ids_that_can_be_sent,
    "locates ids": _locates_ids,
    "refuses duplicates": _refuses_duplicates,
    "trims": _trims,
    "refuses the future": _refuses_the_future,
    "follow waits": _follow_waits,
    "wake ends follow": _wake_ends_follow,
    "appends from threads": _appends_from_threads,
    "others see it": _others_see_it,
    "leases": _leases,
    "leases expire": _leases_expire,
    "leases are shared": _leases_are_shared,
    "presence": _presence,
    "closes": _closes,
}
"""Every check by its name; each takes `fresh` and `again`."""
