"""EventSource against what goes wrong on the way: names, TLS, proxies, compression, slow and lying servers."""

from __future__ import annotations

import base64
import gzip
import socket
import ssl
import struct
import threading
import zlib
from pathlib import Path

import pytest

from streamkit import EventSource
from streamkit.client import event_source, http_exchange
from streamkit.client.event_source import Opened, Retry
from streamkit.client.proxies import checked_proxy, proxy_for
from streamkit.client.stoppable_connection import StoppableConnection
from streamkit.errors import (
    CertificateRefused,
    ConnectionLost,
    DecodeError,
    EventSourceError,
    NotAnEventStream,
    ProxyFailed,
    RedirectFailed,
    StreamRefused,
)
from tests.client.raw_server import GONE, OK, QUICK, Server, chunked, moved
from tests.conftest import eventually

BASIC = "Basic " + base64.b64encode("us er:pä:ss".encode()).decode()


def data_of(url: str, **options: object) -> list[str | None]:
    with EventSource(url, **{"timeout": 10, "max_retries": 0, **options}) as source:  # type: ignore[arg-type]
        return [event.data for event in source]


def coded(coding: str, body: bytes, chunks: bool = False) -> bytes:
    head = OK.replace(b"\r\n\r\n", f"\r\nContent-Encoding: {coding}\r\n".encode())
    if chunks:
        return (
            head
            + b"Transfer-Encoding: chunked\r\n\r\n"
            + chunked(*(body[i : i + 1] for i in range(len(body))), b"")
        )
    return head + b"\r\n" + body


def raw_deflate(data: bytes) -> bytes:
    machine = zlib.compressobj(wbits=-15)
    return machine.compress(data) + machine.flush()


# Callbacks and what errors say.


def test_callbacks_are_told(server: Server) -> None:
    url = server.start(moved(302, "/there"), OK + QUICK + b"data: x\n\n", b"", GONE)
    opened: list[Opened] = []
    retries: list[Retry] = []
    assert data_of(url, max_retries=5, on_open=opened.append, on_retry=retries.append) == ["x"]
    assert [told.url for told in opened] == [url.replace("/events", "/there")]
    assert opened[0].http_version == "1.1"
    assert opened[0].headers["content-TYPE"] == "text/event-stream"
    assert [(retry.failures, retry.error is None) for retry in retries] == [(1, True), (2, False)]
    assert all(0 <= retry.delay < 1 for retry in retries)


@pytest.mark.parametrize("name", ["on_open", "on_retry"])
def test_what_a_callback_raises_comes_out_and_ends_it(server: Server, name: str) -> None:
    def broken(told: object) -> None:
        raise KeyError(name)

    source = EventSource(server.start(OK), timeout=10, **{name: broken})  # type: ignore[arg-type]
    with pytest.raises(KeyError):
        next(source)
    assert list(source) == []
    assert not source._exchange.is_open


@pytest.mark.parametrize("name", ["on_open", "on_retry"])
def test_a_callback_may_close(server: Server, name: str) -> None:
    source = EventSource(server.start(OK), timeout=10, **{name: lambda told: source.close()})  # type: ignore[arg-type]
    assert list(source) == []
    assert not source._exchange.is_open


def test_a_refusal_says_what_the_server_said(server: Server) -> None:
    url = server.start(
        b'HTTP/1.1 429 Slow Down\r\nRetry-After: 7\r\nContent-Length: 13\r\n\r\n{"error": "x"}'
    )
    with pytest.raises(StreamRefused, match="asks to come back in 7 s") as caught:
        data_of(url)
    assert (caught.value.status, caught.value.retry_after) == (429, 7.0)
    assert caught.value.body == b'{"error": "x"'


def test_a_refusal_that_never_ends_is_cut(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    head = b"HTTP/1.1 500 Broken\r\n\r\n"
    url = server.start(head + b"x" * 100_000, server.hold(head + b"slow"))
    for size in (16 * 1024, 4):
        with pytest.raises(StreamRefused) as caught:
            data_of(url)
        assert len(caught.value.body) == size
        monkeypatch.setattr(http_exchange, "EXCERPT_SECONDS", 0.5)


def test_html_is_not_an_event_stream(server: Server) -> None:
    url = server.start(b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n<p>Please log in")
    with pytest.raises(NotAnEventStream, match=r"'text/html; charset=utf-8'.*need a login"):
        data_of(url)


@pytest.mark.parametrize(
    "field",
    [b"Content-Length: 9\r\nContent-Length: 18", b"Content-Length: 1_8", b"Transfer-Encoding: gzip, chunked"],
)
def test_framing_that_cannot_be_trusted_is_final(server: Server, field: bytes) -> None:
    """A server writes the same head each time, so reconnecting is "known to be futile" (WHATWG HTML 9.2.2)."""
    url = server.start(OK.replace(b"\r\n\r\n", b"\r\n" + field + b"\r\n\r\n") + b"data: 1\n\ndata: 2\n\n")
    with pytest.raises(NotAnEventStream, match="cannot be read") as caught:
        data_of(url, max_retries=None)
    assert caught.value.status == 200
    assert len(server.requests) == 1


def test_redirects_have_their_own_error(server: Server) -> None:
    with pytest.raises(RedirectFailed):
        data_of(server.start(moved(302, "")))


def test_no_error_shows_a_secret(server: Server) -> None:
    url = server.start(moved(302, "ftp://u:secret@x/?token=secret"), moved(302, "http://u:secret@y/"))
    with pytest.raises(ValueError, match=r"'ftp://x/' is not a URL") as refused:
        EventSource("ftp://u:secret@x/?token=secret")
    for _ in range(2):
        with pytest.raises(RedirectFailed) as caught:
            data_of(url.replace("://", "://u:secret@") + "?token=secret")
        assert "secret" not in f"{caught.value} {refused.value}"


# The network.


@pytest.mark.parametrize("host", ["no-such-host.invalid", "refused"])
def test_no_server(host: str) -> None:
    if host == "refused":
        with socket.create_server(("127.0.0.1", 0)) as listener:
            host = f"127.0.0.1:{listener.getsockname()[1]}"
    with pytest.raises(ConnectionLost, match="retries are used up") as caught:
        data_of(f"http://{host}/")
    assert isinstance(caught.value.__cause__, (socket.gaierror, ConnectionRefusedError))


def test_one_byte_at_a_time_resets_the_time_out(server: Server) -> None:
    wire = "".join(f":{number}\n" for number in range(20)).encode() + "data: é\n\n".encode()
    pause = threading.Event()

    def trickle(connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(OK)
        for number in range(len(wire)):
            connection.sendall(wire[number : number + 1])
            pause.wait(0.04)  # longer than the time-out in all

    assert data_of(server.start(trickle), timeout=3) == ["é"]


@pytest.mark.parametrize(
    "tail", ["id: 2\ndata: lost", "id: 2\ndata: lost\n", "id: 2\ndata: \xc3", "id: 2", "\xe2\x82"]
)
def test_a_stream_that_drops_in_the_middle_loses_only_the_unfinished(server: Server, tail: str) -> None:
    url = server.start(OK + QUICK + b"id: 1\ndata: x\n\n" + tail.encode("latin-1"), GONE)
    assert data_of(url, max_retries=1) == ["x"]
    assert server.requests[1][1]["last-event-id"] == "1"


def test_a_line_without_end_is_bounded(server: Server) -> None:
    def endless(connection: socket.socket) -> None:
        connection.sendall(OK)
        try:
            while True:
                connection.sendall(b"x" * 65536)
        except OSError:
            pass  # the client has had enough

    with pytest.raises(DecodeError, match="longer than 1000000"):
        data_of(server.start(endless), max_event_bytes=1_000_000)


@pytest.mark.parametrize("chunk", [b"zz\r\nxx\r\n", b"5\r\ndata: x\r\n", b"-1\r\n", b"1" * 2000])
def test_broken_chunks_are_a_lost_connection(server: Server, chunk: bytes) -> None:
    head = OK.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n")
    url = server.start(head + chunked(QUICK + b"data: x\n\n") + chunk, GONE)
    assert data_of(url, max_retries=1) == ["x"]


def test_a_server_that_answers_before_it_has_read_a_large_body(server: Server) -> None:
    listener = socket.create_server(("127.0.0.1", 0))

    def refuse() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(100)
            connection.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass

    thread = threading.Thread(target=refuse)
    thread.start()
    with pytest.raises(StreamRefused, match="413"):
        data_of(f"http://127.0.0.1:{listener.getsockname()[1]}/", method="POST", body=b"x" * 3_000_000)
    thread.join(10)
    listener.close()


# Compression.


@pytest.mark.parametrize("chunks", [False, True])
@pytest.mark.parametrize(
    ("coding", "pack"),
    [
        ("gzip", gzip.compress),
        ("X-GZIP", lambda data: gzip.compress(data[:3]) + gzip.compress(data[3:])),
        ("deflate", zlib.compress),
        ("deflate", raw_deflate),
        ("identity", bytes),
    ],
)
def test_codings(server: Server, coding: str, pack: type[bytes], chunks: bool) -> None:
    body = b"".join(b"data: %d\n\n" % number for number in range(200))
    assert data_of(server.start(coded(coding, pack(body), chunks))) == [str(number) for number in range(200)]
    assert server.requests[0][1]["accept-encoding"] == "identity"


def test_a_second_coding_is_not_overlooked(server: Server) -> None:
    with pytest.raises(NotAnEventStream, match="Content-Encoding 'identity, gzip'"):
        data_of(server.start(coded("identity\r\nContent-Encoding: gzip", gzip.compress(b"data: x\n\n"))))


def test_a_compressed_event_comes_when_it_was_flushed(server: Server) -> None:
    machine = zlib.compressobj(wbits=31)
    flushed = machine.compress(b"data: " + b"x" * 65536 + b"\n\n") + machine.flush(zlib.Z_SYNC_FLUSH)
    with EventSource(server.start(server.hold(coded("gzip", flushed))), timeout=10) as source:
        assert next(source).data == "x" * 65536


def test_a_bomb_costs_no_memory(server: Server) -> None:
    bomb = gzip.compress(b":" + b"x" * 50_000_000, 9)
    with pytest.raises(DecodeError, match="longer than"):
        data_of(server.start(coded("gzip", bomb)), max_event_bytes=300_000)
    comments = gzip.compress(b":\n" * 2_000_000 + b"data: x\n\n", 9)
    server.stop()
    other = Server()
    try:
        assert data_of(other.start(coded("gzip", comments))) == ["x"]
    finally:
        other.stop()


@pytest.mark.parametrize(
    "body", [b"data: x\n\n", gzip.compress(b"data: x\n\n")[:-4], zlib.compress(b"x") + b"more"]
)
def test_compressed_data_that_is_broken_is_a_lost_connection(server: Server, body: bytes) -> None:
    coding = "deflate" if body.endswith(b"more") else "gzip"
    with pytest.raises(ConnectionLost):
        data_of(server.start(coded(coding, body)))


# Credentials.


@pytest.mark.parametrize("where", ["url", "auth"])
def test_basic_authentication(server: Server, where: str) -> None:
    other = Server()
    url = server.start(moved(302, "/there"), moved(302, other.start(moved(302, server.url))), GONE)
    try:
        if where == "url":
            source = EventSource(url.replace("://", "://us%20er:p%C3%A4%3Ass@"), timeout=10)
        else:
            source = EventSource(url, auth=("us er", "pä:ss"), timeout=10)
        with source:
            assert source.url == url
            assert list(source) == []
    finally:
        other.stop()
    assert [sent.get("authorization") for _, sent, _ in server.requests] == [BASIC, BASIC, None]
    assert "authorization" not in other.requests[0][1]


@pytest.mark.parametrize("nobody", ["@", ":@"])
def test_a_user_without_name_and_password_is_none(server: Server, nobody: str) -> None:
    """WHATWG URL: a URL includes credentials where one of the two is not empty."""
    url = server.start(moved(307, f"http://{nobody}localhost:{server.port}/"), GONE)
    assert data_of(url.replace("://", f"://{nobody}")) == []
    assert [headers.get("authorization") for _, headers, _ in server.requests] == [None, None]


def test_credentials_in_a_redirect(server: Server) -> None:
    inside = server.url.replace("://", "://u:p@")
    url = server.start(moved(307, inside), moved(307, "http://u:p@localhost:1/"))
    with pytest.raises(RedirectFailed, match="user name"):
        data_of(url)
    assert server.requests[1][1]["authorization"] == "Basic dTpw"


@pytest.mark.parametrize(
    ("url", "options", "error"),
    [
        ("http://u:p@x/", {"auth": ("u", "p")}, ValueError),
        ("http://u:p@x/", {"headers": {"AUTHORIZATION": "x"}}, ValueError),
        ("http://x/", {"auth": ("u:v", "p")}, ValueError),
        ("http://x/", {"auth": ("u", "p\n")}, ValueError),
        ("http://x/", {"auth": "u:p"}, TypeError),
        ("http://x/", {"max_event_bytes": 0}, ValueError),
        ("http://x/", {"proxy": "socks5://127.0.0.1:1080"}, ProxyFailed),
        ("http://x/", {"proxy": "http://127.0.0.1:no"}, ProxyFailed),
    ],
)
def test_parameters_that_are_refused(url: str, options: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error):
        EventSource(url, **options)  # type: ignore[arg-type]


# Proxies.


def test_an_http_proxy_is_asked_for_the_whole_url(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.start(OK + QUICK + b"data: x\n\n", GONE)
    monkeypatch.setenv("http_proxy", f"http://us%20er:p%C3%A4%3Ass@127.0.0.1:{server.port}")
    assert data_of("http://stream.invalid:81/a?b=ü", max_retries=1) == ["x"]
    line, headers, _ = server.requests[0]
    assert line == "GET http://stream.invalid:81/a?b=%C3%BC HTTP/1.1"
    assert headers["host"] == "stream.invalid:81"
    assert headers["proxy-authorization"] == BASIC


def test_a_proxy_can_be_named_or_refused(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    url = server.start(GONE, GONE)
    assert data_of("http://stream.invalid/", proxy=f"127.0.0.1:{server.port}") == []
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert data_of(url, proxy=None) == []


@pytest.mark.parametrize(
    ("host", "port", "no_proxy", "direct"),
    [
        ("example.org", 80, "", False),
        ("example.org", 80, "*", True),
        ("example.org", 80, "other, example.org", True),
        ("www.Example.org.", 80, ".example.org", True),
        ("wwwexample.org", 80, "example.org", False),
        ("example.org", 80, "example.org:80", True),
        ("example.org", 81, "example.org:80", False),
        ("10.1.2.3", 80, "10.0.0.0/8", True),
        ("11.1.2.3", 80, "10.0.0.0/8,host", False),
        ("127.0.0.1", 80, "127.0.0.1", True),
        ("::1", 80, "::1", True),
        ("::1", 80, "[::1]:80", True),
        ("::1", 80, "[::1]:81", False),
        ("example.org", 80, ",,", False),
    ],
)
def test_no_proxy(monkeypatch: pytest.MonkeyPatch, host: str, port: int, no_proxy: str, direct: bool) -> None:
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:3128")
    monkeypatch.setenv("no_proxy", no_proxy)
    assert (proxy_for("https", host, port, "environment") is None) is direct


def test_a_proxy_does_not_show_its_password() -> None:
    assert "dTpw" not in repr(checked_proxy("http://u:p@127.0.0.1"))


def test_https_goes_through_a_tunnel(
    server: Server, secure_server: Server, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secure_server.start(OK + b"data: x\n\n")

    def tunnel(connection: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", secure_server.port), timeout=20) as onward:
            connection.sendall(b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n")
            back = threading.Thread(target=copy, args=(onward, connection))
            back.start()
            copy(connection, onward)
            back.join(20)

    def copy(source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    server.start(tunnel)
    monkeypatch.setenv("https_proxy", f"http://u:p@127.0.0.1:{server.port}")
    context = ssl.create_default_context(cafile=str(certificate / "certificate.pem"))
    assert data_of(secure_server.url, ssl_context=context) == ["x"]
    line, headers, _ = server.requests[0]
    assert line == f"CONNECT 127.0.0.1:{secure_server.port} HTTP/1.1"
    assert headers["proxy-authorization"] == "Basic dTpw"
    assert "proxy-authorization" not in secure_server.requests[0][1]


def test_a_proxy_that_refuses_a_tunnel(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.start(b"HTTP/1.1 407 Who are you\r\n\r\n")
    monkeypatch.setenv("https_proxy", f"127.0.0.1:{server.port}")
    with pytest.raises(ProxyFailed, match=r"407 Who are you.*tunnel to stream\.invalid:443") as caught:
        data_of("https://stream.invalid/")
    assert caught.value.status == 407


def test_a_proxy_that_cannot_reach_the_server_is_asked_again(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_source, "FIRST_RETRY", 1)
    server.start(*[b"HTTP/1.1 %d Away\r\n\r\n" % status for status in (502, 503, 504)])
    told: list[Retry] = []
    with pytest.raises(ConnectionLost, match=r"504 Away.*tunnel to stream\.invalid:443"):
        data_of(
            "https://stream.invalid/",
            proxy=f"127.0.0.1:{server.port}",
            max_retries=2,
            on_retry=told.append,
        )
    assert [retry.failures for retry in told] == [1, 2]


def test_what_a_proxy_says_before_the_tunnel_is_no_answer_of_the_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connected, hung_up = threading.Event(), threading.Event()

    def forge(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        assert connected.wait(20)
        connection.sendall(OK + b"data: forged\n\n")
        connection.shutdown(socket.SHUT_WR)
        # Behind the end of the stream a reset is a broken pipe to who writes, and what came before can still be read.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
        hung_up.set()

    ask_for_tunnel = StoppableConnection._ask_for_tunnel

    def ask_late(connection: StoppableConnection) -> None:
        connected.set()
        assert hung_up.wait(20)
        ask_for_tunnel(connection)

    monkeypatch.setattr(StoppableConnection, "_ask_for_tunnel", ask_late)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        proxy = threading.Thread(target=forge, args=(listener,))
        proxy.start()
        with pytest.raises(ConnectionLost) as caught:
            data_of("https://stream.invalid/", proxy=f"127.0.0.1:{listener.getsockname()[1]}")
        proxy.join(20)
    assert isinstance(caught.value.__cause__, ConnectionError)


# TLS.


def test_a_context_of_the_caller(secure_server: Server, certificate: Path) -> None:
    url = secure_server.start(OK + b"data: x\n\n", b"")
    context = ssl.create_default_context(cafile=str(certificate / "certificate.pem"))
    assert data_of(url, ssl_context=context) == ["x"]
    with pytest.raises(CertificateRefused):
        data_of(url.replace("127.0.0.1", "localhost"), ssl_context=context)


def test_a_tls_connection_that_breaks_off(secure_server: Server, certificate: Path) -> None:
    def cut(connection: socket.socket) -> None:
        connection.sendall(OK + QUICK + b"id: 1\ndata: x\n\nid: 2\ndata: lost")
        socket.socket(fileno=connection.detach()).close()

    context = ssl.create_default_context(cafile=str(certificate / "certificate.pem"))
    retries: list[Retry] = []
    url = secure_server.start(cut, GONE)
    assert data_of(url, max_retries=1, ssl_context=context, on_retry=retries.append) == ["x"]
    assert len(retries) == 1
    assert secure_server.requests[1][1]["last-event-id"] == "1"


def test_a_server_that_speaks_no_tls(server: Server) -> None:
    def greet(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 400 Speak up\r\n\r\n")

    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            greet(connection)

    thread = threading.Thread(target=serve)
    thread.start()
    with pytest.raises(ConnectionLost) as caught:
        data_of(f"https://127.0.0.1:{listener.getsockname()[1]}/")
    assert isinstance(caught.value.__cause__, ssl.SSLError)
    thread.join(10)
    listener.close()


def test_close_interrupts_a_tls_handshake() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)
        source = EventSource(f"https://127.0.0.1:{listener.getsockname()[1]}/", timeout=None)
        seen: list[object] = []
        thread = threading.Thread(target=lambda: seen.extend([*source, "end"]))
        thread.start()
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(20)
            assert connection.recv(65536)  # the greeting, which is never answered
            source.close()
            thread.join(10)
        assert not thread.is_alive()
        assert seen == ["end"]
        assert not source._exchange.is_open


def test_nothing_is_left_open(server: Server, nothing_left: None) -> None:
    url = server.start(OK + QUICK + b"data: x\n\n", moved(302, "/b"), b"", server.hold(OK + b"data: y\n\n"))
    with EventSource(url, timeout=10) as source:
        assert [next(source).data, next(source).data] == ["x", "y"]
    with pytest.raises(EventSourceError):
        EventSource("http://127.0.0.1:1/", max_retries=0).__next__()
    server.stop()
    eventually(lambda: not source._exchange.is_open)
