"""A hub behind real workers: they are reloaded and killed while events are published, and no client loses one."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamkit.hub.hub import Hub
from tests.conftest import ROOT, eventually
from tests.live_server import GUNICORN
from tests.ports import free_port

pytest.importorskip("gunicorn")

CLIENTS = 12
EVENTS = 150


class Client(threading.Thread):
    """Reads an event stream as a browser does: it comes back after every end, with the last id."""

    def __init__(self, port: int, last_id: str, path: str = "/events", last: str = "last") -> None:
        super().__init__(daemon=True)
        self._path = path
        self._last = last
        self._port = port
        self._last_id = last_id
        self.data: list[str] = []
        self.connections = 0
        self.stop = False

    def run(self) -> None:
        while not self.stop:
            with contextlib.suppress(OSError, http.client.HTTPException):
                self._read()
            time.sleep(0.02)

    def _read(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        with contextlib.closing(connection):
            connection.request("GET", self._path, headers={"Last-Event-ID": self._last_id})
            response = connection.getresponse()
            self.connections += 1
            id, data = "", []
            while line := response.readline().decode():
                field, _, value = line.rstrip("\n").partition(": ")
                if field == "id":
                    id = value
                elif field == "data":
                    data.append(value)
                elif not field and data:
                    self.data += data
                    self._last_id = id or self._last_id
                    id, data = "", []
                    if self.data[-1] == self._last:
                        self.stop = True
                        return


@contextlib.contextmanager
def workers(
    url: str, tmp_path: Path, kind: str = "gthread", *, count: int = 2, **environment: str
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    port = free_port()
    options = ["--worker-class", kind, "--workers", str(count), "--graceful-timeout", "3"]
    if kind == "gthread":
        options += ["--threads", "4"]
    log_path = tmp_path / "server.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, *GUNICORN, "--bind", f"127.0.0.1:{port}", *options, "tests.hub.hub_app:app"],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "HUB_URL": url, **environment},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        eventually(lambda: _get(port, "/"), what="the server")
        yield process, port
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(5)
        log_text = log_path.read_text(errors="replace")
        assert "Traceback" not in log_text, log_text


def _get(port: int, path: str) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
        connection.request("GET", path)
        return connection.getresponse().read().decode()
    return ""


def _processes(port: int) -> set[int]:
    """Both workers, found by asking until each has answered."""
    found: set[int] = set()

    def both() -> bool:
        answer = _get(port, "/pid")
        if answer:
            found.add(int(answer))
        return len(found) == 2

    eventually(both)
    return found


@pytest.mark.parametrize(("kind", "fault"), [("gthread", "reload"), ("sync", "reload"), ("gthread", "kill")])
def test_nobody_loses_an_event(tmp_path: Path, kind: str, fault: str) -> None:
    url = f"sqlite:///{tmp_path}/events.db"
    with Hub(url) as hub, workers(url, tmp_path, kind) as (master, port):
        begin = hub.publish("t", "before")
        clients = [Client(port, begin) for _ in range(CLIENTS)]
        for client in clients:
            client.start()
        eventually(lambda: all(client.connections for client in clients))
        for number in range(EVENTS):
            hub.publish("t", str(number))
            if number == EVENTS // 3:
                if fault == "reload":
                    master.send_signal(signal.SIGHUP)
                else:
                    for worker in _processes(port):
                        os.kill(worker, signal.SIGKILL)
            time.sleep(0.01)
        eventually(
            lambda: sum(client.connections for client in clients) > CLIENTS, what="somebody comes back"
        )
        hub.publish("t", "last")
        for client in clients:
            client.join(20)
        expected = [*(str(number) for number in range(EVENTS)), "last"]
        assert [client.data for client in clients] == [expected] * CLIENTS


def test_a_worker_publishes_and_the_others_hear(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/events.db"
    with Hub(url) as hub, workers(url, tmp_path, "gthread") as (_, port):
        begin = hub.publish("t", "before")
        clients = [Client(port, begin) for _ in range(6)]
        for client in clients:
            client.start()
        for number in range(20):
            assert _get(port, f"/publish?{number}")
        hub.publish("t", "last")
        for client in clients:
            client.join(20)
        assert [client.data for client in clients] == [[*map(str, range(20)), "last"]] * 6


def test_an_answer_survives_a_reload(tmp_path: Path) -> None:
    """The worker that has the run finishes it while it goes; the viewers are with the new ones meanwhile."""
    url = f"sqlite:///{tmp_path}/events.db"
    end = '{"run":"answer"}'
    enough = tmp_path / "enough"
    with workers(url, tmp_path, "gthread", HUB_WORDS_UNTIL=str(enough)) as (master, port):
        clients = [Client(port, "", "/answer", end) for _ in range(4)]
        for client in clients:
            client.start()
        eventually(lambda: all(len(client.data) > 3 for client in clients))
        master.send_signal(signal.SIGHUP)
        eventually(lambda: sum(client.connections for client in clients) > 4, what="somebody comes back")
        enough.touch()
        for client in clients:
            client.join(20)
        with Hub(url) as hub:
            run = hub.attach("answer", "answer")
            assert run is not None
            log = [event.data for event in run.events()]
        assert log[:-1] == [str(number) for number in range(len(log) - 1)]
        assert [client.data for client in clients] == [[*log[:-1], end]] * 4


def test_a_run_is_stopped_by_a_reload_that_does_not_wait_for_it(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/events.db"
    never = str(tmp_path / "never")
    with workers(url, tmp_path, HUB_FINISH_RUNS="0", HUB_WORDS_UNTIL=never) as (master, port):
        client = Client(port, "", "/answer", '{"run":"answer"}')
        client.start()
        eventually(lambda: len(client.data) > 3)
        master.send_signal(signal.SIGHUP)
        client.join(20)
        numbers = client.data[:-1]
        assert numbers == [str(number) for number in range(len(numbers))]
        with Hub(url) as hub:
            run = hub.attach("answer", "answer")
            assert run is not None
            assert [event.event for event in run.events()][-1] == "stopped"
            eventually(lambda: hub.attach("answer") is None)  # its lease is released behind its end


@pytest.mark.parametrize("count", [1, 2])
def test_memory_under_several_workers_warns(tmp_path: Path, count: int) -> None:
    with workers("memory://", tmp_path, count=count) as (_, port):
        for _ in range(8):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            with contextlib.closing(connection):
                connection.request("GET", "/events")
                assert connection.getresponse().read(1)
    warnings = (tmp_path / "server.log").read_text().count("events of the others are missed")
    assert warnings == 0 if count == 1 else 1 <= warnings <= count
