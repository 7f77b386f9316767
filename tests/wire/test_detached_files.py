"""Downloads that hold no thread of the server: whole, in parts, slow, given up, and of files that change."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streamkit import CSVResponse, FileResponse, streams
from streamkit.flow.stream_threads import stream_threads
from tests.apps.streams_app import app as streams_app
from tests.apps.streams_app import ended
from tests.conftest import eventually
from tests.live_server import MODULES, LiveServer, running

SERVERS = ["fallback", "gunicorn-gthread", "gunicorn-sync", "uwsgi", "waitress", "werkzeug"]
LENDING = [name for name in SERVERS if name != "waitress"]


def app(environ: dict[str, Any], start_response: Any) -> Any:
    """`/detached?path`, `/limited?path`, `/sent?path`, `/rows`, `/end`, and what the application of streams has."""
    if environ["PATH_INFO"] in ("/detached", "/limited"):
        rate = 1_000_000 if environ["PATH_INFO"] == "/limited" else None
        answer = FileResponse(environ["QUERY_STRING"], delivery="detached", max_rate=rate, on_close=ended)
        return answer(environ, start_response)
    if environ["PATH_INFO"] == "/sent":
        return FileResponse(environ["QUERY_STRING"], on_close=ended)(environ, start_response)
    if environ["PATH_INFO"] == "/end":
        streams.drain()
    if environ["PATH_INFO"] == "/working":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"%d" % stream_threads.working]
    if environ["PATH_INFO"] == "/rows":
        rows = ([number, "x" * 50] for number in range(50_000))
        return CSVResponse(rows, delivery="detached")(environ, start_response)
    return streams_app(environ, start_response)


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    if request.param in MODULES:
        pytest.importorskip(MODULES[request.param])
    with running(
        request.param, tmp_path_factory.mktemp("log"), "tests.wire.test_detached_files:app"
    ) as server:
        server.name = request.param  # type: ignore[attr-defined]
        yield server


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "data.bin"
    path.write_bytes(os.urandom(8_000_000))
    return path


def test_a_whole_file(server: LiveServer, path: Path) -> None:
    response, body = server.get(f"/detached?{path}")
    assert response.headers["Content-Length"] == "8000000"
    assert hashlib.sha256(body).digest() == hashlib.sha256(path.read_bytes()).digest()


def test_ranges(server: LiveServer, path: Path) -> None:
    data = path.read_bytes()
    response, body = server.get(f"/detached?{path}", {"Range": "bytes=1000000-3999999"})
    assert (response.status, body) == (206, data[1_000_000:4_000_000])
    response, body = server.get(f"/detached?{path}", {"Range": "bytes=0-9,7000000-7999999"})
    assert response.headers["Content-Type"].startswith("multipart/byteranges")
    assert data[7_000_000:] in body
    assert len(body) == int(response.headers["Content-Length"])


def test_rows(server: LiveServer) -> None:
    body = server.get("/rows")[1]
    assert body.count(b"\r\n") == 50_000
    assert body.endswith(b"49999," + b"x" * 50 + b"\r\n")


def test_slow_downloads_hold_no_thread(server: LiveServer, path: Path) -> None:
    if server.name not in LENDING:  # type: ignore[attr-defined]
        pytest.skip("waitress sends from threads of its own")
    slow = [server.connect(f"/detached?{path}") for _ in range(8)]  # of four threads, or one
    for sock in slow:
        assert sock.recv(1000)
    live = server.state()["live"]
    assert [stream["delivery"] for stream in live] == ["detached"] * 8
    # Nor one of streamkit's own; the one that made the rows of the test before may be on its way to rest.
    eventually(lambda: server.get("/working")[1] == b"0")
    for sock in slow:
        sock.close()
    eventually(lambda: server.state()["live"] == [])


@pytest.mark.parametrize("name", ["limited", "detached"])
def test_a_download_that_is_under_way_when_streams_are_drained(
    server: LiveServer, path: Path, name: str
) -> None:
    """It breaks off at once, whether it waits for its rate or for a client that does not read."""
    if server.name not in LENDING:  # type: ignore[attr-defined]
        pytest.skip("waitress sends from threads of its own")
    before = server.state()["outcomes"].count("file:drained")
    with server.connect(f"/{name}?{path}") as sock:
        data = sock.recv(1000)
        server.get("/end")
        eventually(lambda: server.state()["outcomes"].count("file:drained") == before + 1)
        ended_by: Exception | None = None
        try:
            while more := sock.recv(1 << 20):
                data += more
        except OSError as error:
            ended_by = error
    assert isinstance(ended_by, ConnectionResetError)
    assert len(data) < 8_000_000


def test_a_download_that_the_server_sends_itself_when_streams_are_drained(
    server: LiveServer, path: Path
) -> None:
    if server.name not in ("fallback", "gunicorn-gthread"):  # type: ignore[attr-defined]
        pytest.skip("sends nothing by itself, or nothing else meanwhile")
    before = server.state()["outcomes"].count("file:drained")
    with server.connect(f"/sent?{path}") as sock:
        data = sock.recv(1000)
        server.get("/end")
        eventually(lambda: server.state()["outcomes"].count("file:drained") == before + 1)
        while more := sock.recv(1 << 20):
            data += more
    assert len(data) < 8_000_000
    assert "Traceback" not in server.log()


def test_a_file_that_shrinks_never_looks_complete(server: LiveServer, path: Path) -> None:
    if server.name not in LENDING:  # type: ignore[attr-defined]
        pytest.skip("waitress has read all of it before its client does")
    with server.connect(f"/detached?{path}") as sock:
        data = sock.recv(1000)
        os.truncate(path, 100_000)
        try:
            while more := sock.recv(1 << 20):
                data += more
        except ConnectionError:
            pass
    assert len(data) < 8_000_000
    eventually(lambda: server.state()["live"] == [])


def test_nothing_is_left(server: LiveServer) -> None:
    eventually(lambda: server.state()["live"] == [], what=str(server.state()))
