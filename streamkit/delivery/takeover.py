"""Taking a connection away from its server, without the server's help and without guessing: capture and verify.

Law of this file
- Before a byte is on the wire, the end of a socket pair is put under the server's descriptor (`dup2`). The server
  writes its head and our opening piece into it, and we read back exactly what the client would have got.
- Only if that is a head that leaves the length open, followed by the opening piece untouched, the connection is ours.
  Chunked or raw is learned from those bytes. Anything else is given back, with what was written, and the server's
  thread goes on as if nothing had happened.
- One thread, the request's, does all this. The server finds a short, complete exchange in the pair, and its end.

RFC 9112 sections 6, 7.1 and 9.6: the answer is rewritten to say `Connection: close`, since nobody will read a further
request on it.
"""

from __future__ import annotations

import logging
import os
import socket
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from streamkit.delivery.connection import uwsgi_descriptor
from streamkit.delivery.descriptors import duplicate
from streamkit.delivery.unread_request import has_pipelined, has_unread_body
from streamkit.formats.chunked import LAST_CHUNK

OPENING_BYTES: Final = 16 * 1024
"""The longest opening piece. Head and piece must fit into the pair's buffer (208 KiB on Linux, 8 KiB on macOS), since
nobody reads while the server writes."""

UNSENT_BYTES: Final = 128 * 1024
"""What may wait in the kernel beyond what is on its way to the client (TCP_NOTSENT_LOWAT, tcp(7)); there is room again
when half of it is sent. Without that it is when a third of the send buffer is free, which grows to megabytes: a client
that reads steadily, but slowly, would look as if it had stopped, and hold that memory. Threads of a server do not need
it: they wait for room before each write, not after they have filled the buffer."""

_READ_BYTES: Final = 1 << 20

_WRITE_SECONDS: Final = 1  # of a server into the pair, whose buffer is full
_LOST: Final = (
    "%d bytes or more that were added behind a stream which has left its server are lost (a middleware?);"
    ' delivery="threaded" keeps them'
)

log: Final = logging.getLogger("streamkit")
_named: set[str] = set()


class NotOurs(Exception):
    """What the server wrote is not what it was given; the text names what stood in between."""


@dataclass(frozen=True)
class Answer:
    """What goes to the client first: head and opening piece. `chunked` is the framing of everything after it."""

    data: bytes
    chunked: bool


class Takeover:
    """One attempt. `capture`, then `verify`; then `finish` if it gave an answer, else `restore`. Used by one thread."""

    def __init__(self, descriptor: int) -> None:
        self._server = descriptor
        self._connection = duplicate(descriptor)
        self._pair: socket.socket | None = None
        self._written = b""
        self._finished = False  # the connection is the loop's: the pair is read by nobody

    def capture(self) -> None:
        """Put one end of a new pair under the server's descriptor. Raises OSError when descriptors run out."""
        ours, theirs = socket.socketpair()
        os.set_blocking(theirs.fileno(), os.get_blocking(self._server))
        # Nobody reads while the server writes: more than the buffer takes must not keep its thread for ever.
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", _WRITE_SECONDS, 0))
        os.dup2(theirs.fileno(), self._server, inheritable=False)
        theirs.close()
        ours.setblocking(False)
        self._pair = ours

    def verify(self, opening: bytes, content_length: int | None, coding: str | None) -> Answer:
        """What the server wrote. Raises NotOurs; the bytes are kept for `restore`."""
        self._written = self._read()
        return read_answer(self._written, opening, content_length, coding)

    def _read(self) -> bytes:
        assert self._pair is not None
        parts = []
        while True:
            try:
                part = self._pair.recv(_READ_BYTES)
            except OSError:  # nothing more is there, or the garbage collector has closed the pair
                break
            if not part:
                break
            parts.append(part)
        return b"".join(parts)

    def finish(self) -> socket.socket:
        """The connection, now ours alone. The server reads an end of file from now on; `close` lets go of the pair.

        Raises OSError where no socket can be made of it; it can still be restored then.
        """
        assert self._pair is not None
        connection = socket.socket(fileno=self._connection)
        self._connection = -1
        self._finished = True
        self._pair.shutdown(socket.SHUT_WR)
        connection.setblocking(False)
        if connection.family in (socket.AF_INET, socket.AF_INET6):
            try:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if hasattr(socket, "TCP_NOTSENT_LOWAT"):
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
            except OSError:
                pass  # its client has reset it (macOS says so here): the first write finds that
        return connection

    def restore(self, send: Callable[[bytes], object]) -> None:
        """Give the connection back and `send` what was written meanwhile. Raises OSError, and what `send` raises."""
        if self._pair is None:
            self.close()
            return
        try:
            os.dup2(self._connection, self._server, inheritable=False)
            written = self._written + self._read()
        finally:
            self.close()
        if written:
            send(written)

    def give_up(self) -> None:
        """End the connection behind what was written so far. For another thread than the server's: that may be writing
        at this moment, or have closed its descriptor, whose number is another client's then.
        """
        descriptor, self._connection = self._connection, -1
        with socket.socket(fileno=descriptor) as connection:
            try:
                connection.send(self._written + self._read(), socket.MSG_DONTWAIT)
            except OSError:
                pass  # no room for a few kilobytes, or nobody who reads them
        self.close()

    def close(self) -> None:
        """Let go of what is held. The second call does nothing."""
        if self._pair is not None:
            if self._finished:
                warn_of_lost(self._read())
            self._pair.close()
            self._pair = None
        descriptor, self._connection = self._connection, -1
        if descriptor >= 0:
            os.close(descriptor)


def lent_descriptor(environ: Mapping[str, Any]) -> int | None:
    """The descriptor of this request's connection, if it can be taken over; else None, and the reason in the log."""
    level = logging.WARNING
    sock = next((environ[key] for key in _SOCKETS if key in environ), None)
    if str(environ.get("SERVER_PROTOCOL", "")).startswith("HTTP/2"):
        reason = "HTTP/2 carries many requests on one connection"
    elif socket.socket.__module__ != "socket" or "eventlet" in str(type(sock)):
        reason = f"{socket.socket.__module__} has replaced the socket module"
    elif "uwsgi.version" in environ:
        if not has_unread_body(environ):
            return uwsgi_descriptor(environ)
        reason = _UNREAD
    elif sock is None:
        reason = f"{environ.get('SERVER_SOFTWARE') or 'this server or test client'} does not lend its socket"
        level = logging.INFO  # known to whoever chose the server
    elif type(sock) is not socket.socket:
        reason = f"the connection is a {type(sock).__name__}, not a plain socket (TLS within the server?)"
    elif sock.fileno() < 0:
        reason = "the connection is closed"
    elif has_unread_body(environ):
        reason = _UNREAD
    elif has_pipelined(environ):
        return None  # a matter of this request alone
    else:
        return sock.fileno()
    name_obstacle(reason, level)
    return None


_SOCKETS: Final = ("gunicorn.socket", "werkzeug.socket", "streamkit.socket")
_UNREAD: Final = "the body of the request was not read to its end before the stream began"


def name_obstacle(reason: str, level: int = logging.WARNING) -> None:
    """Log why streams stay on the server's threads, each reason once a process."""
    if reason not in _named:
        _named.add(reason)
        log.log(level, "streams hold a thread of the server each, because %s", reason)


def warn_of_lost(written: bytes) -> None:
    """Log once a process that something came behind a body which has left; only the server's end of it may."""
    if written not in (b"", LAST_CHUNK) and _LOST not in _named:
        _named.add(_LOST)
        log.warning(_LOST, len(written))


def read_answer(written: bytes, opening: bytes, content_length: int | None, coding: str | None) -> Answer:
    """Check what a server wrote for a response that began with `opening`, and make it the last of its connection.

    content_length, coding: what the response itself says in these headers, or None. Raises NotOurs.
    """
    if not written:
        raise NotOurs("something collects the body before it is sent (a middleware?)")
    head, found, body = written.partition(b"\r\n\r\n")
    if not found or not head.startswith((b"HTTP/1.1 ", b"HTTP/1.0 ")):
        raise NotOurs("the server wrote no HTTP/1 head")
    lines = head.split(b"\r\n")
    kept = [lines[0]]
    chunked = False
    for line in lines[1:]:
        name, _, value = line.partition(b":")
        name, value = name.strip().lower(), value.strip()
        if name == b"content-length" and value != str(content_length).encode():
            raise NotOurs("something gave the response a Content-Length (a middleware that buffers?)")
        if name == b"content-encoding" and value != (coding or "").encode():
            raise NotOurs(f"something compresses the response ({value.decode('latin-1')!a})")
        if name == b"transfer-encoding":
            if value.lower() != b"chunked":
                raise NotOurs(f"the transfer coding is {value.decode('latin-1')!a}")
            chunked = True
        if name not in (b"connection", b"keep-alive"):
            kept.append(line)
    if _body_of(body, chunked=chunked) != opening:
        raise NotOurs("something changed or delayed the body on its way (a middleware?)")
    kept.append(b"Connection: close")
    return Answer(b"\r\n".join(kept) + b"\r\n\r\n" + body, chunked)


def _body_of(body: bytes, *, chunked: bool) -> bytes | None:
    """The content of the one chunk that is expected, or None."""
    if not chunked:
        return body
    size, _, rest = body.partition(b"\r\n")
    try:
        length = int(size, 16)
    except ValueError:
        return None
    return rest[:length] if rest[length:] == b"\r\n" else None
