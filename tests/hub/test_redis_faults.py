"""A real Redis that is stopped, killed, emptied, paused, full or locked: nothing is lost, nothing doubled."""

from __future__ import annotations

import contextlib
import itertools
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("redis")

from streamkit.errors import BrokerUnavailable, DuplicateEvent, HubClosed
from streamkit.hub import redis_calls, redis_reader
from streamkit.hub.broker import Entry, HistoryLost, Record
from streamkit.hub.redis import TIMEOUT, RedisBroker
from streamkit.testing.check_broker import all_after
from tests.conftest import eventually
from tests.ports import free_port
from tests.redis_server import RedisServer, redis_server
from tests.services import program


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path / "redis") as server:
        yield server


@contextlib.contextmanager
def broker_on(url: str, timeout: float = TIMEOUT) -> Iterator[RedisBroker]:
    broker = RedisBroker(url, timeout=timeout)
    try:
        yield broker
    finally:
        broker.close()


NUMBERS = itertools.count()


def entry(data: str = "x", id: str | None = None) -> Entry:
    return Entry("a", data, None, id)


def insisted(broker: RedisBroker, data: str = "x") -> str:
    """Publish where Redis may be slower than the timeout: again and again, under one id."""
    id = f"insisted {next(NUMBERS)}"

    def is_published() -> bool:
        try:
            broker.append([entry(data, id)])
        except DuplicateEvent:
            pass  # the answer alone was late
        except BrokerUnavailable:
            return False
        return True

    eventually(is_published)
    return id


def followed(broker: RedisBroker, after: int, seconds: float) -> list[Record]:
    """Follow where Redis may be slower than the timeout."""
    found: list[list[Record]] = []

    def is_answered() -> bool:
        with contextlib.suppress(BrokerUnavailable):
            found.append(broker.follow(after, 10, seconds))
        return bool(found)

    eventually(is_answered)
    return found[0]


class Publisher(threading.Thread):
    """Publishes until told to stop, and remembers what it was promised."""

    def __init__(self, broker: RedisBroker) -> None:
        super().__init__()
        self.broker = broker
        self.ids: list[str] = []
        self.failed = 0
        self.enough = threading.Event()
        self.start()

    def run(self) -> None:
        while not self.enough.is_set():
            try:
                self.ids += self.broker.append([entry()])
            except BrokerUnavailable:
                self.failed += 1

    def published(self, more: int) -> None:
        wanted = len(self.ids) + more
        eventually(lambda: len(self.ids) >= wanted, 30, "publishing goes on")

    def stop(self) -> list[str]:
        self.enough.set()
        self.join(30)
        return self.ids


class Follower(threading.Thread):
    """Follows as the reader of a hub does, with a pause after a failure."""

    def __init__(self, broker: RedisBroker) -> None:
        super().__init__()
        self.broker = broker
        self.ids: list[str] = []
        self.gaps = 0
        self.failures: list[str] = []
        self.start()

    def run(self) -> None:
        after = 0
        while True:
            try:
                found = self.broker.follow(after, 100, 1.0)
            except HubClosed:
                return
            except HistoryLost:
                self.gaps += 1
                after = self.broker.floor()
                continue
            except BrokerUnavailable as error:
                self.failures.append(str(error))
                time.sleep(0.02)
                continue
            if found:
                after = found[-1].position
                self.ids += [record.id for record in found]


@pytest.mark.parametrize("fault", ["stop", "kill"])
def test_nothing_is_lost_when_redis_restarts_with_its_data(server: RedisServer, fault: str) -> None:
    with broker_on(server.url(), timeout=20.0) as broker, broker_on(server.url()) as other:
        follower = Follower(other)
        publisher = Publisher(broker)
        publisher.published(50)
        getattr(server, fault)()
        eventually(lambda: follower.failures)
        server.start()
        publisher.published(50)
        promised = publisher.stop()
        assert publisher.failed == 0, "a restart within the timeout is waited for"
        eventually(lambda: len(follower.ids) >= len(promised))
        held = [record.id for record in all_after(broker, 0, 1000)]
        assert held == promised
        assert follower.ids == promised
        assert follower.gaps == 0
    follower.join(10)
    assert not follower.is_alive()


def test_a_redis_that_restarts_empty_is_a_gap(server: RedisServer) -> None:
    with broker_on(server.url()) as broker:
        ids = broker.append([entry("one"), entry("two")])
        head = broker.head()
        assert broker.follow(head, 10, 0.05) == []
        server.restart(empty=True)
        with pytest.raises((HistoryLost, BrokerUnavailable)):
            broker.follow(head, 10, 5.0)
        for ask in (lambda: broker.read(head, 10), lambda: broker.follow(head, 10, 5.0)):
            with pytest.raises(HistoryLost):
                ask()
        assert broker.head() == broker.floor() == 0
        (new,) = broker.append([entry("three")])
        for old in ids:
            assert broker.locate(old) is None
            assert old != new
        with pytest.raises(HistoryLost):
            broker.follow(head, 10, 5.0)
        assert [record.id for record in broker.follow(0, 10, 5.0)] == [new]
        assert broker.head() > head, "positions rise, also over the loss of a log"


def test_a_paused_redis_is_waited_for_or_given_up_in_time(server: RedisServer) -> None:
    with broker_on(server.url(), timeout=0.5) as broker, broker_on(server.url(), timeout=20.0) as patient:
        follower = Follower(patient)
        insisted(broker, "before")
        patient.append([entry("before")])
        answers: list[str] = []
        waiting = threading.Thread(target=lambda: answers.extend(patient.append([entry("patient")])))
        with server.paused():
            waiting.start()
            for call in (lambda: broker.append([entry("lost?")]), broker.head, broker.expired):
                began = time.monotonic()
                with pytest.raises(BrokerUnavailable, match="does not answer"):
                    call()
                assert time.monotonic() - began < 5
            assert not answers
        waiting.join(30)
        insisted(broker, "after")
        held = all_after(patient, 0, 100)
        data = [record.data for record in held]
        assert data.count("patient") == 1
        assert data.count("lost?") <= 1, "its outcome is unknown, but it is not doubled"
        assert data[-1] == "after"
        eventually(lambda: follower.ids == [record.id for record in held])
        assert follower.gaps == 0
    follower.join(10)


def test_a_connection_that_died_without_a_word_is_noticed(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_reader, "BLOCK_SECONDS", 0.1)
    with broker_on(server.url(), timeout=0.3) as broker, broker_on(server.url()) as patient:
        patient.append([entry()])
        head = patient.head()
        assert followed(broker, head, 0.3) == []  # asked anew a few times
        with server.paused(), pytest.raises(BrokerUnavailable):
            broker.follow(head, 10, 30.0)
        (id,) = patient.append([entry()])
        assert [record.id for record in followed(broker, head, 5.0)] == [id]


def test_unreachable_at_the_start(tmp_path: Path) -> None:
    with redis_server(tmp_path / "redis", started=False) as server, broker_on(server.url(), 0.3) as broker:
        for call in (
            lambda: broker.append([entry()]),
            lambda: broker.follow(0, 10, 0.1),
            lambda: broker.claim("run", "one", 1.0),
        ):
            with pytest.raises(BrokerUnavailable, match="is it running"):
                call()
        follower = Follower(broker)
        server.start()
        ids = [insisted(broker)]
        eventually(lambda: follower.ids == ids)
        broker.close()
        follower.join(10)


def test_a_password(tmp_path: Path) -> None:
    with redis_server(tmp_path / "redis", password="p@ss/word", appendonly=False) as server:
        right = f"redis://:p%40ss%2Fword@127.0.0.1:{server.port}/1?stream=s"
        with broker_on(right) as broker:
            (id,) = broker.append([entry()])
            assert [record.id for record in broker.follow(0, 9, 5.0)] == [id]
            assert "p%40ss" not in broker.url
        for login in ("", ":wr0ng@", "someone:wr0ng@"):
            with broker_on(right.replace(":p%40ss%2Fword@", login)) as broker:
                for call in (lambda b=broker: b.append([entry()]), lambda b=broker: b.follow(0, 9, 5.0)):
                    began = time.monotonic()
                    with pytest.raises(BrokerUnavailable, match="user or password") as raised:
                        call()
                    assert "wr0ng" not in str(raised.value)
                    assert time.monotonic() - began < TIMEOUT, "waiting does not make a password right"


def test_a_user_who_may_not(server: RedisServer) -> None:
    server.command("ACL", "SETUSER", "reader", "on", ">x", "~*", "+@read")
    with (
        broker_on(server.url().replace("//", "//reader:x@")) as broker,
        pytest.raises(BrokerUnavailable, match="does not let this user"),
    ):
        broker.append([entry()])


def test_a_full_redis_takes_nothing_in_part(server: RedisServer) -> None:
    with broker_on(server.url()) as broker:
        broker.append([entry()])
        server.command("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(BrokerUnavailable, match="is full"):
            broker.append([entry(), entry(id="mine")])
        server.command("CONFIG", "SET", "maxmemory", "0")
        assert len(all_after(broker, 0)) == 1
        broker.append([entry(id="mine")])


def test_scripts_that_redis_forgot_are_sent_again(server: RedisServer) -> None:
    with broker_on(server.url()) as broker:
        broker.append([entry()])
        server.command("SCRIPT", "FLUSH")
        broker.append([entry()])
        assert len(all_after(broker, 0)) == 2


def test_close_ends_who_waits_for_a_redis_that_is_away(tmp_path: Path) -> None:
    broker = RedisBroker(f"redis://127.0.0.1:{free_port()}/0", timeout=60.0)
    ended = threading.Event()

    def publish() -> None:
        try:
            broker.append([entry()])
        except HubClosed:
            ended.set()

    thread = threading.Thread(target=publish)
    thread.start()
    broker.close()
    assert ended.wait(10)
    thread.join()


def test_a_paused_redis_does_not_hold_up_close(server: RedisServer) -> None:
    with broker_on(server.url()) as broker:
        follower = Follower(broker)
        ids = broker.append([entry()])
        broker.announce({"a": 1}, 60)
        eventually(lambda: follower.ids == ids)
        with server.paused():
            began = time.monotonic()
            broker.close()
            assert time.monotonic() - began < TIMEOUT / 2
            # One that was just about to read the log waits for this answer as long as any call does.
            follower.join(2 * TIMEOUT)
            assert not follower.is_alive()


# -- between us and Redis -----------------------------------------------------------------------------------------


class Between:
    """A port that forwards to Redis. While `losing` is above 0 it cuts the connection instead of giving an answer.

    holds: whether it forwards nothing of a new connection from then on, until `go_on` is set.
    """

    def __init__(self, server: RedisServer, context: ssl.SSLContext | None = None) -> None:
        self.losing = 0
        self.holds = False
        self.go_on = threading.Event()
        self.go_on.set()
        self.port = 0
        self._server = server
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]
        self._sockets: list[socket.socket] = []
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(client,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.ExitStack() as stack:
            stack.enter_context(client)
            try:
                if self._context is not None:
                    client = stack.enter_context(self._context.wrap_socket(client, server_side=True))
                self.go_on.wait(20)
                upstream = stack.enter_context(socket.create_connection(("127.0.0.1", self._server.port)))
                self._sockets += [client, upstream]
                back = threading.Thread(target=self._copy, args=(client, upstream, lambda data: True))
                back.start()
                self._copy(upstream, client, self._passes)
                back.join()
            except OSError:
                pass

    def _passes(self, data: bytes) -> bool:
        if self.losing > 0 and not data.startswith(b"-NOSCRIPT"):
            if self.holds:
                self.go_on.clear()
            self.losing -= 1
            return False
        return True

    def _copy(self, source: socket.socket, target: socket.socket, passes: Callable[[bytes], bool]) -> None:
        with contextlib.suppress(OSError):
            while (data := source.recv(65536)) and passes(data):
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.go_on.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in self._sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)


def test_a_lost_answer_doubles_nothing(server: RedisServer) -> None:
    between = Between(server)
    try:
        with broker_on(server.url(port=between.port)) as broker:
            ids = broker.append([entry("first")])
            for number in range(5):
                between.losing = 1
                ids += broker.append([entry(f"{number} one"), entry(f"{number} two", id=f"own {number}")])
            assert between.losing == 0
            assert [record.id for record in all_after(broker, 0)] == ids
            broker.claim("run", "one", 60)
            between.losing = 1
            assert broker.release("run", "one"), "who released it is told so"
            assert not broker.release("run", "one")
    finally:
        between.close()


def test_a_lost_answer_is_found_among_what_others_published(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_calls, "FIRST_PAUSE", 0.4)
    between = Between(server)
    try:
        with broker_on(server.url(port=between.port)) as broker, broker_on(server.url()) as other:
            for before in (0, 30):  # of a broker that has published nothing yet, and of one that has
                between.losing = 1
                found: list[str] = []
                call = threading.Thread(
                    target=lambda n=before, f=found: f.extend(broker.append([entry(f"mine {n}")]))  # type: ignore[misc]
                )
                call.start()
                eventually(lambda: between.losing == 0)
                other.append([entry("theirs")] * 75)
                call.join(20)
                mine = [record for record in all_after(broker, 0, 500) if record.data == f"mine {before}"]
                assert [record.id for record in mine] == found
    finally:
        between.close()


def test_a_lost_answer_that_nobody_can_find_any_more_doubles_nothing(server: RedisServer) -> None:
    """All that is held was published by others since the first attempt, which the log may have forgotten."""
    between = Between(server)
    try:
        with (
            broker_on(server.url(port=between.port), timeout=20.0) as broker,
            broker_on(server.url()) as other,
        ):
            small = RedisBroker(server.url(), retain=10)
            small.append([entry("theirs")])
            small.close()
            between.holds = True
            between.losing = 1
            refused: list[str] = []

            def publish() -> None:
                try:
                    broker.append([entry("mine")])
                except BrokerUnavailable as error:
                    refused.append(str(error))

            call = threading.Thread(target=publish)
            call.start()
            eventually(lambda: between.losing == 0)
            for _ in range(5):
                other.append([entry("theirs")] * 100)
            between.holds = False
            between.go_on.set()
            call.join(20)
            assert len(refused) == 1
            assert "nobody knows whether this was published" in refused[0]
            other.append([entry("theirs")])
            held = all_after(other, other.floor(), 500)
            assert {record.data for record in held} == {"theirs"}
            between.losing = 1
            broker.append([entry("again")])  # nothing is trimmed in between: its first attempt is found
            held = all_after(other, other.floor(), 500)
            assert [record.data for record in held].count("again") == 1
    finally:
        between.close()


def test_a_lost_answer_doubles_nothing_in_a_log_that_lost_its_end(
    server: RedisServer, tmp_path: Path
) -> None:
    """As after a failover to a replica that was behind: the numbers of what it lacks are given again."""
    between = Between(server)
    try:
        with broker_on(server.url(port=between.port)) as broker:
            broker.append([entry("held")])
            server.stop()
            shutil.copytree(server.folder, tmp_path / "behind")
            server.start()
            for number in range(5):
                broker.append([entry(f"lost {number}")])
            server.stop()
            server.erase()
            shutil.copytree(tmp_path / "behind", server.folder, dirs_exist_ok=True)
            server.start()
            broker.head()  # so it is connected again
            between.losing = 1
            broker.append([entry("again")])
            assert between.losing == 0
            assert [record.data for record in all_after(broker, 0)] == ["held", "again"]
    finally:
        between.close()


def test_tls(server: RedisServer, tmp_path: Path) -> None:
    program("openssl")
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    subprocess.run(
        [
            *[str(shutil.which("openssl")), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"],
            *["-keyout", str(key), "-out", str(certificate), "-subj", "/CN=localhost"],
            *["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"],
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    between = Between(server, context)
    try:
        url = server.url(scheme="rediss", port=between.port)
        with broker_on(f"{url}&ssl_ca_certs={certificate}") as broker:
            large = "x" * 200_000
            follower = Follower(broker)
            ids = broker.append([entry()]) + broker.append([entry(large)] * 3)
            eventually(lambda: follower.ids == ids)
            assert broker.read(broker.head() - (1 << 48), 1)[0].data == large
            broker.close()
            follower.join(10)
        with broker_on(url, timeout=0.3) as broker:

            def is_refused() -> bool:
                with pytest.raises(BrokerUnavailable) as refused:
                    broker.append([entry()])
                return "CERTIFICATE_VERIFY" in str(refused.value)

            eventually(is_refused)  # or the other side is slower than the timeout
    finally:
        between.close()
