"""A connection that another thread can interrupt: while it is opened, while it shakes hands, and in a blocked read.

The law: the thread that opened the connection owns it and closes it. Others may only call `StopSignal.set`, which
shuts it down; the owner's call then returns or fails, and the owner asks `is_set` why.
"""

from __future__ import annotations

import http.client
import selectors
import socket
import threading
from contextlib import suppress


class Stopped(Exception):
    """Nothing more will come, and nothing is wrong."""


class StopSignal:
    """A flag that also wakes whoever waits on the network.

    The descriptor of the socket is duplicated, since `shutdown` works on the connection itself: whatever becomes of the
    socket object (TLS wraps it, `http.client` closes it early), and without touching the owner's descriptor.
    """

    def __init__(self) -> None:
        self._flag = threading.Event()
        self._lock = threading.RLock()  # `close` may be called by a signal handler in between
        self._socket: socket.socket | None = None

    def is_set(self) -> bool:
        """Tell whether `set` was called."""
        return self._flag.is_set()

    def wait(self, seconds: float) -> bool:
        """Wait that long, or until `set` is called; tell whether it was."""
        return self._flag.wait(seconds)

    def set(self) -> None:
        """Raise the flag and shut the watched connection down. From any thread, any number of times."""
        self._flag.set()
        with self._lock:
            if self._socket is not None:
                with suppress(OSError):  # the server may have been faster
                    self._socket.shutdown(socket.SHUT_RDWR)

    def watch(self, opened: socket.socket) -> None:
        """From now on let `set` shut this socket down; raises `Stopped` where it was called already."""
        with self._lock:
            self.forget()
            if self._flag.is_set():
                raise Stopped
            self._socket = opened.dup()

    def forget(self) -> None:
        """Stop watching: the connection has ended."""
        with self._lock:
            if self._socket is not None:
                self._socket.close()
                self._socket = None


class StoppableConnection(http.client.HTTPConnection):
    """A connection that a `StopSignal` can interrupt while it is opened."""

    stop: StopSignal
    """To be set before the first request."""

    def connect(self) -> None:
        """Connect to the first address that answers within `timeout` seconds. Raises `OSError` or `Stopped`."""
        failure: OSError = OSError(f"{self.host} has no address")
        for family, kind, protocol, _, address in socket.getaddrinfo(
            self.host, self.port, 0, socket.SOCK_STREAM
        ):
            opened = socket.socket(family, kind, protocol)
            try:
                self._open(opened, address)
            except OSError as error:
                opened.close()
                if self.stop.is_set():
                    raise
                failure = error
            except BaseException:
                opened.close()
                raise
            else:
                self.sock = opened
                return
        raise failure

    def _open(self, opened: socket.socket, address: object) -> None:
        # Not `create_connection`: only a socket that is on its way already can be shut down by another thread.
        opened.setblocking(False)
        with suppress(BlockingIOError):
            opened.connect(address)  # type: ignore[arg-type]  # as getaddrinfo gave it
        self.stop.watch(opened)
        with selectors.DefaultSelector() as selector:
            selector.register(opened, selectors.EVENT_WRITE)
            if not selector.select(self.timeout):
                raise TimeoutError(
                    f"{self.host} port {self.port} took longer than {self.timeout} s to connect"
                )
        error = opened.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, f"cannot connect to {self.host} port {self.port}")
        opened.settimeout(self.timeout)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class SecureConnection(http.client.HTTPSConnection, StoppableConnection):
    """The same under TLS: `HTTPSConnection.connect` wraps what `StoppableConnection.connect` has opened."""
