"""What an application and its client see of each other: framing, keep-alive, the rules of PEP 3333."""

from __future__ import annotations

import gzip
import io
import json
import logging
import re
import select
import socket
import threading
import urllib.request
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from wsgiref.validate import validator

import pytest

from streamkit.servers import http_connection
from streamkit.servers.http_connection import Connection, Timeouts
from streamkit.servers.http_server import StreamServer
from streamkit.servers.request_body import RequestBody
from streamkit.servers.routes import routes_app
from tests.servers.raw_client import (
    WAIT_SECONDS,
    ask,
    connected,
    get,
    nothing_left_behind,
    read_all,
    read_answer,
    read_until,
    running,
)

PLAIN = [("Content-Type", "text/plain")]


def streaming(environ: dict[str, Any], start_response: Any) -> Any:
    start_response("200 OK", list(PLAIN))
    return iter([b"one", b"", b"two"])


def sized(environ: dict[str, Any], start_response: Any) -> Any:
    start_response("200 OK", [*PLAIN, ("Content-Length", "6")])
    return iter([b"one", b"two"])


def echo(environ: dict[str, Any], start_response: Any) -> Any:
    data = environ["wsgi.input"].read()
    start_response("200 OK", [*PLAIN, ("Content-Length", str(len(data)))])
    return [data]


def deaf(environ: dict[str, Any], start_response: Any) -> Any:
    start_response("200 OK", [*PLAIN, ("Content-Length", "2")])
    return [b"ok"]


def with_status(status: str, headers: list[tuple[str, str]] = PLAIN, body: list[bytes] | None = None) -> Any:
    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response(status, list(headers))
        return iter(body or [])

    return app


# Framing (RFC 9112 section 6)


def test_http_1_1_gets_chunks_and_the_head_travels_with_the_first() -> None:
    with running(streaming) as server, connected(server) as sock:
        sock.sendall(get())
        answer = read_until(sock, b"0\r\n\r\n")
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nDate: ")
        assert b"\r\nServer: streamkit" in head
        assert b"\r\nTransfer-Encoding: chunked" in head
        assert b"Connection" not in head
        assert body == b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"


def test_http_1_0_gets_a_body_that_the_close_ends() -> None:
    with running(streaming) as server:
        for request in (get(version="1.0"), get(version="1.0", headers="Connection: keep-alive\r\n")):
            head, _, body = ask(server, request).partition(b"\r\n\r\n")
            assert b"\r\nConnection: close" in head
            assert b"Transfer-Encoding" not in head
            assert body == b"onetwo"


def test_content_length_is_kept_and_nothing_is_chunked() -> None:
    with running(sized) as server, connected(server) as sock:
        for _ in range(3):
            sock.sendall(get())
            status, headers, body = read_answer(sock)
            assert (status, body) == (200, b"onetwo")
            assert "transfer-encoding" not in headers


def test_lengths_the_server_can_know_are_sent() -> None:
    with running(with_status("200 OK")) as server, connected(server) as sock:
        sock.sendall(get())
        assert read_answer(sock)[1]["content-length"] == "0"

    def one_piece(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", list(PLAIN))
        return [b"four"]

    with running(one_piece) as server, connected(server) as sock:
        sock.sendall(get())
        assert read_answer(sock)[1]["content-length"] == "4"


@pytest.mark.parametrize(
    ("status", "method", "headers"),
    [
        ("204 No Content", "GET", []),
        ("204 No Content", "GET", [("Content-Length", "3")]),
        ("205 Reset Content", "GET", []),
        ("205 Reset Content", "GET", [("Content-Length", "3")]),
        ("304 Not Modified", "GET", [("ETag", '"x"')]),
        ("304 Not Modified", "GET", [("Content-Length", "3")]),
        ("200 OK", "HEAD", PLAIN),
        ("200 OK", "HEAD", [*PLAIN, ("Content-Length", "3")]),
    ],
)
def test_answers_without_a_body_never_have_one_and_the_connection_lives_on(
    status: str, method: str, headers: list[tuple[str, str]]
) -> None:
    closed = []

    class Body:
        def __iter__(self) -> Any:
            raise AssertionError("a body that is not sent was produced")

        def close(self) -> None:
            closed.append(True)

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        if environ["PATH_INFO"] == "/next":
            return deaf(environ, start_response)
        start_response(status, list(headers))
        return Body()

    with running(app) as server, connected(server) as sock:
        sock.sendall(get(method=method) + get("/next"))
        code, sent, _ = read_answer(sock, method)
        assert code == int(status[:3])
        assert "transfer-encoding" not in sent
        lengths = {204: None, 205: "0"}  # RFC 9110 sections 8.6 and 15.3.6
        assert sent.get("content-length") == lengths.get(code, dict(headers).get("Content-Length"))
        assert read_answer(sock)[2] == b"ok"
        assert closed == [True]


def test_an_application_that_is_a_generator_answers_head() -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", list(PLAIN))
        yield b"body"

    with running(app) as server, connected(server) as sock:
        sock.sendall(get(method="HEAD") + get())
        assert read_answer(sock, "HEAD")[0] == 200
        assert read_answer(sock)[2] == b"body"


def test_every_chunk_is_on_the_wire_before_the_next_is_made() -> None:
    turn = threading.Semaphore(0)

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", list(PLAIN))
        for size in (1, 100, 40_000):
            yield b"x" * size
            assert turn.acquire(timeout=WAIT_SECONDS)

    with running(app) as server, connected(server) as sock:
        sock.sendall(get())
        assert read_until(sock, b"1\r\nx\r\n").startswith(b"HTTP/1.1 200")
        turn.release()
        assert sock.recv(65536) == b"64\r\n" + b"x" * 100 + b"\r\n"  # one packet, so one recv
        turn.release()
        assert len(read_until(sock, b"x\r\n")) == len(b"9c40\r\n\r\n") + 40_000
        turn.release()
        assert read_until(sock, b"0\r\n\r\n") == b"0\r\n\r\n"


def test_big_chunks_arrive_whole() -> None:
    piece = bytes(range(256)) * 20_000

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", list(PLAIN))
        return iter([piece, piece])

    with running(app) as server, urllib.request.urlopen(server.url, timeout=WAIT_SECONDS) as answer:
        assert answer.read() == piece * 2


# Keep-alive and request bodies


def test_pipelined_requests_are_answered_in_order() -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", list(PLAIN))
        return iter([environ["PATH_INFO"].encode(), environ["wsgi.input"].read()])

    post = b"POST /%d HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc"
    chunked = b"POST /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nxyz\r\n0\r\n\r\n"
    with running(app) as server, connected(server) as sock:
        sock.sendall(get("/0") + post % 1 + chunked + post % 2 + get("/3", headers="Connection: close\r\n"))
        assert [read_answer(sock)[2] for _ in range(5)] == [b"/0", b"/1abc", b"/cxyz", b"/2abc", b"/3"]
        assert sock.recv(1) == b""


def test_requests_cut_at_every_byte_are_understood() -> None:
    request = (
        b"POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nxyz\r\n1\r\n!\r\n0\r\n\r\n"
    )
    with running(echo) as server, connected(server) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for cut in range(1, len(request), 3):
            sock.sendall(request[:cut])
            sock.sendall(request[cut:])
            assert read_answer(sock)[2] == b"xyz!"


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_small_body_that_was_not_read_does_not_become_the_next_request(framing: str) -> None:
    body = b"GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n"
    if framing == "length":
        request = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    else:
        request = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n"
        request %= (len(body), body)
    paths = []

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        paths.append(environ["PATH_INFO"])
        return deaf(environ, start_response)

    with running(app) as server, connected(server) as sock:
        sock.sendall(request + get("/next"))
        assert read_answer(sock)[0] == read_answer(sock)[0] == 200
        assert paths == ["/", "/next"]


def test_a_large_body_that_was_not_read_closes_the_connection_and_the_answer_still_arrives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http_connection, "_LINGER_SECONDS", WAIT_SECONDS)  # for a busy machine's upload
    request = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 500000\r\n\r\n" + b"x" * 500_000
    with running(deaf) as server:
        answer = ask(server, request)
        assert answer.endswith(b"\r\n\r\nok")
        assert b"\r\nConnection: close\r\n" in answer  # RFC 9112 section 9.6: said before it is done
    with running(echo) as server, connected(server) as sock:
        sock.sendall(request + get())
        status, headers, body = read_answer(sock)
        assert (status, len(body)) == (200, 500_000)
        assert "connection" not in headers  # nothing is owed when the head is made
        assert read_answer(sock)[0] == 200


def test_two_megabytes_uploaded_in_chunks() -> None:
    data = bytes(range(256)) * 8192
    with running(echo) as server, connected(server) as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
        for start in range(0, len(data), 10_000):
            piece = data[start : start + 10_000]
            sock.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
        sock.sendall(b"0\r\n\r\n")
        assert read_answer(sock)[2] == data
        sock.sendall(get())
        assert read_answer(sock)[0] == 200


def test_input_can_be_read_by_lines_and_ends_where_the_body_ends() -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Any:
        source = environ["wsgi.input"]
        lines = [source.readline(), *source.readlines(), source.read(10)]
        start_response("200 OK", list(PLAIN))
        return [repr(lines).encode()]

    with running(app) as server, connected(server) as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 8\r\n\r\na\nb\nc\nde" + get())
        assert read_answer(sock)[2] == repr([b"a\n", b"b\n", b"c\n", b"de", b""]).encode()


def test_100_continue_is_sent_when_the_body_is_first_read() -> None:
    request = b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
    with running(echo) as server, connected(server) as sock:
        sock.sendall(request)
        assert read_until(sock, b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"hello")
        assert read_answer(sock)[2] == b"hello"
    with running(deaf) as server:
        # Not wanted: a final answer, and a close, because the client may or may not send the body after it.
        answer = ask(server, request)
        assert answer.startswith(b"HTTP/1.1 200")
        assert b"\r\nConnection: close\r\n" in answer


def test_a_forgotten_input_cannot_read_the_next_request() -> None:
    inputs = []

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        inputs.append(environ["wsgi.input"])
        return deaf(environ, start_response)

    with running(app) as server, connected(server) as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello" + get())
        assert read_answer(sock)[0] == read_answer(sock)[0] == 200
        assert inputs[0].read() == b""


def test_a_body_that_another_thread_reads_is_not_drained() -> None:
    """What that thread waits for might be the next request, once the rest of the body is drained."""
    reading, come = threading.Event(), threading.Event()
    got = []

    class Source:
        def peek(self) -> bytes:
            raise NotImplementedError

        def read(self, size: int) -> bytes:
            assert not reading.is_set(), "two threads read"
            reading.set()
            assert come.wait(WAIT_SECONDS)
            return b"hello"

    body = RequestBody(Source(), 5)
    thread = threading.Thread(target=lambda: got.append(body.read(5)))
    thread.start()
    try:
        assert reading.wait(WAIT_SECONDS)
        assert not body.drain()
    finally:
        come.set()
        thread.join()
    assert got == [b"hello"]
    assert body.drain()


def test_a_read_that_another_thread_anticipates_waits_on_within_its_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Poll:
        """As if there were something at first, which the other thread has taken."""

        def __init__(self) -> None:
            self._poll = select.poll()
            self._answers = [[(0, select.POLLIN)]]

        def register(self, descriptor: int, events: int) -> None:
            self._poll.register(descriptor, events)

        def poll(self, timeout: float | None) -> list[tuple[int, int]]:
            return self._answers.pop() if self._answers else self._poll.poll(timeout)

    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(WAIT_SECONDS)  # of writes
        owner = SimpleNamespace(timeouts=Timeouts(head=0.01, idle=None, body=None, write=None))
        connection = Connection(ours, None, owner)  # type: ignore[arg-type]
        monkeypatch.setattr(http_connection, "select", SimpleNamespace(poll=Poll, POLLIN=select.POLLIN))
        with pytest.raises(TimeoutError, match="longer than the limit"):
            connection.read(10)


# PEP 3333


def environ_of(request: bytes) -> dict[str, Any]:
    seen: dict[str, Any] = {}

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        seen.update(environ)
        return deaf(environ, start_response)

    with running(app) as server, connected(server) as sock:
        sock.sendall(request)
        read_answer(sock)
        seen["test.port"] = server.address[1]
        seen["test.client_port"] = sock.getsockname()[1]
    return seen


def test_the_environ() -> None:
    environ = environ_of(
        b"POST /a%20b/%C3%BC/%2F?q=%41&r HTTP/1.1\r\nHost: name:81\r\ncontent-type: text/x\r\nContent-Length: 0\r\n"
        b"X-Two: 1\r\nx-two: 2\r\nCookie: a=1\r\nCookie: b=2\r\nX_Under: no\r\nX-Latin: \xe9\t \r\nX-Empty:\r\n\r\n"
    )
    expected = {
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/a b/Ã¼//",
        "QUERY_STRING": "q=%41&r",
        "REQUEST_URI": "/a%20b/%C3%BC/%2F?q=%41&r",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": str(environ["test.port"]),
        "REMOTE_ADDR": "127.0.0.1",
        "REMOTE_PORT": str(environ["test.client_port"]),
        "CONTENT_TYPE": "text/x",
        "CONTENT_LENGTH": "0",
        "HTTP_HOST": "name:81",
        "HTTP_X_TWO": "1,2",
        "HTTP_COOKIE": "a=1; b=2",
        "HTTP_X_LATIN": "é",
        "HTTP_X_EMPTY": "",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
    }
    assert {name: environ[name] for name in expected} == expected
    assert "HTTP_X_UNDER" not in environ
    assert isinstance(environ["streamkit.socket"], socket.socket)
    assert isinstance(environ["wsgi.file_wrapper"], type)


def test_other_request_targets() -> None:
    absolute = environ_of(b"GET http://there:9/p?q HTTP/1.1\r\nHost: here\r\n\r\n")
    assert (absolute["HTTP_HOST"], absolute["PATH_INFO"], absolute["QUERY_STRING"]) == ("there:9", "/p", "q")
    assert environ_of(b"OPTIONS * HTTP/1.1\r\nHost: here\r\n\r\n")["REQUEST_URI"] == "*"
    assert environ_of(b"\r\nGET /\xc3\xbc HTTP/1.1\r\nHost: here\r\n\r\n")["PATH_INFO"] == "/Ã¼"


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_applications_pass_the_validator(method: str) -> None:
    @validator
    def app(environ: dict[str, Any], start_response: Any) -> Any:
        environ["wsgi.input"].read(10)
        start_response("200 OK", list(PLAIN))
        return iter([b"one", b"two"])

    with running(app) as server:
        data = b"12345" if method == "POST" else None
        request = urllib.request.Request(server.url, data=data, method=method)
        if data:
            request.add_header("Content-Type", "text/plain")
        with urllib.request.urlopen(request, timeout=WAIT_SECONDS) as answer:
            assert answer.read() == (b"" if method == "HEAD" else b"onetwo")


def test_write_and_a_second_start_response_with_exc_info() -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Any:
        write = start_response("200 OK", list(PLAIN))
        if environ["PATH_INFO"] == "/write":
            write(b"by hand, ")
            return [b"then returned"]
        try:
            raise KeyError("x")
        except KeyError as error:
            start_response("503 Later", list(PLAIN), (KeyError, error, error.__traceback__))
        return [b"sorry"]

    with running(app) as server, connected(server) as sock:
        sock.sendall(get("/write") + get("/replaced"))
        assert read_answer(sock)[2] == b"by hand, then returned"
        assert read_answer(sock)[::2] == (503, b"sorry")


def test_exc_info_after_the_head_raises_the_error_again(caplog: pytest.LogCaptureFixture) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", list(PLAIN))
        yield b"begun"
        try:
            raise KeyError("the reason")
        except KeyError as error:
            start_response("500 Late", [], (KeyError, error, error.__traceback__))

    with running(app) as server:
        assert ask(server, get()).endswith(b"5\r\nbegun\r\n")
    assert "the reason" in caplog.text


BAD_STARTS: list[tuple[Any, Any]] = [
    ("200", "text"),
    ("200 OK", [("Connection", "close")]),
    ("200 OK", [("Transfer-Encoding", "chunked")]),
    ("200 OK", [("keep-alive", "1")]),
    ("200 OK", [("X", "a\r\nSet-Cookie: b")]),
    ("200 OK", [("X", "\u20ac")]),
    ("200 OK", [("X: y", "b")]),
    ("200 OK", [["X", "y"]]),
    ("200 OK", [("X", 1)]),
    ("200 OK", [("Content-Length", "-1")]),
    ("200 OK", [("Content-Length", "1"), ("Content-Length", "1")]),
    ("101 Switching Protocols", []),
    ("OK", []),
    (200, []),
    ("200 OK\r\nX: y", []),
]


@pytest.mark.parametrize(("status", "headers"), BAD_STARTS)
def test_what_start_response_does_not_take_is_an_error(
    status: Any, headers: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with running(with_status(status, headers, [b"x"])) as server:
        assert ask(server, get()).startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
    assert [record.name for record in caplog.records if record.exc_info] == ["streamkit.server"]


@pytest.mark.parametrize("kind", ["twice", "never", "str", "bytearray", "late"])
def test_broken_applications_are_answered_500(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Any:
        if kind != "never":
            start_response("200 OK", list(PLAIN))
        if kind == "twice":
            start_response("200 OK", list(PLAIN))
        return {"str": ["text"], "bytearray": [bytearray(b"x")]}.get(kind, iter([b"", b""]))

    def late(environ: dict[str, Any], start_response: Any) -> Any:
        yield b"body before head"

    with running(late if kind == "late" else app) as server:
        assert ask(server, get()).startswith(b"HTTP/1.1 500 ")
    assert "error while answering GET /" in caplog.text


# Files


def file_app(path: Path, *, length: int, start: int = 0) -> Any:
    def app(environ: dict[str, Any], start_response: Any) -> Any:
        file = path.open("rb")
        file.seek(start)
        start_response("200 OK", [*PLAIN, ("Content-Length", str(length))])
        return environ["wsgi.file_wrapper"](file)

    return app


def test_file_wrapper_sends_from_the_position_and_no_more_than_the_length(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(bytes(range(256)) * 4000)
    for start, length in ((0, 1_024_000), (100, 50), (0, 1), (1_023_999, 1), (5, 0)):
        app = file_app(path, length=length, start=start)
        with nothing_left_behind(), running(app) as server, connected(server) as sock:
            for _ in range(2):
                sock.sendall(get())
                assert read_answer(sock)[2] == path.read_bytes()[start : start + length]
            sock.sendall(get(method="HEAD"))
            assert read_answer(sock, "HEAD")[1]["content-length"] == str(length)


def test_file_wrapper_of_objects_whose_descriptor_says_something_else(tmp_path: Path) -> None:
    packed = tmp_path / "data.gz"
    packed.write_bytes(gzip.compress(b"unpacked " * 100))

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        file: Any = io.BytesIO(b"unpacked " * 200)
        if environ["PATH_INFO"] == "/gz":
            file = gzip.GzipFile(packed)
        start_response("200 OK", [*PLAIN, ("Content-Length", "900")])
        return environ["wsgi.file_wrapper"](file)

    with running(app) as server, connected(server) as sock:
        for path in ("/gz", "/memory"):
            sock.sendall(get(path))
            assert read_answer(sock)[2] == b"unpacked " * 100


def test_a_file_that_shrinks_never_looks_complete(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "data"
    path.write_bytes(b"x" * 1000)
    with running(file_app(path, length=2000)) as server:
        head, _, body = ask(server, get()).partition(b"\r\n\r\n")
    assert b"Content-Length: 2000" in head
    assert body == b"x" * 1000
    assert "Content-Length says 2000" in caplog.text


# Routes


def routes() -> dict[str, Any]:
    return {
        "/": lambda environ: "<p>ü</p>",
        "/bytes": lambda environ: b"\x00\x01",
        "/json": lambda environ: {"a": [1, "ü"]},
        "/list": lambda environ: [],
        "/ü": lambda environ: "umlaut",
        "/app": lambda environ: streaming,
        "/files/*": lambda environ: environ["PATH_INFO"],
        "/files/deep/*": lambda environ: "deep",
        "/files/exact": lambda environ: "exact",
        "/error": lambda environ: 1 / 0,
        "/generator": lambda environ: iter([b"x"]),
    }


@pytest.mark.parametrize(
    ("path", "status", "mimetype", "body"),
    [
        ("/", 200, "text/html; charset=utf-8", "<p>ü</p>".encode()),
        ("/?query", 200, "text/html; charset=utf-8", "<p>ü</p>".encode()),
        ("/bytes", 200, "application/octet-stream", b"\x00\x01"),
        ("/json", 200, "application/json", '{"a":[1,"ü"]}'.encode()),
        ("/list", 200, "application/json", b"[]"),
        ("/%C3%BC", 200, "text/html; charset=utf-8", b"umlaut"),
        ("/app", 200, "text/plain", b"onetwo"),
        ("/files/", 200, "text/html; charset=utf-8", b"/files/"),
        ("/files/a/b", 200, "text/html; charset=utf-8", b"/files/a/b"),
        ("/files/deep/x", 200, "text/html; charset=utf-8", b"deep"),
        ("/files/exact", 200, "text/html; charset=utf-8", b"exact"),
        ("/files", 404, "text/plain; charset=utf-8", b"404 Not Found\n"),
        ("/bytes/", 404, "text/plain; charset=utf-8", b"404 Not Found\n"),
        ("/error", 500, "text/plain; charset=utf-8", b"500 Internal Server Error\n"),
        ("/generator", 500, "text/plain; charset=utf-8", b"500 Internal Server Error\n"),
    ],
)
def test_routes(path: str, status: int, mimetype: str, body: bytes) -> None:
    with running(routes()) as server:
        with connected(server) as sock:
            sock.sendall(get(path))
            answer = read_answer(sock)
            assert (answer[0], answer[1]["content-type"], answer[2]) == (status, mimetype, body)
        assert ask(server, get(path, method="HEAD", headers="Connection: close\r\n")).endswith(b"\r\n\r\n")


def test_routes_are_checked_when_they_are_given() -> None:
    with pytest.raises(ValueError, match='begins with "/"'):
        routes_app({"numbers": lambda environ: ""})
    with pytest.raises(TypeError, match="callable"):
        routes_app({"/": "text"})  # type: ignore[dict-item]
    with pytest.raises(TypeError, match="cannot be served"):
        StreamServer(None, port=0)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"cannot be served.*: python -m streamkit serve app:app"):
        StreamServer("app:app", port=0)  # type: ignore[arg-type]


# The server object


def test_addresses() -> None:
    with running(deaf, host="127.0.0.1") as server:
        assert server.url == f"http://127.0.0.1:{server.address[1]}"
    with running(deaf, host="localhost") as server:
        assert ask(server, get(headers="Connection: close\r\n")).endswith(b"ok")


@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_ipv6(host: str) -> None:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6")
    with running(deaf, host=host) as server:
        assert server.url == f"http://[::1]:{server.address[1]}"
        with urllib.request.urlopen(server.url, timeout=WAIT_SECONDS) as answer:
            assert answer.read() == b"ok"


def test_a_port_in_use_is_named_and_nothing_stays_open() -> None:
    with nothing_left_behind(), running(deaf) as server:
        port = server.address[1]
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1 port {port}: Address already in use"):
            StreamServer(deaf, port=port)


@pytest.mark.parametrize(
    "options",
    [
        {"head_timeout": 0},
        {"keep_alive": 0},
        {"write_timeout": -1},
        {"grace": -1},
        {"head_timeout": float("inf")},
        {"write_timeout": float("inf")},
        {"body_timeout": float("nan")},
        {"keep_alive": 2_147_484},
        {"body_timeout": "30"},
        {"grace": float("nan")},
        {"grace": float("inf")},
        {"max_connections": 0},
        {"port": -1},
        {"port": 65_536},
        {"port": "8000"},
    ],
)
def test_numbers_that_make_no_sense(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(options))} is "):
        StreamServer(deaf, **{"port": 0, **options})


def test_limits_of_24_days_are_kept() -> None:
    limits = dict.fromkeys(["head_timeout", "keep_alive", "body_timeout", "write_timeout"], 2_147_483)
    with running(echo, **limits) as server, connected(server) as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n")
        sock.sendall(b"hello" + get())
        assert read_answer(sock)[2] == b"hello"
        assert read_answer(sock)[0] == 200


@pytest.mark.parametrize("host", ["a" * 64, "a..b"])
def test_what_is_no_host_name_is_an_address_that_cannot_be_bound(host: str) -> None:
    with nothing_left_behind(), pytest.raises(OSError, match=f"cannot listen on {host} port 0: "):
        StreamServer(deaf, host, 0)


def test_keep_alive_none_closes_after_each_answer() -> None:
    with running(deaf, keep_alive=None) as server:
        assert b"\r\nConnection: close\r\n" in ask(server, get())


def test_the_access_line_has_no_query_and_nothing_unescaped(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "streamkit.server.access")
    with running(deaf) as server, connected(server) as sock:
        sock.sendall(b'GET /a"b\xff%0A?token=secret HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n')
        read_all(sock)
    lines = [record.getMessage() for record in caplog.records if record.name == "streamkit.server.access"]
    assert len(lines) == 1
    assert re.fullmatch(r'127\.0\.0\.1 "GET /a%22b%FF%0A" 200 2 \d+\.\d{3}', lines[0])


# Known programs


def test_flask_is_served() -> None:
    flask = pytest.importorskip("flask")
    app = flask.Flask("demo")

    @app.route("/", methods=["GET", "POST"])
    def root() -> Any:
        return flask.jsonify(args=flask.request.args, form=flask.request.form, url=flask.request.url)

    @app.get("/stream")
    def stream() -> Any:
        return flask.Response((f"{number}\n" for number in range(3)), mimetype="text/plain")

    with running(app) as server:
        with urllib.request.urlopen(f"{server.url}/?a=1", data=b"b=2", timeout=WAIT_SECONDS) as answer:
            assert json.load(answer) == {"args": {"a": "1"}, "form": {"b": "2"}, "url": f"{server.url}/?a=1"}
        with urllib.request.urlopen(f"{server.url}/stream", timeout=WAIT_SECONDS) as answer:
            assert answer.read() == b"0\n1\n2\n"


def test_a_strict_client_agrees_with_every_answer() -> None:
    h11 = pytest.importorskip("h11")
    app = routes_app({**routes(), "/204": lambda e: with_status("204 No Content"), "/sized": lambda e: sized})
    requests = [
        ("GET", "/"),
        ("HEAD", "/"),
        ("GET", "/app"),
        ("HEAD", "/app"),
        ("GET", "/204"),
        ("GET", "/sized"),
        ("POST", "/json"),
        ("GET", "/missing"),
        ("GET", "/app"),
    ]
    with running(app) as server, connected(server) as sock:
        client = h11.Connection(h11.CLIENT)
        for method, path in requests:
            headers = [("Host", "here")] + ([("Transfer-Encoding", "chunked")] if method == "POST" else [])
            sock.sendall(client.send(h11.Request(method=method, target=path, headers=headers)))
            if method == "POST":
                sock.sendall(client.send(h11.Data(data=b"body")))
            sock.sendall(client.send(h11.EndOfMessage()))
            while True:
                event = client.next_event()
                if event is h11.NEED_DATA:
                    client.receive_data(sock.recv(65536))
                elif isinstance(event, h11.EndOfMessage):
                    break
            client.start_next_cycle()
