"""The status app: what it shows, to whom, and that nothing in it can do harm."""

from __future__ import annotations

import html.parser
import json
import os
import queue
import threading
from contextvars import copy_context
from typing import Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest

from streamkit import EventSourceResponse, Hub, Limiter
from streamkit.errors import BrokerUnavailable
from streamkit.flow.stream import Stream
from streamkit.flow.streams import streams
from streamkit.servers.routes import routes_app
from streamkit.servers.status import StatusApp, from_this_machine
from tests.conftest import eventually
from tests.servers.raw_client import connected, get, read_answer, read_until, running

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


def ask(app: Any, path: str = "/", method: str = "GET", **environ: Any) -> tuple[str, dict[str, str], bytes]:
    """Status line, fields and body of one answer, with both sides held to PEP 3333."""
    environ = {
        "REMOTE_ADDR": "127.0.0.1",
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "REQUEST_METHOD": method,
        **environ,
    }
    setup_testing_defaults(environ)
    answer: list[Any] = []

    def start_response(status: str, fields: list[tuple[str, str]], exc_info: Any = None) -> Any:
        answer.extend((status, {name.lower(): value for name, value in fields}))
        return lambda data: None

    environ["QUERY_STRING"] = environ.get("QUERY_STRING", "")
    body = validator(app)(environ, start_response)
    try:
        data = b"".join(body)
    finally:
        body.close()
    assert answer[1]["content-length"] == str(len(data)) or method == "HEAD"
    return answer[0], answer[1], data


def figures(app: Any, path: str = "/", **environ: Any) -> Any:
    status, fields, data = ask(app, path, **environ)
    assert status == "200 OK"
    assert fields["content-type"] == "application/json"
    return json.loads(data)


class Cells(html.parser.HTMLParser):
    """The tags and the text of a page."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.texts: list[str] = []
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())


@pytest.fixture
def opened() -> Any:
    """Makes streams that live until the end of the test."""
    made: list[Stream] = []

    def make(path: str = "/feed", query: str = "", kind: str = "events") -> Stream:
        environ = {"PATH_INFO": path, "QUERY_STRING": query, "REMOTE_ADDR": "192.0.2.1"}
        made.append(Stream(kind, environ, copy_context()))
        streams._add(made[-1])
        return made[-1]

    yield make
    for stream in made:
        stream.end("completed")
        stream.leave()


def test_the_figures_of_this_process(opened: Any) -> None:
    stream = opened()
    stream.sent(5)
    shown = figures(StatusApp())
    assert shown["pid"] == os.getpid()
    assert shown["live"] == len(streams)
    (record,) = (record for record in shown["streams"] if record["id"] == stream.id)
    assert (record["path"], record["bytes"], record["peer"]) == ("/feed", 5, "192.0.2.1")
    assert shown["stream_threads"]["maximum"] == 1000
    assert shown["event_loop"]["connections"] >= 0
    assert 0 < shown["descriptors"]["for_streams"] <= shown["descriptors"]["limit"]
    assert shown["descriptors"]["taken"] > 2
    assert shown["uptime"] > 0
    assert shown["draining"] is False
    assert "one process" in shown["about"]


def test_what_has_ended_is_in_the_totals(opened: Any) -> None:
    def failed() -> int:
        return sum(
            total["streams"]
            for total in figures(StatusApp())["totals"]
            if (total["kind"], total["outcome"]) == ("of_this_test", "failed")
        )

    before = failed()
    stream = opened(kind="of_this_test")
    stream.end("failed")
    streams._remove(stream)
    assert failed() == before + 1


def test_a_stream_that_ends_meanwhile_is_not_counted_twice(
    opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = opened(kind="ends_meanwhile")
    as_dict = Stream.as_dict

    def end_and_tell(one: Stream) -> dict[str, object]:
        told = as_dict(one)
        if one is stream:
            stream.end("completed")
            streams._remove(stream)
        return told

    monkeypatch.setattr(Stream, "as_dict", end_and_tell)
    shown = figures(StatusApp())
    assert stream.id in [record["id"] for record in shown["streams"]]
    assert "ends_meanwhile" not in [total["kind"] for total in shown["totals"]]
    assert "ends_meanwhile" in [total["kind"] for total in figures(StatusApp())["totals"]]


def test_limiters_and_presence_are_shown_by_name() -> None:
    limiter = Limiter(3, per_key=2)
    slot = limiter.acquire("user")
    with Hub() as hub:
        app = StatusApp(limiters={"viewers": limiter}, hub=hub, topics=["news", "jobs/*"])
        shown = figures(app)
    slot.release()
    assert shown["limiters"] == {"viewers": {"taken": 1, "max_streams": 3, "per_key": 2}}
    assert shown["presence"].keys() == {"news", "jobs/*"}
    assert shown["presence"]["news"]["here"] == 0


def test_a_broker_that_is_away_does_not_take_the_status_with_it() -> None:
    class Away:
        def presence(self, topic: str) -> tuple[int, int | None]:
            raise BrokerUnavailable("redis is away")

    assert figures(StatusApp(hub=Away(), topics=["a"]))["presence"] == {
        "a": {"here": None, "everywhere": None}
    }


def test_the_list_is_bounded_and_says_so(opened: Any) -> None:
    first = opened()
    for _ in range(4):
        opened()
    shown = figures(StatusApp(listed=2), "/streams")
    assert len(shown["streams"]) == 2
    assert shown["streams"][0]["id"] == first.id  # the oldest are those to wonder about
    assert shown["left_out"] == shown["live"] - 2
    assert "totals" not in shown


@pytest.mark.parametrize("path", ["/streams", "/streams/", "/status/streams"])
def test_the_streams_alone(path: str) -> None:
    assert set(figures(StatusApp(), path)) == {"about", "pid", "live", "left_out", "streams"}


def test_no_query_is_shown(opened: Any) -> None:
    opened("/feed", "token=secret")
    for accept in ("*/*", BROWSER):
        assert b"secret" not in ask(StatusApp(), HTTP_ACCEPT=accept, QUERY_STRING="key=secret")[2]


def test_everything_in_the_page_is_escaped(opened: Any) -> None:
    opened('/<script>alert(1)</script>"&\x00\r\n\x9b\u202e')
    limiters = {"<img src=x>": Limiter(1)}
    status, fields, page = ask(StatusApp(limiters=limiters), HTTP_ACCEPT=BROWSER)
    assert status == "200 OK"
    assert fields["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in fields["content-security-policy"]
    cells = Cells(page)
    assert not cells.tags & {"script", "img"}
    assert '/<script>alert(1)</script>"&\\x00\\r\\n\\x9b\\u202e' in cells.texts
    assert "<img src=x>" in cells.texts
    assert "one process" in " ".join(cells.texts)


def test_a_page_without_streams() -> None:
    assert "none" in Cells(ask(StatusApp(), "/streams", HTTP_ACCEPT=BROWSER)[2]).texts


@pytest.mark.parametrize(
    ("accept", "page"),
    [
        ("", False),
        ("*/*", False),
        ("application/json", False),
        (BROWSER, True),
        ("TEXT/HTML", True),
        ("text/html;q=0", False),
        ("text/html;q=0.5, application/json", False),
        ("text/html, application/json;q=0.5", True),
        ("text/html;q=x;;,,", True),
    ],
)
def test_who_asks_for_html_gets_it(accept: str, page: bool) -> None:  # RFC 9110 section 12.5.1
    _, fields, _ = ask(StatusApp(), HTTP_ACCEPT=accept)
    assert fields["content-type"].startswith("text/html") == page
    assert fields["vary"] == "Accept"
    assert fields["cache-control"] == "no-store"


def test_head_has_the_fields_of_get_and_no_body() -> None:
    status, fields, data = ask(StatusApp(), "/streams", "HEAD")
    assert status == "200 OK"
    assert int(fields["content-length"]) > 20
    assert data == b""


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_other_methods_are_405_with_allow(method: str) -> None:  # RFC 9110 section 15.5.6
    status, fields, _ = ask(StatusApp(), method=method)
    assert status == "405 Method Not Allowed"
    assert fields["allow"] == "GET, HEAD"


@pytest.mark.parametrize(
    ("environ", "let_in"),
    [
        ({"REMOTE_ADDR": "127.0.0.1"}, True),
        ({"REMOTE_ADDR": "127.8.0.1"}, True),
        ({"REMOTE_ADDR": "::1"}, True),
        ({"REMOTE_ADDR": "::ffff:127.0.0.1"}, True),
        ({"REMOTE_ADDR": "127.0.0.1", "HTTP_HOST": "localhost:8000"}, True),
        ({"REMOTE_ADDR": "127.0.0.1", "HTTP_HOST": "[::1]:8000"}, True),
        ({"REMOTE_ADDR": "127.0.0.1", "HTTP_HOST": "rebound.example:8000"}, False),
        ({"REMOTE_ADDR": "127.0.0.1", "HTTP_HOST": "localhost.example"}, False),
        ({"REMOTE_ADDR": "127.0.0.1", "HTTP_HOST": "[::1"}, False),
        ({"REMOTE_ADDR": "127.0.0.1", "HTTP_HOST": ""}, False),
        ({"REMOTE_ADDR": "192.0.2.1"}, False),
        ({"REMOTE_ADDR": "::ffff:192.0.2.1"}, False),
        ({"REMOTE_ADDR": ""}, False),
        ({}, False),
        ({"REMOTE_ADDR": "localhost"}, False),
        ({"REMOTE_ADDR": "127.0.0.1", "HTTP_X_FORWARDED_FOR": "127.0.0.1"}, False),
        ({"REMOTE_ADDR": "127.0.0.1", "HTTP_X_REAL_IP": "192.0.2.1"}, False),
        ({"REMOTE_ADDR": "127.0.0.1", "HTTP_FORWARDED": "for=192.0.2.1"}, False),
        ({"REMOTE_ADDR": "127.0.0.1", "HTTP_VIA": "1.1 proxy"}, False),
        ({"REMOTE_ADDR": "127.0.0.1", "HTTP_X_FORWARDED_FOR": ""}, False),
    ],
)
def test_by_default_only_this_machine_may_see_it(environ: dict[str, str], let_in: bool) -> None:
    assert from_this_machine(environ) == let_in
    status, _, data = ask(StatusApp(), **{"REMOTE_ADDR": "", **environ})
    assert status == ("200 OK" if let_in else "403 Forbidden")
    assert let_in or b"pid" not in data


def test_an_own_rule_who_may_see_it(opened: Any) -> None:
    app = StatusApp(allow=lambda environ: environ.get("HTTP_AUTHORIZATION") == "Bearer key")
    assert ask(app)[0] == "403 Forbidden"
    assert ask(app, method="POST")[0] == "403 Forbidden"
    assert ask(app, REMOTE_ADDR="192.0.2.1", HTTP_AUTHORIZATION="Bearer key")[0] == "200 OK"


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"listed": 0}, ValueError),
        ({"listed": True}, ValueError),
        ({"allow": None}, TypeError),
        ({"topics": ["a"]}, ValueError),
        ({"topics": "news"}, TypeError),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        StatusApp(**options)


def test_a_stream_on_a_real_server_is_seen_until_it_ends() -> None:
    items: queue.Queue[str | None] = queue.Queue()
    items.put("one")
    status = StatusApp()
    app = routes_app(
        {
            "/events": lambda environ: EventSourceResponse(items),
            "/status": lambda environ: status,
            "/status/streams": lambda environ: status,
        }
    )
    with running(app) as server:

        def shown(path: str = "/status/streams") -> Any:
            with connected(server) as asking:
                asking.sendall(get(path).replace(b"Host: here", b"Host: localhost"))
                code, _, body = read_answer(asking)
            assert code == 200
            return json.loads(body)

        with connected(server) as sock:
            sock.sendall(get("/events?token=secret"))
            read_until(sock, b"data: one")
            eventually(lambda: [record["delivery"] for record in shown()["streams"]] == ["detached"])
            (record,) = shown()["streams"]
            assert record["path"] == "/events"
            assert record["peer"] == f"127.0.0.1:{sock.getsockname()[1]}"
            everything = shown("/status")
            assert everything["event_loop"]["connections"] == 1
            assert everything["stream_threads"]["working"] >= 1
        eventually(lambda: shown()["live"] == 0)
        items.put(None)


def test_mounted_in_a_script() -> None:
    status = StatusApp()
    app = routes_app({"/status": lambda environ: status, "/status/*": lambda environ: status})
    assert figures(app, "/status")["totals"] is not None
    assert "totals" not in figures(app, "/status/streams")


def test_mounted_in_flask() -> None:
    flask = pytest.importorskip("flask")
    from werkzeug.middleware.dispatcher import DispatcherMiddleware
    from werkzeug.test import Client

    app = flask.Flask(__name__)
    app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {"/status": StatusApp()})
    client = Client(app)
    local = {"REMOTE_ADDR": "127.0.0.1"}
    assert client.get("/status", environ_overrides=local).json["pid"] == os.getpid()
    assert "totals" not in client.get("/status/streams", environ_overrides=local).json
    assert client.get("/status", environ_overrides={"REMOTE_ADDR": "192.0.2.1"}).status_code == 403
    assert client.get("/", environ_overrides=local).status_code == 404


def test_asking_while_streams_come_and_go() -> None:
    stop = threading.Event()

    def churn() -> None:
        while not stop.is_set():
            stream = Stream("events", {"PATH_INFO": "/"}, copy_context())
            streams._add(stream)
            stream.end("completed")
            stream.leave()

    threads = [threading.Thread(target=churn) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        app = StatusApp()
        for _ in range(50):
            figures(app)
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_worker_counts_its_time_from_the_fork() -> None:
    reader, writer = os.pipe()
    before = figures(StatusApp())["uptime"]
    child = os.fork()
    if not child:
        try:
            os.write(writer, json.dumps(StatusApp().figures()).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:
        shown = json.loads(pipe.read())
    os.waitpid(child, 0)
    assert shown["pid"] == child
    assert shown["totals"] == []
    assert shown["uptime"] < before + 60
