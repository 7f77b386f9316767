"""Streams for handlers that exist already: `self.stream(response)` in a `BaseHTTPRequestHandler`.

```python
class Handler(StreamingHandlerMixin, BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.stream(EventSourceResponse(events()))


ThreadingHTTPServer(("127.0.0.1", 8000), Handler).serve_forever()
```

The handler keeps its connection and its rules: it has read the head, it closes. The mixin runs one WSGI exchange on
it, chunked only where the request *and* the handler's `protocol_version` are HTTP/1.1; http.server's default is
HTTP/1.0, where the end of the connection ends the body.

http.server parses a head as it would a mail: a line that is no header ends the headers, so does the end of the
connection, a bare CR ends a line, and any white space parts the request line. A proxy in front may read the same bytes
otherwise, and a request be hidden from it in the difference, so the mixin looks at the lines themselves.
"""

from __future__ import annotations

import socket
import socketserver
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler
from io import BufferedReader
from typing import Any, cast

from streamkit.delivery.connection import reset_connection
from streamkit.servers.request_body import RequestBody
from streamkit.servers.request_head import (
    RequestRefused,
    make_head,
    split_header_line,
    split_request_line,
)
from streamkit.servers.wsgi_environ import make_environ
from streamkit.servers.wsgi_exchange import WSGIExchange

_WRITE_SECONDS = 30.0  # as in StreamServer: a client that does not read for so long is dropped


class StreamingHandlerMixin(BaseHTTPRequestHandler):
    """Adds `stream` to a `BaseHTTPRequestHandler`; stands before it in the list of bases."""

    connection: socket.socket
    raw_requestline: bytes
    rfile: BufferedReader
    _broken_head = ""

    def parse_request(self) -> bool:
        """Parse the head as http.server does, and note for `stream` what it overlooks."""
        file = self.rfile
        lines = _HeadLines(file, self.raw_requestline)
        self.rfile = cast(BufferedReader, lines)
        try:
            return super().parse_request()
        finally:
            self.rfile = file
            self._broken_head = lines.broken

    def stream(self, response: Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]) -> None:
        """Answer the current request with a WSGI response object or application; returns when it has ended.

        Call it instead of `send_response`, once per request. Sets `close_connection`; calls `log_request` with
        status and body bytes. Clients that leave are no error; what the response raises is logged on
        `streamkit.server` and answered 500 where nothing was sent yet. A request whose lines or framing are broken is
        answered 400 or 501 (RFC 9112 sections 2.2, 3, 5.1 and 6.3). Without a timeout of its own the socket gets one of
        30 s for the time of the call.
        """
        can_chunk = min(self.request_version, self.protocol_version) >= "HTTP/1.1"
        # http.server leaves white space behind a value, which is no part of it (RFC 9112 section 5.1).
        fields = [(name, str(value).strip(" \t")) for name, value in self.headers.items()]
        try:
            if self._broken_head:
                raise RequestRefused("400 Bad Request", self._broken_head)
            version = (1, 1) if self.request_version >= "HTTP/1.1" else (1, 0)
            head = make_head(self.command, self.path, version, fields)
        except RequestRefused as refusal:
            self.close_connection = True
            self.send_error(int(refusal.status[:3]), None, str(refusal))
            return
        self.wfile.flush()
        body = RequestBody(_HandlerSource(self.rfile), head.length)
        address = self.server.server_address
        # A Unix socket has neither name nor port, and PEP 3333 wants both.
        server_name, server_port = address[:2] if isinstance(address, tuple) else ("localhost", 80)
        environ = make_environ(
            head,
            body.wsgi_input(),
            self.connection,
            self.client_address,
            (str(server_name), int(server_port)),
            multithread=isinstance(self.server, socketserver.ThreadingMixIn),
        )
        exchange = WSGIExchange(
            self.connection,
            head,
            body,
            environ,
            status_version="HTTP/1.1" if self.protocol_version >= "HTTP/1.1" else "HTTP/1.0",
            can_chunk=can_chunk,
            may_keep_alive=lambda: can_chunk and head.keep_alive and not self.close_connection,
            # http.server answers this while it reads the head, and no other spelling of it.
            continue_sent=can_chunk and self.headers.get("Expect", "").lower() == "100-continue",
        )
        timeout_before = self._prepare_socket()
        try:
            exchange.run(response)
            self.close_connection = exchange.was_replaced() or not (exchange.keep_alive and body.drain())
        except BaseException:
            self.close_connection = True
            raise
        finally:
            body.detach_source()
            if exchange.must_reset:
                reset_connection(self.connection)
            elif self.connection.fileno() >= 0:
                self.connection.settimeout(timeout_before)
        self.log_request(exchange.status or "-", exchange.body_bytes)

    def _prepare_socket(self) -> float | None:
        before = self.connection.gettimeout()
        if before is None:
            self.connection.settimeout(_WRITE_SECONDS)
        try:
            self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:  # a Unix socket has no such option
            pass
        return before


class _HeadLines:
    """The handler's `rfile` while http.server reads the header lines behind `request_line` from it."""

    def __init__(self, file: BufferedReader, request_line: bytes) -> None:
        self._file = file
        self.broken = ""
        """What is wrong with a line that came; "" where all are as they should be."""
        self._check(request_line, split_request_line)

    def readline(self, limit: int) -> bytes:
        line = self._file.readline(limit)
        self._check(line, split_header_line)
        return line

    def _check(self, line: bytes, split: Callable[[bytes], object]) -> None:
        # RFC 9112 2.2 allows a bare LF as the end of a line, and http.server and the proxies agree about it.
        text = line.removesuffix(b"\n").removesuffix(b"\r")
        if not line.endswith(b"\n"):
            self.broken = "the head breaks off"
        elif text:
            try:
                split(text)
            except RequestRefused as refusal:
                self.broken = str(refusal)


class _HandlerSource:
    """The handler's `rfile` as a BodySource."""

    def __init__(self, file: BufferedReader) -> None:
        self._file = file

    def peek(self) -> bytes:
        return self._file.peek(1)

    def read(self, size: int) -> bytes:
        return self._file.read1(size)
