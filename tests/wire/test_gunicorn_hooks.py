"""The optional hooks: a worker that stops ends its streams at once, threaded ones too."""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import eventually
from tests.live_server import LiveServer, running

pytest.importorskip("gunicorn")


def open_streams(server: LiveServer, count: int, path: str) -> tuple[list[bytes], list[threading.Thread]]:
    bodies: list[bytes] = []
    readers = [threading.Thread(target=lambda: bodies.append(server.get(path)[1])) for _ in range(count)]
    for reader in readers:
        reader.start()
    return bodies, readers


@pytest.mark.parametrize("delivery", ["auto", "threaded"])
def test_a_stopped_worker_drains_at_once(
    delivery: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """gunicorn waits for requests in its threads, here 30 s; with the hooks there are none to wait for."""
    monkeypatch.setenv("STREAMKIT_DELIVERY", delivery)
    monkeypatch.setenv("GRACEFUL_SECONDS", "30")
    monkeypatch.setenv("GUNICORN_CMD_ARGS", "-c python:streamkit.servers.gunicorn")
    with running("gunicorn-gthread", tmp_path) as server:
        bodies, readers = open_streams(server, 3, "/cancelled")
        eventually(lambda: sum(stream["events"] for stream in server.state()["live"]) == 3)
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        for reader in readers:
            reader.join(20)
        assert server.process.wait(40) == 0
        assert time.monotonic() - began < 20, "the worker waited for its streams"
        assert all(body.startswith(b":\ndata: first\n\nretry: ") for body in bodies)
        assert len(bodies) == 3
        assert "Traceback" not in server.log()


def test_a_reload_moves_streams_to_the_new_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUNICORN_CMD_ARGS", "-c python:streamkit.servers.gunicorn")
    with running("gunicorn-gthread", tmp_path) as server:
        bodies, readers = open_streams(server, 2, "/cancelled")
        eventually(lambda: sum(stream["events"] for stream in server.state()["live"]) == 2)
        os.kill(server.process.pid, signal.SIGHUP)
        for reader in readers:
            reader.join(20)
        assert all(b"retry: " in body for body in bodies)

        def ended() -> bool:
            try:
                return bool(server.state()["live"] == [])
            except ConnectionError:  # gunicorn 22 drops what its old worker has accepted and not begun
                return False

        eventually(ended)


def test_the_last_request_of_a_worker_drains_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMKIT_DELIVERY", "threaded")
    monkeypatch.setenv("GRACEFUL_SECONDS", "30")
    monkeypatch.setenv("GUNICORN_CMD_ARGS", "-c python:streamkit.servers.gunicorn --max-requests 8")
    with running("gunicorn-gthread", tmp_path) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
        connection.request("GET", "/cancelled")
        with contextlib.closing(connection), connection.getresponse() as stream:  # of the first worker
            while "Autorestarting" not in server.log():
                server.state()
            began = time.monotonic()
            body = stream.read()
        assert time.monotonic() - began < 20, "the worker waited for its stream"
        assert body.endswith(b"\n")
        assert b"retry: " in body


def app_that_is_told_to_stop_in_a_system_call(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Answers with what a C library's `read` gives, in which SIGTERM arrives before the byte does."""
    reader, writer = os.pipe()

    def tell() -> None:
        for _ in range(10):
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
            time.sleep(0.02)  # so that one of them finds it waiting
        os.write(writer, b"x")

    threading.Thread(target=tell).start()
    body = b"%d" % ctypes.CDLL(None).read(reader, ctypes.create_string_buffer(1), 1)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


def test_the_word_to_stop_does_not_interrupt_what_a_request_waits_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GUNICORN_CMD_ARGS", "-c python:streamkit.servers.gunicorn")
    app = f"{__name__}:{app_that_is_told_to_stop_in_a_system_call.__name__}"
    with running("gunicorn-sync", tmp_path, app) as server:
        assert server.get("/")[1] == b"1"


def test_a_worker_of_gevent_answers_and_drains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The configuration, and this package with it, is imported before gevent replaces what it replaces."""
    pytest.importorskip("gevent")
    monkeypatch.setenv("GUNICORN_CMD_ARGS", "-k gevent -c python:streamkit.servers.gunicorn")
    with running("gunicorn-sync", tmp_path) as server:
        bodies, readers = open_streams(server, 1, "/beating")
        eventually(lambda: sum(stream["events"] for stream in server.state()["live"]) == 1)
        server.process.send_signal(signal.SIGTERM)
        for reader in readers:
            reader.join(20)
        assert b"\n\nretry: " in bodies[0]
        assert "Traceback" not in server.log()
