"""How many connections there may be, and how a server stops."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack
from typing import Any

import pytest

from streamkit.servers.http_server import StreamServer, serve
from tests.servers.raw_client import (
    WAIT_SECONDS,
    ask,
    connected,
    get,
    nothing_left_behind,
    read_all,
    read_answer,
    read_until,
    running,
)

PLAIN = [("Content-Type", "text/plain")]


class Gate:
    """An application whose answers begin at once and end when the test says so."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.entered = threading.Semaphore(0)
        self.closed = threading.Event()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", list(PLAIN))
        if environ["PATH_INFO"] == "/quick":
            yield b"quick"
            return
        try:
            yield b"begun"
            self.entered.release()
            while not self.open.wait(0.02):
                yield b"."
            yield b"ended"
        finally:
            self.closed.set()


def test_more_connections_than_the_limit_wait_in_the_backlog() -> None:
    gate = Gate()
    with nothing_left_behind(), running(gate, max_connections=2) as server, ExitStack() as stack:
        first, second, third = (stack.enter_context(connected(server)) for _ in range(3))
        for sock in (first, second):
            sock.sendall(get())
            assert gate.entered.acquire(timeout=WAIT_SECONDS)
        third.sendall(get("/quick"))
        third.settimeout(0.1)
        with pytest.raises(TimeoutError):
            third.recv(1)
        third.settimeout(WAIT_SECONDS)
        gate.open.set()
        assert b"ended" in read_until(first, b"0\r\n\r\n")
        assert read_answer(third)[2] == b"quick"


def test_idle_connections_make_way_when_the_server_is_full() -> None:
    gate = Gate()
    with (
        running(gate, max_connections=2, keep_alive=WAIT_SECONDS * 2) as server,
        connected(server) as first,
    ):
        first.sendall(get("/quick"))
        assert read_answer(first)[2] == b"quick"
        with connected(server) as second, connected(server) as third:
            second.sendall(get())
            assert gate.entered.acquire(timeout=WAIT_SECONDS)  # and it stays until the gate is open
            third.sendall(get("/quick"))
            assert read_answer(third)[2] == b"quick"
            assert first.recv(1) == b""
            gate.open.set()


def test_a_thousand_requests_leave_nothing_behind() -> None:
    with nothing_left_behind(), running(Gate()) as server:
        with connected(server) as sock:
            for _ in range(500):
                sock.sendall(get("/quick"))
                assert read_answer(sock)[2] == b"quick"
        for _ in range(200):
            assert b"quick" in ask(server, get("/quick", headers="Connection: close\r\n"))


def test_a_stop_closes_idle_connections_and_lets_requests_end() -> None:
    gate = Gate()
    told = threading.Event()
    with nothing_left_behind():
        server = StreamServer(
            gate, port=0, grace=WAIT_SECONDS, keep_alive=WAIT_SECONDS * 2, on_shutdown=told.set
        )
        server.start()
        with server, connected(server) as idle, connected(server) as fresh, connected(server) as busy:
            idle.sendall(get("/quick"))
            read_answer(idle)
            busy.sendall(get())
            assert gate.entered.acquire(timeout=WAIT_SECONDS)
            stopper = threading.Thread(target=server.shutdown)
            stopper.start()
            assert idle.recv(1) == b""
            assert fresh.recv(1) == b""
            assert told.wait(WAIT_SECONDS)
            with pytest.raises(OSError):  # noqa: PT011 - refused, or reset while in the backlog
                ask(server, get("/quick"))
            gate.open.set()
            assert b"ended" in read_until(busy, b"0\r\n\r\n")
            assert busy.recv(1) == b""
            stopper.join(WAIT_SECONDS)
            assert not stopper.is_alive()
            assert server.connections_cut == 0


def test_after_the_grace_sockets_are_shut_down_and_bodies_closed() -> None:
    gate = Gate()

    def on_shutdown() -> None:
        raise RuntimeError("a hook that fails stops nothing")

    server_of = running(gate, grace=0, on_shutdown=on_shutdown)
    with nothing_left_behind(), server_of as server, connected(server) as sock:
        sock.sendall(get())
        assert gate.entered.acquire(timeout=WAIT_SECONDS)
        server.shutdown()
        assert gate.closed.wait(WAIT_SECONDS)
        assert not read_all(sock).endswith(b"0\r\n\r\n")
        assert server.connections_cut == 1


def test_a_connection_that_only_waits_to_be_closed_is_no_request_that_was_cut() -> None:
    with running(Gate()) as server, connected(server) as sock:
        sock.sendall(get("/quick", headers="Connection: close\r\n") + b"more")
        assert b"quick" in read_all(sock)  # and now the server reads on, so that no reset overtakes that
        server.shutdown()
        assert server.connections_cut == 0


def test_a_request_may_stop_the_server() -> None:
    def app(environ: dict[str, Any], start_response: Any) -> Any:
        server.shutdown()
        start_response("200 OK", list(PLAIN))
        return [b"bye"]

    with running(app, grace=None) as server:
        answer = ask(server, get())
        assert answer.endswith(b"bye")
        assert b"\r\nConnection: close\r\n" in answer


@pytest.mark.parametrize("grace", [None, WAIT_SECONDS])
def test_requests_that_stop_the_server_end_before_the_with_block_does(grace: float | None) -> None:
    gate = Gate()
    entered, both_entered, goes_on = threading.Semaphore(0), threading.Event(), threading.Event()

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        if environ["PATH_INFO"] != "/stop":
            return gate(environ, start_response)
        entered.release()
        assert both_entered.wait(WAIT_SECONDS)
        server.shutdown()
        assert goes_on.wait(WAIT_SECONDS)
        ended.append("request")
        start_response("200 OK", list(PLAIN))
        return [b"bye"]

    server = StreamServer(app, port=0, grace=grace, on_shutdown=lambda: server.shutdown())

    def serve_in_a_block() -> None:
        with server:
            server.serve_forever()
        ended.append("block")

    ended: list[str] = []
    thread = threading.Thread(target=serve_in_a_block, daemon=True)
    thread.start()
    with nothing_left_behind(), connected(server) as slow, connected(server) as one, connected(server) as two:
        slow.sendall(get())
        assert gate.entered.acquire(timeout=WAIT_SECONDS)
        for stopper in (one, two):
            stopper.sendall(get("/stop"))
            assert entered.acquire(timeout=WAIT_SECONDS)
        both_entered.set()
        gate.open.set()
        assert read_all(slow).endswith(b"5\r\nended\r\n0\r\n\r\n")
        goes_on.set()
        for stopper in (one, two):
            assert read_all(stopper).endswith(b"\r\n\r\nbye")
        thread.join(WAIT_SECONDS)
        assert not thread.is_alive()
    assert ended == ["request", "request", "block"]
    assert server.connections_cut == 0


def test_a_request_that_stops_the_server_and_does_not_end_is_cut() -> None:
    gate = Gate()

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        server.shutdown()
        return gate(environ, start_response)

    with nothing_left_behind():
        with running(app, grace=0.05) as server, connected(server) as sock:
            sock.sendall(get())
            assert gate.entered.acquire(timeout=WAIT_SECONDS)
            server.shutdown()
            assert gate.closed.wait(WAIT_SECONDS)
            assert not read_all(sock).endswith(b"0\r\n\r\n")
        assert server.connections_cut == 1


def test_a_stop_that_a_request_asked_for_obeys_a_grace_that_is_shortened() -> None:
    gate, stopping = Gate(), threading.Event()

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        if environ["PATH_INFO"] == "/stop":
            server.shutdown()
        return gate(environ, start_response)

    with (
        nothing_left_behind(),
        running(app, grace=None, on_shutdown=stopping.set) as server,
        connected(server) as slow,
        connected(server) as stopper,
    ):
        slow.sendall(get())
        assert gate.entered.acquire(timeout=WAIT_SECONDS)
        stopper.sendall(get("/stop"))
        assert stopping.wait(WAIT_SECONDS)
        thread = threading.Thread(target=server.shutdown)
        thread.start()
        server.grace = 0
        thread.join(WAIT_SECONDS)
        assert not thread.is_alive()
        assert not read_all(slow).endswith(b"0\r\n\r\n")


def test_a_server_is_started_once_and_may_never_be_started() -> None:
    with nothing_left_behind():
        with StreamServer(Gate(), port=0):
            pass
        with running(Gate()) as server, pytest.raises(RuntimeError, match="started before"):
            server.serve_forever()
        with pytest.raises(RuntimeError, match="started before"):
            server.start()


def test_serve_outside_the_main_thread_touches_no_signal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    started: list[StreamServer] = []
    ready = threading.Event()
    serve_forever = StreamServer.serve_forever

    def told(self: StreamServer, poll_interval: float = 0.5) -> None:
        started.append(self)
        ready.set()
        serve_forever(self, poll_interval)

    monkeypatch.setattr(StreamServer, "serve_forever", told)
    thread = threading.Thread(target=serve, args=(Gate(),), kwargs={"port": 0, "grace": 0})
    thread.start()
    assert ready.wait(WAIT_SECONDS)
    assert signal.getsignal(signal.SIGTERM) is before
    started[0].request_stop()
    thread.join(WAIT_SECONDS)
    assert not thread.is_alive()
    assert capsys.readouterr().out == f"serving on {started[0].url} (Ctrl-C stops)\nstopped\n"


SCRIPT = """
import signal, sys, time
from streamkit.servers.http_server import serve

def slow(environ):
    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield b"begun"
        while True:
            time.sleep(0.02)
            yield b"."
    return app

before = signal.getsignal(signal.SIGINT)
serve({"/": lambda environ: "hello", "/slow": slow}, port=0, grace=float(sys.argv[1]))
print("restored", signal.getsignal(signal.SIGINT) is before, flush=True)
"""


class Script:
    def __init__(self, grace: float) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-X", "dev", "-W", "error", "-c", SCRIPT, str(grace)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("serving on http://127.0.0.1:"), self.process.communicate()
        self.address = ("127.0.0.1", int(line.split(":")[2].split(" ")[0]))

    def __enter__(self) -> Script:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    def ends_with(self, output: str) -> None:
        out, err = self.process.communicate(timeout=WAIT_SECONDS)
        assert (out, err, self.process.returncode) == (output, "", 0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_serve(number: signal.Signals) -> None:
    with Script(grace=5) as script, socket.create_connection(script.address, timeout=WAIT_SECONDS) as sock:
        sock.sendall(get())
        assert read_answer(sock)[2] == b"hello"
        script.process.send_signal(number)
        assert sock.recv(1) == b""
        script.ends_with("stopped\nrestored True\n")


def test_a_stream_is_cut_after_the_grace() -> None:
    with Script(grace=0.1) as script, socket.create_connection(script.address, timeout=WAIT_SECONDS) as sock:
        sock.sendall(get("/slow"))
        read_until(sock, b"begun\r\n")
        script.process.send_signal(signal.SIGTERM)
        assert not read_all(sock).endswith(b"0\r\n\r\n")
        script.ends_with("stopped (1 request was cut)\nrestored True\n")


def test_a_second_ctrl_c_leaves_at_once() -> None:
    with Script(grace=3600) as script, ExitStack() as stack:
        idle, sock = (  # in this order: when the second was accepted, so was the first
            stack.enter_context(socket.create_connection(script.address, timeout=WAIT_SECONDS))
            for _ in range(2)
        )
        sock.sendall(get("/slow"))
        read_until(sock, b"begun\r\n")
        script.process.send_signal(signal.SIGINT)
        assert idle.recv(1) == b""  # the stop has begun
        script.process.send_signal(signal.SIGINT)
        script.ends_with("stopped (1 request was cut)\nrestored True\n")
