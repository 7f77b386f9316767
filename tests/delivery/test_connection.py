"""What a server's socket tells of the client, without a byte being written or read."""

from __future__ import annotations

import os
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from streamkit.delivery import connection as connection_module
from streamkit.delivery.connection import (
    WRITE_SECONDS,
    NoConnection,
    SocketConnection,
    WaitressConnection,
    client_connection,
    reset_connection,
)
from tests.conftest import eventually

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """The server's end and the client's end of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    with server, client:
        yield server, client


def test_a_client_that_waits_is_there(pair: Pair) -> None:
    assert not SocketConnection(pair[0]).is_gone()


def test_a_client_that_has_sent_more_is_there_and_its_bytes_stay(pair: Pair) -> None:
    server, client = pair
    connection = SocketConnection(server)
    client.sendall(b"GET /next")
    assert not connection.is_gone()
    assert server.recv(100) == b"GET /next"


@pytest.mark.parametrize("limited", [False, True])
def test_nobody_waits_for_bytes_that_the_producer_has_just_read(pair: Pair, limited: bool) -> None:
    """It reads the body of its request on another thread, between `poll` and the look at what is there."""
    server, client = pair
    connection = SocketConnection(server)
    if limited:
        connection.limit_writes()

    class Poll:
        def poll(self, _: int) -> list[tuple[int, int]]:
            client.sendall(b"u")
            ready = select.select([server], [], [], 10)[0]
            assert server.recv(100) == b"u"
            return [(sock.fileno(), select.POLLIN) for sock in ready]

    connection._poll = Poll()  # type: ignore[assignment]
    before = time.monotonic()
    assert not connection.is_gone()
    assert time.monotonic() - before < WRITE_SECONDS / 10
    assert server.gettimeout() == (WRITE_SECONDS if limited else None)
    client.close()
    assert server.recv(100) == b""  # and it is still open


@pytest.mark.parametrize("pipelined", [b"", b"GET /next"])
def test_a_client_that_closed_is_gone_even_behind_unread_bytes(pair: Pair, pipelined: bytes) -> None:
    server, client = pair
    client.sendall(pipelined)
    client.close()
    eventually(SocketConnection(server).is_gone)


def test_a_client_that_reset_is_gone(pair: Pair) -> None:
    server, client = pair
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    eventually(SocketConnection(server).is_gone)


def test_hanging_up_is_the_end_for_both(pair: Pair) -> None:
    server, client = pair
    connection = SocketConnection(server)
    connection.hang_up()
    assert client.recv(1) == b""
    with pytest.raises(OSError, match="Broken pipe"):
        server.sendall(b"0\r\n\r\n")
    connection.hang_up()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it is the end of both directions")
def test_breaking_off_is_an_error_for_a_client_that_still_reads(pair: Pair) -> None:
    server, client = pair
    connection = SocketConnection(server)
    server.sendall(b"half of it")
    client.shutdown(socket.SHUT_WR)
    assert client.recv(100) == b"half of it"
    connection.break_off()
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    with pytest.raises(ConnectionError):  # what servers expect of a client that has left
        server.sendall(b"more")
    connection.break_off()
    server.close()
    connection.break_off()


def test_a_reset_is_an_error_for_the_client_even_with_file_objects_open(pair: Pair) -> None:
    server, client = pair
    with server.makefile("rb"):
        connection = SocketConnection(server)
        connection.reset()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        connection.reset()
        connection.hang_up()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the last close resets")
def test_a_reset_is_one_though_another_process_holds_the_connection(pair: Pair) -> None:
    """One that was forked while the stream was under way."""
    server, client = pair
    client.settimeout(5)
    server.sendall(b"half of it")
    assert client.recv(100) == b"half of it"
    with subprocess.Popen(["sleep", "60"], pass_fds=[server.fileno()]) as child:
        try:
            reset_connection(server)
            with pytest.raises(ConnectionResetError):
                client.recv(100)
        finally:
            child.kill()


def test_writes_are_limited_and_released(pair: Pair) -> None:
    connection = SocketConnection(pair[0])
    connection.limit_writes()
    assert pair[0].gettimeout() == WRITE_SECONDS
    connection.release()
    assert pair[0].gettimeout() is None


def test_a_limit_of_writes_is_none_of_reads_where_a_body_is_still_to_be_read(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upload may pause for longer than a client may refuse to read."""
    monkeypatch.setattr(connection_module, "WRITE_SECONDS", 0.1)
    server, client = pair
    connection = client_connection({"gunicorn.socket": server, "CONTENT_LENGTH": "5"})
    connection.limit_writes()
    assert server.gettimeout() is None
    with pytest.raises(OSError):  # noqa: PT011 - the kernel's EAGAIN
        server.sendall(bytes(50_000_000))
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(server.recv(5)))
    reader.start()
    reader.join(0.3)
    client.sendall(b"hello")
    reader.join(10)
    assert got == [b"hello"]
    connection.release()
    assert struct.unpack("ll", server.getsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, 16)) == (0, 0)


def test_a_limit_of_the_servers_own_is_kept(pair: Pair) -> None:
    pair[0].settimeout(7)
    connection = SocketConnection(pair[0])
    connection.limit_writes()
    connection.release()
    assert pair[0].gettimeout() == 7


@pytest.mark.skipif(not hasattr(socket, "TCP_CORK"), reason="Linux' TCP")
def test_a_file_goes_in_full_segments_and_waits_in_the_kernel(pair: Pair) -> None:
    def state() -> tuple[int, bool, float | None, bytes]:
        sock = pair[0]
        cork = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CORK)
        wait = sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, 16)
        return cork, os.get_blocking(sock.fileno()), sock.gettimeout(), wait

    before = state()
    connection = SocketConnection(pair[0])
    connection.limit_file()
    cork, blocking, timeout, wait = state()
    assert (cork, blocking, timeout) == (1, True, WRITE_SECONDS)
    assert struct.unpack("ll", wait)[0] == 1
    connection.release()
    assert state() == before
    pair[0].settimeout(7)  # a limit of the server's own
    connection.limit_file()
    assert state() == (0, False, 7, before[3])


def test_a_file_to_a_local_socket_is_limited_by_a_time_out() -> None:
    server, client = socket.socketpair()
    with server, client:
        connection = SocketConnection(server)
        connection.limit_file()
        assert server.gettimeout() == WRITE_SECONDS
        connection.release()
        assert server.gettimeout() is None


@pytest.mark.parametrize("key", ["gunicorn.socket", "werkzeug.socket", "streamkit.socket"])
def test_where_servers_lend_their_socket(pair: Pair, key: str) -> None:
    assert isinstance(client_connection({key: pair[0]}), SocketConnection)
    assert isinstance(client_connection({key: None}), NoConnection)
    shared = {key: pair[0], "SERVER_PROTOCOL": "HTTP/2"}
    assert not isinstance(client_connection(shared), SocketConnection)


def test_a_closed_socket_is_no_connection(pair: Pair) -> None:
    pair[0].close()
    assert not isinstance(client_connection({"gunicorn.socket": pair[0]}), SocketConnection)


def test_waitress_tells_by_itself() -> None:
    left = False
    connection = client_connection({"waitress.client_disconnected": lambda: left})
    assert isinstance(connection, WaitressConnection)
    assert not connection.is_gone()
    left = True
    assert connection.is_gone()


def test_a_server_that_tells_nothing() -> None:
    connection = client_connection({})
    assert not connection.is_gone()
    connection.limit_writes()
    connection.limit_file()
    connection.release()
    connection.hang_up()
    connection.break_off()
    connection.reset()
