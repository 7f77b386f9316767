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
from streamkit.errors import ConnectionLost, ProxyFailed, StreamRefused
from tests.client.raw_server import OK, Server

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


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
def test_a_head_that_drips_is_a_lost_connection(
    server: Server, secure_server: Server, certificate: Path, secure: bool
) -> None:
    left = threading.Event()

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
        for seconds, piece in ((1.2, OK[:20]), (0.1, OK[20:]), (1.2, b"data: x\n\n")):
            pause.wait(seconds)
            connection.sendall(piece)

    pause = threading.Event()
    assert data_of(server.start(answer), timeout=2) == ["x"]


def test_the_largest_head(server: Server) -> None:
    """Lines of up to 64 KiB, as `http.client` takes them, and no more than fits."""
    fields = b"".join(b"X-%d: %b\r\n" % (number, b"x" * 65_000) for number in range(4))
    assert data_of(server.start(OK[:-2] + fields + b"\r\ndata: x\n\n")) == ["x"]


def test_under_tls(secure_server: Server, certificate: Path) -> None:
    context = ssl.create_default_context(cafile=str(certificate / "certificate.pem"))
    assert data_of(secure_server.start(HINTS + OK + b"data: x\n\n"), ssl_context=context) == ["x"]
