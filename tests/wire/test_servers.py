"""One application of streams under every server: the same bytes, the same endings."""

from __future__ import annotations

import csv
import http.client
import io
import json
import zipfile
from collections.abc import Iterator

import pytest

from tests.conftest import eventually
from tests.live_server import CHUNKING, MODULES, SERVERS, LiveServer, running


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    if request.param in MODULES:
        pytest.importorskip(MODULES[request.param])
    with running(request.param, tmp_path_factory.mktemp("log")) as server:
        server.name = request.param  # type: ignore[attr-defined]
        yield server


def chunking(server: LiveServer) -> bool:
    return server.name in CHUNKING  # type: ignore[attr-defined,no-any-return]


def test_events(server: LiveServer) -> None:
    response, body = server.get("/events")
    assert response.status == 200
    assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert response.headers["Cache-Control"] == "no-cache, no-transform"
    assert response.headers["X-Accel-Buffering"] == "no"
    assert response.headers["Content-Length"] is None
    assert body == b":\n" + b"".join(b'id: %d\ndata: {"n":%d}\n\n' % (n, n) for n in range(3))
    eventually(lambda: "events:completed" in server.state()["outcomes"])
    assert "events" in server.state()["closed"]


def test_a_token_stream_ends_with_its_bare_line(server: LiveServer) -> None:
    assert server.get("/tokens")[1] == b":\ndata: Hel\n\ndata: lo\n\ndata: [DONE]\n\n"


def test_the_opening_does_not_wait_for_the_first_event(server: LiveServer) -> None:
    with server.connect("/beating") as sock:
        data = b""
        while b"data: first\n\n" not in data:
            data += sock.recv(4096)
    head, _, body = data.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.")
    assert b":\n" in body


def test_heartbeats_while_the_producer_is_silent(server: LiveServer) -> None:
    with server.connect("/beating") as sock:
        data = b""
        while data.count(b":\n") < 4:
            more = sock.recv(4096)
            assert more, "the server closed the stream"
            data += more


def test_csv(server: LiveServer) -> None:
    response, body = server.get("/csv")
    assert response.headers["Content-Type"] == "text/csv; charset=utf-8; header=absent"
    rows = list(csv.reader(io.StringIO(body.decode(), newline="")))
    assert rows == [[str(n), f"name {n}", str(n / 4)] for n in range(5000)]


def test_json(server: LiveServer) -> None:
    expected = [{"n": n} for n in range(5000)]
    assert [json.loads(line) for line in server.get("/ndjson")[1].splitlines()] == expected
    assert json.loads(server.get("/array")[1]) == expected
    assert [json.loads(text) for text in server.get("/seq")[1].split(b"\x1e")[1:]] == expected[:50]


def test_bytes_and_writers(server: LiveServer) -> None:
    response, body = server.get("/bytes")
    assert body == b"one,two"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    archive = zipfile.ZipFile(io.BytesIO(server.get("/zip")[1]))
    assert archive.testzip() is None
    assert archive.read("7.txt") == b"content 7\n" * 1000


def test_file_whole_and_in_part(server: LiveServer) -> None:
    whole = bytes(range(256)) * 4096
    response, body = server.get("/file")
    assert (response.status, body) == (200, whole)
    assert response.headers["Content-Length"] == str(len(whole))
    response, body = server.get("/file", {"Range": "bytes=1000-1999"})
    assert (response.status, body) == (206, whole[1000:2000])
    assert response.headers["Content-Range"] == f"bytes 1000-1999/{len(whole)}"
    response, body = server.get("/file", {"If-None-Match": response.headers["ETag"]})
    assert (response.status, body) == (304, b"")
    response, body = server.get("/file", {"Range": f"bytes={len(whole)}-"})
    assert (response.status, body) == (416, b"")
    assert response.headers["Content-Range"] == f"bytes */{len(whole)}"


@pytest.mark.parametrize("path", ["/events", "/csv", "/quiet", "/file", "/zip"])
def test_head_sends_the_headers_and_starts_nothing(server: LiveServer, path: str) -> None:
    eventually(lambda: server.state()["live"] == [])  # those of the tests before are closed
    before = server.state()
    response, body = server.get(path, method="HEAD")
    assert (response.status, body) == (200, b"")
    assert response.headers["Content-Type"]
    after = server.state()
    assert after["closed"] == before["closed"]  # a generator that was never started has nothing to close
    assert {stream["id"] for stream in after["live"]} <= {stream["id"] for stream in before["live"]}


@pytest.mark.parametrize("path", ["/csv-early", "/csv-refused"])
def test_an_error_before_the_first_byte_is_a_500(server: LiveServer, path: str) -> None:
    response, body = server.get(path)
    assert response.status == 500
    assert b"secret" not in body


def test_events_that_fail_say_so_and_do_not_end_cleanly(server: LiveServer) -> None:
    error = b'event: error\ndata: {"message":"The stream failed.","code":"stream_failed"}\n\n'
    expected = b":\ndata: x\n\ndata: x\n\n" + error
    if chunking(server):
        with pytest.raises(http.client.IncompleteRead) as caught:
            server.get("/events-fail")
        assert caught.value.partial == expected
    else:
        assert server.get("/events-fail")[1] == expected
    eventually(lambda: "events:failed" in server.state()["outcomes"])
    eventually(lambda: "secret detail" in server.log())


@pytest.mark.parametrize("path", ["/csv-fail", "/array-fail"])
def test_rows_that_fail_never_look_complete(server: LiveServer, path: str) -> None:
    if chunking(server):
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            server.get(path)
    else:  # only a reset tells such a body from a complete one
        with pytest.raises(ConnectionError):
            server.get(path)


def test_a_callback_that_fails_does_not_cut_a_complete_answer(server: LiveServer) -> None:
    assert server.get("/csv-callback")[1] == b"a,b\r\n"
    eventually(lambda: "a callback with a bug" in server.log())


def test_expiry_ends_events_so_that_they_are_resumed(server: LiveServer) -> None:
    body = server.get("/expires")[1]
    assert body.startswith(b":\ndata: first\n\nretry: ")
    assert body.endswith(b"\n")
    assert 1000 <= int(body.split(b"retry: ")[1]) <= 5000
    eventually(lambda: "events:expired" in server.state()["outcomes"])


def test_http_1_0_clients_get_a_body_without_chunks(server: LiveServer) -> None:
    if server.name == "werkzeug":  # type: ignore[attr-defined]
        pytest.skip("Werkzeug's development server sends chunks to HTTP/1.0 clients")
    with server.connect("/bytes", version="1.0") as sock:
        data = b""
        while more := sock.recv(4096):
            data += more
    assert data.endswith(b"\r\n\r\none,two")


def test_nothing_is_left_over(server: LiveServer) -> None:
    eventually(lambda: server.state()["live"] == [], what=str(server.state()))
