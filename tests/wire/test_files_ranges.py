"""Ranges, faults and growing files through real servers, by raw requests."""

from __future__ import annotations

import hashlib
import http.client
import os
import random
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import eventually
from tests.live_server import MODULES, SERVERS, LiveServer, running

SIZE = 3_000_000
OLD = 1_600_000_000
DATA = random.Random(5).randbytes(SIZE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest, folder: Path) -> Iterator[LiveServer]:
    if request.param in MODULES:
        pytest.importorskip(MODULES[request.param])
    (folder / "data.bin").write_bytes(DATA)
    os.utime(folder / "data.bin", (OLD, OLD))
    (folder / "empty").write_bytes(b"")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FILES", str(folder))
        patch.setenv("GUNICORN_CMD_ARGS", "--keep-alive 30")
        with running(request.param, folder, "tests.apps.files_app:app") as server:
            yield server


@pytest.mark.parametrize(
    ("header", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=100-1000099", 100, 1_000_100),
        (f"bytes={SIZE - 1}-", SIZE - 1, SIZE),
        ("bytes=-700000", SIZE - 700_000, SIZE),
        ("bytes=1-" + "9" * 40, 1, SIZE),
    ],
)
def test_one_range(server: LiveServer, header: str, start: int, stop: int) -> None:
    """Also where the server sends it by itself: exactly these bytes, from the right place."""
    response, body = server.get("/data.bin", {"Range": header})
    assert response.status == 206
    assert response.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{SIZE}"
    assert body == DATA[start:stop]


def test_ranges_on_one_connection(server: LiveServer) -> None:
    """Nothing of one answer is left over for the next."""
    if "uwsgi" in str(server.process.args):
        pytest.skip("its http-socket ends every connection after one answer")
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    etag = ""
    for headers, status, expected in [
        ({"Range": "bytes=5-9"}, 206, DATA[5:10]),
        ({}, 200, DATA),
        ({"Range": f"bytes={SIZE}-"}, 416, b""),
        ({"Range": "bytes=0-99999"}, 206, DATA[:100_000]),
        ({"If-None-Match": "*"}, 304, b""),
        ({"If-Match": '"x"', "Range": "bytes=0-1"}, 412, b""),
        ({"Range": "bytes=-3"}, 206, DATA[-3:]),
    ]:
        connection.request("GET", "/data.bin", headers=headers)
        response = connection.getresponse()
        assert (response.status, response.read()) == (status, expected)
        if status < 400:
            assert response.headers["ETag"].startswith('"')
            assert etag in ("", response.headers["ETag"])
            etag = response.headers["ETag"]
    connection.close()


def test_several_ranges(server: LiveServer) -> None:
    response, body = server.get("/data.bin", {"Range": "bytes=2000000-2999999, 0-9"})
    assert response.status == 206
    assert len(body) == int(response.headers["Content-Length"])
    boundary = response.headers.get_param("boundary", header="Content-Type")
    pieces = body.split(f"--{boundary}".encode())
    assert [piece.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n") for piece in pieces[1:3]] == [
        DATA[2_000_000:],
        DATA[:10],
    ]
    assert pieces[0] == b""
    assert pieces[3] == b"--\r\n"


def test_head_and_empty(server: LiveServer) -> None:
    response, body = server.get("/data.bin", method="HEAD")
    assert (response.status, response.headers["Content-Length"], body) == (200, str(SIZE), b"")
    assert response.headers["Accept-Ranges"] == "bytes"
    response, body = server.get("/empty", {"Range": "bytes=0-"})
    assert (response.status, response.headers["Content-Length"], body) == (200, "0", b"")


def test_a_thousand_ranges_cost_no_more_than_the_file(server: LiveServer) -> None:
    thousand = "bytes=" + ",".join(["0-"] * 1000)  # uWSGI takes 4 KiB of header
    response, body = server.get("/data.bin", {"Range": thousand})
    assert response.status == 200
    assert body == DATA


def test_a_digest(server: LiveServer) -> None:
    response, body = server.get("/data.bin", {"Want-Repr-Digest": "sha-256=5", "Range": "bytes=0-1"})
    assert (response.status, body) == (206, DATA[:2])
    digest = b64encode(hashlib.sha256(DATA).digest()).decode()
    assert response.headers["Repr-Digest"] == f"sha-256=:{digest}:"


@pytest.mark.parametrize(
    "path",
    [
        "/../../etc/passwd",
        "/%2e%2e/etc/passwd",
        "/..%2f..%2fetc/passwd",
        "/..%5c..%5cetc%5cpasswd",
        "/data.bin%00",
        "//etc/passwd",
        "/%2fetc%2fpasswd",
        "/%ff",
        "/.",
        "/fifo",
        "/%252e%252e/etc/passwd",
    ],
)
def test_path_tricks(server: LiveServer, folder: Path, path: str) -> None:
    if not (folder / "fifo").exists():
        os.mkfifo(folder / "fifo")
    response, body = server.get(path)
    assert response.status in (400, 404)  # a server may refuse it before the application sees it
    assert b"root:" not in body


def test_a_range_of_a_file_that_shrinks_is_no_whole_answer(server: LiveServer, folder: Path) -> None:
    large = folder / "shrinking.bin"
    large.touch()
    os.truncate(large, 200_000_000)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request("GET", "/shrinking.bin", headers={"Range": "bytes=1000-"})
    response = connection.getresponse()
    assert response.status == 206
    response.read(1000)
    os.truncate(large, 5000)
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        response.read()
    connection.close()
    eventually(lambda: any(line.startswith("file:failed") for line in server.state()["outcomes"]))


def test_a_file_that_is_deleted_or_grows_is_sent_as_promised(server: LiveServer, folder: Path) -> None:
    for change in ("delete", "grow", "replace"):
        path = folder / f"{change}.bin"
        path.write_bytes(DATA * 10)
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        connection.request("GET", f"/{change}.bin")
        response = connection.getresponse()
        first = response.read(1000)
        if change == "delete":
            path.unlink()
        elif change == "grow":
            with path.open("ab") as file:
                file.write(b"more")
        else:
            (folder / "other").write_bytes(b"another file")
            (folder / "other").replace(path)
        assert first + response.read() == DATA * 10
        connection.close()
        path.unlink(missing_ok=True)


def test_a_growing_file(server: LiveServer, folder: Path) -> None:
    (folder / "done").unlink(missing_ok=True)
    (folder / "growing.log").write_bytes(b"one,")
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request("GET", "/growing")
    response = connection.getresponse()
    assert response.headers["Content-Length"] is None
    assert response.read(4) == b"one,"
    with (folder / "growing.log").open("ab") as file:
        file.write(b"two")
    (folder / "done").touch()
    assert response.read() == b"two"
    connection.close()


def test_no_file_is_left_open(server: LiveServer) -> None:
    """After all of the above, and after clients that gave up."""
    for _ in range(10):
        sock = server.connect("/data.bin")
        sock.recv(100)
        sock.close()
        server.get("/data.bin", {"Range": "bytes=0-1"})
        server.get("/missing")
        server.get("/data.bin", method="HEAD")
    eventually(lambda: (server.state()["live"], server.state()["open"]) == (0, []))
