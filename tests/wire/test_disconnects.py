"""Clients that leave, stall or lie, against servers that lend their socket. The thread must come free each time."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import eventually
from tests.live_server import MODULES, LiveServer, running

PROBED = ["fallback", "gunicorn-gthread", "waitress", "werkzeug"]


@pytest.fixture(scope="module", params=PROBED)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    if request.param in MODULES:
        pytest.importorskip(MODULES[request.param])
    with running(request.param, tmp_path_factory.mktemp("log")) as server:
        yield server


def first_event(server: LiveServer, path: str, marker: bytes = b"data: first\n\n") -> socket.socket:
    sock = server.connect(path)
    data = b""
    while marker not in data:
        more = sock.recv(4096)
        assert more
        data += more
    return sock


def blocked(server: LiveServer) -> list[object]:
    """Streams that have ended for their client, but whose producer has not returned from somebody else's code."""
    return [stream for stream in server.state()["live"] if stream["outcome"] == "client_gone"]


def living(server: LiveServer) -> list[object]:
    return [stream for stream in server.state()["live"] if stream["outcome"] is None]


def test_quiet_streams_whose_clients_left_do_not_leave_the_site_dead(server: LiveServer) -> None:
    """Four threads, four clients of a generator that waits for ever; they leave; a page must be answered."""
    for sock in [first_event(server, "/quiet") for _ in range(4)]:
        sock.close()
    left = time.monotonic()
    server.get("/state")  # on four threads this waits for the first that comes free
    assert time.monotonic() - left < 5  # within 1 s where the machine keeps up; a dead site never answers
    eventually(lambda: len(blocked(server)) == 4, what=str(server.state()))


def test_the_producer_is_told_and_closed(server: LiveServer) -> None:
    before = server.state()["closed"].count("cancelled")
    first_event(server, "/cancelled").close()
    eventually(lambda: server.state()["closed"].count("cancelled") == before + 1)
    eventually(lambda: living(server) == [])


@pytest.mark.parametrize("kind", ["ndjson", "array"])
def test_a_client_that_leaves_before_the_first_row(server: LiveServer, kind: str) -> None:
    before = server.state()["closed"].count(f"{kind}-silent")
    sock = server.connect(f"/{kind}-silent")
    eventually(lambda: living(server) != [])
    sock.close()
    eventually(lambda: server.state()["closed"].count(f"{kind}-silent") == before + 1)
    eventually(lambda: living(server) == [])


def test_a_client_that_resets(server: LiveServer) -> None:
    before = server.state()["closed"].count("cancelled")
    sock = first_event(server, "/cancelled")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
    eventually(lambda: server.state()["closed"].count("cancelled") == before + 1)


def test_a_download_that_is_given_up(server: LiveServer) -> None:
    before = server.state()["closed"].count("endless")
    sock = server.connect("/endless")
    sock.recv(100_000)
    sock.close()
    eventually(lambda: server.state()["closed"].count("endless") == before + 1)
    eventually(lambda: living(server) == [])


@pytest.mark.parametrize("name", ["fallback", "gunicorn-gthread", "gunicorn-sync", "werkzeug"])
def test_a_client_that_shuts_down_its_sending_side_does_not_take_half_a_body_for_a_whole(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over HTTP/1.0 the end of the connection is the end of the body."""
    if name in MODULES:
        pytest.importorskip(MODULES[name])
    monkeypatch.setenv("STREAMKIT_DELIVERY", "threaded")
    with running(name, tmp_path) as server:
        with server.connect("/endless", version="1.0") as sock:
            assert sock.recv(100_000)
            sock.shutdown(socket.SHUT_WR)
            with pytest.raises(ConnectionResetError), sock.makefile("rb") as body:
                body.read()
        eventually(lambda: living(server) == [])
        assert "Traceback" not in server.log()


def test_a_pipelined_request_is_not_taken_for_a_goodbye(server: LiveServer) -> None:
    with first_event(server, "/beating", b"data: first\n\n") as sock:
        sock.sendall(b"GET /state HTTP/1.1\r\nHost: localhost\r\n\r\n")
        data = b""
        while data.count(b":\n") < 4:  # beats go on
            more = sock.recv(4096)
            assert more
            data += more


def test_a_sync_worker_comes_free_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On its one thread: while a stream is open nothing is answered, and it must be free when the client has left."""
    pytest.importorskip("gunicorn")
    monkeypatch.setenv("STREAMKIT_DELIVERY", "threaded")
    with running("gunicorn-sync", tmp_path) as server:
        first_event(server, "/cancelled").close()
        eventually(lambda: server.state()["closed"] == ["cancelled"])  # on a thread of its own
        first_event(server, "/quiet").close()
        eventually(lambda: len(blocked(server)) == 1)


@pytest.mark.parametrize("name", ["gunicorn-gthread", "werkzeug"])
def test_a_client_that_never_reads_is_closed(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(MODULES[name])
    monkeypatch.setenv("WRITE_SECONDS", "1.5")
    with running(name, tmp_path) as server:
        stalled = [server.connect("/endless") for _ in range(4)]  # all the threads that there are
        eventually(lambda: server.state()["outcomes"].count("stream:too_slow") == 4)
        assert server.state()["closed"].count("endless") == 4
        for sock in stalled:
            sock.close()


def test_a_client_that_reads_slowly_but_steadily_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Much less than the kernel's send buffer within the limit, but something all the time."""
    pytest.importorskip("gunicorn")
    monkeypatch.setenv("WRITE_SECONDS", "4")
    with running("gunicorn-gthread", tmp_path) as server, socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        slow.settimeout(30)
        slow.connect(("127.0.0.1", server.port))
        slow.sendall(b"GET /endless HTTP/1.1\r\nHost: localhost\r\n\r\n")
        until = time.monotonic() + 9
        while time.monotonic() < until:
            piece = slow.recv(8192)
            assert piece
            time.sleep(len(piece) / 100_000)
        assert server.state()["outcomes"] == []


def test_a_file_waits_for_a_slow_client_and_not_for_one_that_never_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the server sends it by `sendfile`."""
    pytest.importorskip("gunicorn")
    monkeypatch.setenv("WRITE_SECONDS", "1")
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(64 << 20)
    with running("gunicorn-gthread", tmp_path) as server:
        stalled = [server.connect(f"/named?{path}") for _ in range(2)]
        slow = server.connect(f"/named?{path}", version="1.0")
        received: list[int] = []

        def read_slowly() -> None:
            """For more than three seconds, three times the limit."""
            size = 0
            while piece := slow.recv(1 << 20):
                size += len(piece)
                time.sleep(len(piece) / (20 << 20))
            received.append(size)

        reading = threading.Thread(target=read_slowly)
        reading.start()
        eventually(lambda: server.state()["outcomes"].count("file:too_slow") == 2)
        reading.join(30)
        assert received[0] > 64 << 20  # the head and the file
        eventually(lambda: server.state()["outcomes"].count("file:completed") == 1)
        for sock in (slow, *stalled):
            sock.close()


def test_leaving_is_quiet(server: LiveServer) -> None:
    """No traceback in the server's log for clients that left; run last, over the log of this whole file."""
    assert "Traceback" not in server.log(), server.log()[-3000:]
