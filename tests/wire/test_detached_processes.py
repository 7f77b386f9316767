"""Detached streams and what happens to processes: signals, recycling, forks, full tables; other ways in."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import resource
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import eventually
from tests.live_server import BIN, GUNICORN, ROOT, LiveServer, _await_port, running
from tests.ports import free_port
from tests.services import program
from tests.wire.test_nginx import CONFIGURATION

pytest.importorskip("gunicorn")

APP = "tests.apps.detached_app:app"
WORKERS = ["gunicorn-gthread", "gunicorn-sync"]


@pytest.fixture(params=WORKERS)
def worker(request: pytest.FixtureRequest) -> str:
    return request.param  # type: ignore[no-any-return]


def opened(server: LiveServer, path: str = "/ticks", marker: bytes = b"data: ") -> socket.socket:
    sock = server.connect(path)
    data = b""
    while marker not in data:
        more = sock.recv(65536)
        assert more, data
        data += more
    return sock


def rest(sock: socket.socket) -> bytes:
    """Everything until the end; ends with RESET where there was none."""
    sock.settimeout(30)
    data = b""
    try:
        while more := sock.recv(65536):
            data += more
    except ConnectionError:
        return data + b"RESET"
    finally:
        sock.close()
    return data


def drained(data: bytes) -> bool:
    """`retry:` with jitter, and a clean end."""
    found = re.search(rb"retry: (\d+)\n\n?\r\n0\r\n\r\n$", data)
    return found is not None and 1000 <= int(found[1]) <= 5000


def tracebacks(server: LiveServer) -> list[str]:
    """Those in the server's log, but for the exit by which gunicorn interrupts a request that is all but over."""
    texts = server.log().split("Traceback (most recent call last):")[1:]
    return [text[:2000] for text in texts if "SystemExit" not in text]


# -- a process that ends -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_that_is_told_to_stop_drains(worker: str, number: signal.Signals, tmp_path: Path) -> None:
    with running(worker, tmp_path, APP) as server:
        events = [opened(server, path) for path in ("/ticks", "/quiet", "/deaf")]
        rows = opened(server, "/slow-rows", b'"x')
        began = time.monotonic()
        server.process.send_signal(number)
        for sock in events:
            assert drained(rest(sock))
        assert not rest(rows).endswith(b"0\r\n\r\n")
        assert server.process.wait(20) == 0
        assert time.monotonic() - began < 10  # about a second where the machine keeps up
        assert tracebacks(server) == []


def test_a_reload_drains_the_old_worker_and_the_new_one_serves(worker: str, tmp_path: Path) -> None:
    with running(worker, tmp_path, APP) as server:
        old = server.state()["pid"]
        sock = opened(server)
        server.process.send_signal(signal.SIGHUP)
        assert drained(rest(sock))
        eventually(lambda: server.state()["pid"] != old)
        with opened(server):
            assert len(server.state()["live"]) == 1
        assert tracebacks(server) == []


def test_a_worker_that_is_killed_breaks_its_streams_off(worker: str, tmp_path: Path) -> None:
    with running(worker, tmp_path, APP) as server:
        sock = opened(server)
        os.kill(server.state()["pid"], signal.SIGKILL)
        assert not rest(sock).endswith(b"0\r\n\r\n")
        with opened(server):
            assert len(server.state()["live"]) == 1


def test_a_worker_that_is_recycled_drains(
    worker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GUNICORN_CMD_ARGS", "--max-requests 4 --preload")
    with running(worker, tmp_path, APP) as server:
        old = server.state()["pid"]
        sock = opened(server)
        for _ in range(4):
            with contextlib.suppress(OSError, http.client.HTTPException):  # between two workers
                server.state()
        assert drained(rest(sock))

        def replaced() -> bool:
            with contextlib.suppress(OSError, http.client.HTTPException):
                return bool(server.state()["pid"] != old)
            return False

        eventually(replaced)
        assert tracebacks(server) == []


def test_an_upgrade_on_the_fly_leaves_streams_to_the_old_worker_until_it_ends(tmp_path: Path) -> None:
    """USR2: a second master with workers of its own beside the first; TERM ends the first one."""

    def command(port: int) -> list[str]:
        # The script, because what gunicorn executes again is its own name and not `python -m`.
        options = ["--threads", "4", "--bind", f"127.0.0.1:{port}", "--pid", str(tmp_path / "pid")]
        return [sys.executable, str(BIN / "gunicorn"), *GUNICORN[2:], *options, APP]

    successor = 0
    try:
        with started(command, tmp_path) as server:
            old = server.state()["pid"]
            sock = opened(server)
            server.process.send_signal(signal.SIGUSR2)
            eventually((tmp_path / "pid.2").exists)
            successor = int((tmp_path / "pid.2").read_text())
            eventually(lambda: server.state()["pid"] != old)  # both accept
            assert b"data: " in sock.recv(65536)
            server.process.terminate()
            assert drained(rest(sock))
            assert server.process.wait(30) == 0
            with opened(server):
                state = server.state()
                assert state["pid"] != old
                assert len(state["live"]) == 1
            assert tracebacks(server) == []
    finally:
        if successor:
            os.kill(successor, signal.SIGTERM)


# -- tables that are full ------------------------------------------------------------------------------------------


def test_descriptors_run_out(worker: str, tmp_path: Path) -> None:
    """Pages go on; streams are refused, event streams in a way that browsers come back from."""
    with running(worker, tmp_path, APP) as server:
        pid = server.state()["pid"]
        before = server.state()["descriptors"]
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (64, 64))
        held: list[socket.socket] = []
        refused = b""
        while not refused:
            assert len(held) < 64
            sock = server.connect("/closing")
            data = b""
            while b"\r\n\r\n" not in data:
                data += sock.recv(65536)
            if data.startswith(b"HTTP/1.1 200"):
                held.append(sock)
            else:
                refused = data + rest(sock)
        assert refused.startswith(b"HTTP/1.1 503")
        assert b"\r\nRetry-After: " in refused
        assert len(held) >= 16
        response, body = server.get("/closing", {"Accept": "text/event-stream"})
        assert response.status == 200
        assert re.search(rb"^retry: \d+$", body, re.MULTILINE)
        for _ in range(20):
            assert server.state()["pid"] == pid
        assert "can hold" in server.log()
        assert "WARNING" in server.log() or "Too many" in server.log() or "ulimit" in server.log()
        live = server.state()["live"]
        assert len(live) == len(held)
        assert {stream["delivery"] for stream in live} == {"detached"}
        for sock in held:
            sock.close()
        eventually(lambda: server.state()["live"] == [])
        facts = server.state()["facts"]
        assert facts["closed items"] == len(held) + 2  # those of the refused too
        with opened(server):
            pass
        eventually(lambda: server.state()["descriptors"] <= before + 3)  # the loop's own
        assert server.state()["pid"] == pid
        assert tracebacks(server) == []


def emptied(server: LiveServer) -> bool:
    """Whether the server could be told to close what it holds: with no descriptor left it cannot even answer."""
    try:
        server.get("/empty")
    except (OSError, http.client.HTTPException):
        return False
    return True


def test_no_descriptor_left_at_all(tmp_path: Path) -> None:
    """Not even for the loop's own: the stream is refused and nothing of it stays."""
    with running("gunicorn-gthread", tmp_path, APP) as server:
        pid = server.state()["pid"]
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (64, 64))
        for spare in (2, 4, 6, 8, 10, 12):
            server.get(f"/fill?{spare}")
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
            with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(connection):
                connection.request("GET", "/closing")
                with connection.getresponse() as response:
                    response.read(5)
            eventually(lambda: emptied(server))
            eventually(lambda: server.state()["live"] == [], what=str(server.state()["live"]))
        with opened(server):
            assert len(server.state()["live"]) == 1
        assert server.state()["pid"] == pid


def test_two_thousand_connect_at_once(worker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # gunicorn 22 stops reading when it has accepted as many as it may, before any of them has said a word.
    monkeypatch.setenv("GUNICORN_CMD_ARGS", "--worker-connections 3000")
    with running(worker, tmp_path, APP) as server:
        before = server.state()["descriptors"]
        socks = []
        with opened(server):
            for _ in range(2000):
                sock = socket.socket()
                sock.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    sock.connect(("127.0.0.1", server.port))
                socks.append(sock)
            for sock in socks:
                sock.settimeout(30)
                sock.sendall(b"GET /quiet HTTP/1.1\r\nHost: localhost\r\n\r\n")
            for sock in socks:
                data = b""
                while b"data: first\n\n" not in data:
                    more = sock.recv(65536)
                    assert more, data
                    data += more
            assert len(server.state()["live"]) == 2001
            for sock in socks:
                sock.close()
            eventually(lambda: len(server.state()["live"]) <= 1, seconds=30)
        eventually(lambda: server.state()["live"] == [])
        eventually(lambda: server.state()["descriptors"] <= before + 3)
        assert tracebacks(server) == []


# -- other ways in -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        [
            *[
                program("openssl"),
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
            ],
            *[
                "-nodes",
                "-keyout",
                str(key),
                "-out",
                str(certificate),
                "-days",
                "2",
                "-subj",
                "/CN=localhost",
            ],
        ],
        check=True,
        capture_output=True,
    )
    return key, certificate


WERKZEUG_TLS = """
import sys
from werkzeug.serving import run_simple
from tests.apps.detached_app import app
run_simple("127.0.0.1", int(sys.argv[1]), app, threaded=True, ssl_context=(sys.argv[2], sys.argv[3]))
"""


@contextlib.contextmanager
def started(command: Callable[[int], list[str]], tmp_path: Path) -> Iterator[LiveServer]:
    port = free_port()
    log_path = tmp_path / "server.log"
    with log_path.open("wb") as log:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "default"}
        process = subprocess.Popen(command(port), cwd=ROOT, env=environment, stdout=log, stderr=log)
    try:
        _await_port(process, port, log_path)
        yield LiveServer(process, port, log_path)
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.parametrize("name", ["gunicorn", "werkzeug"])
def test_tls_within_the_server_is_threaded_and_correct(
    name: str, certificate: tuple[Path, Path], tmp_path: Path
) -> None:
    key, cert = (str(path) for path in certificate)
    python = [sys.executable, "-X", "dev"]

    def command(port: int) -> list[str]:
        if name == "werkzeug":
            return [*python, "-c", WERKZEUG_TLS, str(port), cert, key]
        tls = ["--certfile", cert, "--keyfile", key, "--threads", "4"]
        return [*python, *GUNICORN, *tls, "--bind", f"127.0.0.1:{port}", APP]

    context = ssl.create_default_context(cafile=cert)
    context.check_hostname = False

    @contextlib.contextmanager
    def get(path: str) -> Iterator[http.client.HTTPResponse]:
        connection = http.client.HTTPSConnection("127.0.0.1", server.port, context=context, timeout=30)
        with contextlib.closing(connection):
            connection.request("GET", path)
            with connection.getresponse() as response:
                yield response

    def state() -> bytes:
        with get("/state") as response:
            return response.read()

    with started(command, tmp_path) as server:
        for _ in range(2):
            with get("/numbers") as response:
                assert response.read().count(b"data: ") == 3000
        with get("/ticks") as response:
            assert b'"n":3}' in response.read(200)
            assert b'"delivery": "threaded"' in state()
        eventually(lambda: b'"live": []' in state())
        assert server.log().count("not a plain socket (TLS within the server?)") == 1


@pytest.mark.parametrize("preload", [[], ["--preload"]])
def test_gevent_is_threaded_and_correct(preload: list[str], tmp_path: Path) -> None:
    """With --preload the application, and this package with it, is imported before gevent replaces what it replaces."""
    pytest.importorskip("gevent")

    def command(port: int) -> list[str]:
        options = ["-k", "gevent", "--graceful-timeout", "1", "--bind", f"127.0.0.1:{port}", *preload]
        return [sys.executable, *GUNICORN, *options, APP]

    with started(command, tmp_path) as server:
        for _ in range(2):
            assert server.get("/numbers")[1].count(b"data: ") == 3000
        with opened(server):
            assert [record["delivery"] for record in server.state()["live"]] == ["threaded"]
        eventually(lambda: server.state()["live"] == [])
        assert server.log().count("has replaced the socket module") == 1
        assert tracebacks(server) == []


def test_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "s"

    def command(port: int) -> list[str]:
        binds = ["--bind", f"127.0.0.1:{port}", "--bind", f"unix:{path}"]
        return [sys.executable, "-X", "dev", *GUNICORN, *binds, APP]

    with started(command, tmp_path) as server, socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(30)
        # gunicorn opens its addresses one after the other.
        eventually(lambda: sock.connect_ex(str(path)) == 0)
        sock.sendall(b"GET /ticks HTTP/1.1\r\nHost: a\r\n\r\n")
        data = b""
        while b'"n":3}' not in data:
            data += sock.recv(65536)
        (record,) = server.state()["live"]
        assert (record["delivery"], record["peer"]) == ("detached", "")
        sock.close()
        eventually(lambda: server.state()["live"] == [])
        assert tracebacks(server) == []


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_behind_nginx(version: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    nginx = program("nginx")
    folder = tmp_path_factory.mktemp("nginx")
    folder.chmod(0o755)
    text = CONFIGURATION
    if version == "1.1":
        text = text.replace(
            "proxy_pass", 'proxy_http_version 1.1; proxy_set_header Connection ""; proxy_pass'
        )
    log_path = folder / "error.log"
    log_path.touch()
    with running("gunicorn-sync", folder, APP) as server:

        def command(port: int) -> list[str]:
            configuration = folder / "nginx.conf"
            configuration.write_text(text.format(folder=folder, port=port, upstream=server.port))
            return [nginx, "-p", str(folder), "-e", str(log_path), "-c", str(configuration)]

        with started(command, folder) as proxy:
            with opened(proxy), opened(proxy, "/quiet"):
                assert {stream["delivery"] for stream in server.state()["live"]} == {"detached"}
            eventually(lambda: server.state()["live"] == [])  # the clients' leaving comes through
            response, body = proxy.get("/numbers")
            assert (response.status, body.count(b"data: ")) == (200, 3000)
            with contextlib.suppress(http.client.IncompleteRead):  # on HTTP/1.0 nginx cannot tell
                assert b"event: error" in proxy.get("/failing")[1]


# -- clients of tests ----------------------------------------------------------------------------------------------


def test_test_clients_are_threaded() -> None:
    pytest.importorskip("flask")
    from werkzeug.test import Client

    from tests.apps import detached_app

    for client in (Client(detached_app.app), detached_app.flask_app.test_client()):
        path = (
            "/numbers" if isinstance(client, Client) and client.application is detached_app.app else "/events"
        )
        response: Any = client.get(f"{path}?user=zoe", buffered=False)
        chunks = iter(response.response)
        text = b""
        while b"\n\n" not in text:
            text += next(chunks)
        assert text.startswith(b":\n")
        assert [stream.delivery for stream in detached_app.streams] == ["threaded"]
        response.close()
        eventually(lambda: len(detached_app.streams) == 0)


def test_forked_and_forgotten_children_hold_no_stream(tmp_path: Path) -> None:
    """Each of them inherits the loop's connections as they are at that moment; none may keep one."""
    with running("gunicorn-gthread", tmp_path, APP) as server:
        stop = threading.Event()
        ends: list[bytes] = []

        def come_and_go() -> None:
            while not stop.is_set():
                sock = server.connect("/numbers")
                ends.append(rest(sock)[-5:])

        clients = [threading.Thread(target=come_and_go) for _ in range(3)]
        for client in clients:
            client.start()
        for _ in range(10):
            server.get("/fork")
        stop.set()
        for client in clients:
            client.join(30)
            assert not client.is_alive(), "a child keeps a stream open that has ended"
        assert set(ends) == {b"0\r\n\r\n"}
        server.get("/unfork")
