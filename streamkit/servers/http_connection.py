"""One client's connection, from its first byte to its close, on a thread of its own.

The thread waits for a head, runs one exchange, and again, one request after the other: pipelined requests are
answered in order. Every wait has a limit. Another thread may call `close_if_idle` and `cut` at any time; both only
shut the socket down, which wakes the waiting thread, and only that thread closes it.
"""

from __future__ import annotations

import logging
import select
import socket
import threading
import time
from dataclasses import dataclass
from typing import Any, Protocol

from streamkit.delivery.connection import reset_connection
from streamkit.servers.request_body import RequestBody
from streamkit.servers.request_head import HeadParser, RequestHead, RequestRefused
from streamkit.servers.response_head import plain_answer
from streamkit.servers.wsgi_environ import make_environ
from streamkit.servers.wsgi_exchange import WSGIApplication, WSGIExchange

logger = logging.getLogger("streamkit.server")
access_logger = logging.getLogger("streamkit.server.access")

_RECEIVE_BYTES = 65536
_LINGER_SECONDS = 2.0  # nginx lingers 5 s between reads, gunicorn 2; enough for bytes that are under way
_DRAIN_SECONDS = 2.0  # the wait for a small body that the application did not read


@dataclass(frozen=True)
class Timeouts:
    """Limits of one connection in seconds; None means no limit.

    head: from the first byte of a request, or the connection's beginning, to the end of its head.
    idle: between requests on a connection that is kept; None here means that none is kept.
    body: each wait for bytes of a request body. write: each wait for a client that does not read.
    """

    head: float | None
    idle: float | None
    body: float | None
    write: float | None


class ConnectionOwner(Protocol):
    """What a connection asks of its server."""

    application: WSGIApplication
    timeouts: Timeouts

    @property
    def server_name_and_port(self) -> tuple[str, int]: ...

    def may_keep_alive(self) -> bool:
        """False while the server stops, or is so full that an idle connection would keep others out."""
        ...


class Connection:
    """A connected stream socket and the requests on it. `run` belongs to one thread; see the file's head."""

    def __init__(self, sock: socket.socket, peer: Any, owner: ConnectionOwner) -> None:
        self._socket = sock
        self._peer = peer
        self._owner = owner
        self._buffer = bytearray()
        self._read_timeout: float | None = owner.timeouts.head
        self._deadline: float | None = None
        self._lock = threading.Lock()
        self._taking = threading.Lock()  # held for a read that does not wait
        self._idle = True
        self._served = 0
        self._answered = False  # to the last: what is left is to close
        self._closed = False

    # Other threads

    def close_if_idle(self, *, fresh: bool) -> None:
        """End the connection if it waits for a request; with `fresh` also where it waits for its first one.

        Only reading is shut down: a request that arrives at this very moment is still answered.
        """
        with self._lock:
            if self._idle and not self._closed and (fresh or self._served):
                _shut_down(self._socket, socket.SHUT_RD)

    def cut(self) -> bool:
        """Shut the connection down both ways, whatever it does; returns whether that ended a request."""
        with self._lock:
            if not self._closed:
                _shut_down(self._socket, socket.SHUT_RDWR)
            return not self._answered and not self._idle

    # BodySource

    def peek(self) -> bytes:
        """Bytes that are there, or come within the limit; b"" at the end. Raises OSError."""
        if not self._buffer:
            self._buffer += self._receive(_RECEIVE_BYTES)
        return bytes(self._buffer)

    def read(self, size: int) -> bytes:
        """1 to `size` bytes; b"" at the end. Raises OSError."""
        if not self._buffer:
            return self._receive(size)
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    def _receive(self, size: int) -> bytes:
        """Wait by `poll`, because the socket's own timeout is for writes and may be the application's."""
        if self._socket.fileno() < 0:
            raise ConnectionAbortedError("the application closed the connection")
        poll = select.poll()
        poll.register(self._socket.fileno(), select.POLLIN)
        while True:
            timeout = self._read_timeout
            if self._deadline is not None:
                left = max(0.0, self._deadline - time.monotonic())
                timeout = left if timeout is None else min(left, timeout)
            if not poll.poll(None if timeout is None else timeout * 1000):
                raise TimeoutError("the client sent nothing for longer than the limit")
            with self._taking:
                if poll.poll(0):  # else a thread of the application, which reads on, has taken what was there
                    return self._socket.recv(size)

    def _has_unread(self) -> bool:
        if self._socket.fileno() < 0:
            return False
        poll = select.poll()
        poll.register(self._socket.fileno(), select.POLLIN)
        return bool(poll.poll(0))

    # The connection's thread

    def run(self) -> None:
        """Answer requests until one side ends; closes the socket. Nothing a client does raises."""
        must_linger = must_reset = False
        try:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while True:
                began = time.monotonic()
                parser = HeadParser()
                try:
                    head = self._read_head(parser)
                except RequestRefused as refusal:
                    self._refuse(refusal, parser.asks_head, began)
                    must_linger = bool(refusal.status)
                    return
                if head is None:
                    return
                exchange, body = self._prepare(head)
                began = time.monotonic()
                try:
                    exchange.run(self._owner.application)
                finally:
                    must_reset = exchange.must_reset
                    self._log(head.method, head.log_path, exchange.status, exchange.body_bytes, began)
                if exchange.was_replaced():
                    body.detach_source()
                    return
                if not exchange.keep_alive or not self._drain(body):
                    must_linger = not body.complete or bool(self._buffer)
                    body.detach_source()
                    return
                body.detach_source()
                self._served += 1
        except OSError as error:
            logger.debug("connection of %s ended: %r", self._peer, error)
        finally:
            self._close(must_linger=must_linger, must_reset=must_reset)

    def _read_head(self, parser: HeadParser) -> RequestHead | None:
        """The next head; None where the client has nothing more to ask. Raises RequestRefused, OSError."""
        timeouts = self._owner.timeouts
        if not self._buffer:
            with self._lock:
                self._idle = True
            self._read_timeout = timeouts.idle if self._served else timeouts.head
            self._deadline = None
            if not self._owner.may_keep_alive() and self._served:
                return None
            try:
                data = self._receive(_RECEIVE_BYTES)
            except TimeoutError:
                return None
            if not data:
                return None
            self._buffer += data
            with self._lock:
                self._idle = False
        self._read_timeout = None
        self._deadline = None if timeouts.head is None else time.monotonic() + timeouts.head
        while (head := parser.feed(self._buffer)) is None:
            try:
                data = self._receive(_RECEIVE_BYTES)
            except TimeoutError:
                raise RequestRefused("408 Request Timeout", "the head did not arrive in time") from None
            if not data:
                return None
            self._buffer += data
        return head

    def _prepare(self, head: RequestHead) -> tuple[WSGIExchange, RequestBody]:
        self._read_timeout = self._owner.timeouts.body
        self._deadline = None
        self._socket.settimeout(self._owner.timeouts.write)
        body = RequestBody(self, head.length)
        environ = make_environ(
            head,
            body.wsgi_input(),
            self._socket,
            self._peer,
            self._owner.server_name_and_port,
            multithread=True,
        )
        exchange = WSGIExchange(
            self._socket,
            head,
            body,
            environ,
            status_version="HTTP/1.1",
            can_chunk=head.version >= (1, 1),
            may_keep_alive=lambda: head.keep_alive and self._owner.may_keep_alive(),
        )
        return exchange, body

    def _drain(self, body: RequestBody) -> bool:
        self._deadline = time.monotonic() + _DRAIN_SECONDS
        return body.drain()

    def _refuse(self, refusal: RequestRefused, asks_head: bool, began: float) -> None:
        logger.debug("request of %s refused: %s", self._peer, refusal)
        if not refusal.status:
            return
        response, data = plain_answer(refusal.status)
        if asks_head:
            data = b""
        self._socket.settimeout(self._owner.timeouts.write)
        self._socket.sendall(response.encode("HTTP/1.1", [("Connection", "close")]) + data)
        self._log("-", "-", response.code, len(data), began)

    def _log(self, method: str, path: str, status: int, size: int, began: float) -> None:
        peer = self._peer[0] if isinstance(self._peer, tuple) else self._peer
        seconds = time.monotonic() - began
        access_logger.info('%s "%s %s" %d %d %.3f', peer, method, path, status, size, seconds)

    def _close(self, *, must_linger: bool, must_reset: bool) -> None:
        """Close; with bytes unread the kernel would reset, and the client lose an answer it has not read yet.

        So half-close and read on for a moment (RFC 9112 section 9.6).
        """
        with self._lock:
            self._answered = True
        if not must_reset and (must_linger or self._has_unread()):
            _shut_down(self._socket, socket.SHUT_WR)
            self._read_timeout = None
            self._deadline = time.monotonic() + _LINGER_SECONDS
            self._buffer.clear()
            try:
                while self._receive(_RECEIVE_BYTES) and time.monotonic() < self._deadline:
                    pass
            except OSError:
                pass
        with self._lock:
            self._closed = True
        if must_reset:
            reset_connection(self._socket)
        else:
            _shut_down(self._socket, socket.SHUT_WR)
            self._socket.close()


def _shut_down(sock: socket.socket, how: int) -> None:
    try:
        sock.shutdown(how)
    except OSError:  # not connected any more, or closed by the application
        pass
