"""A server that stops: event streams get `retry:` and a clean end, and the process is gone soon."""

from __future__ import annotations

import http.client
import signal
import threading
from pathlib import Path

import pytest

from tests.conftest import eventually
from tests.live_server import running


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_fallback_server_drains_its_streams(number: signal.Signals, tmp_path: Path) -> None:
    with running("fallback", tmp_path) as server:
        bodies: list[bytes] = []

        def read() -> None:
            bodies.append(server.get("/cancelled")[1])

        readers = [threading.Thread(target=read) for _ in range(3)]
        for reader in readers:
            reader.start()
        eventually(lambda: sum(stream["events"] for stream in server.state()["live"]) == 3)
        server.process.send_signal(number)
        for reader in readers:
            reader.join(30)
        assert server.process.wait(30) == 0
        for body in bodies:
            assert body.startswith(b":\ndata: first\n\nretry: ")
        assert len(bodies) == 3
        assert "Traceback" not in server.log()


def test_rows_that_are_cut_off_by_a_stop_do_not_look_complete(tmp_path: Path) -> None:
    with running("fallback", tmp_path) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        connection.request("GET", "/endless")
        response = connection.getresponse()
        response.read(1000)
        server.process.send_signal(signal.SIGTERM)
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            response.read()
        connection.close()
        assert server.process.wait(30) == 0
