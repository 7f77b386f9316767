"""`self.stream(response)` in handlers on http.server's own servers."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from streamkit import EventSourceResponse
from streamkit.servers.handler_mixin import StreamingHandlerMixin
from tests.servers.raw_client import (
    WAIT_SECONDS,
    connected,
    get,
    nothing_left_behind,
    read_all,
    read_answer,
    read_until,
    running,
)
from tests.services import program

PLAIN = [("Content-Type", "text/plain")]


def app(environ: dict[str, Any], start_response: Any) -> Any:
    path = environ["PATH_INFO"]
    if path == "/early":
        raise RuntimeError("boom")
    if path == "/echo":
        data = environ["wsgi.input"].read()
        start_response("200 OK", [*PLAIN, ("Content-Length", str(len(data)))])
        return [data]
    start_response("200 OK", list(PLAIN))
    return rows(path)


def rows(path: str) -> Iterator[bytes]:
    yield b"one"
    if path == "/late":
        raise RuntimeError("boom")
    yield b"two"


class Handler(StreamingHandlerMixin, BaseHTTPRequestHandler):
    requests: list[tuple[str, Any, Any]]

    def do_GET(self) -> None:
        self.stream(app)

    do_HEAD = do_POST = do_GET

    def log_request(self, code: Any = "-", size: Any = "-") -> None:
        self.requests.append((self.command, code, size))

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextlib.contextmanager
def handler_server(
    protocol: str,
    server_class: type[HTTPServer] = ThreadingHTTPServer,
    *,
    handler: type[Handler] = Handler,
    tls: ssl.SSLContext | None = None,
) -> Iterator[tuple[socket.socket, list[tuple[str, Any, Any]]]]:
    seen: list[tuple[str, Any, Any]] = []
    handler = type("H", (handler,), {"protocol_version": protocol, "requests": seen})
    with nothing_left_behind(), server_class(("127.0.0.1", 0), handler) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            with socket.create_connection(server.server_address[:2], timeout=WAIT_SECONDS) as sock:
                yield sock, seen
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("server_class", [ThreadingHTTPServer, HTTPServer])
def test_http_1_1_on_both_sides_is_chunked_and_kept(server_class: type[HTTPServer]) -> None:
    with handler_server("HTTP/1.1", server_class) as (sock, seen):
        post = b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello"
        chunked = b"POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        unread = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello"
        sock.sendall(
            get() + post + chunked + unread + get(method="HEAD") + get(headers="Connection: close\r\n")
        )
        answers = [read_answer(sock) for _ in range(4)]
        assert [answer[2] for answer in answers] == [b"onetwo", b"hello", b"abc", b"onetwo"]
        assert answers[0][1]["transfer-encoding"] == "chunked"
        assert read_answer(sock, "HEAD")[0] == 200
        assert read_answer(sock)[1]["connection"] == "close"
        assert sock.recv(1) == b""
        assert seen[0] == ("GET", 200, 6)
        assert seen[4] == ("HEAD", 200, 0)


def test_every_chunk_is_one_write() -> None:
    """The head travels with the first. A packet socket keeps writes apart, whatever their size."""
    blocks = [b"first", b"y" * 40_000, b"last"]

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", list(PLAIN))
        return iter(blocks)

    class OneRequest(Handler):
        protocol_version = "HTTP/1.1"
        requests: ClassVar[list[tuple[str, Any, Any]]] = []

        def do_GET(self) -> None:
            self.stream(app)

    server, client = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with server, client:
        client.sendall(get(headers="Connection: close\r\n"))
        OneRequest(server, ("", 0), SimpleNamespace(server_address=("", 0)))  # type: ignore[arg-type]
        packets = [client.recv(1 << 20) for _ in range(4)]
    head, _, first = packets[0].partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    chunks = [b"%x\r\n%b\r\n" % (len(block), block) for block in blocks]
    assert [first, *packets[1:]] == [*chunks, b"0\r\n\r\n"]


@pytest.mark.parametrize("mixin", [True, False])
def test_the_socket_does_not_hold_small_writes_back(mixin: bool) -> None:
    """TCP_NODELAY: else the second small chunk waits for the client's system to acknowledge the first."""

    def asked(environ: dict[str, Any], start_response: Any) -> Any:
        delays = environ["streamkit.socket"].getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 0
        start_response("200 OK", list(PLAIN))
        return iter([b"held back" if delays else b"at once"])

    class Asking(Handler):
        def do_GET(self) -> None:
            self.stream(asked)

    with contextlib.ExitStack() as stack:
        if mixin:
            sock, _ = stack.enter_context(handler_server("HTTP/1.1", handler=Asking))
        else:
            sock = stack.enter_context(connected(stack.enter_context(running(asked))))
        sock.sendall(get(headers="Connection: close\r\n"))
        assert read_answer(sock)[2] == b"at once"


@pytest.mark.parametrize(
    ("protocol", "version"), [("HTTP/1.0", "1.1"), ("HTTP/1.1", "1.0"), ("HTTP/1.0", "1.0")]
)
def test_anything_less_ends_with_the_connection(protocol: str, version: str) -> None:
    with handler_server(protocol) as (sock, _):
        sock.sendall(get(version=version, headers="Connection: keep-alive\r\n"))
        head, _, body = read_all(sock).partition(b"\r\n\r\n")
        assert head.startswith(protocol.encode() + b" 200 OK")
        assert b"Transfer-Encoding" not in head
        assert b"\r\nConnection: close" in head
        assert body == b"onetwo"


def test_an_early_error_is_a_500(caplog: pytest.LogCaptureFixture) -> None:
    with handler_server("HTTP/1.1") as (sock, seen):
        sock.sendall(get("/early"))
        assert b" 500 Internal Server Error\r\n" in read_all(sock)
        assert seen[0][1] == 500
    assert "boom" in caplog.text


@pytest.mark.parametrize("protocol", ["HTTP/1.1", "HTTP/1.0"])
def test_a_late_error_never_looks_complete(protocol: str, caplog: pytest.LogCaptureFixture) -> None:
    with handler_server(protocol) as (sock, _):
        sock.sendall(get("/late"))
        if protocol == "HTTP/1.1":
            assert read_all(sock).endswith(b"3\r\none\r\n")
        else:
            with pytest.raises(ConnectionResetError):
                read_all(sock)
    assert "boom" in caplog.text


@pytest.mark.parametrize(
    ("path", "protocol"), [("/early", "HTTP/1.1"), ("/late", "HTTP/1.1"), ("/late", "HTTP/1.0")]
)
def test_ctrl_c_in_a_request_never_looks_complete_and_goes_on_to_the_server(path: str, protocol: str) -> None:
    class Interrupted(Handler):
        def do_GET(self) -> None:
            self.stream(self.answer)

        def answer(self, environ: dict[str, Any], start_response: Any) -> Any:
            if self.path == "/late":
                start_response("200 OK", list(PLAIN))
                yield b"one"
            raise KeyboardInterrupt

    Interrupted.protocol_version, Interrupted.requests = protocol, []
    with (
        HTTPServer(("127.0.0.1", 0), Interrupted) as server,
        socket.create_connection(server.server_address, timeout=WAIT_SECONDS) as sock,
    ):
        sock.sendall(get(path))
        with pytest.raises(KeyboardInterrupt):
            server.handle_request()
        if path == "/early":
            assert read_all(sock).startswith(b"HTTP/1.1 500 ")
        elif protocol == "HTTP/1.1":
            assert read_all(sock).endswith(b"3\r\none\r\n")
        else:
            with pytest.raises(ConnectionResetError):
                read_all(sock)


@pytest.mark.parametrize(
    "framing",
    [b"Content-Length: 1\r\nContent-Length: 2\r\n", b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n"],
)
def test_broken_framing_is_refused(framing: bytes) -> None:
    with handler_server("HTTP/1.1") as (sock, _):
        sock.sendall(b"POST /echo HTTP/1.1\r\nHost: h\r\n" + framing + b"\r\nx")
        assert read_all(sock).startswith(b"HTTP/1.1 400 ")


def test_a_request_behind_a_stream_that_left_the_server_does_not_run() -> None:
    goes_on = threading.Event()

    def events() -> Iterator[str]:
        yield "one"
        assert goes_on.wait(WAIT_SECONDS)
        yield "two"

    class Detaching(Handler):
        def do_GET(self) -> None:
            self.stream(EventSourceResponse(events(), delivery="detached"))

    Detaching.protocol_version, Detaching.requests = "HTTP/1.1", []

    class Server(ThreadingHTTPServer):
        daemon_threads = False  # so that `server_close` waits for the handler

    with (
        Server(("127.0.0.1", 0), Detaching) as server,
        socket.create_connection(server.server_address) as sock,
    ):
        sock.settimeout(WAIT_SECONDS)
        sock.sendall(get() + get("/next", method="POST"))
        server.handle_request()
        answer = read_until(sock, b"data: one\n\n")
        assert b"\r\nConnection: close\r\n" in answer
        goes_on.set()
        assert read_all(sock).endswith(b"data: two\n\n\r\n0\r\n\r\n")
    assert [method for method, _, _ in Detaching.requests] == ["GET"]


SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n"


@pytest.mark.parametrize(
    "lines",
    [
        b"Content-Length : %d\r\n",  # RFC 9112 section 5.1
        b"foo bar\r\nContent-Length: %d\r\n",
        b": y\r\nContent-Length: %d\r\n",
        b"X: a\rContent-Length: %d\r\n",  # section 2.2
        b"X: a\r\r\nContent-Length: %d\r\n",
        b"\r\r\nContent-Length: %d\r\n",
        b"X: a\x00\r\nContent-Length: %d\r\n",
        b"X: a\r\n Content-Length: %d\r\n",  # section 5.2
    ],
)
def test_a_request_hidden_behind_a_broken_header_line_does_not_run(lines: bytes) -> None:
    with handler_server("HTTP/1.1") as (sock, seen):
        sock.sendall(b"POST / HTTP/1.1\r\nHost: h\r\n" + lines % len(SMUGGLED) + b"\r\n" + SMUGGLED)
        answer = read_all(sock)
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert answer.count(b"HTTP/1.1 ") == 1
        assert [code for _, code, _ in seen] == [400]


@pytest.mark.parametrize(
    "line",
    [b"GET\x0b/\x0bHTTP/1.1", b"GET / \tHTTP/1.1", b"GET /\x00 HTTP/1.1", b"GET / HTTP/1.10", b"GET /"],
)
def test_a_request_line_that_others_read_otherwise_is_refused(line: bytes) -> None:
    with handler_server("HTTP/1.1") as (sock, seen):
        sock.sendall(line + b"\r\nHost: h\r\n\r\n")
        assert b"Error code: 400" in read_all(sock)
        assert [code for _, code, _ in seen] == [400]


@pytest.mark.parametrize("head", [b"GET / HTTP/1.0\r\n", b"GET / HTTP/1.0\r\nHost: h\r\nIf-Match: x"])
def test_a_head_that_breaks_off_is_no_request(head: bytes) -> None:
    with handler_server("HTTP/1.1") as (sock, seen):
        sock.sendall(head)
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock).startswith(b"HTTP/1.1 400 ")
        assert [code for _, code, _ in seen] == [400]


def test_white_space_behind_a_value_is_no_part_of_it() -> None:
    with handler_server("HTTP/1.1") as (sock, _):
        sock.sendall(b"POST /echo HTTP/1.1\r\nHost: h \t\r\nContent-Length: 5 \r\n\r\nhello")
        assert read_answer(sock)[2] == b"hello"


@pytest.mark.parametrize("lines", [b"Connection: te, close\r\n", b"Connection: te\r\nConnection: close\r\n"])
def test_a_close_among_other_connection_options_is_obeyed(lines: bytes) -> None:
    with handler_server("HTTP/1.1") as (sock, _):
        sock.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n" + lines + b"\r\n")
        assert b"\r\nConnection: close\r\n" in read_all(sock)


def test_a_bare_lf_ends_a_header_line() -> None:
    with handler_server("HTTP/1.1") as (sock, _):
        sock.sendall(b"GET / HTTP/1.1\nHost: h\nX:\n\n" + get())
        assert [read_answer(sock)[2] for _ in range(2)] == [b"onetwo", b"onetwo"]


@pytest.mark.parametrize("value", [b"100-continue", b"100-Continue \t", b"100-continue, 100-continue"])
def test_100_continue_is_answered_once(value: bytes) -> None:
    with handler_server("HTTP/1.1") as (sock, _):
        sock.sendall(b"POST /echo HTTP/1.1\r\nHost: h\r\nExpect: %b\r\nContent-Length: 5\r\n\r\n" % value)
        assert read_answer_head(sock) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"hello")
        status, headers, body = read_answer(sock)
        assert (status, body) == (200, b"hello")
        assert "connection" not in headers


class UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


def test_a_unix_socket_has_a_name_and_a_port_for_the_environ(tmp_path: Path) -> None:
    class Named(Handler):
        def do_GET(self) -> None:
            self.stream(self.answer)

        def answer(self, environ: dict[str, Any], start_response: Any) -> Any:
            start_response("200 OK", list(PLAIN))
            return [f"{environ['SERVER_NAME']} {environ['SERVER_PORT']} {environ['REMOTE_ADDR']!r}".encode()]

    Named.requests = []
    path = str(tmp_path / "socket")
    with UnixServer(path, Named) as server, socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(WAIT_SECONDS)
        sock.connect(path)
        sock.sendall(get())
        server.handle_request()
        assert read_all(sock).endswith(b"\r\n\r\nlocalhost 80 ''")


def test_tls_carries_writes_of_every_size(tmp_path: Path) -> None:
    key, certificate, file = tmp_path / "key.pem", tmp_path / "certificate.pem", tmp_path / "file"
    command = [program("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    file.write_bytes(b"f" * 300_000)

    class Secure(Handler):
        def do_GET(self) -> None:
            self.stream(self.answer)

        def answer(self, environ: dict[str, Any], start_response: Any) -> Any:
            assert environ["wsgi.url_scheme"] == "https"
            if self.path == "/file":
                start_response("200 OK", [*PLAIN, ("Content-Length", "300000")])
                return environ["wsgi.file_wrapper"](file.open("rb"))
            start_response("200 OK", list(PLAIN))
            return (b"x" * size for size in (1, 20_000, 100_000))

    trusting = ssl.create_default_context(cafile=certificate)
    with (
        handler_server("HTTP/1.1", handler=Secure, tls=context) as (sock, _),
        trusting.wrap_socket(sock, server_hostname="localhost") as secure,
    ):
        secure.sendall(get() + get("/file"))
        assert read_answer(secure)[2] == b"x" * 120_001
        assert read_answer(secure)[2] == b"f" * 300_000


def read_answer_head(sock: socket.socket) -> bytes:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += sock.recv(1)
    return head
