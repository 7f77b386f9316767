"""What comes before the body: interim answers that are skipped (RFC 9110 section 15.2), and heads without an end."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from pathlib import Path

import pytest

from streamkit.client.download import download
from streamkit.client.event_source import EventSource
from streamkit.client.response_head import MAX_HEAD_BYTES
from streamkit.client.stoppable_connection import StoppableConnection
from streamkit.errors import ConnectionLost, ProxyFailed, StreamRefused
from tests.client.raw_server import GONE, OK, QUICK, Server, chunked

HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\nContent-Length: 7\r\n\r\n"
INTERIM = [
    HINTS,
    b"HTTP/1.1 102 Processing\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 199 New\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n" + HINTS * 30 + b"HTTP/1.1 102 Processing\r\n\r\n",
]
IDS = ["103", "102", "100", "199", "many"]


def data_of(url: str, **options: object) -> list[str | None]:
    with EventSource(url, **{"timeout": 10, "max_retries": 0, **options}) as source:  # type: ignore[arg-type]
        return [event.data for event in source]


@pytest.mark.parametrize("interim", INTERIM, ids=IDS)
def test_interim_answers_are_skipped(server: Server, tmp_path: Path, interim: bytes) -> None:
    file = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
    url = server.start(interim + OK + b"data: x\n\n", interim + file)
    assert data_of(url) == ["x"]
    assert download(url, tmp_path / "file", timeout=10).size == 5
    assert (tmp_path / "file").read_bytes() == b"hello"


def test_an_interim_answer_comes_alone_and_the_final_one_later(server: Server) -> None:
    def answer(connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in HINTS + OK:
            connection.sendall(bytes([byte]))
        connection.sendall(b"data: x\n\n")

    assert data_of(server.start(answer)) == ["x"]


def test_a_switch_of_protocols_is_final(server: Server) -> None:
    with pytest.raises(StreamRefused, match="101 Switching"):
        data_of(server.start(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n" + OK))


def test_a_proxy_may_answer_in_between(server: Server) -> None:
    server.start(HINTS + b"HTTP/1.1 407 Who are you\r\n\r\n")
    with pytest.raises(ProxyFailed, match="407 Who are you"):
        data_of("https://stream.invalid/", proxy=server.url)


@pytest.mark.parametrize(
    "piece",
    [HINTS, b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"X: " + b"x" * 60_000 + b"\r\n"],
    ids=["103", "100", "fields"],
)
def test_a_head_without_end_is_cut(server: Server, piece: bytes) -> None:
    sent: list[int] = [0]

    def endless(connection: socket.socket) -> None:
        try:
            while sent[0] < 50_000_000:
                connection.sendall(piece)
                sent[0] += len(piece)
        except OSError:
            pass  # the client has had enough

    with pytest.raises(ConnectionLost, match=f"more than {MAX_HEAD_BYTES} bytes"):
        data_of(server.start(endless))
    server.stop()
    assert sent[0] < 50_000_000


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 204 No Content\r\n",
        b"HTTP/1.1 503 Busy\r\nRetry-Af",
        b"HTTP/1.1 200 OK\r\nCache-Control: no-cache\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: /els",
        HINTS,
        HINTS + b"HTTP/1.1 20",
    ],
)
def test_a_head_that_breaks_off_is_a_lost_connection(server: Server, head: bytes) -> None:
    """RFC 9112 section 8: its status alone says nothing. This one would end the stream for good."""
    url = server.start(OK + QUICK + b"data: x\n\n", head, OK + b"data: y\n\n", GONE)
    assert data_of(url, max_retries=2) == ["x", "y"]


def test_white_space_behind_a_field_is_no_part_of_it(server: Server, tmp_path: Path) -> None:
    """RFC 9112 section 5.1."""
    url = server.start(
        b"HTTP/1.1 302 Found \r\nLocation: /there \t\r\n\r\n",
        b'HTTP/1.1 200 OK\r\nETag: "a"\r\nContent-Length: 10 \r\n\r\nhello',
        b"HTTP/1.1 302 Found\r\nLocation: /there\r\n\r\n",
        b'HTTP/1.1 206 Partial\r\nETag: "a" \r\nContent-Range: bytes 5-9/10 \r\n\r\nworld',
    )
    download(url, tmp_path / "file", timeout=10)
    assert (tmp_path / "file").read_bytes() == b"helloworld"
    assert [line for line, _, _ in server.requests] == ["GET /events HTTP/1.1", "GET /there HTTP/1.1"] * 2


@pytest.mark.parametrize(
    "field", [b"X: a\rContent-Length: 1\r\n", b"X: a\r\r\n", b"X: a\r\n\r\r\n", b"X: a\r\n \t\r\n"]
)
def test_neither_a_bare_cr_nor_white_space_ends_a_line_or_the_head(server: Server, field: bytes) -> None:
    """RFC 9112 sections 2.2 and 5.2."""
    assert data_of(server.start(OK.replace(b"\r\n", b"\r\n" + field, 1) + b"data: x\n\n")) == ["x"]


@pytest.mark.parametrize("line", [b"no field", b"A : b", b": b", b"\xff: b", b"HTTP/1.1 200 OK"])
def test_what_is_no_field_takes_none_away(server: Server, line: bytes) -> None:
    """Without the field behind it the sizes of the chunks would be read as a part of the stream."""
    head = OK[:-2] + line + b"\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert data_of(server.start(HINTS + head + chunked(b"data: a", b"b\n\n", b""))) == ["ab"]


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
def test_a_head_that_drips_is_a_lost_connection(
    server: Server, secure_server: Server, certificate: Path, secure: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = threading.Event()
    connect = StoppableConnection.connect

    def connect_at_leisure(connection: StoppableConnection) -> None:
        """The time-out is that of the head alone: a busy machine may need longer for the handshake."""
        connection.timeout, seconds = 20, connection.timeout
        connect(connection)
        assert seconds is not None
        connection.hurry(seconds)

    monkeypatch.setattr(StoppableConnection, "connect", connect_at_leisure)

    def drip(connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            for byte in OK[:-2] + b"X: y\r\n" * 200:
                connection.sendall(bytes([byte]))
                if left.wait(0.05):  # 60 s in all
                    return
        except OSError:
            left.set()

    context = ssl.create_default_context(cafile=str(certificate / "certificate.pem"))
    url = (secure_server if secure else server).start(drip)
    start = time.monotonic()
    try:
        with pytest.raises(ConnectionLost, match=r"did not come within 0\.5 s") as caught:
            data_of(url, timeout=0.5, ssl_context=context)
    finally:
        left.set()
    assert isinstance(caught.value.__cause__, TimeoutError)
    assert time.monotonic() - start < 10


def test_a_slow_head_leaves_the_body_its_time(server: Server) -> None:
    """What the head has used up of the time-out is not missing to the reads after it."""

    def answer(connection: socket.socket) -> None:
        for seconds, piece in ((2.2, OK[:20]), (0.1, OK[20:]), (2.2, b"data: x\n\n")):
            pause.wait(seconds)
            connection.sendall(piece)

    pause = threading.Event()
    assert data_of(server.start(answer), timeout=4) == ["x"]


def test_the_largest_head(server: Server) -> None:
    """Lines of up to 64 KiB, as `http.client` takes them, and no more than fits."""
    fields = b"".join(b"X-%d: %b\r\n" % (number, b"x" * 65_000) for number in range(4))
    assert data_of(server.start(OK[:-2] + fields + b"\r\ndata: x\n\n")) == ["x"]


def test_under_tls(secure_server: Server, certificate: Path) -> None:
    context = ssl.create_default_context(cafile=str(certificate / "certificate.pem"))
    assert data_of(secure_server.start(HINTS + OK + b"data: x\n\n"), ssl_context=context) == ["x"]
