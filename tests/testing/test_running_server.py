"""Servers in with-blocks, and the client that behaves badly, against each other."""

from __future__ import annotations

import http.client
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from streamkit import streams
from streamkit.testing import Client, RunningServer, installed_servers, running, running_server
from tests.conftest import eventually
from tests.testing.applications import Application

pytestmark = pytest.mark.usefixtures("nothing_left")

IN_PROCESS = [name for name in installed_servers() if name in ("streamkit", "waitress", "werkzeug")]
APP = "tests.testing.served:app"


@pytest.fixture(scope="module", autouse=True)
def _warm() -> None:
    """What a process opens once and keeps (threads, their pipes) is open before `nothing_left` counts."""
    with running(Application()) as server, server.client() as client:
        client.open("/events").take(1)
    eventually(lambda: not len(streams))


@pytest.fixture(scope="module")
def app() -> Application:
    return Application()


@pytest.fixture
def server(app: Application) -> Iterator[RunningServer]:
    app.ended.clear()
    with running(app) as server:
        yield server


@pytest.mark.parametrize("name", installed_servers())
def test_every_installed_server_streams_and_stops(name: str) -> None:
    with running(APP, name) as server, server.client() as client:
        assert (server.name, server.url) == (name, f"http://127.0.0.1:{server.port}")
        first = client.open("/events").take(2)
        assert [event.id for event in first] == ["0", "1"]
        assert client.headers["content-type"] == "text/event-stream; charset=utf-8"
        again = client.resume().take(2)
        assert [event.id for event in again] == ["2", "3"]
        assert client.open("/three").read_all() == b"data: 0\n\ndata: 1\n\ndata: 2\n\n"
        assert client.complete
        assert client.open("/missing").status == 404
        log = server.log()
    assert "Traceback" not in log
    with pytest.raises(ConnectionError):
        Client(server.url).open("/three")


def test_waitress_stops_though_its_loop_ends_before_it_is_woken(monkeypatch: pytest.MonkeyPatch) -> None:
    trigger = pytest.importorskip("waitress.trigger").trigger
    pull = trigger._physical_pull

    def pull_late(self: Any) -> None:
        threading.Event().wait(1.5)  # the loop looks up by itself within a second
        pull(self)

    with running(Application(), "waitress") as server, server.client() as client:
        assert client.open("/three").read_all()
        monkeypatch.setattr(trigger, "_physical_pull", pull_late)


@pytest.mark.parametrize("name", [name for name in IN_PROCESS if name != "werkzeug"])
def test_a_client_that_stalls_does_not_hold_up_its_server_s_end(name: str) -> None:
    closed: list[bool] = []

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        try:
            for _ in range(1000):
                yield b"x" * 1_000_000
        finally:
            closed.append(True)

    with running(app, name) as server:
        client = server.client().open("/")
        client.stall()
        threading.Event().wait(0.3)
    eventually(lambda: closed == [True])
    client.reset()


@pytest.mark.parametrize("name", IN_PROCESS)
def test_servers_in_this_process_share_its_variables(name: str) -> None:
    app = Application()
    with running(app, name) as server, server.client() as client:
        assert len(client.open("/events").take(1)) == 1
        client.leave()
        eventually(lambda: app.ended == ["events"])


def test_what_cannot_be_run() -> None:
    with pytest.raises(ValueError, match="server is 'apache'; it is one of gunicorn, "):
        running(APP, "apache")
    with pytest.raises(TypeError, match="give a WSGI application"):
        running(None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="threads is 0"):
        running(APP, threads=0)
    with pytest.raises(TypeError, match='give "module:name"'), running("tests.testing.served"):
        pass


def test_a_server_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="waitress is not installed; pip install waitress"):
        running(APP, "waitress")


def test_a_server_of_another_process() -> None:
    pytest.importorskip("gunicorn")
    with pytest.raises(
        TypeError, match='runs in a process of its own: name the application, as "module:name"'
    ):
        running(Application(), "gunicorn")
    with (
        pytest.raises(RuntimeError, match=r"(?s)did not start; it printed:.*no_such_module"),
        running("no_such_module:app", "gunicorn"),
    ):
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the server would be refused it too")
@pytest.mark.parametrize("name", ["gunicorn", "uwsgi"])
def test_nobody_is_given_the_port_of_a_server_that_is_being_started(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name not in installed_servers():
        pytest.skip(f"{name} is not installed")
    start = running_server._start

    def start_late(command: list[str], log: IO[bytes]) -> subprocess.Popen[bytes]:
        (address,) = (word for word in command if word.startswith("127.0.0.1:"))
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", int(address.partition(":")[2])))
        return start(command, log)

    monkeypatch.setattr(running_server, "_start", start_late)
    with running(APP, name) as server, server.client() as client:
        assert client.open("/three").read_all()


def test_a_module_that_starts_a_server_of_itself_does_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("gunicorn")
    code = "from streamkit.testing import running\nwith running('serves_itself:app', 'gunicorn'):\n    pass\n"
    (tmp_path / "serves_itself.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    with (
        pytest.raises(RuntimeError, match="call it inside a function"),
        running("serves_itself:app", "gunicorn"),
    ):
        pass


# -- the client ---------------------------------------------------------------------------------------------------


def test_a_client_that_leaves_is_noticed(app: Application, server: RunningServer) -> None:
    with server.client() as client:
        client.open("/events").take(1)
        client.leave()
        client.leave()
        assert client.status == 200
    eventually(lambda: app.ended == ["events"])


@pytest.mark.parametrize("go", [Client.leave, Client.reset])
def test_who_has_left_reads_nothing_and_calls_it_no_end(
    server: RunningServer, go: Callable[[Client], None]
) -> None:
    client = server.client().open("/events")
    client.take(1)
    go(client)
    with pytest.raises(RuntimeError, match="this client has left"):
        client.read()
    assert not client.complete
    assert len(client.resume().take(1)) == 1
    client.leave()


def test_a_client_that_breaks_off_is_noticed(app: Application, server: RunningServer) -> None:
    client = server.client().open("/events")
    assert len(client.take(3)) == 3
    client.reset()
    client.reset()
    eventually(lambda: app.ended == ["events"])


def test_a_reset_is_a_reset() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = Client(f"http://127.0.0.1:{listener.getsockname()[1]}")
        answered = threading.Thread(target=client.open, args=["/"])
        answered.start()
        peer, _ = listener.accept()
        with peer:
            peer.recv(1000)
            peer.sendall(b"HTTP/1.1 200 OK\r\n\r\nx")
            answered.join(10)
            client.reset()
            with pytest.raises(ConnectionResetError):
                peer.recv(1)


def test_a_client_that_stalls_holds_the_producer_up() -> None:
    made: list[int] = []

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        for number in range(100_000):
            made.append(number)
            yield b"x" * 65536

    with running(app) as server, server.client() as client:
        client.open("/").stall()
        counts = [-1]

        def at_rest() -> bool:
            counts.append(len(made))
            threading.Event().wait(0.1)
            return counts[-1] > 0 and counts[-1] == len(made)

        eventually(at_rest)
        before = len(made)
        assert before < 10_000
        while len(made) < before + 10:  # reading again ends it
            assert client.read()


def test_coming_back_with_the_last_id(server: RunningServer) -> None:
    with server.client() as client:
        assert client.last_event_id == ""
        client.open("/events", last_event_id="10")
        assert client.last_event_id == "10"
        assert [event.id for event in client.resume().take(2)] == ["11", "12"]
        assert [event.id for event in client.resume().take(1)] == ["13"]


def test_an_id_stays_in_force_until_another_comes() -> None:  # WHATWG HTML 9.2.6, dispatch the event
    stream = b"data: a\n\ndata: b\nid: 8\n\ndata: c\n\ndata: d\nid\n\ndata: e\n\n"
    with OneAnswer(b"HTTP/1.1 200 OK\r\n\r\n" + stream) as client:
        client.open("/", last_event_id="7")
        for seen in ("7", "8", "8", "", ""):
            assert [event.id for event in client.take(1)] == [client.last_event_id] == [seen]
        assert client.take(1) == []
        assert client.last_event_id == ""


def test_coming_back_after_an_event_without_an_id() -> None:
    asked = []

    def app(environ: Any, start_response: Any) -> Any:
        asked.append(environ.get("HTTP_LAST_EVENT_ID"))
        start_response("200 OK", [("Content-Type", "text/event-stream")])
        return [b"data: status\n\n" if asked[-1] else b"data: x\nid: 7\n\ndata: status\n\n"]

    with running(app) as server, server.client() as client:
        assert len(client.open("/").take(2)) == 2
        assert len(client.resume().take(1)) == 1
        assert len(client.resume().take(1)) == 1
    assert asked == [None, "7", "7"]


def test_a_header_is_sent_once_in_whatever_case_it_is_given() -> None:
    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Content-Type", "text/event-stream")])
        seen = [environ[f"HTTP_{name}"] for name in ("HOST", "ACCEPT", "LAST_EVENT_ID")]
        return [f"data: {seen}\n\nid: 8\ndata: {seen}\n\n".encode()]

    given = {"host": "here", "accept": "text/event-stream", "last-event-id": "7"}
    with running(app) as server, server.client() as client:
        client.open("/", headers=given)
        assert client.last_event_id == "7"
        for taken, sent in ((1, "7"), (2, "7"), (1, "8")):
            data = f"['here', 'text/event-stream', '{sent}']"
            assert [event.data for event in client.take(taken)] == [data] * taken
            client.resume()


def test_headers_method_and_body_are_sent(server: RunningServer) -> None:
    with server.client() as client:
        client.open("/echo?a=b", method="POST", headers={"X-Name": "Ada"}, body=b"hello")
        assert [event.data for event in client.take(5)] == ["POST /echo?a=b Ada hello"]
        assert client.take(1) == []
        assert client.complete


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"Content-Length: 10\r\n\r\nabc", http.client.IncompleteRead),
        (b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", http.client.IncompleteRead),
        (b"Transfer-Encoding: chunked\r\n\r\n9\r\nabc", http.client.IncompleteRead),
    ],
)
def test_a_body_that_is_cut_off_is_no_end(answer: bytes, error: type[Exception]) -> None:
    with OneAnswer(b"HTTP/1.1 200 OK\r\n" + answer) as client:
        client.open("/")
        with pytest.raises(error):
            client.read_all()
        assert not client.complete


def test_a_body_of_known_length_and_one_ended_by_closing() -> None:
    for head in (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", b"HTTP/1.0 200 OK\r\n\r\n"):
        with OneAnswer(head + b"abc") as client:
            assert client.open("/").read_all() == b"abc"
            assert client.complete
            assert client.read() == b""


def test_a_client_used_in_the_wrong_order() -> None:
    client = Client("http://127.0.0.1:1")
    for use in (client.read, client.resume, client.stall, lambda: client.status, lambda: client.take(1)):
        with pytest.raises(RuntimeError, match=r"call open\(path\) first"):
            use()
    for url in ("https://127.0.0.1", "127.0.0.1:80", ""):
        with pytest.raises(ValueError, match="give http://host:port"):
            Client(url)
    with pytest.raises(TypeError, match="such as the url of a RunningServer"):
        Client(RunningServer("streamkit", 80))  # type: ignore[arg-type]


def test_a_client_skips_interim_answers() -> None:
    """RFC 9110 section 15.2."""
    with OneAnswer(
        b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"
    ) as client:
        assert client.open("/").read_all() == b"x"
        assert (client.status, client.headers["Link"]) == (200, None)


class OneAnswer:
    """A client of a server that gives one answer and closes."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer

    def __enter__(self) -> Client:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        self._client = Client(f"http://127.0.0.1:{self._listener.getsockname()[1]}")
        return self._client

    def _serve(self) -> None:
        peer, _ = self._listener.accept()
        with peer:
            peer.recv(1000)
            peer.sendall(self._answer)

    def __exit__(self, *_: object) -> None:
        self._client.leave()
        self._thread.join(10)
        self._listener.close()
