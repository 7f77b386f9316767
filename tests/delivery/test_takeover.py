"""Capture and verify: what counts as "our head and our opening, untouched", and how a descriptor is given back."""

from __future__ import annotations

import errno
import io
import logging
import os
import socket
from time import monotonic
from types import SimpleNamespace
from typing import Any

import pytest

from streamkit.delivery import takeover
from streamkit.delivery.takeover import NotOurs, Takeover, lent_descriptor, name_obstacle, read_answer
from tests.conftest import descriptors

OPENING = b":\ndata: first\n\n"
CHUNK = b"%x\r\n%b\r\n" % (len(OPENING), OPENING)
HEAD = b"HTTP/1.1 200 OK\r\nServer: s\r\nContent-Type: text/event-stream\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n"


@pytest.mark.parametrize(
    ("written", "sent", "chunked"),
    [
        pytest.param(
            CHUNKED + b"\r\n" + CHUNK, CHUNKED + b"Connection: close\r\n\r\n" + CHUNK, True, id="chunked"
        ),
        pytest.param(
            HEAD + b"\r\n" + OPENING, HEAD + b"Connection: close\r\n\r\n" + OPENING, False, id="raw"
        ),
        pytest.param(
            CHUNKED + b"Connection: keep-alive\r\n\r\n" + CHUNK,
            CHUNKED + b"Connection: close\r\n\r\n" + CHUNK,
            True,
            id="keep-alive",
        ),
        pytest.param(
            HEAD + b"connection:Keep-Alive\r\nKEEP-ALIVE: timeout=5\r\nX-Last: 1\r\n\r\n" + OPENING,
            HEAD + b"X-Last: 1\r\nConnection: close\r\n\r\n" + OPENING,
            False,
            id="keep-alive in other letters",
        ),
        pytest.param(
            HEAD + b"transfer-encoding:  Chunked \r\n\r\n" + CHUNK,
            HEAD + b"transfer-encoding:  Chunked \r\nConnection: close\r\n\r\n" + CHUNK,
            True,
            id="coding in other letters",
        ),
        pytest.param(
            CHUNKED + b"\r\n" + CHUNK.replace(b"f\r\n", b"00F\r\n", 1),
            CHUNKED + b"Connection: close\r\n\r\n" + CHUNK.replace(b"f\r\n", b"00F\r\n", 1),
            True,
            id="size with zeros",
        ),
        pytest.param(
            b"HTTP/1.0 200 OK\r\n\r\n" + OPENING,
            b"HTTP/1.0 200 OK\r\nConnection: close\r\n\r\n" + OPENING,
            False,
            id="no headers, HTTP/1.0",
        ),
    ],
)
def test_what_is_ours(written: bytes, sent: bytes, chunked: bool) -> None:
    answer = read_answer(written, OPENING, None, None)
    assert (answer.data, answer.chunked) == (sent, chunked)


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        pytest.param(b"", "collects", id="nothing"),
        pytest.param(CHUNK, "no HTTP/1 head", id="a chunk without a head"),
        pytest.param(HEAD, "no HTTP/1 head", id="a head without an end"),
        pytest.param(b"\x00\x00\x12\x04" + CHUNKED + b"\r\n" + CHUNK, "no HTTP/1 head", id="HTTP/2 frames"),
        pytest.param(HEAD + b"Content-Length: 15\r\n\r\n" + OPENING, "Content-Length", id="a length"),
        pytest.param(CHUNKED + b"content-length:15\r\n\r\n" + CHUNK, "Content-Length", id="both framings"),
        pytest.param(CHUNKED + b"Content-Encoding: gzip\r\n\r\n" + CHUNK, "'gzip'", id="a coding"),
        pytest.param(
            CHUNKED + b"Content-Encoding: \x1b]0;\xff\r\n\r\n" + CHUNK, r"\\x1b", id="a coding to be escaped"
        ),
        pytest.param(
            HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + CHUNK,
            "'gzip, chunked'",
            id="a transfer coding",
        ),
        pytest.param(CHUNKED + b"\r\n", "changed or delayed", id="the head alone, chunked"),
        pytest.param(HEAD + b"\r\n", "changed or delayed", id="the head alone, raw"),
        pytest.param(CHUNKED + b"\r\n" + OPENING, "changed or delayed", id="raw though chunked"),
        pytest.param(HEAD + b"\r\n" + CHUNK, "changed or delayed", id="chunked though raw"),
        pytest.param(CHUNKED + b"\r\n" + CHUNK + CHUNK, "changed or delayed", id="two chunks"),
        pytest.param(CHUNKED + b"\r\n" + CHUNK + b"0\r\n\r\n", "changed or delayed", id="an end already"),
        pytest.param(CHUNKED + b"\r\n3\r\nabc\r\n" + CHUNK, "changed or delayed", id="something before"),
        pytest.param(CHUNKED + b"\r\n-f\r\n" + CHUNK[3:], "changed or delayed", id="a negative size"),
        pytest.param(HEAD + b"\r\n" + OPENING.upper(), "changed or delayed", id="other bytes"),
    ],
)
def test_what_is_not_ours(written: bytes, reason: str) -> None:
    with pytest.raises(NotOurs, match=reason):
        read_answer(written, OPENING, None, None)


@pytest.mark.parametrize(
    "whole", [CHUNKED + b"\r\n" + CHUNK, HEAD + b"\r\n" + OPENING], ids=["chunked", "raw"]
)
def test_cut_anywhere_it_is_not_ours(whole: bytes) -> None:
    for cut in range(len(whole)):
        with pytest.raises(NotOurs):
            read_answer(whole[:cut], OPENING, None, None)
    read_answer(whole, OPENING, None, None)


def test_a_length_and_a_coding_that_the_response_itself_has_are_its_own() -> None:
    head = HEAD + b"Content-Length: 1000\r\nContent-Encoding: br\r\n"
    answer = read_answer(head + b"\r\n" + OPENING, OPENING, 1000, "br")
    assert answer.data == head + b"Connection: close\r\n\r\n" + OPENING
    assert not answer.chunked
    for length, coding in [(1001, "br"), (None, "br"), (1000, "gzip"), (1000, None)]:
        with pytest.raises(NotOurs):
            read_answer(head + b"\r\n" + OPENING, OPENING, length, coding)


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(takeover, "_named", set())
    caplog.set_level(logging.INFO, "streamkit")
    return caplog


# -- the descriptor ------------------------------------------------------------------------------------------


@pytest.fixture
def connected() -> Any:
    """A server's socket, its client's, and afterwards nothing left open."""
    before = descriptors()
    server, client = socket.socketpair()
    client.settimeout(5)
    yield server, client
    server.close()
    client.close()
    assert descriptors() == before


def test_what_is_captured_does_not_reach_the_client_until_it_is_ours(connected: Any) -> None:
    server, client = connected
    attempt = Takeover(server.fileno())
    attempt.capture()
    server.sendall(CHUNKED + b"\r\n" + CHUNK)
    client.setblocking(False)
    with pytest.raises(BlockingIOError):
        client.recv(1)
    assert attempt.verify(OPENING, None, None).chunked
    with attempt.finish() as connection:
        server.sendall(b"0\r\n\r\n")  # the server finishes into the pair
        assert server.recv(10) == b""  # and reads its end
        attempt.close()
        connection.sendall(b"ours")
        client.settimeout(5)
        assert client.recv(10) == b"ours"
        client.sendall(b"answer")
        connection.setblocking(True)
        assert connection.recv(10) == b"answer"


def test_a_connection_that_is_ours_sends_small_pieces_at_once_and_keeps_little_in_the_kernel() -> None:
    """Also where the server has left both to the system's own defaults."""
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.socket() as client:
        client.connect(listening.getsockname())
        server, _ = listening.accept()
        with server:
            attempt = Takeover(server.fileno())
            attempt.capture()
            server.sendall(CHUNKED + b"\r\n" + CHUNK)
            attempt.verify(OPENING, None, None)
            with attempt.finish() as connection:
                assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                if hasattr(socket, "TCP_NOTSENT_LOWAT"):
                    unsent = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT)
                    assert unsent == takeover.UNSENT_BYTES
            attempt.close()


def test_what_is_not_ours_is_given_back_with_what_was_written(connected: Any) -> None:
    server, client = connected
    attempt = Takeover(server.fileno())
    attempt.capture()
    server.sendall(HEAD + b"Content-Length: 15\r\n\r\n")
    with pytest.raises(NotOurs):
        attempt.verify(OPENING, None, None)
    server.sendall(OPENING)  # between the look and the return
    attempt.restore(server.sendall)
    server.sendall(b" and on")
    received = b""
    while not received.endswith(b" and on"):
        received += client.recv(1000)
    assert received == HEAD + b"Content-Length: 15\r\n\r\n" + OPENING + b" and on"


@pytest.mark.parametrize(("written", "lost"), [(b"", 0), (b"0\r\n\r\n", 0), (b"5\r\n-- by\r\n0\r\n\r\n", 15)])
def test_what_comes_behind_the_body_is_lost_but_not_in_silence(
    connected: Any, written: bytes, lost: int, named: pytest.LogCaptureFixture
) -> None:
    server, _ = connected
    for _ in range(2):
        attempt = Takeover(os.dup(server.fileno()))
        attempt.capture()
        with socket.socket(fileno=attempt._server) as captured:
            captured.sendall(CHUNKED + b"\r\n" + CHUNK)
            attempt.verify(OPENING, None, None)
            attempt.finish().close()
            captured.sendall(written)
            attempt.close()
    assert len(named.messages) == (1 if lost else 0)
    assert not lost or f"{lost} bytes" in named.messages[0]


def test_a_server_that_writes_more_than_the_pair_takes_is_not_held_for_ever(connected: Any) -> None:
    server, _ = connected
    attempt = Takeover(server.fileno())
    attempt.capture()
    began = monotonic()
    with pytest.raises(BlockingIOError):
        server.sendall(bytes(10_000_000))
    assert monotonic() - began < 5
    attempt.close()


def test_nothing_captured_nothing_to_give_back(connected: Any) -> None:
    server, client = connected
    attempt = Takeover(server.fileno())
    attempt.restore(server.sendall)
    attempt.close()
    server.sendall(b"as before")
    assert client.recv(10) == b"as before"


def test_a_server_that_has_closed_its_socket_meanwhile(connected: Any) -> None:
    server, client = connected
    attempt = Takeover(server.fileno())
    attempt.capture()
    with pytest.raises(NotOurs, match="collects"):
        attempt.verify(OPENING, None, None)
    attempt.close()
    client.close()


@pytest.mark.parametrize("blocking", [True, False])
def test_the_server_keeps_its_manner_of_waiting(connected: Any, blocking: bool) -> None:
    server, _ = connected
    server.setblocking(blocking)
    attempt = Takeover(server.fileno())
    attempt.capture()
    assert os.get_blocking(server.fileno()) is blocking
    attempt.restore(server.sendall)
    assert os.get_blocking(server.fileno()) is blocking


def test_a_pair_that_cannot_be_made_leaves_the_server_its_connection(
    connected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, client = connected
    attempt = Takeover(server.fileno())

    def refuse() -> Any:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(takeover.socket, "socketpair", refuse)
    with pytest.raises(OSError, match="Too many"):
        attempt.capture()
    attempt.close()
    server.sendall(b"as before")
    assert client.recv(10) == b"as before"


def test_a_connection_that_takes_no_options_any_more_is_handed_over_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As one that its client has reset, on macOS."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        client = socket.create_connection(listening.getsockname())
        server, _ = listening.accept()
    attempt = Takeover(server.fileno())
    attempt.capture()
    with monkeypatch.context() as patch:
        patch.setattr(socket.socket, "setsockopt", refusal(errno.EINVAL))
        connection = attempt.finish()
    attempt.close()
    assert not connection.getblocking()
    for sock in (client, server, connection):
        sock.close()


def test_a_connection_that_cannot_be_taken_is_given_back(
    connected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, client = connected
    attempt = Takeover(server.fileno())
    attempt.capture()
    server.sendall(HEAD + b"\r\n" + OPENING)
    attempt.verify(OPENING, None, None)
    with monkeypatch.context() as patch:
        patch.setattr(takeover.socket, "socket", refusal(errno.ENOBUFS))
        with pytest.raises(OSError, match="refused"):
            attempt.finish()
    attempt.restore(server.sendall)
    assert client.recv(1000) == HEAD + b"\r\n" + OPENING


def test_a_connection_that_cannot_be_given_back_is_closed(
    connected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, client = connected
    attempt = Takeover(server.fileno())
    attempt.capture()
    with monkeypatch.context() as patch:
        patch.setattr(takeover.os, "dup2", refusal(errno.EBUSY))
        with pytest.raises(OSError, match="refused"):
            attempt.restore(server.sendall)
    assert client.recv(1) == b""


def refusal(number: int) -> Any:
    def refuse(*args: Any, **named: Any) -> Any:
        raise OSError(number, "refused")

    return refuse


def test_duplicates_are_not_inherited_by_programs(connected: Any) -> None:
    server, _ = connected
    attempt = Takeover(server.fileno())
    attempt.capture()
    assert not os.get_inheritable(attempt._connection)
    assert not os.get_inheritable(server.fileno())
    attempt.restore(server.sendall)


# -- who lends -----------------------------------------------------------------------------------------------


def reader_with(buffered: bytes, body_left: int = 0, held: bytes = b"") -> Any:
    """The shape of gunicorn's `wsgi.input`."""
    unreader = SimpleNamespace(buf=io.BytesIO(buffered))
    reader = SimpleNamespace(unreader=unreader, length=body_left)
    return SimpleNamespace(reader=reader, buf=io.BytesIO(held))


@pytest.mark.parametrize("key", ["gunicorn.socket", "werkzeug.socket", "streamkit.socket"])
def test_a_plain_socket_is_lent(connected: Any, key: str, named: pytest.LogCaptureFixture) -> None:
    server, _ = connected
    assert lent_descriptor({key: server, "SERVER_PROTOCOL": "HTTP/1.1"}) == server.fileno()
    assert lent_descriptor({key: server, "wsgi.input": reader_with(b"")}) == server.fileno()
    assert named.messages == []


def test_a_request_that_was_read_ahead_keeps_this_one_with_the_server(
    connected: Any, named: pytest.LogCaptureFixture
) -> None:
    server, _ = connected
    environ = {"gunicorn.socket": server, "wsgi.input": reader_with(b"GET /next HTTP/1.1\r\n")}
    assert lent_descriptor(environ) is None
    assert named.messages == []  # a matter of this request, not of the setup


def test_a_body_that_was_not_read_keeps_its_request_with_the_server(
    connected: Any, named: pytest.LogCaptureFixture
) -> None:
    server, _ = connected
    environ = {"gunicorn.socket": server, "CONTENT_LENGTH": "10"}
    unread = [
        reader_with(b"", body_left=10),
        reader_with(b"12345", body_left=10),
        reader_with(b"1234567890", body_left=10),  # gunicorn would throw it away
        reader_with(b"", held=b"the rest of a line"),
        io.BytesIO(b"1234567890"),  # of whom nobody knows
    ]
    for given in unread:
        assert lent_descriptor({**environ, "wsgi.input": given}) is None
    assert len(named.messages) == 1
    assert "the body of the request was not read to its end" in named.messages[0]
    assert lent_descriptor({**environ, "wsgi.input": reader_with(b"")}) == server.fileno()


@pytest.mark.parametrize("chunked", [True, False])
def test_gunicorn_tells_when_a_body_was_read(connected: Any, chunked: bool) -> None:
    body = pytest.importorskip("gunicorn.http.body")
    unreader = pytest.importorskip("gunicorn.http.unreader").IterUnreader([b"3\r\nabc\r\n0\r\n\r\n"])
    request = SimpleNamespace(
        trailers=[], limit_request_field_size=8190, max_buffer_headers=8190, unreader=unreader
    )
    if chunked:
        given = body.Body(body.ChunkedReader(request, unreader))
        announced = {"HTTP_TRANSFER_ENCODING": "chunked"}
    else:
        given = body.Body(body.LengthReader(unreader, 16))
        announced = {"CONTENT_LENGTH": "16"}
    server, _ = connected
    environ = {"gunicorn.socket": server, "wsgi.input": given, "wsgi.input_terminated": True, **announced}
    assert lent_descriptor(environ) is None
    given.read(1)
    assert lent_descriptor(environ) is None
    given.read()
    assert lent_descriptor(environ) == server.fileno()
    unreader.unread(b"GET /next HTTP/1.1")
    assert lent_descriptor(environ) is None


def test_a_werkzeug_request_tells_what_it_has_read_from_a_server_that_does_not_count(connected: Any) -> None:
    wrappers = pytest.importorskip("werkzeug.wrappers")
    server, _ = connected
    environ = {
        "werkzeug.socket": server,
        "REQUEST_METHOD": "POST",
        "CONTENT_TYPE": "application/json",
        "CONTENT_LENGTH": "7",
        "wsgi.input": io.BytesIO(b'{"a":1}GET /'),
    }
    assert lent_descriptor(environ) is None
    request = wrappers.Request(environ)
    assert lent_descriptor(environ) is None
    request.stream.read(3)
    assert lent_descriptor(environ) is None
    request.stream.read()
    assert lent_descriptor(environ) == server.fileno()


class Wrapped(socket.socket):
    """Stands for ssl.SSLSocket."""


@pytest.mark.parametrize(
    ("environ", "reason"),
    [
        ({}, "does not lend its socket"),
        ({"SERVER_SOFTWARE": "waitress"}, "waitress does not lend its socket"),
        ({"gunicorn.socket": object()}, "not a plain socket"),
        ({"gunicorn.socket": object(), "SERVER_PROTOCOL": "HTTP/2"}, "HTTP/2 carries many requests"),
        ({"gunicorn.socket": object(), "SERVER_PROTOCOL": "HTTP/2.0"}, "HTTP/2 carries many requests"),
    ],
)
def test_each_obstacle_is_named_once(
    environ: dict[str, Any], reason: str, named: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        assert lent_descriptor(environ) is None
    assert len(named.messages) == 1
    assert reason in named.messages[0]


def test_tls_and_closed_sockets_are_not_lent(named: pytest.LogCaptureFixture) -> None:
    with Wrapped() as wrapped:
        assert lent_descriptor({"werkzeug.socket": wrapped}) is None
    assert "Wrapped" in named.messages[0]
    closed = socket.socket()
    closed.close()
    assert lent_descriptor({"werkzeug.socket": closed}) is None
    assert "closed" in named.messages[1]


def test_a_replaced_socket_module_is_seen(
    connected: Any, monkeypatch: pytest.MonkeyPatch, named: pytest.LogCaptureFixture
) -> None:
    """What gevent's and eventlet's monkey patching do."""
    server, _ = connected
    monkeypatch.setattr(Wrapped, "__module__", "gevent._socket3")
    monkeypatch.setattr(takeover.socket, "socket", Wrapped)
    assert lent_descriptor({"gunicorn.socket": server}) is None
    assert "gevent._socket3" in named.messages[0]


def test_naming_an_obstacle_once(named: pytest.LogCaptureFixture) -> None:
    name_obstacle("of this")
    name_obstacle("of that")
    name_obstacle("of this")
    assert [message.rpartition("because ")[2] for message in named.messages] == ["of this", "of that"]
