"""Subscriptions on connections that have left their server: slow readers, and many that come back at once."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamkit.formats.event_stream import ServerSentEvent
from streamkit.formats.event_stream_decoder import EventStreamDecoder
from streamkit.hub.hub import Hub
from tests.conftest import eventually
from tests.hub.test_hub_servers import _get, workers

pytest.importorskip("gunicorn")

# More than the socket buffers of both sides hold (4 MiB and 6 MiB at most by default on Linux).
FLOOD_EVENTS = 5000
FLOOD_BYTES = 3000


class Reader:
    """A client that reads when it is told to."""

    def __init__(self, port: int, last_id: str) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._socket.settimeout(20)
        self._socket.connect(("127.0.0.1", port))
        request = f"GET /events HTTP/1.0\r\nHost: test\r\nLast-Event-ID: {last_id}\r\n\r\n"
        self._socket.sendall(request.encode())
        self._decoder = EventStreamDecoder()

    def open(self) -> Reader:
        """Wait for the head."""
        head = b""
        while b"\r\n\r\n" not in head:
            head += self._socket.recv(1)
        assert b" 200 " in head
        return self

    def events(self) -> Iterator[ServerSentEvent]:
        """Its events, until the connection ends."""
        with contextlib.suppress(ConnectionError):
            while data := self._socket.recv(65536):
                yield from self._decoder.feed(data)

    def until(self, last: str) -> list[ServerSentEvent]:
        """Its events up to the one with these data, or the end."""
        found = []
        for event in self.events():
            found.append(event)
            if event.data == last:
                break
        return found

    def close(self) -> None:
        self._socket.close()


def flood(hub: Hub) -> list[str]:
    """Publish more than a connection holds; the beginnings of the data."""
    names = [f"{number:06}" for number in range(FLOOD_EVENTS)]
    for start in range(0, FLOOD_EVENTS, 50):
        hub.publish_many([("t", name + "." * FLOOD_BYTES) for name in names[start : start + 50]])
    hub.publish("t", "last")
    return [*names, "last"]


def names(events: list[ServerSentEvent]) -> list[str]:
    return [str(event.data)[:6] for event in events]


def test_a_slow_reader_gets_everything(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/events.db"
    with Hub(url) as hub, workers(url, tmp_path, count=1) as (_, port):
        reader = Reader(port, hub.publish("t", "before")).open()
        with contextlib.closing(reader):
            eventually(lambda: _get(port, "/deliveries") == "detached")
            published = flood(hub)
            assert names(reader.until("last")) == published
        eventually(lambda: _get(port, "/deliveries") == "")


def test_one_that_is_too_slow_is_closed_and_resumes(tmp_path: Path) -> None:
    """What the log does not hold any more is told as a gap; what it sent before was in order, and none is missing."""
    url = f"sqlite:///{tmp_path}/events.db"
    with Hub(url, retain=200) as hub, workers(url, tmp_path, count=1, HUB_RETAIN="200") as (_, port):
        begin = hub.publish("t", "before")
        reader = Reader(port, begin).open()
        with contextlib.closing(reader):
            eventually(lambda: _get(port, "/deliveries") == "detached")
            published = flood(hub)
            first = reader.until("last")
        assert names(first) == published[: len(first)]
        assert len(first) < FLOOD_EVENTS
        eventually(lambda: _get(port, "/deliveries") == "")
        last_id = first[-1].id if first else begin
        reader = Reader(port, str(last_id)).open()
        with contextlib.closing(reader):
            gap, *rest = reader.until("last")
        assert gap.event == "gap"
        assert gap.json()["asked"] == last_id
        assert gap.json()["oldest"] == rest[0].id
        assert len(rest) >= 200
        assert names(rest) == published[-len(rest) :]


def test_many_replays_at_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/events.db"
    with Hub(url) as hub, workers(url, tmp_path, count=1) as (_, port), contextlib.ExitStack() as stack:
        begin = hub.publish("t", "before")
        history = [f"{number:06}" for number in range(1000)]
        hub.publish_many([("t", name) for name in history])
        readers = [stack.enter_context(contextlib.closing(Reader(port, begin).open())) for _ in range(200)]
        hub.publish("t", "last")
        for reader in readers:
            assert names(reader.until("last")) == [*history, "last"]
