"""A connection that another thread can interrupt: while it is opened, while it shakes hands, and in a blocked read.

The law: the thread that opened the connection owns it and closes it. Others may only call `StopSignal.set`, which
shuts it down; the owner's call then returns or fails, and the owner asks `is_set` why.
"""

from __future__ import annotations

import http.client
import os
import queue
import selectors
import socket
import ssl
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from streamkit.client.response_head import FinalResponse, status_words
from streamkit.errors import ProxyFailed

# A gateway's words for a server that is away (RFC 9110 sections 15.6.3 to 15.6.5).
_NOT_REACHED: Final = frozenset({502, 503, 504})


class Stopped(Exception):
    """Nothing more will come, and nothing is wrong."""


class StopSignal:
    """A flag that also wakes whoever waits on the network.

    The descriptor of the socket is duplicated, since `shutdown` works on the connection itself: whatever becomes of the
    socket object (TLS wraps it, `http.client` closes it early), and without touching the owner's descriptor. In a
    forked child the connection is left alone: it is the parent's.
    """

    def __init__(self) -> None:
        self.given = False
        """Whether `set` was called, for who asks often: reading it costs no call."""
        # `set` puts something into it, and who waits puts that back, for others. No `threading.Event`: a signal handler
        # that comes in the midst of a wait would wait for the lock of that.
        self._word: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._lock = threading.RLock()  # `close` may be called by a signal handler in between
        self._socket: socket.socket | None = None
        self._process = 0  # that has opened it

    def is_set(self) -> bool:
        """Tell whether `set` was called."""
        return self.given

    def wait(self, seconds: float) -> bool:
        """Wait that long, or until `set` is called; tell whether it was."""
        if not self.given:
            with suppress(queue.Empty):
                self._word.put(self._word.get(timeout=seconds))
        return self.given

    def set(self) -> None:
        """Raise the flag and shut the watched connection down. From any thread, any number of times."""
        self.given = True
        self._word.put(None)
        with self._lock:
            if self._socket is not None and self._process == os.getpid():
                with suppress(OSError):  # the server may have been faster
                    self._socket.shutdown(socket.SHUT_RDWR)

    def watch(self, opened: socket.socket) -> None:
        """From now on let `set` shut this socket down; raises `Stopped` where it was called already."""
        with self._lock:
            self.forget()
            if self.given:
                raise Stopped
            self._socket = opened.dup()
            self._process = os.getpid()

    def forget(self) -> None:
        """Stop watching: the connection has ended."""
        with self._lock:
            if self._socket is not None:
                self._socket.close()
                self._socket = None


class StoppableConnection(http.client.HTTPConnection):
    """A connection to `host` and `port`, under TLS where there is a `context`, that a `StopSignal` can interrupt.

    `through` is the host and port of a proxy to connect to instead. With a `context` the proxy is asked for a tunnel
    by CONNECT with `tunnel_headers` (RFC 9110 section 9.3.6), so that it sees nothing of what is said.
    """

    response_class = FinalResponse

    def __init__(
        self,
        host: str,
        port: int,
        *,
        stop: StopSignal,
        timeout: float | None,  # seconds for each step of opening, then without a byte; None waits for ever
        context: ssl.SSLContext | None = None,
        through: tuple[str, int] | None = None,
        tunnel_headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(host, port, timeout=timeout)
        self._stop = stop
        self._tls = context
        self._through = through
        self._tunnel_headers = dict(tunnel_headers or {})
        self._opened_socket: socket.socket | None = None
        self.default_port = 80 if context is None else 443  # which the Host header leaves out

    def connect(self) -> None:
        """Connect to the first address that answers within `timeout` seconds. Raises what can go wrong on the way.

        `OSError` for the network, also where a proxy says that it cannot reach the server, `ProxyFailed` for a refused
        tunnel, `Stopped` where the signal was given.
        """
        host, port = self._through or (self.host, self.port)
        self.sock = self._opened(host, port)
        if self._tls is not None:
            if self._through is not None:
                self._ask_for_tunnel()
            self.sock = self._tls.wrap_socket(self.sock, server_hostname=self.host)
        self._opened_socket = self.sock

    def hurry(self, seconds: float) -> None:
        """From now on wait that long at most for a byte of the answer."""
        # `sock` is None already where the answer ends with the connection; the socket itself lives on for its reader.
        if self._opened_socket is not None:
            self._opened_socket.settimeout(seconds)

    def _opened(self, host: str, port: int) -> socket.socket:
        failure: OSError = OSError(f"{host} has no address")
        for family, kind, protocol, _, address in socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM):
            opened = socket.socket(family, kind, protocol)
            try:
                self._open(opened, address, f"{host} port {port}")
            except OSError as error:
                opened.close()
                if self._stop.is_set():
                    raise
                failure = error
            except BaseException:
                opened.close()
                raise
            else:
                return opened
        raise failure

    def _open(self, opened: socket.socket, address: object, name: str) -> None:
        # Not `create_connection`: only a socket that is on its way already can be shut down by another thread.
        opened.setblocking(False)
        with suppress(BlockingIOError):
            opened.connect(address)  # type: ignore[arg-type]  # as getaddrinfo gave it
        self._stop.watch(opened)
        with selectors.DefaultSelector() as selector:
            selector.register(opened, selectors.EVENT_WRITE)
            if not selector.select(self.timeout):
                raise TimeoutError(f"{name} took longer than {self.timeout} s to connect")
        error = opened.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, f"cannot connect to {name}")
        opened.settimeout(self.timeout)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _ask_for_tunnel(self) -> None:
        host = f"[{self.host}]" if ":" in self.host else self.host.encode("idna").decode()
        target = f"{host}:{self.port}"
        lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
        lines += [f"{name}: {value}" for name, value in self._tunnel_headers.items()]
        self.sock.sendall("".join(f"{line}\r\n" for line in [*lines, ""]).encode("latin-1"))
        # The server behind the tunnel waits for our greeting, so nothing is read here that belongs to it.
        answer = FinalResponse(self.sock, method="CONNECT")
        try:
            answer.begin()
        finally:
            answer.close()
        if 200 <= answer.status < 300:  # "Any 2xx (Successful) response"
            return
        told = f"the proxy answered {status_words(answer)} when it was asked for a tunnel to {target}"
        if answer.status in _NOT_REACHED:
            raise ConnectionError(told)
        advice = "check its address and its user and password, or name the host in no_proxy"
        raise ProxyFailed(f"{told}; {advice}", answer.status)
