"""The server that needs nothing but Python: `serve` for scripts, `StreamServer` for tests and embedding.

It is an `http.server.HTTPServer` with one thread per connection, made for streams: HTTP/1.1, every chunk of the
application on the wire at once, quiet about clients that leave, and a stop that is neither rude nor endless. It
speaks plain HTTP; TLS belongs to a proxy in front.

Who owns what: the accept loop owns the listening socket and closes it; a connection's thread owns its socket (see
`http_connection.py`). A stop goes in this order: no new connections; idle ones closed; `on_shutdown`; `grace` seconds
for the requests that run; then their sockets are shut down, which ends them as if the client had left.
"""

from __future__ import annotations

import errno
import http.server
import logging
import selectors
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

from streamkit.flow.streams import streams
from streamkit.servers.http_connection import Connection, Timeouts
from streamkit.servers.routes import Route, routes_app
from streamkit.servers.wsgi_exchange import WSGIApplication

logger = logging.getLogger("streamkit.server")

_CUT_SECONDS = 1.0  # after the sockets were shut down: what `close()` of a few generators may take
_LOOK_SECONDS = 0.2  # a signal that arrives just before a wait begins is only seen when the wait ends
_PAUSE_SECONDS = 0.1  # out of descriptors: wait for some connection to end instead of spinning
_MAX_SECONDS = 2_147_483  # poll(2) counts milliseconds in an int: 24 days
_OUT_OF_RESOURCES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class StreamServer(http.server.HTTPServer):
    """A threaded HTTP/1.1 server for one WSGI application; listens from construction on.

    ```python
    with StreamServer(app, port=0).start() as server:
        urlopen(server.url)
    ```

    app_or_routes: a WSGI callable, or a mapping of path to route (see `routes_app`).
    host: a name or an IPv4 or IPv6 address; "" is every IPv4 address. port: 0 takes a free one (see `address`).
    max_connections: threads at most; more connections wait in the backlog of the operating system.
    head_timeout, body_timeout, write_timeout: seconds, up to 24 days; see `Timeouts`. None is no limit.
    keep_alive: seconds that a connection may be idle between requests; None closes it after each answer.
    grace: seconds that requests may go on after a stop; 0 cuts them at once, None waits for all of them.
    on_shutdown: called once when a stop begins, before the grace; streams are told there to end.

    Raises ValueError for numbers that make no sense and OSError where the address cannot be bound. `shutdown` and
    `address` may be used from any thread. A server is started once.
    """

    allow_reuse_address = True
    # HTTPServer would share the port with whoever asks for it (3.14), which hides a server that still runs.
    allow_reuse_port = False
    request_queue_size = 512  # the kernel cuts it to net.core.somaxconn; 128 is what older ones have

    def __init__(
        self,
        app_or_routes: WSGIApplication | Mapping[str, Route],
        host: str = "127.0.0.1",
        port: int = 8000,
        *,
        max_connections: int = 1000,
        head_timeout: float | None = 10.0,
        keep_alive: float | None = 10.0,
        body_timeout: float | None = 30.0,
        write_timeout: float | None = 30.0,
        grace: float | None = 5.0,
        on_shutdown: Callable[[], object] | None = None,
    ) -> None:
        self.application = _as_application(app_or_routes)
        if isinstance(port, bool) or not isinstance(port, int) or not 0 <= port <= 65535:
            raise ValueError(f"port is {port!r}; it must be a whole number from 0 to 65535")
        limits = {
            "head_timeout": head_timeout,
            "keep_alive": keep_alive,
            "body_timeout": body_timeout,
            "write_timeout": write_timeout,
        }
        for name, seconds in limits.items():
            if seconds == 0 or not _is_limit(seconds):
                raise ValueError(
                    f"{name} is {seconds!r}; it must be a number of seconds above 0, at most {_MAX_SECONDS}, or None"
                )
        if not _is_limit(grace):
            raise ValueError(
                f"grace is {grace!r}; it must be a number of seconds from 0 to {_MAX_SECONDS}, or None"
            )
        if max_connections < 1:
            raise ValueError(f"max_connections is {max_connections!r}; it must be at least 1")
        self.timeouts = Timeouts(head=head_timeout, idle=keep_alive, body=body_timeout, write=write_timeout)
        self.max_connections = max_connections
        self.grace = grace
        self.on_shutdown = on_shutdown
        self.connections_cut = 0
        """How many requests were still running when the grace of `shutdown` was over."""
        self._connections: set[Connection] = set()
        self._by_thread: dict[int, Connection] = {}
        self._changed = threading.Condition()
        self._stopping = False
        self._shutdown_thread: int | None = None
        self._shutdown_over = False
        self._stoppers: set[Connection] = set()
        """Those with a request that called `shutdown`."""
        self._loop_running = False
        self._thread: threading.Thread | None = None
        host = host[1:-1] if host.startswith("[") and host.endswith("]") else host or "0.0.0.0"
        self._wake_receiver, self._wake_sender = socket.socketpair()
        try:
            self._wake_receiver.setblocking(False)
            self._wake_sender.setblocking(False)
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            self.address_family = found[0][0]
            super().__init__((host, port), http.server.BaseHTTPRequestHandler)
        except BaseException as error:
            self._wake_receiver.close()
            self._wake_sender.close()
            if isinstance(error, OSError):
                reason = f"cannot listen on {host} port {port}: {error.strerror}"
                raise type(error)(error.errno, reason) from None
            if isinstance(error, UnicodeError):  # of IDNA, which takes 63 bytes between two dots
                reason = f"cannot listen on {host} port {port}: this is no host name"
                raise socket.gaierror(socket.EAI_NONAME, reason) from None
            raise

    # What it is

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that it listens on; the port is the real one where 0 was asked for."""
        return self._address

    @property
    def url(self) -> str:
        """`http://host:port`, without a slash at the end."""
        host, port = self._address
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    @property
    def server_name_and_port(self) -> tuple[str, int]:
        """For SERVER_NAME and SERVER_PORT."""
        return self._address

    def may_keep_alive(self) -> bool:
        """Whether connections are kept after an answer: not while stopping, nor while others wait for a place."""
        full = len(self._connections) >= self.max_connections
        return self.timeouts.idle is not None and not self._stopping and not full

    def server_bind(self) -> None:
        """Bind, without the reverse look-up of HTTPServer, which can take seconds."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        bound = self.socket.getsockname()
        self.server_address = bound
        self._address = (str(bound[0]), int(bound[1]))
        self.server_name, self.server_port = self._address
        self.socket.setblocking(False)  # a client that left before accept() must not block the loop

    # Running

    def start(self) -> StreamServer:
        """Run `serve_forever` in a thread; returns the server, so that it can be the `with` object."""
        self._thread = threading.Thread(target=self.serve_forever, name="streamkit-accept", daemon=True)
        self._claim_loop()
        self._thread.start()
        return self

    def serve_forever(self, poll_interval: float = 0.5) -> None:
        """Accept connections until `shutdown` or `request_stop`, then close the listening socket.

        A stop is noticed at once. `poll_interval` seconds are the longest wait all the same: Python runs a signal
        handler only between bytecodes, so one that arrives just before the wait begins does not end it. Raises
        RuntimeError on a second call.
        """
        if threading.current_thread() is not self._thread:
            self._claim_loop()
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(self._wake_receiver, selectors.EVENT_READ)
                self._accept_loop(selector, poll_interval)
        finally:
            self.socket.close()
            with self._changed:
                self._loop_running = False
                self._changed.notify_all()

    def _claim_loop(self) -> None:
        with self._changed:
            if self._loop_running or self.socket.fileno() < 0:
                raise RuntimeError("this server was started before; make a new one")
            self._loop_running = True

    def _accept_loop(self, selector: selectors.BaseSelector, poll_interval: float) -> None:
        listening = False
        while not self._stopping:
            has_place = len(self._connections) < self.max_connections
            if has_place and not listening:
                selector.register(self.socket, selectors.EVENT_READ)
            elif listening and not has_place:
                selector.unregister(self.socket)
                self._close_idle(fresh=False)  # who only waits makes way for who was not served yet
            listening = has_place
            for key, _ in selector.select(poll_interval):
                if key.fileobj is self._wake_receiver:
                    _read_all(self._wake_receiver)
                elif not self._stopping:
                    self._accept(selector)

    def _accept(self, selector: selectors.BaseSelector) -> None:
        try:
            sock, peer = self.socket.accept()
        except OSError as error:
            if error.errno in _OUT_OF_RESOURCES:
                logger.warning("cannot accept connections: %s; trying again", error.strerror)
                selector.unregister(self.socket)
                selector.select(_PAUSE_SECONDS)
                selector.register(self.socket, selectors.EVENT_READ)
            return
        connection = Connection(sock, peer, self)
        with self._changed:
            self._connections.add(connection)
        thread = threading.Thread(
            target=self._run_connection, args=(connection,), name="streamkit-connection", daemon=True
        )
        try:
            thread.start()
        except RuntimeError as error:
            logger.warning("no thread for a connection of %s: %s", peer, error)
            self._forget(connection)
            sock.close()

    def _run_connection(self, connection: Connection) -> None:
        with self._changed:
            self._by_thread[threading.get_ident()] = connection
        try:
            connection.run()
        except SystemExit:
            logger.exception("the application called sys.exit() in a request; only its connection was closed")
        except BaseException:
            logger.exception("a connection ended with an error")
        finally:
            with self._changed:
                self._by_thread.pop(threading.get_ident(), None)
            self._forget(connection)

    def _forget(self, connection: Connection) -> None:
        with self._changed:
            was_full = len(self._connections) >= self.max_connections
            self._connections.discard(connection)
            self._stoppers.discard(connection)
            self._changed.notify_all()
        if was_full:
            self._wake()

    def _wake(self) -> None:
        try:
            self._wake_sender.send(b"\0")
        except OSError:  # full, so it wakes anyway; or closed, so there is nothing to wake
            pass

    # Stopping

    def request_stop(self) -> None:
        """Make `serve_forever` return soon. Takes no lock and does not wait: made for signal handlers."""
        self._stopping = True
        self._wake()

    def shutdown(self) -> None:
        """Stop gracefully, as the file's head says; returns when it is over. Later calls wait for the first.

        It may be called from a request, which the stop neither waits for nor cuts. Whoever calls it from elsewhere, as
        the end of a `with` block does, waits for that request too, for `grace` seconds more; then it is cut.
        """
        thread = threading.get_ident()
        with self._changed:
            asking = self._by_thread.get(thread)
            if asking is not None:
                self._stoppers.add(asking)
                self._changed.notify_all()
            if self._shutdown_thread == thread and not self._shutdown_over:
                return  # `on_shutdown` or a signal handler calls it, in the midst of it
            is_first = self._shutdown_thread is None
            if is_first:
                self._shutdown_thread = thread
            else:
                self._changed.wait_for(lambda: self._shutdown_over)
        if is_first:
            try:
                self._stop()
            finally:
                with self._changed:
                    self._shutdown_over = True
                    self._changed.notify_all()
        if asking is None:
            self._end_requests(lambda: set(self._stoppers))

    def _stop(self) -> None:
        self.request_stop()
        with self._changed:
            if threading.current_thread() is not self._thread:
                self._changed.wait_for(lambda: not self._loop_running)
        self.socket.close()
        if self._thread is not None and threading.current_thread() is not self._thread:
            self._thread.join()
        self._close_idle(fresh=True)
        if self.on_shutdown is not None:
            try:
                self.on_shutdown()
            except Exception:
                logger.exception("on_shutdown raised")
        self._end_requests(lambda: self._connections - self._stoppers)

    def _end_requests(self, which: Callable[[], set[Connection]]) -> None:
        """Wait for the grace until `which` names no connection, then cut those that it still does.

        A grace that is shortened meanwhile, as by a second Ctrl-C, counts at once.
        """
        if not self._wait_for(which, lambda: self.grace):
            with self._changed:
                late = which()
                self._stoppers -= late  # nobody waits for them a second time
            self.connections_cut += sum([connection.cut() for connection in late])
            self._wait_for(lambda: late & self._connections, lambda: _CUT_SECONDS)

    def serve_until_told(self, listening: Callable[[], object]) -> int:
        """Call `listening()` and serve until Ctrl-C or SIGTERM, then stop gracefully; a second Ctrl-C leaves at once.

        Returns how many requests were cut. Outside the main thread no signal is handled.
        """
        with _signals(self.request_stop):
            listening()
            try:
                self.serve_forever()
                self.shutdown()
            except KeyboardInterrupt:
                self.grace = 0
                self.connections_cut = self.cut_connections()
        return self.connections_cut

    def cut_connections(self) -> int:
        """Shut down the sockets of all connections but the caller's own; returns how many had a request."""
        return sum([connection.cut() for connection in self._others()])

    def server_close(self) -> None:
        """Close the listening socket and what belongs to it; does not wait for anything."""
        self.request_stop()
        super().server_close()
        self._wake_sender.close()
        self._wake_receiver.close()

    def __enter__(self) -> StreamServer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.shutdown()
        self.server_close()

    def _others(self) -> list[Connection]:
        with self._changed:
            own = self._by_thread.get(threading.get_ident())
            return [connection for connection in self._connections if connection is not own]

    def _close_idle(self, *, fresh: bool) -> None:
        for connection in self._others():
            connection.close_if_idle(fresh=fresh)

    def _wait_for(self, which: Callable[[], set[Connection]], seconds: Callable[[], float | None]) -> bool:
        began = time.monotonic()
        with self._changed:
            while which():
                limit = seconds()
                left = _LOOK_SECONDS if limit is None else began + limit - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(min(left, _LOOK_SECONDS))
        return True


def serve(
    app_or_routes: WSGIApplication | Mapping[str, Route],
    host: str = "127.0.0.1",
    port: int = 8000,
    **options: Any,
) -> None:
    """Serve until Ctrl-C or SIGTERM, then stop gracefully; a second Ctrl-C leaves at once.

    `options` are those of `StreamServer`; at a stop the live streams are drained. Prints one line when it listens and
    one when it ends. Access lines go to the logger `streamkit.server.access` at level INFO, errors to
    `streamkit.server`. Outside the main thread no signal is handled. Raises what `StreamServer` raises.
    """
    options.setdefault("on_shutdown", streams.drain)
    with StreamServer(app_or_routes, host, port, **options) as server:
        cut = server.serve_until_told(lambda: print(f"serving on {server.url} (Ctrl-C stops)", flush=True))
        requests = "1 request was" if cut == 1 else f"{cut} requests were"
        print(f"stopped ({requests} cut)" if cut else "stopped", flush=True)


@contextmanager
def _signals(stop: Callable[[], None]) -> Iterator[None]:
    """SIGINT and SIGTERM call `stop`; a SIGINT after that raises KeyboardInterrupt. Restored at the end."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked = True
        stop()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _as_application(app_or_routes: object) -> Any:
    if isinstance(app_or_routes, Mapping):
        return routes_app(app_or_routes)
    if callable(app_or_routes):
        return app_or_routes
    advice = "it must be a WSGI callable or a dict of path to callable(environ)"
    if isinstance(app_or_routes, str):
        advice += f"; on the command line: python -m streamkit serve {app_or_routes}"
    raise TypeError(f"{app_or_routes!r} cannot be served; {advice}")


def _is_limit(seconds: object) -> bool:
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        return seconds is None
    return 0 <= seconds <= _MAX_SECONDS  # which NaN is not


def _read_all(sock: socket.socket) -> None:
    try:
        while sock.recv(4096):
            pass
    except OSError:
        pass
