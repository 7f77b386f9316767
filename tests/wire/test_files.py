"""Large files through real servers' own fast ways: whole, left midway, and shrinking while they are sent."""

from __future__ import annotations

import http.client
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import eventually
from tests.live_server import MODULES, LiveServer, running

SIZE = 64 * 1024 * 1024  # far more than all socket buffers on the way


@pytest.fixture(
    scope="module", params=["fallback", "gunicorn-gthread", "gunicorn-sync", "waitress", "werkzeug"]
)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    if request.param in MODULES:
        pytest.importorskip(MODULES[request.param])
    with running(request.param, tmp_path_factory.mktemp("log")) as server:
        yield server


@pytest.fixture
def large(tmp_path: Path) -> Path:
    path = tmp_path / "large.bin"
    path.touch()
    os.truncate(path, SIZE)
    return path


def test_a_large_file_arrives_whole(server: LiveServer, large: Path) -> None:
    response, body = server.get(f"/named?{large}")
    assert (response.status, len(body)) == (200, SIZE)
    eventually(lambda: "file:completed" in server.state()["outcomes"])


def test_a_download_that_is_given_up(server: LiveServer, large: Path) -> None:
    before = server.state()["outcomes"].count("file:client_gone")
    sock = server.connect(f"/named?{large}")
    sock.recv(1000)
    sock.close()
    eventually(lambda: server.state()["outcomes"].count("file:client_gone") == before + 1)


def test_a_file_that_shrinks_is_never_a_whole_answer(server: LiveServer, large: Path) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request("GET", f"/named?{large}")
    response = connection.getresponse()
    response.read(1000)
    os.truncate(large, 1000)  # the server has sent some megabytes, and finds no more
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        response.read()
    connection.close()
    eventually(lambda: "file:failed" in server.state()["outcomes"])


def test_the_connection_of_a_shrunken_file_serves_no_further_request(server: LiveServer, large: Path) -> None:
    """A kept-alive connection would show the next answer as the missing bytes."""
    with server.connect(f"/named?{large}") as sock:
        sock.recv(1000)
        os.truncate(large, 1000)
        data = b""
        try:
            sock.sendall(b"GET /state HTTP/1.1\r\nHost: localhost\r\n\r\n")
            while more := sock.recv(1_000_000):
                data = (data + more)[-4096:]
        except ConnectionError:
            pass
    assert b"outcomes" not in data
