"""Streams that leave the server: what the client sees, what the server writes down, what is left behind."""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import eventually
from tests.live_server import MODULES, LiveServer, running

h11 = pytest.importorskip("h11")

LENDING = ["fallback", "gunicorn-gthread", "gunicorn-sync", "uwsgi", "werkzeug"]
APP = "tests.apps.detached_app:app"
EXPECTED = ("secret detail", "a middleware with a bug", "Content-Length says 100000000")
RESET = struct.pack("ii", 1, 0)


@pytest.fixture(scope="module", params=LENDING)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    if request.param in MODULES:
        pytest.importorskip(MODULES[request.param].replace("uwsgidecorators", "pyuwsgi"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GUNICORN_CMD_ARGS", "--access-logfile - --keep-alive 30")
        with running(request.param, tmp_path_factory.mktemp("log"), APP) as server:
            server.name = request.param  # type: ignore[attr-defined]
            yield server


def name_of(server: LiveServer) -> str:
    return server.name  # type: ignore[attr-defined,no-any-return]


opened: list[socket.socket] = []


@pytest.fixture(autouse=True)
def _nothing_open() -> Iterator[None]:
    """A test that fails leaves its connections open."""
    yield
    while opened:
        opened.pop().close()


class Reader:
    """A client as strict as h11, that reads one stream as it comes."""

    def __init__(self, server: LiveServer, path: str, request: bytes | None = None) -> None:
        self.socket = socket.create_connection(("127.0.0.1", server.port), timeout=30)
        self.path = path
        self.connection = h11.Connection(h11.CLIENT)
        sent = self.connection.send(h11.Request(method="GET", target=path, headers=[("Host", "localhost")]))
        self.connection.send(h11.EndOfMessage())
        self.socket.sendall(request or sent)
        self.head: Any = None
        self.body = b""
        self.ended = False
        opened.append(self.socket)

    def more(self) -> bool:
        """Read something; False at the end of the message. Raises h11.RemoteProtocolError for a broken one."""
        while True:
            event = self.connection.next_event()
            if event is h11.NEED_DATA:
                self.connection.receive_data(self.socket.recv(65536))
            elif isinstance(event, h11.Response):
                self.head = event
            elif isinstance(event, h11.Data):
                self.body += event.data
                return True
            elif isinstance(event, (h11.EndOfMessage, h11.ConnectionClosed)):
                self.ended = True
                return False

    def until(self, marker: bytes) -> Reader:
        while marker not in self.body:
            assert self.more(), self.body[-500:]
        return self

    def all(self) -> bytes:
        while self.more():
            pass
        return self.body

    def header(self, name: str) -> str | None:
        return next((value.decode() for key, value in self.head.headers if key.decode() == name), None)

    def close(self) -> None:
        self.socket.close()

    def reset(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.socket.close()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Control:
    """One stream of ticks that stays open beside whatever happens, and misses none."""

    def __init__(self, server: LiveServer) -> None:
        self._reader = Reader(server, "/ticks").until(b'"n":0')
        self._stop = threading.Event()
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        try:
            while not self._stop.is_set():
                assert self._reader.more()
        except BaseException as error:
            self.error = error

    def seen(self) -> list[int]:
        """The numbers so far, in the order of their arrival; the last may be in pieces."""
        return [int(n) for n in re.findall(rb'data: {"n":(\d+)}\n\n', self._reader.body)]

    def check(self) -> None:
        """Still flowing, and none is missing."""
        before = len(self.seen())
        eventually(lambda: self.error or len(self.seen()) > before + 2)
        assert self.error is None, repr(self.error)
        seen = self.seen()
        assert seen == list(range(len(seen)))

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._reader.close()


@pytest.fixture
def control(server: LiveServer) -> Iterator[Control]:
    """A stream beside the test; after it nothing is held but what was held before."""
    control = Control(server)
    with contextlib.closing(control):
        before = server.state()
        yield control
        control.check()
        eventually(lambda: len(server.state()["live"]) <= 1, what=str(server.state()["live"]))
        eventually(lambda: server.state()["working"] <= before["working"], what=str(server.state()))
        eventually(
            lambda: server.state()["descriptors"] <= before["descriptors"],
            what=f"{before['open']} before, {server.state()['open']} now",
        )
    eventually(lambda: server.state()["live"] == [])


@pytest.fixture
def short_writes(server: LiveServer) -> Iterator[None]:
    """For clients that do not read on purpose; others may be kept from it for a while by a busy machine."""
    server.get("/limit-writes?1")
    yield
    server.get("/limit-writes?30")


def live(server: LiveServer, path: str) -> list[dict[str, Any]]:
    return [stream for stream in server.state()["live"] if stream["path"] == path]


_earlier: dict[str, int] = {}


@pytest.fixture(autouse=True)
def counts_begin(server: LiveServer) -> None:
    """The tests share the server; the outcomes of those before this one are not its own."""
    _earlier.clear()
    _earlier.update(server.state()["outcomes"])


def outcome(server: LiveServer, path: str, which: str, times: int = 1) -> None:
    """Wait until so many streams of this path have ended so in this test."""
    name = f"{path} {which}"
    eventually(
        lambda: server.state()["outcomes"].get(name, 0) - _earlier.get(name, 0) >= times,
        what=f"{times} times {name}",
    )


# -- the ordinary course -------------------------------------------------------------------------------------------


def test_a_stream_is_detached_and_pages_go_on(server: LiveServer, control: Control) -> None:
    """More streams than the server has threads, pulled and pushed ones."""
    readers = [Reader(server, path).until(b"data: ") for path in ["/ticks", "/quiet"] * 6]
    streams = server.state()["live"]
    assert len(streams) == 13
    assert {stream["delivery"] for stream in streams} == {"detached"}
    for reader in readers:
        assert (reader.header("connection") or "").lower() == "close"
        reader.close()


def test_all_arrives_and_ends_cleanly(server: LiveServer, control: Control) -> None:
    with Reader(server, "/numbers") as reader:
        body = reader.all()
    assert [int(n) for n in re.findall(rb'data: {"n":(\d+)}\n\n', body)] == list(range(3000))
    with Reader(server, "/rows") as reader:
        assert reader.all().count(b"\r\n") == 5000
    with Reader(server, "/length") as reader:
        assert len(reader.all()) == 2_000_000
        assert reader.header("content-length") == "2000000"
    for path in ("/numbers", "/rows", "/length"):
        outcome(server, path, "completed")


def test_the_record_is_that_of_a_threaded_stream(server: LiveServer, control: Control) -> None:
    with Reader(server, "/numbers") as reader:
        body = reader.all()
        port = reader.socket.getsockname()[1]
    outcome(server, "/numbers", "completed")
    record = server.state()["last"]["/numbers"]
    assert record["events"] == 3000
    assert record["bytes"] == len(body)
    assert record["kind"] == "events"
    assert record["peer"] == ("127.0.0.1" if name_of(server) == "uwsgi" else f"127.0.0.1:{port}")
    assert record["chunks"] >= 1
    assert 0 <= record["first_byte_delay"] <= record["age"]


def test_heartbeats(server: LiveServer, control: Control) -> None:
    with Reader(server, "/beating").until(b"data: first\n\n") as reader:
        while reader.body.count(b":\n") < 5:
            assert reader.more()
        (record,) = live(server, "/beating")
        assert record["delivery"] == "detached"
        assert record["chunks"] > 3
    outcome(server, "/beating", "client_gone")


def test_http_1_0(server: LiveServer, control: Control) -> None:
    with server.connect("/numbers", version="1.0") as sock:
        data = b""
        while more := sock.recv(65536):
            data += more
    head, _, body = data.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.")
    assert b"2999}" in body
    if name_of(server) != "werkzeug":  # which sends chunks to HTTP/1.0 clients
        assert b"transfer-encoding" not in head.lower()
        assert body.endswith(b'data: {"n":2999}\n\n')


def test_head(server: LiveServer, control: Control) -> None:
    response, body = server.get("/ticks", method="HEAD")
    assert (response.status, body) == (200, b"")
    assert live(server, "/ticks")[1:] == []


def test_a_request_before_the_stream_on_the_same_connection(server: LiveServer, control: Control) -> None:
    request = b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as sock:
        sock.sendall(request % b"/state")
        data = sock.recv(65536)
        while b"}}" not in data and b'"rss"' not in data:
            data += sock.recv(65536)
        if b"connection: close" in data.lower() or name_of(server) in ("gunicorn-sync", "uwsgi"):
            return
        sock.sendall(request % b"/quiet")
        data = b""
        while b"data: first" not in data:
            more = sock.recv(65536)
            assert more
            data += more
        assert data.startswith(b"HTTP/1.1 200")
        assert data.lower().count(b"connection: close") == 1
        eventually(lambda: [stream["delivery"] for stream in live(server, "/quiet")] == ["detached"])


# -- clients that talk on ------------------------------------------------------------------------------------------


def test_a_second_request_in_the_same_packet(server: LiveServer, control: Control) -> None:
    """It is not run in secret, for nobody would get the answer."""
    request = b"GET /quiet HTTP/1.1\r\nHost: a\r\n\r\nGET /let-me HTTP/1.1\r\nHost: a\r\n\r\n"
    with Reader(server, "/quiet", request).until(b"data: first\n\n"):
        pass
    outcome(server, "/quiet", "client_gone")
    assert "page /let-me" not in server.state()["facts"]


def test_a_second_request_later(server: LiveServer, control: Control) -> None:
    with Reader(server, "/beating").until(b"data: first\n\n") as reader:
        reader.socket.sendall(b"GET /let-me HTTP/1.1\r\nHost: a\r\n\r\n")
        beats = reader.body.count(b":\n")
        while reader.body.count(b":\n") < beats + 3:
            assert reader.more()
        assert b"HTTP/1.1" not in reader.body
    assert "page /let-me" not in server.state()["facts"]


def test_a_post_whose_body_nobody_reads(server: LiveServer, control: Control) -> None:
    request = b"POST /beating HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n"
    with Reader(server, "/beating", request + b"x" * 1000).until(b"data: first\n\n") as reader:
        reader.socket.sendall(b"y" * 99_000)
        beats = reader.body.count(b":\n")
        while reader.body.count(b":\n") < beats + 3:
            assert reader.more()


@pytest.mark.parametrize("chunked", [False, True])
def test_a_post_whose_body_the_view_has_read(server: LiveServer, control: Control, chunked: bool) -> None:
    pytest.importorskip("flask")
    if chunked and name_of(server) in ("uwsgi", "werkzeug"):
        pytest.skip("nobody can tell there")
    request = b"POST /flask/events?user=eve HTTP/1.1\r\nHost: a\r\n"
    if chunked:
        request += b"Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n"
    else:
        request += b"Content-Length: 5\r\n\r\nabcde"
    with Reader(server, "/flask/events", request).until(b"data: eve asked for"):
        eventually(lambda: [stream["delivery"] for stream in live(server, "/flask/events")] == ["detached"])
    outcome(server, "/flask/events", "client_gone")


def test_a_post_whose_body_is_read_while_it_is_answered(server: LiveServer, control: Control) -> None:
    """Not a byte of it is lost: such a stream stays where its body is."""
    size = 3_000_000
    request = b"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size
    with Reader(server, "/upload", request) as reader:

        def send() -> None:
            for _ in range(30):
                reader.socket.sendall(b"u" * (size // 30))
                time.sleep(0.002)  # a client that is still sending when it reads the first of the answer

        sending = threading.Thread(target=send)
        sending.start()
        try:
            body = reader.all()
        finally:
            sending.join(30)
    assert body.endswith(b'data: {"read":%d}\n\ndata: all\n\n' % size), body[-200:]
    outcome(server, "/upload", "completed")
    assert server.state()["last"]["/upload"]["delivery"] == "threaded"


def test_a_stream_whose_time_is_over_while_it_reads_its_request(server: LiveServer, control: Control) -> None:
    """Its producer and its server must not both read what comes next on the connection."""
    if name_of(server) in ("uwsgi", "werkzeug"):
        pytest.skip("it reads no further request on the connection")
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as client:
        client.sendall(
            b"POST /upload-briefly HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n"
        )
        answer = b""
        while part := client.recv(65536):
            answer += part
    assert re.search(rb"retry: \d+\n\r\n$", answer), answer
    assert answer.count(b"HTTP/1.") == 1, answer
    outcome(server, "/upload-briefly", "expired")


# -- clients that leave --------------------------------------------------------------------------------------------


def test_clients_that_leave(server: LiveServer, control: Control) -> None:
    for _ in range(5):
        for path in ("/ticks", "/quiet"):
            Reader(server, path).until(b"data: ").close()
            Reader(server, path).until(b"data: ").reset()
    for path in ("/ticks", "/quiet"):
        outcome(server, path, "client_gone", 10)


def test_clients_that_leave_before_during_and_right_after_the_takeover(
    server: LiveServer, control: Control
) -> None:
    for pause in (0.0, 0.0003, 0.001, 0.003, 0.006):
        for n in range(12):
            reader = Reader(server, "/quiet" if n % 2 else "/slow-rows")
            time.sleep(pause)
            if n % 3:
                reader.close()
            else:
                reader.reset()


def test_a_client_that_half_closes(server: LiveServer, control: Control) -> None:
    """Counts as one that leaves, as in Go's net/http: without writing the two cannot be told apart."""
    with Reader(server, "/quiet").until(b"data: ") as reader:
        reader.socket.shutdown(socket.SHUT_WR)
        outcome(server, "/quiet", "client_gone")


@pytest.mark.usefixtures("short_writes")
def test_clients_that_never_read(server: LiveServer, control: Control) -> None:
    """They hold no thread of the server, memory within bounds, and are closed at last."""
    paths = ["/endless", "/flood", "/hundred", "/block"]
    readers = [Reader(server, path) for path in paths * 2]
    for path in paths:
        outcome(server, path, "too_slow", 2)
        assert server.state()["last"][path]["delivery"] == "detached"
    for reader in readers:
        reader.close()


@pytest.mark.usefixtures("short_writes")
def test_a_client_that_reads_a_byte_now_and_then(server: LiveServer, control: Control) -> None:
    with server.connect("/flood") as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stop = threading.Event()

        def read() -> None:
            with contextlib.suppress(OSError):
                while not stop.wait(0.2) and sock.recv(1):
                    pass

        thread = threading.Thread(target=read)
        thread.start()
        outcome(server, "/flood", "too_slow")
        stop.set()
        thread.join()


def test_a_flood_to_a_good_reader_and_to_a_bad_one(server: LiveServer, control: Control) -> None:
    good, bad = Reader(server, "/flood"), Reader(server, "/flood")
    while len(good.body) < 3_000_000:
        good.more()
    assert set(good.body.split(b"\n\n")[1:-1]) <= {b"data: " + b"x" * 1000}
    control.check()
    good.close()
    bad.close()
    outcome(server, "/flood", "client_gone")


def test_places_of_a_limiter_come_back_whatever_the_end(server: LiveServer, control: Control) -> None:
    for _ in range(3):
        readers = [Reader(server, f"/limited?{kind}") for kind in ("quiet", "ticks", "flood")]
        for reader in readers:
            reader.until(b"data: ")
        refused, _ = server.get("/limited?quiet")
        assert (refused.status, server.state()["places"]) == (503, 3)
        readers[0].close()
        readers[1].reset()
        readers[2].close()
        eventually(lambda: server.state()["places"] == 0)
        with Reader(server, "/limited?failing") as reader:
            reader.until(b"event: error\n")
        eventually(lambda: server.state()["places"] == 0)


# -- producers that misbehave --------------------------------------------------------------------------------------


def test_a_producer_that_raises(server: LiveServer, control: Control) -> None:
    reader = Reader(server, "/failing").until(b"event: error\n")
    if name_of(server) == "uwsgi":  # its bodies end with the connection
        reader.all()
    else:
        with pytest.raises(h11.RemoteProtocolError):
            reader.all()
    assert b"secret" not in reader.body
    reader.close()
    outcome(server, "/failing", "failed")
    eventually(lambda: "secret detail" in server.log())


def test_a_producer_that_is_blocked_for_ever(server: LiveServer) -> None:
    """Its client's leaving ends the stream for the limiter and the socket; the thread comes back when it is let go."""
    before = server.state()
    readers = [Reader(server, "/deaf").until(b"data: first") for _ in range(6)]
    for reader in readers:
        reader.close()
    eventually(lambda: [stream["outcome"] for stream in live(server, "/deaf")] == ["client_gone"] * 6)
    eventually(lambda: server.state()["descriptors"] <= before["descriptors"])
    server.get("/let-go")
    outcome(server, "/deaf", "client_gone", 6)
    eventually(lambda: server.state()["live"] == [])
    eventually(lambda: server.state()["working"] == 0)


def test_a_hundred_megabytes_at_once(server: LiveServer, control: Control) -> None:
    before = server.state()["rss"]
    with Reader(server, "/hundred") as reader:
        size, tail = 0, b""
        while reader.more():
            size += len(reader.body)
            tail = reader.body[-3:]
            reader.body = b""
    assert (size, tail) == (100_000_008, b"end")
    outcome(server, "/hundred", "completed")
    eventually(lambda: server.state()["rss"] < before + 30_000_000, what=f"{before} {server.state()['rss']}")


# -- what stands around the application ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["passing", "with_header", "peeking", "unclosing", "dropping"])
def test_under_a_middleware_that_passes_it_on(server: LiveServer, control: Control, name: str) -> None:
    with Reader(server, f"/{name}/ticks").until(b'"n":2}') as reader:
        (record,) = live(server, f"/{name}/ticks")
        assert record["delivery"] == "detached"
        if name == "with_header":
            assert reader.header("x-added") == "yes"
    outcome(server, f"/{name}/ticks", "client_gone")


@pytest.mark.parametrize("name", ["gzipped", "buffered", "prefixed"])
def test_under_a_middleware_that_changes_the_body(server: LiveServer, name: str) -> None:
    import gzip

    for _ in range(2):  # the second time is not logged again
        with Reader(server, f"/{name}/ticks") as reader:
            while True:
                assert reader.more()
                if name != "gzipped" and b'"n":5}' in reader.body:
                    break
                if name == "gzipped" and reader.body.count(b"\x1f\x8b\x08") > 5:
                    whole = reader.body.rpartition(b"\x1f\x8b\x08")[0]  # the last member may come in parts
                    reader.body = gzip.decompress(whole)
                    break
            seen = [int(n) for n in re.findall(rb'data: {"n":(\d+)}\n\n', reader.body)]
            assert seen == list(range(len(seen)))
            assert reader.body.count(b":\n") == 1
        eventually(lambda: server.state()["live"] == [])
        assert server.state()["last"][f"/{name}/ticks"]["delivery"] == "threaded"


def test_under_a_middleware_that_goes_on_where_the_body_has_left(
    server: LiveServer, control: Control
) -> None:
    """What it adds is lost, and said to be; it holds no thread of the server for it."""
    if name_of(server) in ("fallback", "uwsgi"):
        pytest.skip("writes with a limit of its own")
    with Reader(server, "/followed/ticks").until(b'"n":3}'):
        for _ in range(6):  # more than there are threads
            server.get("/state")
    outcome(server, "/followed/ticks", "client_gone")
    eventually(lambda: "behind a stream which has left its server" in server.log())


def test_under_a_middleware_that_adds_a_length(server: LiveServer) -> None:
    with server.connect("/with_length/ticks") as sock:
        data = b""
        while b'"n":5}' not in data:
            data += sock.recv(65536)
        assert b"Content-Length: 100000000\r\n" in data
    eventually(lambda: server.state()["live"] == [])
    assert server.state()["last"]["/with_length/ticks"]["delivery"] == "threaded"


def test_under_a_middleware_that_collects_the_whole_body(server: LiveServer) -> None:
    response, body = server.get("/whole/numbers")
    assert response.status == 200
    assert body.count(b"data: ") == 3000
    assert server.state()["last"]["/whole/numbers"]["delivery"] == "threaded"


def test_under_middlewares_that_answer_something_else(server: LiveServer) -> None:
    before = server.state()["descriptors"]
    for _ in range(3):
        response, body = server.get("/replacing/ticks")
        assert (response.status, body) == (200, b"instead")
    with contextlib.suppress(Exception):  # each server has its own way with such a bug
        response, _ = server.get("/raising/ticks")
        assert response.status == 500
    eventually(lambda: server.state()["live"] == [])
    eventually(lambda: server.state()["descriptors"] <= before)


def test_each_obstacle_is_named_once(server: LiveServer) -> None:
    """Runs after the middlewares above, over the log of all."""
    lines = [line for line in server.log().splitlines() if "streams hold a thread of the server" in line]
    assert len(lines) == len(set(lines))
    text = "\n".join(lines)
    assert "gzip" in text or "changed or delayed" in text
    assert "Content-Length" in text
    assert "collects the body" in text


@pytest.mark.parametrize("prefix", ["flask", "proxied"])
def test_inside_flask(server: LiveServer, control: Control, prefix: str) -> None:
    """Its request is torn down at the takeover, and still there for the generator; its callbacks run at the end."""
    pytest.importorskip("flask")
    before = server.state()["facts"]
    path = f"/{prefix}/events"
    forwarded = "X-Forwarded-For: 192.0.2.7\r\n" if prefix == "proxied" else ""
    request = f"GET {path}?user=bob HTTP/1.1\r\nHost: localhost\r\n{forwarded}\r\n".encode()
    with Reader(server, path, request).until(b"data: bob asked for /events\n\n") as reader:
        peer = "192.0.2.7" if prefix == "proxied" else "127.0.0.1"
        reader.until(f"data: bob asked from {peer} for bob\n\n".encode())
        facts = server.state()["facts"]
        assert facts["teardown /events"] == before.get("teardown /events", 0) + 1
        assert facts.get("call_on_close", 0) == before.get("call_on_close", 0)
        (record,) = live(server, path)
        assert record["delivery"] == "detached"
    eventually(lambda: server.state()["facts"]["call_on_close"] == before.get("call_on_close", 0) + 1)


# -- forks ---------------------------------------------------------------------------------------------------------


def test_a_child_that_stays_does_not_keep_streams_open(server: LiveServer, control: Control) -> None:
    """Forked while the loop runs: the client of a stream that ends must still see its end."""
    if name_of(server) == "uwsgi":
        pytest.skip("uWSGI's workers may not fork by themselves")
    with Reader(server, "/failing").until(b"data: first"), Reader(server, "/numbers") as reader:
        server.get("/fork")
        try:
            reader.all()
            with Reader(server, "/ticks").until(b'"n":1}'):
                pass
            control.check()
        finally:
            server.get("/unfork")


# -- the log -------------------------------------------------------------------------------------------------------


def test_the_log_is_clean(server: LiveServer) -> None:
    """Runs last, over the log of all of the above: the only tracebacks are those of producers that failed, and of a
    middleware that wrote where nobody reads any more."""
    log = server.log()
    if name_of(server).startswith("gunicorn"):
        for path in ("/ticks", "/quiet", "/flask/events?user=bob"):
            assert re.search(rf'"GET {re.escape(path)} HTTP/1.1" 200', log)
    if name_of(server) == "werkzeug":
        assert '"GET /ticks HTTP/1.1" 200' in log
    tracebacks = log.split("Traceback (most recent call last):")[1:]
    strange = [
        text[:3000]
        for text in tracebacks
        if not any(known in text for known in ("secret detail", "a middleware with", "BlockingIOError"))
    ]
    assert not strange, strange[0]
    for word in ("ResourceWarning", "BrokenPipe", "Bad file descriptor", "a detached connection failed"):
        assert word not in log, log[max(0, log.index(word) - 1000) :][:2000]
