"""Clients that lie, stall, leave or speak something else; applications that fail halfway."""

from __future__ import annotations

import logging
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from streamkit.errors import ClientDisconnected
from streamkit.servers import http_connection
from streamkit.servers.http_server import StreamServer
from streamkit.servers.request_head import MAX_HEADERS, HeadParser, RequestRefused
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
    wait_until,
)

PLAIN = [("Content-Type", "text/plain")]
EVENTS = [("Content-Type", "text/event-stream; charset=utf-8")]


def deaf(environ: dict[str, Any], start_response: Any) -> Any:
    start_response("200 OK", [*PLAIN, ("Content-Length", "2")])
    return [b"ok"]


def echo(environ: dict[str, Any], start_response: Any) -> Any:
    data = environ["wsgi.input"].read()
    start_response("200 OK", list(PLAIN))
    return [data]


@contextmanager
def no_noise(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing above DEBUG but access lines may be logged, and no traceback at all."""
    caplog.set_level(logging.DEBUG, "streamkit")
    yield
    assert [r for r in caplog.records if r.levelno > logging.DEBUG and not r.name.endswith("access")] == []
    assert [record for record in caplog.records if record.exc_info] == []


# Requests that are refused

POST = b"POST / HTTP/1.1\r\nHost: h\r\n"

REFUSED: list[tuple[bytes, int]] = [
    (b"GET / HTTP/1.1\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: h\r\nX: a\r\n folded\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: h\r\nX : a\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: h\r\n X: a\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: h\r\n: a\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: h\r\nno colon\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: h\r\nX: a\x00b\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: h\r\nX: a\rb\r\n\r\n", 400),
    (b"GET / HTTP/1.1\nHost: h\n\n", 400),
    (b"GET  / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    (b"GET /a b HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    (b"GET /\x01 HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    (b"GET path HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    (b"GET * HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    (b"GET /#f HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    (b"GET /\r\n\r\n", 400),
    (b"\r\n" * 20, 400),
    (b"\x00\x01\x02", 400),
    (b"GET / HTTP/2.0\r\nHost: h\r\n\r\n", 505),
    (b"CONNECT h:1 HTTP/1.1\r\nHost: h\r\n\r\n", 501),
    (POST + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\nx", 400),
    (POST + b"Content-Length: 1, 1\r\n\r\nx", 400),
    (POST + b"Content-Length: +1\r\n\r\nx", 400),
    (POST + b"Content-Length: 1_0\r\n\r\nx", 400),
    (POST + b"Content-Length: \xb2\r\n\r\nx", 400),
    (POST + b"Content-Length:\r\n\r\n", 400),
    (POST + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    (POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400),
    (POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    (POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400),
    (POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501),
    (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    (POST + b"Expect: something\r\nContent-Length: 1\r\n\r\nx", 417),
    (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: h\r\n\r\n", 414),
    (b"G" * 20_000, 414),
    (b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"a" * 100_000 + b"\r\n\r\n", 431),
    (b"GET / HTTP/1.1\r\nHost: h\r\n" + b"X: y\r\n" * MAX_HEADERS + b"\r\n", 431),
    (b"GET / HTTP/1.1\r\nHost: h\r\n" + (b"X: " + b"y" * 7000 + b"\r\n") * 12 + b"\r\n", 431),
]


@pytest.fixture(scope="module")
def plain_server() -> Iterator[Any]:
    with running(deaf) as server:
        yield server


@pytest.mark.parametrize(("request_bytes", "status"), REFUSED, ids=range(len(REFUSED)))
def test_refused_requests_get_their_status_and_a_close(
    plain_server: Any, request_bytes: bytes, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    with no_noise(caplog):
        answer = ask(plain_server, request_bytes)
        assert answer.startswith(b"HTTP/1.1 %d " % status)
        assert b"\r\nConnection: close\r\n" in answer
        assert answer.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"HEAD / HTTP/1.1\r\n\r\n", 400),
        (b"\r\nHEAD / HTTP/1.1\r\nHost: h\r\nX : a\r\n\r\n", 400),
        (b"HEAD /#f HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"HEAD /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: h\r\n\r\n", 414),
    ],
)
def test_refusals_of_head_have_no_body(plain_server: Any, request_bytes: bytes, status: int) -> None:
    head, _, body = ask(plain_server, request_bytes).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"\r\nContent-Length: " in head
    assert body == b""


@pytest.mark.parametrize(("request_bytes", "status"), REFUSED, ids=range(len(REFUSED)))
def test_the_parser_refuses_the_same_however_it_is_cut(request_bytes: bytes, status: int) -> None:
    parser, buffer = HeadParser(), bytearray()

    def feed() -> None:
        for index in range(0, len(request_bytes), 7):
            buffer.extend(request_bytes[index : index + 7])
            if parser.feed(buffer) is not None:
                break

    with pytest.raises(RequestRefused) as caught:
        feed()
    assert caught.value.status.startswith(str(status))


def test_ninety_nine_headers_are_fine(plain_server: Any) -> None:
    request = (
        b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n" + b"X: y\r\n" * (MAX_HEADERS - 2) + b"\r\n"
    )
    assert ask(plain_server, request).endswith(b"ok")


def test_a_tls_hello_is_closed_without_a_word(plain_server: Any, caplog: pytest.LogCaptureFixture) -> None:
    with no_noise(caplog):
        assert ask(plain_server, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03") == b""


@pytest.mark.parametrize(
    "body", [b"zz\r\n", b"1\r\nab\r\n0\r\n\r\n", b"1;" + b"e" * 5000, b"0\r\nX: " + b"t" * 10_000]
)
def test_a_broken_chunked_body_is_answered_400(body: bytes, caplog: pytest.LogCaptureFixture) -> None:
    with running(echo) as server, no_noise(caplog):
        answer = ask(server, POST + b"Transfer-Encoding: chunked\r\n\r\n" + body)
        assert answer.startswith(b"HTTP/1.1 400 ")


# Clients that stall


def test_a_head_that_trickles_in_is_cut_off() -> None:
    with (
        nothing_left_behind(),
        StreamServer(deaf, port=0, grace=0.2, head_timeout=0.15) as server,
        connected(server) as sock,
    ):
        sock.sendall(b"GET / HTTP/1.1\r\nX-Slow: ")
        server.start()  # now, so that it finds the beginning of a head at once, and no client that says nothing
        sock.settimeout(0.02)
        answer = b""
        while not answer:  # each byte comes soon after the other: only a limit for the whole head ends this
            sock.sendall(b"a")
            try:
                answer = sock.recv(100)
            except TimeoutError:
                continue
        assert answer.startswith(b"HTTP/1.1 408 ")


def test_connections_that_say_nothing_are_closed_quietly(caplog: pytest.LogCaptureFixture) -> None:
    with running(deaf, head_timeout=0.1) as server, no_noise(caplog):
        assert ask(server, b"") == b""
    with running(deaf, keep_alive=0.1) as server, no_noise(caplog):
        answer = ask(server, get())
        assert answer.endswith(b"ok")
        assert answer.count(b"HTTP/1.1") == 1


def test_a_body_that_does_not_come_is_answered_408(caplog: pytest.LogCaptureFixture) -> None:
    with running(echo, body_timeout=0.1) as server, no_noise(caplog):
        assert ask(server, POST + b"Content-Length: 9\r\n\r\nabc").startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_a_reader_that_stalls_is_dropped(version: str, caplog: pytest.LogCaptureFixture) -> None:
    closed = threading.Event()

    def endless(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", list(PLAIN))
        try:
            while True:
                yield b"x" * 65536
        finally:
            closed.set()

    server_of = running(endless, write_timeout=0.2)
    with nothing_left_behind(), server_of as server, no_noise(caplog), connected(server) as sock:
        sock.sendall(get(version=version))
        assert closed.wait(WAIT_SECONDS)
        with pytest.raises(ConnectionResetError):
            read_all(sock)


# Clients that leave


class Recorded:
    """A body that counts its `close()` and goes on until somebody stops it."""

    def __init__(self) -> None:
        self.closes = 0
        self.closed = threading.Event()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", list(PLAIN))
        return self

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return b"x" * 1000

    def close(self) -> None:
        self.closes += 1
        self.closed.set()


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_client_that_leaves_mid_stream_ends_it_quietly_and_close_is_called_once(
    how: str, caplog: pytest.LogCaptureFixture
) -> None:
    body = Recorded()
    with nothing_left_behind(), running(body) as server, no_noise(caplog):
        with connected(server) as sock:
            sock.sendall(get())
            sock.recv(5000)
            if how == "reset":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        assert body.closed.wait(WAIT_SECONDS)
    assert body.closes == 1


def test_a_client_that_hears_nothing_before_it_has_sent_all_gets_its_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http_connection, "_LINGER_SECONDS", WAIT_SECONDS)  # for a busy machine's upload
    size = 16_000_000
    with running(deaf) as server, connected(server) as sock:
        sock.sendall(get(method="POST", headers=f"Content-Length: {size}\r\n") + b"x" * size)
        status, headers, body = read_answer(sock)
        assert (status, headers["connection"], body) == (200, "close", b"ok")


def test_a_client_that_never_ends_its_upload_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_connection, "_LINGER_SECONDS", 0.1)

    def upload(sock: socket.socket) -> None:
        until = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < until:
            sock.sendall(b"x" * 65536)

    with running(deaf) as server, connected(server) as sock:
        sock.sendall(get(method="POST", headers=f"Content-Length: {10**17}\r\n"))
        with pytest.raises(ConnectionError):
            upload(sock)


@pytest.mark.parametrize(
    "framing", [b"Content-Length: 9\r\n\r\nabc", b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc"]
)
def test_a_client_that_leaves_mid_upload(framing: bytes, caplog: pytest.LogCaptureFixture) -> None:
    raised: list[BaseException] = []

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        try:
            return echo(environ, start_response)
        except ConnectionError as error:
            raised.append(error)
            raise

    with nothing_left_behind(), running(app) as server, no_noise(caplog), connected(server) as sock:
        sock.sendall(POST + framing)
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock) == b""
    assert len(raised) == 1


def test_a_half_closed_client_still_gets_its_answer(plain_server: Any) -> None:
    with connected(plain_server) as sock:
        sock.sendall(get())
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock).endswith(b"\r\n\r\nok")


def test_a_client_that_leaves_is_no_error_of_the_application_either(caplog: pytest.LogCaptureFixture) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", list(PLAIN))
        yield b"begun"
        raise ClientDisconnected("the probe saw it")

    with running(app) as server, no_noise(caplog):
        assert ask(server, get()).endswith(b"5\r\nbegun\r\n")


# Applications that take the socket into their own hands


@pytest.mark.parametrize(
    ("how", "then"),
    [
        ("shutdown", "goes on"),
        ("close", "goes on"),
        ("close", "raises"),
        ("reset", "goes on"),
        ("reset", "raises"),
        ("timeout", "goes on"),
    ],
)
def test_the_application_may_end_the_connection_itself(
    how: str, then: str, caplog: pytest.LogCaptureFixture
) -> None:
    body = Recorded()

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        sock: socket.socket = environ["streamkit.socket"]
        start_response("200 OK", list(PLAIN))
        yield b"begun"
        if how == "shutdown":
            sock.shutdown(socket.SHUT_RDWR)
        elif how == "timeout":
            sock.settimeout(0.1)
        else:
            if how == "reset":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()
        try:
            while True:
                if then == "raises":
                    raise RuntimeError("the stream has logged it")
                yield b"x" * 100_000
        finally:
            body.close()

    with nothing_left_behind(), running(app) as server, no_noise(caplog), connected(server) as sock:
        sock.sendall(get())
        assert read_until(sock, b"begun\r\n")
        assert body.closed.wait(WAIT_SECONDS)
    assert body.closes == 1


def test_requests_read_ahead_do_not_run_where_the_application_moved_the_connection_away() -> None:
    paths = []
    kept: list[socket.socket] = []

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        paths.append(environ["PATH_INFO"])
        sock: socket.socket = environ["streamkit.socket"]
        start_response("200 OK", list(PLAIN))
        ours, its = socket.socketpair()
        kept.extend([socket.socket(fileno=os.dup(sock.fileno())), ours])
        os.dup2(its.fileno(), sock.fileno())
        its.close()
        yield b"opening"

    with nothing_left_behind(), running(app) as server, connected(server) as sock:
        sock.sendall(get("/1") + get("/2"))
        wait_until(lambda: len(kept) == 2)
        moved, ours = kept
        with moved, ours:
            ours.settimeout(WAIT_SECONDS)
            assert read_all(ours).endswith(b"\r\n\r\n7\r\nopening\r\n0\r\n\r\n")
            moved.sendall(b"from elsewhere")
            assert sock.recv(100) == b"from elsewhere"
        kept.clear()
    assert paths == ["/1"]


# Applications that fail


def failing(error: BaseException, *, after: int, headers: list[tuple[str, str]] = PLAIN) -> Any:
    def app(environ: dict[str, Any], start_response: Any) -> Any:
        if environ["PATH_INFO"] == "/early":
            raise error
        start_response("200 OK", list(headers))
        for number in range(after):
            yield b"row %d\n" % number
        raise error

    return app


def test_an_error_before_the_first_byte_is_a_500(caplog: pytest.LogCaptureFixture) -> None:
    with running(failing(RuntimeError("secret"), after=0)) as server:
        for path in ("/", "/early"):
            caplog.clear()
            answer = ask(server, get(path))
            assert answer.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
            assert b"secret" not in answer
            assert [(r.name, bool(r.exc_info)) for r in caplog.records] == [("streamkit.server", True)]


def test_an_upstream_that_failed_is_not_taken_for_a_client_that_left(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with running(failing(ConnectionRefusedError("database"), after=0)) as server:
        assert ask(server, get()).startswith(b"HTTP/1.1 500 ")
    assert "database" in caplog.text


def test_an_error_mid_stream_never_looks_complete(caplog: pytest.LogCaptureFixture) -> None:
    with running(failing(RuntimeError("boom"), after=2)) as server:
        assert ask(server, get()).endswith(b"\r\n\r\n6\r\nrow 0\n\r\n6\r\nrow 1\n\r\n")  # no last chunk
        assert "boom" in caplog.text
        # Where only the end of the connection ends the body, the end is a reset.
        with connected(server) as sock:
            sock.sendall(get(version="1.0"))
            with pytest.raises(ConnectionResetError):
                read_all(sock)
    with running(
        failing(RuntimeError("boom"), after=2, headers=[*PLAIN, ("Content-Length", "100")])
    ) as server:
        assert ask(server, get()).endswith(b"row 0\nrow 1\n")


def test_an_event_stream_is_closed_and_not_reset_so_that_its_last_event_arrives() -> None:
    with running(failing(RuntimeError("boom"), after=2, headers=EVENTS)) as server:
        assert ask(server, get(version="1.0")).endswith(b"\r\n\r\nrow 0\nrow 1\n")


@pytest.mark.parametrize(("length", "pieces"), [(10, [b"short"]), (3, [b"surplus"]), (10, []), (0, [b"x"])])
def test_a_wrong_content_length_that_is_seen_in_time_is_a_500(
    length: int, pieces: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [*PLAIN, ("Content-Length", str(length))])
        return pieces

    with running(app) as server:
        answer = ask(server, get())
        head, _, body = answer.partition(b"\r\n\r\n")
        if b" 500 " in head:
            assert b"surplus" not in body
        else:
            assert len(body) < length
    assert "Content-Length" in caplog.text


@pytest.mark.parametrize(
    "pieces", [[b"01234", b"56"], [b"01234", b"56789", b"surplus"], [b"01234", b"5678901"]]
)
def test_a_wrong_content_length_seen_later_closes_the_connection(
    pieces: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [*PLAIN, ("Content-Length", "10")])
        return pieces

    with running(app) as server:
        body = ask(server, get()).partition(b"\r\n\r\n")[2]
        assert b"0123456789".startswith(body)
    assert "Content-Length" in caplog.text


def test_close_that_raises_is_logged_and_takes_nothing_from_the_answer(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Body:
        def __iter__(self) -> Iterator[bytes]:
            return iter([b"all ", b"of it"])

        def close(self) -> None:
            raise RuntimeError("boom in close")

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", list(PLAIN))
        return Body()

    with running(app) as server, connected(server) as sock:
        sock.sendall(get())
        assert read_answer(sock)[2] == b"all of it"
        wait_until(lambda: "boom in close" in caplog.text)


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
def test_an_application_that_ends_its_thread_ends_that_connection_only(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    with running(failing(error, after=1)) as server:
        for _ in range(2):
            assert ask(server, get()).endswith(b"6\r\nrow 0\n\r\n")  # no last chunk
        with connected(server) as sock:
            sock.sendall(get(version="1.0"))
            with pytest.raises(ConnectionResetError):
                read_all(sock)
        answer = ask(server, get("/early"))
        assert answer.startswith(b"HTTP/1.1 500 ")
        assert b"\r\nConnection: close\r\n" in answer
        wait_until(lambda: len(caplog.records) == 4)
    assert [type(error)] * 4 == [record.exc_info[0] for record in caplog.records if record.exc_info]


def test_a_file_on_sendfile_whose_reader_leaves(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "big"
    with path.open("wb") as file:
        file.truncate(200_000_000)
    closed = threading.Event()

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [*PLAIN, ("Content-Length", "200000000")])
        wrapper = environ["wsgi.file_wrapper"](path.open("rb"))
        close = wrapper.close
        wrapper.close = lambda: (close(), closed.set())
        return wrapper

    with nothing_left_behind(), running(app) as server, no_noise(caplog):
        with connected(server) as sock:
            sock.sendall(get())
            sock.recv(1000)
        assert closed.wait(WAIT_SECONDS)
