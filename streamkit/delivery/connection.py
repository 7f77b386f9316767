"""The server's connection behind a request: is the client still there, and how to end it.

A server that stands in front of a WSGI application rarely tells it that the client has left: it finds out on the
second write after that. But gunicorn, Werkzeug's development server and streamkit's own lend their socket in the
environ, and a socket can be asked without writing a byte; waitress offers a callable. Everything here runs on the
thread that sends, never blocks, and never reads a byte that belongs to the server.

An end of file from the client counts as "has left", as in Go's net/http: a client that closes and one that shuts
down only its sending side cannot be told apart without writing, and no browser, proxy or HTTP library in use shuts
down only one side.
"""

from __future__ import annotations

import _socket  # the class below `socket.socket`, and below gevent's in its place
import errno
import os
import select
import socket
import ssl
import struct
import sys
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from streamkit.delivery.unread_request import has_unread_body

WRITE_SECONDS: Final = 30.0
"""How long one write may wait for a client that does not read; gunicorn's and nginx' own time-outs are 30 to 60 s."""

_KERNEL_WAIT_SECONDS: Final = 1
_CORK: Final[int] = getattr(socket, "TCP_CORK", -1)  # tcp(7), Linux alone

# Linux and some others tell of the peer's end even behind bytes that have not been read yet.
_ENDED: Final[int] = getattr(select, "POLLRDHUP", 0)
_BROKEN: Final[int] = select.POLLERR | select.POLLHUP | select.POLLNVAL


class Connection(Protocol):
    """What delivery asks of the connection a response goes to."""

    def is_gone(self) -> bool:
        """Whether the client has closed its side. Never blocks."""
        ...

    def limit_writes(self) -> None:
        """Give every write `WRITE_SECONDS`, where the server sets no limit itself. No read: an upload may pause."""
        ...

    def limit_file(self) -> None:
        """As `limit_writes`, for a file that the server hands to `sendfile`."""
        ...

    def release(self) -> None:
        """Take back these limits: the server goes on with this connection."""
        ...

    def send(self, data: bytes) -> None:
        """Send what the server has handed over. Raises OSError."""
        ...

    def hang_up(self) -> None:
        """End both directions, so that nothing that the server still writes can look like a complete answer."""
        ...

    def break_off(self) -> None:
        """As `hang_up`, with a reset where the system can: for a body whose end is that of the connection."""
        ...

    def reset(self) -> None:
        """End it with a TCP reset, which no proxy can mistake for the end of a complete body."""
        ...


class NoConnection:
    """A server that lends nothing, or a test client: the client is there until a write fails."""

    def is_gone(self) -> bool:
        return False

    def limit_writes(self) -> None:
        pass

    def limit_file(self) -> None:
        pass

    def release(self) -> None:
        pass

    def send(self, data: bytes) -> None:
        raise OSError(errno.ENOTCONN, "the server has lent no connection")

    def hang_up(self) -> None:
        pass

    def break_off(self) -> None:
        pass

    def reset(self) -> None:
        pass


class WaitressConnection(NoConnection):
    """Waitress with `channel_request_lookahead` above 0 knows whether the client has left."""

    def __init__(self, client_disconnected: Callable[[], bool]) -> None:
        self.is_gone = client_disconnected  # type: ignore[method-assign]


class SocketConnection:
    """A socket that the server lent.

    unread: whether a producer may read its request's body from it, by the server's own object.
    """

    def __init__(self, sock: socket.socket, *, unread: bool = False) -> None:
        self._socket = sock
        self._unread = unread
        self._limited = False
        self._limited_in_kernel = False
        self._corked = False
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN | _ENDED)

    def is_gone(self) -> bool:
        ready = self._poll.poll(0)
        if not ready:
            return False
        events = ready[0][1]
        if events & (_BROKEN | _ENDED):
            return True
        if isinstance(self._socket, ssl.SSLSocket):  # refuses MSG_PEEK, and what is there may be TLS' own
            return False
        return _reads_nothing(self._socket)

    def limit_writes(self) -> None:
        try:
            if self._socket.gettimeout() is not None:
                return
            if (
                self._unread
                and type(self._socket) is socket.socket
                and os.get_blocking(self._socket.fileno())
            ):
                # A time-out of Python's would be one of reads as well, and end an upload that pauses.
                self._wait_in_kernel(WRITE_SECONDS)
                self._limited_in_kernel = True
            else:
                self._socket.settimeout(WRITE_SECONDS)
                self._limited = True
        except OSError:
            pass  # closed already: the next write says so

    def limit_file(self) -> None:
        try:
            plain = self._is_plain_tcp()
        except OSError:
            return  # closed already: the next write says so
        self.limit_writes()
        if plain and self._limited:
            try:
                # Full segments: servers set TCP_NODELAY, with which every 64 KiB of `sendfile` end in a segment of a
                # few bytes. nginx sets it as well (`tcp_nopush`).
                self._socket.setsockopt(socket.IPPROTO_TCP, _CORK, 1)
                self._corked = True
                # And the kernel waits for room, which costs less than a `poll` and a turn of the interpreter each
                # time. Where it has waited in vain, `socket.sendfile` polls, and that has the limit.
                self._wait_in_kernel(_KERNEL_WAIT_SECONDS)
                os.set_blocking(self._socket.fileno(), True)
            except OSError:
                pass  # closed already: the next write says so

    def _is_plain_tcp(self) -> bool:
        """Whether the kernel waits and cuts segments: not for TLS, gevent's sockets or those of a file system."""
        sock = self._socket
        return (
            _CORK >= 0
            and sock.family in (socket.AF_INET, socket.AF_INET6)
            and not isinstance(sock, ssl.SSLSocket)
            and sock.fileno() >= 0
            and os.get_blocking(sock.fileno())
        )

    def _wait_in_kernel(self, seconds: float) -> None:
        whole = int(seconds)
        limit = struct.pack("ll", whole, int((seconds - whole) * 1e6))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)

    def release(self) -> None:
        if self._corked:
            self._corked = False
            try:
                self._socket.setsockopt(socket.IPPROTO_TCP, _CORK, 0)  # sends what is left
                self._wait_in_kernel(0)  # for ever
            except OSError:
                pass
        if self._limited_in_kernel:
            self._limited_in_kernel = False
            try:
                self._wait_in_kernel(0)
            except OSError:
                pass
        if self._limited:
            self._limited = False
            try:
                self._socket.settimeout(None)
            except OSError:
                pass

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def hang_up(self) -> None:
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the client was faster

    def break_off(self) -> None:
        try:
            _disconnect(self._socket)
        except OSError:
            return  # closed already
        self.hang_up()

    def reset(self) -> None:
        reset_connection(self._socket)


class UWSGIConnection(SocketConnection):
    """The connection of a uWSGI request, by a descriptor of our own; uWSGI writes to its own, in its own time."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(socket.socket(fileno=os.dup(descriptor)))
        self._socket.settimeout(WRITE_SECONDS)  # uWSGI's are non-blocking already

    def release(self) -> None:
        self._socket.close()

    def is_gone(self) -> bool:
        return self._socket.fileno() >= 0 and super().is_gone()

    def reset(self) -> None:
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        except OSError:
            pass  # closed already


def _reads_nothing(sock: socket.socket) -> bool:
    """Whether the next read would give the end. Never blocks.

    A producer that reads its request's body may just have taken what there was to read. Then Python's `recv` waits for
    more, even with MSG_DONTWAIT, where the socket has a time-out, and gevent's always does. Both have made the
    descriptor non-blocking; so it is asked through an object that waits for nothing.
    """
    asked: _socket.socket = sock
    try:
        if not os.get_blocking(sock.fileno()):
            asked = _socket.socket(sock.family, sock.type, sock.proto, sock.fileno())
            asked.setblocking(False)
        return not asked.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except (BlockingIOError, InterruptedError):
        return False
    except OSError:
        return True
    finally:
        if asked is not sock:
            asked.detach()


def reset_connection(sock: socket.socket) -> None:
    """Close with a reset, so that the peer sees an error and no end. Does nothing to a socket that is closed.

    Lingering for 0 s turns closing into a reset (SO_LINGER, socket(7)). Shutting down first would send the FIN that
    is to be avoided, and so would leaving the close to a server. But only the last to close ends the connection, and
    that may be a process that was forked meanwhile; so where the system can, it is broken off first. The descriptor
    is detached, because `socket.close()` waits for `makefile()` objects; those find a closed socket then, never a
    number that is used again.
    """
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        _disconnect(sock)
        os.close(sock.detach())
    except OSError:
        sock.close()


def _disconnect(sock: socket.socket) -> None:
    """Break a TCP connection off whoever else holds it: connecting to no address does that (connect(2), AF_UNSPEC), and
    on Linux with the very reset that closing would send. Python's own `connect` knows no such address."""
    if sys.platform != "linux" or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    try:
        import ctypes

        ctypes.CDLL(None).connect(sock.fileno(), bytes(16), 16)
    except (ImportError, OSError, AttributeError):  # built without ctypes
        pass


def client_connection(environ: Mapping[str, object]) -> Connection:
    """The connection of this request, as far as the server lends it."""
    if str(environ.get("SERVER_PROTOCOL", "")).startswith("HTTP/2"):
        return NoConnection()  # one socket carries many streams: not ours to look at
    for key in ("gunicorn.socket", "werkzeug.socket", "streamkit.socket"):
        sock = environ.get(key)
        if isinstance(sock, socket.socket) and sock.fileno() >= 0:
            return SocketConnection(sock, unread=has_unread_body(environ))
    descriptor = uwsgi_descriptor(environ)
    if descriptor is not None:
        return UWSGIConnection(descriptor)
    disconnected = environ.get("waitress.client_disconnected")
    if callable(disconnected):
        return WaitressConnection(disconnected)
    return NoConnection()


def uwsgi_descriptor(environ: Mapping[str, object]) -> int | None:
    """The descriptor of this request's connection inside a uWSGI process; it belongs to uWSGI."""
    if "uwsgi.version" not in environ:
        return None
    try:
        import uwsgi  # type: ignore[import-untyped]  # only exists inside a uWSGI process
    except ImportError:
        return None
    descriptor: int = uwsgi.connection_fd()
    return descriptor
