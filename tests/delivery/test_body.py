"""A body that a middleware closes early, or not at all, while the connection of its server is captured."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from streamkit import CSVResponse, EventSourceResponse, Limiter, NDJSONResponse, StreamingResponse, streams
from streamkit.delivery.connection import WRITE_SECONDS, SocketConnection, reset_connection
from streamkit.flow.turns import turns
from tests.conftest import eventually
from tests.interrupts import Interrupted

pytestmark = pytest.mark.usefixtures("running_loop", "nothing_left")

HEAD = b"HTTP/1.1 200 OK\r\n\r\n"
Pair = tuple[socket.socket, socket.socket]


def connect() -> Pair:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        client = socket.create_connection(listening.getsockname())
        server, _ = listening.accept()
    client.settimeout(10)
    return server, client


@pytest.fixture
def pair() -> Iterator[Pair]:
    server, client = connect()
    with server, client:
        yield server, client


def received(client: socket.socket) -> bytes:
    data = b""
    while part := client.recv(10_000):
        data += part
    return data


def events() -> Iterator[str]:
    while True:
        yield "x" * 1000


def captured(server: socket.socket, limiter: Limiter) -> Any:
    """The body of a stream whose head and first piece the server has written."""
    environ = {"REQUEST_METHOD": "GET", "SERVER_PROTOCOL": "HTTP/1.1", "gunicorn.socket": server}
    body: Any = iter(EventSourceResponse(events(), limiter=limiter)(environ, lambda *_: None))
    server.sendall(HEAD + next(body))
    return body


def test_a_body_that_is_closed_after_a_piece_gives_back_the_connection(pair: Pair) -> None:
    server, client = pair
    captured(server, Limiter(max_streams=1)).close()
    server.sendall(b"the end")
    received = b""
    while not received.endswith(b"the end"):
        received += client.recv(1000)
    assert received.startswith(HEAD + b":\n")


def test_a_body_that_is_closed_after_its_client_has_left_ends_its_stream(pair: Pair) -> None:
    server, client = pair
    limiter = Limiter(max_streams=1)
    body = captured(server, limiter)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    body.close()
    eventually(lambda: len(streams) == len(limiter) == 0)


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # the collector closes the pair as well
@pytest.mark.parametrize("cycle", [True, False])
def test_a_body_that_is_dropped_late_leaves_the_next_connection_alone(cycle: bool) -> None:
    """Whoever kept it may let go of it when the number of its descriptor is another client's."""
    limiter = Limiter(max_streams=1)
    server, client = connect()
    body = captured(server, limiter)
    if cycle:
        body.itself = body  # what the collector closes, it closes in any order
    number = server.fileno()
    server.close()
    other, other_client = connect()
    if other.fileno() != number:
        with other:
            os.dup2(other.fileno(), number)
        other = socket.socket(fileno=number)
    with client, other, other_client:
        del body
        gc.collect()
        eventually(lambda: len(streams) == len(limiter) == 0)
        other.sendall(b"a secret")
        assert other_client.recv(100) == b"a secret"
        assert received(client).startswith(b"" if cycle else HEAD + b":\n")


def test_a_body_that_is_dropped_while_the_server_writes_mixes_nothing_up(pair: Pair) -> None:
    """What the server writes after that would come before what it has written already."""
    server, client = pair
    limiter = Limiter(max_streams=1)
    captured(server, limiter)  # and dropped
    eventually(lambda: len(streams) == len(limiter) == 0)
    with contextlib.suppress(OSError):
        server.sendall(b"0\r\n\r\n")
    data = received(client)
    assert data.startswith(HEAD + b":\n")
    assert not data.endswith(b"0\r\n\r\n")


def test_a_connection_that_cannot_be_taken_stays_with_its_server(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, client = pair
    limiter = Limiter(max_streams=1)
    body = captured(server, limiter)
    first = body._captured  # with the first events, where the machine is busy

    def refuse(*args: Any, **named: Any) -> Any:
        raise OSError(errno.ENOBUFS, "No buffer space available")

    with monkeypatch.context() as patch:
        patch.setattr("streamkit.delivery.takeover.socket.socket", refuse)
        piece = next(body)
    server.sendall(piece)
    body.close()
    server.close()
    assert received(client) == HEAD + first + piece
    eventually(lambda: len(streams) == len(limiter) == 0)


def test_a_client_that_shuts_down_its_sending_side_does_not_take_half_a_body_for_a_whole(pair: Pair) -> None:
    """Without chunks and without a length the end of the connection is the end of the body."""
    server, client = pair
    body = captured(server, Limiter(max_streams=1))
    with pytest.raises(StopIteration):
        next(body)
    body.close()
    server.close()
    assert client.recv(10)
    client.shutdown(socket.SHUT_WR)
    with pytest.raises(ConnectionResetError):
        received(client)


@pytest.mark.parametrize(("length", "kept"), [("10", False), ("0", True)])
def test_a_producer_that_may_still_read_its_request_shares_the_connection_with_no_other(
    pair: Pair, length: str, kept: bool
) -> None:
    """The server would read the next request from it, or throw away the rest of this one."""
    server, client = pair
    done = threading.Event()

    def reading() -> Iterator[str]:
        yield "begun"
        done.wait(30)

    environ = {"REQUEST_METHOD": "POST", "SERVER_PROTOCOL": "HTTP/1.1", "gunicorn.socket": server}
    response = EventSourceResponse(reading(), delivery="threaded", max_duration=0.05)
    body: Any = response({**environ, "CONTENT_LENGTH": length}, lambda *_: None)
    try:
        for piece in body:
            server.sendall(piece)
        with contextlib.nullcontext() if kept else pytest.raises(BrokenPipeError):
            server.sendall(b"the end of the chunks")
        server.close()
        assert received(client).endswith(b"the end of the chunks" if kept else b"\n")
    finally:
        done.set()
        body.close()
        eventually(lambda: len(streams) == 0)


def test_a_signal_handler_that_raises_while_a_connection_is_given_back_ends_the_stream(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, _ = pair
    limiter = Limiter(max_streams=1)
    body = captured(server, limiter)

    def interrupted(data: bytes) -> None:
        raise Interrupted

    monkeypatch.setattr(body.connection, "send", interrupted)
    with pytest.raises(Interrupted):
        body.close()
    eventually(lambda: len(streams) == len(limiter) == 0)


@pytest.mark.parametrize("step", ["verify", "finish"])
def test_a_signal_handler_that_raises_while_a_stream_leaves_its_server_ends_the_stream(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    server, client = pair
    limiter = Limiter(max_streams=1)
    body = captured(server, limiter)
    piece = body._captured  # with the first events, where the machine is busy

    def interrupted(*args: object) -> None:
        raise Interrupted

    monkeypatch.setattr(body._takeover, step, interrupted)
    with pytest.raises(Interrupted):
        next(body)
    body.close()
    eventually(lambda: len(streams) == len(limiter) == 0)
    server.close()
    assert received(client) == HEAD + piece


def test_a_signal_handler_that_raises_in_the_last_step_is_not_taken_for_a_failed_callback() -> None:
    def interrupted() -> None:
        raise Interrupted

    response = StreamingResponse([b"all of it"])
    response.call_on_close(interrupted)
    body = iter(response({"REQUEST_METHOD": "GET"}, lambda *_: None))
    with pytest.raises(Interrupted):
        list(body)


def test_a_body_that_is_dropped_late_takes_back_no_limit_of_the_next_response(pair: Pair) -> None:
    server, _ = pair
    environ = {"REQUEST_METHOD": "GET", "SERVER_PROTOCOL": "HTTP/1.1", "gunicorn.socket": server}

    def threaded() -> Any:
        body = iter(StreamingResponse(iter([b"a", b"b"]), delivery="threaded")(environ, lambda *_: None))
        next(body)
        return body

    dropped, following = threaded(), threaded()
    del dropped
    eventually(lambda: len(streams) == 1)
    assert server.gettimeout() == WRITE_SECONDS
    following.close()


def test_a_middleware_that_the_garbage_collector_ends_waits_for_no_lock_of_its_own_thread() -> None:
    """The `finally` of a generator that nobody closed runs anywhere: in the midst of another stream's bookkeeping."""
    limiter = Limiter(max_streams=1)
    ended: list[str | None] = []

    def middleware() -> Iterator[bytes]:
        rows = CSVResponse(
            ([n] for n in range(9)), limiter=limiter, on_close=lambda s: ended.append(s.outcome)
        )
        body = rows({"REQUEST_METHOD": "GET"}, lambda *_: None)
        try:
            yield from body
        finally:
            body.close()  # type: ignore[attr-defined]

    body = middleware()
    assert next(body)
    (stream,) = streams

    def drop() -> None:
        nonlocal body
        with streams._lock, stream._lock, limiter._lock, turns._lock:
            del body
            gc.collect()

    thread = threading.Thread(target=drop, daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
    assert ended == ["client_gone"]
    assert len(streams) == len(limiter) == 0


def test_a_callback_that_raises_stop_iteration_does_not_complete_a_broken_body() -> None:
    def chunks() -> Iterator[bytes]:
        yield b"half of it"
        raise ValueError("broken")

    response = StreamingResponse(chunks())
    response.call_on_close(lambda: next(iter(())))
    body = iter(response({"REQUEST_METHOD": "GET"}, lambda *_: None))
    assert next(body) == b"half of it"
    with pytest.raises(ValueError, match="broken"):
        next(body)


@pytest.mark.parametrize("begun", [True, False])
@pytest.mark.parametrize("leaves", [True, False])
def test_a_producer_that_finds_its_client_gone_has_not_failed(pair: Pair, begun: bool, leaves: bool) -> None:
    """It reads the body of its request, and learns of the reset before anybody else looks."""
    server, client = pair
    environ = {"REQUEST_METHOD": "POST", "SERVER_PROTOCOL": "HTTP/1.1", "gunicorn.socket": server}
    ended: list[str | None] = []
    go = threading.Event()

    def items() -> Iterator[str]:
        go.wait(10)
        if leaves:
            reset_connection(client)
            eventually(SocketConnection(server).is_gone)
        raise ConnectionResetError(errno.ECONNRESET, "of the request, or of a database")
        yield

    kind: Any = EventSourceResponse if begun else NDJSONResponse  # the one begins with a comment
    response = kind(items(), on_close=lambda stream: ended.append(stream.outcome), delivery="threaded")
    if not begun:
        go.set()
    body: Any = iter(response(environ, lambda *_: None))
    if begun:
        assert next(body) == b":\n"
        go.set()
    with contextlib.suppress(ConnectionResetError):
        list(body)
    eventually(lambda: ended == ["client_gone" if leaves else "failed"], what=str(ended))
