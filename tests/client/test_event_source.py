"""EventSource against a server that does exactly what each test says, byte for byte."""

from __future__ import annotations

import os
import socket
import threading
import types
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import pytest

from streamkit import EventSource
from streamkit.client import event_source
from streamkit.client.stoppable_connection import StopSignal
from streamkit.errors import DecodeError, EventSourceError, ProxyFailed
from tests.client.raw_server import GONE, OK, QUICK, Server, chunked, moved
from tests.interrupts import call_within


def events_of(url: str, **options: object) -> list[tuple[str | None, str | None]]:
    with EventSource(url, timeout=10, **options) as source:  # type: ignore[arg-type]
        return [(event.id, event.data) for event in source]


# Requests.


def test_the_request(server: Server) -> None:
    url = server.start(GONE)
    assert events_of(url + "/ü?q=a b&t=é#part") == []
    line, headers, _ = server.requests[0]
    assert line == "GET /events/%C3%BC?q=a%20b&t=%C3%A9 HTTP/1.1"
    assert headers["accept"] == "text/event-stream"
    assert headers["cache-control"] == "no-cache"
    assert headers["host"] == f"127.0.0.1:{server.port}"
    assert "last-event-id" not in headers


def test_the_headers_of_the_caller_are_sent_and_left_alone(server: Server) -> None:
    headers = {"ACCEPT": "text/event-stream, application/json", "X-One": "1"}
    before = dict(headers)
    events_of(server.start(GONE), headers=headers, last_event_id="…")
    assert headers == before
    sent = server.requests[0][1]
    assert (sent["accept"], sent["x-one"]) == (before["ACCEPT"], "1")
    assert sent["last-event-id"] == "…"  # as UTF-8


def test_a_last_event_id_among_the_headers_is_where_it_starts(server: Server) -> None:
    url = server.start(OK + b"id: 8\n" + QUICK + b"data: x\n\n", GONE)
    assert events_of(url, headers={"last-event-ID": "7"}) == [("8", "x")]
    assert [request[1]["last-event-id"] for request in server.requests] == ["7", "8"]


def test_a_body_is_sent_with_each_request(server: Server) -> None:
    url = server.start(OK + QUICK + b"data: x\n\n", GONE)
    assert events_of(url, method="POST", body="é", headers={"Content-Type": "text/plain"}) == [("", "x")]
    for line, headers, body in server.requests:
        assert line.startswith("POST ")
        assert (headers["content-type"], body) == ("text/plain", "é".encode())


# What arrives.


def test_events_come_as_they_arrive(server: Server) -> None:
    received = threading.Semaphore(0)

    def answer(connection: socket.socket) -> None:
        connection.sendall(OK)
        for number in range(3):
            connection.sendall(b"id: %d\ndata: x\n\n" % number)
            assert received.acquire(timeout=10)

    seen = []
    with EventSource(server.start(answer), max_retries=0, timeout=10) as source:
        for event in source:
            seen.append((event.id, source.last_event_id))
            received.release()
    assert seen == [("0", "0"), ("1", "1"), ("2", "2")]


@pytest.mark.parametrize(
    "answer",
    [
        OK + b"data: x\n\n",
        b"HTTP/1.0 200 OK\r\ncontent-type: TEXT/Event-Stream;charset=latin-1\r\n\r\ndata: x\n\n",
        OK.replace(b"\r\n\r\n", b";\r\nTransfer-Encoding: chunked\r\n\r\n")
        + chunked(b"da", b"ta: x\n", b"\n", b""),
        OK.replace(b"\r\n\r\n", b"\r\nContent-Length: 9\r\n\r\n") + b"data: x\n\n",
        OK + b"data: x\n\ndata: the unfinished block\n",
    ],
    ids=["close", "http 1.0", "chunked", "length", "unfinished"],
)
def test_framings(server: Server, answer: bytes) -> None:
    assert events_of(server.start(answer), max_retries=0) == [("", "x")]


def test_a_body_of_known_length_ends_there_although_the_connection_lives(server: Server) -> None:
    head = OK.replace(b"\r\n\r\n", b"\r\nContent-Length: 9\r\n\r\n")
    assert events_of(server.start(server.hold(head + b"data: x\n\n")), max_retries=0) == [("", "x")]


# Reconnection.


def test_it_resumes_after_the_end(server: Server) -> None:
    url = server.start(
        OK + QUICK + b"id: 1\ndata: a\n\nid: 2\ndata: b\n\nid: lost\ndata: c",
        OK + b"data: d\n\nid: 3\n\n",
        OK + b"id\ndata: e\n\n",
        GONE,
    )
    assert events_of(url) == [("1", "a"), ("2", "b"), ("2", "d"), ("", "e")]
    assert [request[1].get("last-event-id") for request in server.requests] == [None, "2", "3", None]


def test_it_resumes_after_a_broken_stream(server: Server) -> None:
    head = OK.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n")

    def reset(connection: socket.socket) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    url = server.start(
        head + chunked(QUICK + b"data: a\n\n"), reset, b"nonsense\r\n\r\n", b"", OK + b"data: b\n\n", GONE
    )
    assert events_of(url) == [("", "a"), ("", "b")]


def test_silence_longer_than_the_timeout_is_a_lost_connection(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy machine an answer may be late too: then the client comes again, and is answered the same."""
    monkeypatch.setattr(event_source, "FIRST_RETRY", 1)
    hold = server.hold(OK + QUICK + b"id: 1\ndata: a\n\n")

    def answer(connection: socket.socket) -> None:
        with suppress(ConnectionError):
            if "last-event-id" in server.requests[-1][1]:
                connection.sendall(GONE)
            else:
                hold(connection)

    with EventSource(server.start(*[answer] * 50), timeout=0.3) as source:
        assert [event.data for event in source] == ["a"]
    assert server.requests[-1][1]["last-event-id"] == "1"


def test_what_is_decoded_but_not_handed_out_is_not_skipped(server: Server) -> None:
    with EventSource(
        server.start(OK + b"id: 1\ndata: a\n\nid: 2\ndata: b\n\nid: 3\n\n"), last_event_id="0"
    ) as source:
        cursors = [source.last_event_id]
        for _ in range(2):
            next(source)
            cursors.append(source.last_event_id)
    assert cursors == ["0", "1", "3"]


def delays(monkeypatch: pytest.MonkeyPatch, retries: int, url: str) -> tuple[list[float], EventSource]:
    """Return the waits of an EventSource that is not made to wait."""
    waits: list[float] = []
    source = EventSource(url, max_retries=retries, timeout=10)
    monkeypatch.setattr(source._stop, "wait", lambda seconds: waits.append(seconds))
    return waits, source


def test_the_wait_doubles_up_to_its_bound(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]  # nobody listens there once this is closed
    waits, source = delays(monkeypatch, 7, f"http://127.0.0.1:{port}/?token=secret")
    with source, pytest.raises(EventSourceError, match="retries are used up") as caught:
        next(source)
    assert caught.value.status is None
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)
    for wait, base in zip(waits, [3, 6, 12, 24, 30, 30, 30], strict=True):
        assert base <= wait <= base * 1.25
    assert "secret" not in caplog.text + str(caught.value)
    with pytest.raises(StopIteration):
        next(source)


def test_the_retry_of_the_server_is_where_the_wait_begins(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = OK + b":\n"
    url = server.start(
        OK + b"retry: 200\ndata: x\n\n", empty, OK + b"data: y\n\nretry: 40000\n", empty, empty, b""
    )
    waits, source = delays(monkeypatch, 2, url)
    with source, pytest.raises(StopIteration):
        assert [next(source).data for _ in range(3)] == ["x", "y"]
    assert source.retry == 40000
    for wait, base in zip(waits, [0.2, 0.4, 40, 40], strict=True):
        assert base <= wait <= base * 1.25


def test_a_retry_of_years_is_not_obeyed(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    waits, source = delays(monkeypatch, 1, server.start(OK + b"retry: 999999999999999\n", OK))
    with source:
        assert list(source) == []
    assert waits[0] <= event_source.LONGEST_RETRY * 1.25


def test_retries_that_are_used_up_end_quietly_after_a_clean_end_only(server: Server) -> None:
    cut = OK.replace(b"\r\n\r\n", b"\r\nContent-Length: 99\r\n\r\n")
    url = server.start(OK + b"data: x\n\n", cut + b"data: x\n\n")
    assert events_of(url, max_retries=0) == [("", "x")]
    with EventSource(url, max_retries=0) as source:
        assert next(source).data == "x"
        with pytest.raises(EventSourceError, match="IncompleteRead"):
            next(source)


# Final answers.


@pytest.mark.parametrize("status", [201, 205, 299, 304, 400, 401, 404, 410, 429, 500, 503])
def test_any_other_status_is_final(server: Server, status: int) -> None:
    url = server.start(b"HTTP/1.1 %d Because\r\nContent-Type: text/event-stream\r\n\r\ndata: x\n\n" % status)
    with EventSource(url + "?token=secret") as source:
        with pytest.raises(EventSourceError, match=f"answered {status} Because") as caught:
            next(source)
        assert caught.value.status == status
        assert "secret" not in str(caught.value)
        assert list(source) == []


@pytest.mark.parametrize(
    "header",
    [b"X: y", b"Content-Type: text/html", b"Content-Type: text/event-streams", b"Content-Type: x; text/event-stream",
     b"Content-Type: text/event-stream\r\nContent-Encoding: br"],
)  # fmt: skip
def test_what_is_no_event_stream(server: Server, header: bytes) -> None:
    with EventSource(server.start(b"HTTP/1.1 200 OK\r\n" + header + b"\r\n\r\ndata: x\n\n")) as source:
        with pytest.raises(EventSourceError, match=r"not an event stream|Content-Encoding 'br'") as caught:
            next(source)
        assert caught.value.status == 200


def test_an_event_that_is_too_large_is_final(server: Server) -> None:
    url = server.start(OK + b"data: a\n\ndata: " + b"x" * 50 + b"\n\n")
    with EventSource(url, timeout=10, max_event_bytes=20) as source:
        assert next(source).data == "a"
        with pytest.raises(DecodeError):
            next(source)
        assert list(source) == []


# Redirects.


@pytest.mark.parametrize(
    ("status", "method"), [(301, "GET"), (302, "GET"), (303, "GET"), (307, "POST"), (308, "POST")]
)
def test_redirects_are_followed(server: Server, status: int, method: str) -> None:
    url = server.start(moved(status, "../new?a=ü"), OK + b"data: x\n\n")
    headers = {"Authorization": "secret", "Content-Type": "text/plain"}
    assert events_of(url, method="POST", body=b"b", headers=headers, max_retries=0) == [("", "x")]
    line, sent, body = server.requests[1]
    assert line == f"{method} /new?a=%C3%BC HTTP/1.1"
    assert sent["authorization"] == "secret"
    assert (body, sent.get("content-type")) == ((b"b", "text/plain") if method == "POST" else (b"", None))


def test_secrets_and_a_host_header_stay_with_their_origin(server: Server) -> None:
    other = Server()
    try:
        url = server.start(moved(307, other.start(GONE)))
        headers = {"authorization": "a", "Cookie": "c", "X-Other": "o", "Host": "first.example"}
        assert events_of(url, headers=headers) == []
        sent = other.requests[0][1]
        assert "authorization" not in sent
        assert "cookie" not in sent
        assert sent["x-other"] == "o"
        assert server.requests[0][1]["host"] == "first.example"
        assert sent["host"] == f"127.0.0.1:{other.port}"
    finally:
        other.stop()


def test_a_reconnection_asks_the_first_url_again(server: Server) -> None:
    url = server.start(moved(302, "/new"), OK + QUICK + b"id: 5\ndata: x\n\n", moved(302, "/newer"), GONE)
    assert events_of(url) == [("5", "x")]
    assert [line.split()[1] for line, _, _ in server.requests] == ["/events", "/new", "/events", "/newer"]
    assert [sent.get("last-event-id") for _, sent, _ in server.requests] == [None, None, "5", "5"]


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 302 Found\r\n\r\n", moved(302, ""), moved(301, "ftp://127.0.0.1/x"), moved(307, "http://[broken/"),
     moved(308, "http://u:p@127.0.0.1/"), moved(308, "http://127.0.0.1:99999/")],
)  # fmt: skip
def test_redirects_to_nowhere_are_errors(server: Server, answer: bytes) -> None:
    with EventSource(server.start(answer)) as source:
        with pytest.raises(EventSourceError, match="cannot be followed") as caught:
            next(source)
        assert caught.value.status in {301, 302, 307, 308}


def test_a_circle_of_redirects_ends(server: Server) -> None:
    url = server.start(*[moved(307, "/events")] * 21)
    with (
        EventSource(url, timeout=10) as source,
        pytest.raises(EventSourceError, match="more than 20") as caught,
    ):
        next(source)
    assert caught.value.status == 307


# Closing.


def in_thread(source: EventSource) -> tuple[threading.Thread, list[object]]:
    seen: list[object] = []

    def read() -> None:
        try:
            seen.extend(event.data for event in source)
            seen.append("end")
        except BaseException as error:
            seen.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    return thread, seen


def close_ends(source: EventSource, thread: threading.Thread) -> None:
    source.close()
    thread.join(10)
    assert not thread.is_alive()
    source.close()
    assert list(source) == []
    assert not source._exchange.is_open
    assert source._stop._socket is None


def test_close_interrupts_a_read(server: Server) -> None:
    ready = threading.Event()
    source = EventSource(server.start(server.hold(OK + b":\n", ready)), timeout=None)
    thread, seen = in_thread(source)
    assert ready.wait(10)
    close_ends(source, thread)
    assert seen == ["end"]


def test_close_interrupts_the_wait_for_an_answer(server: Server) -> None:
    ready = threading.Event()
    source = EventSource(server.start(server.hold(b"HTTP/1.1 200", ready)), timeout=None)
    thread, seen = in_thread(source)
    assert ready.wait(10)
    close_ends(source, thread)
    assert seen == ["end"]


def test_close_interrupts_the_wait_to_reconnect(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = threading.Event()
    source = EventSource(server.start(OK + b"retry: 600000\ndata: x\n\n"), timeout=10)
    wait = source._stop.wait

    def told(seconds: float) -> bool:
        waiting.set()
        return wait(seconds)

    monkeypatch.setattr(source._stop, "wait", told)
    thread, seen = in_thread(source)
    assert waiting.wait(10)
    close_ends(source, thread)
    assert seen == ["x", "end"]


def test_a_signal_handler_closes_at_any_moment_of_the_wait_to_reconnect() -> None:
    signal: StopSignal

    def make() -> None:
        nonlocal signal
        signal = StopSignal()

    call_within(lambda: signal.wait(0.01), lambda: signal.set(), make)
    signal.set()
    assert signal.wait(20)
    assert signal.wait(20)  # for all who wait


def test_close_interrupts_a_connect() -> None:
    """A listener whose queue is full lets a connection wait in SYN-SENT, as a firewall does."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        full = [socket.socket() for _ in range(4)]
        try:
            for one in full:
                one.setblocking(False)
                one.connect_ex(listener.getsockname())
            source = EventSource(f"http://127.0.0.1:{listener.getsockname()[1]}/", timeout=None)
            connecting = threading.Event()
            watch = source._stop.watch

            def told(opened: socket.socket) -> None:
                watch(opened)
                connecting.set()

            source._stop.watch = told  # type: ignore[method-assign]
            thread, seen = in_thread(source)
            assert connecting.wait(10)
            close_ends(source, thread)
            assert seen == ["end"]
        finally:
            for one in full:
                one.close()


def test_close_between_two_events_releases_the_connection(server: Server) -> None:
    source = EventSource(server.start(server.hold(OK + b"data: a\n\ndata: b\n\n")), timeout=10)
    assert next(source).data == "a"
    source.close()
    assert not source._exchange.is_open
    assert list(source) == []


def test_close_inside_the_loop_and_before_the_first_event(server: Server) -> None:
    source = EventSource(server.start(OK + b"data: a\n\ndata: b\n\n"), timeout=10)
    for _ in source:
        source.close()
    never = EventSource(server.url)
    never.close()
    assert list(never) == []


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_that_closes_leaves_the_connection_to_its_parent(server: Server) -> None:
    left = threading.Event()

    def answer(connection: socket.socket) -> None:
        connection.sendall(OK + b"data: 1\n\n")
        assert left.wait(20)
        connection.sendall(b"data: 2\n\n")

    with EventSource(server.start(answer), max_retries=0, timeout=10) as source:
        assert next(source).data == "1"
        child = os.fork()
        if child == 0:
            try:
                source.close()
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        left.set()
        assert [event.data for event in source] == ["2"]


def test_leaving_the_with_block_by_an_error_closes(server: Server) -> None:
    with (
        pytest.raises(KeyError),
        EventSource(server.start(server.hold(OK + b"data: a\n\n")), timeout=10) as source,
    ):
        raise KeyError(next(source).data)
    assert not source._exchange.is_open


def test_what_it_shows_of_itself(server: Server) -> None:
    where = f"<EventSource http://127.0.0.1:{server.port}/events"
    url = server.start(server.hold(OK + "id: ü1\ndata: x\n\n".encode())).replace("//", "//user:secret@")
    source = EventSource(url + "?token=secret#secret", headers={"X-Key": "secret"}, body="secret", timeout=10)
    assert repr(source) == f"{where} not connected, last_event_id=''>"
    next(source)
    assert repr(source) == f"{where} open, last_event_id='\\xfc1'>"
    source.close()
    assert repr(source) == f"{where} closed, last_event_id='\\xfc1'>"
    long = EventSource("http://x/\n%0A", last_event_id="i" * 100_000)
    assert len(repr(long)) < 200
    assert "\n" not in repr(long)


# Parameters.


@pytest.mark.parametrize(
    "url",
    ["", "/events", "ftp://x/", "http://", "http:///x", "http://x:99999/",
     "http://x:y/", "http://a b/", "http://a\x01/", "http://" + "a" * 70 + "/"],
)  # fmt: skip
def test_urls_that_are_refused(url: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - several of urllib's own
        EventSource(url)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timeout": 0}, "None to wait for ever"),
        ({"timeout": -1}, "None to wait for ever"),
        ({"timeout": float("nan")}, "None to wait for ever"),
        ({"max_retries": -1}, "None for no limit"),
        ({"last_event_id": "a\nb"}, "line break"),
        ({"last_event_id": "a\0"}, "NUL"),
        ({"headers": {"Last-Event-ID": "a\rb"}}, "line break"),
    ],
)
def test_parameters_that_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EventSource("http://127.0.0.1/", **options)  # type: ignore[arg-type]


def test_a_body_that_cannot_be_sent_again_is_refused() -> None:
    with pytest.raises(TypeError, match="body must be bytes or str"):
        EventSource("http://127.0.0.1/", method="POST", body=iter([b"x"]))  # type: ignore[arg-type]


class MultipleItems(Mapping[str, str]):
    """As the header collections of some frameworks are: a mapping whose items name one header twice."""

    def __getitem__(self, name: str) -> str:
        return "1"

    def __iter__(self) -> Iterator[str]:
        return iter(["X", "X"])

    def __len__(self) -> int:
        return 2


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"url": None}, TypeError, "url must be str.* not NoneType"),
        ({"url": b"http://x"}, TypeError, "url must be str.* not bytes"),
        ({"url": "http://x:y/"}, ValueError, "'http://x:y/' is not a URL .* its port must be a number"),
        ({"url": "http://x:0/"}, ValueError, "'http://x:0/' is not a URL .* a number from 1 to 65535"),
        ({"url": "http://u:secret@a[b/"}, ValueError, "'http://a\\[b/' is not a URL .* give http://host/path"),
        ({"url": "http://u:secret@x/\ud800"}, ValueError, r"'http://x/\\ud800' is not a URL .* a lone surrogate"),
        ({"method": "PO ST"}, ValueError, "method must be one word, such as 'GET'.* not 'PO ST'"),
        ({"method": ""}, ValueError, "method must be one word"),
        ({"method": None}, TypeError, "method must be str.* not NoneType"),
        ({"headers": [("A", "1"), ("A", "2")]}, TypeError, "headers must be a mapping .* not list"),
        ({"headers": {"Cookie": "a", "cookie": "b"}}, ValueError, "'Cookie' and 'cookie'.*joined by a comma"),
        ({"headers": MultipleItems()}, ValueError, "'X' and 'X'"),
        ({"headers": {"last-event-id": "a", "Last-Event-ID": "b"}}, ValueError, "which are one header"),
        ({"headers": {"A": 1}}, TypeError, "headers has 'A' with a value of type int"),
        ({"headers": {b"A": "1"}}, TypeError, "headers has b'A'"),
        ({"headers": {"A:": "1"}}, ValueError, "headers has the name 'A:', which is no token"),
        ({"headers": {"A": "secret\n"}}, ValueError, r"headers has 'A' with '\\n' at index 6"),
        ({"headers": {"A": "a\r\nInjected: b"}}, ValueError, "headers has 'A' with"),
        ({"headers": {"A": "€"}}, ValueError, r"headers has 'A' with '\\u20ac' at index 0"),
        ({"body": 5}, TypeError, "body must be bytes or str.* not int"),
        ({"body": "\ud800"}, ValueError, "body must be text that UTF-8 can hold"),
        ({"last_event_id": b"5"}, TypeError, "last_event_id .* must be str.* not bytes"),
        ({"last_event_id": "a\nb"}, ValueError, "last_event_id .* line break"),
        ({"timeout": "5"}, TypeError, "timeout must be seconds .* not '5'"),
        ({"timeout": True}, TypeError, "timeout must be seconds .* not True"),
        ({"timeout": 3e6}, ValueError, "timeout must be seconds .* at most 2147483.* not 3000000.0"),
        ({"timeout": 10**400}, ValueError, "timeout must be seconds"),
        ({"max_retries": "5"}, TypeError, "max_retries must be a whole number of at least 0.* not '5'"),
        ({"max_retries": 1.5}, TypeError, "max_retries must be a whole number.* not 1.5"),
        ({"max_event_bytes": "1"}, TypeError, "max_event_bytes must be a whole number of at least 1.* not '1'"),
        ({"auth": ["u", "secret"]}, TypeError, "auth must be a tuple .* not list"),
        ({"auth": ("secret", 5)}, TypeError, r"auth must be a tuple .* not a tuple of \(str, int\)"),
        ({"auth": ("u", "secret\ud800")}, ValueError, "password with .* a lone surrogate cannot be sent"),
        ({"proxy": "http://u:secret"}, ProxyFailed, "the proxy has no usable address; give http://host:port"),
        ({"proxy": "http://a..b:80"}, ProxyFailed, "the proxy has no usable address; give http://host:port"),
        ({"ssl_context": "ca.pem"}, TypeError, "ssl_context must be an ssl.SSLContext.* not str"),
        ({"proxy": 3}, TypeError, "proxy must be 'environment', the URL of a proxy, or None.* not int"),
        ({"on_open": 3}, TypeError, "on_open must be a function that takes an Opened.* not 3"),
        ({"on_retry": "x"}, TypeError, "on_retry must be a function that takes a Retry.* not 'x'"),
    ],
)  # fmt: skip
def test_a_wrong_parameter_is_told_by_its_name(
    options: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        EventSource(**{"url": "http://127.0.0.1/", **options})  # type: ignore[arg-type]
    assert type(caught.value) is error
    assert "secret" not in str(caught.value)


def test_what_parameters_may_be(server: Server) -> None:
    headers = types.MappingProxyType({"X": "1,\t2", "Last-Event-ID": "…"})
    events_of(server.start(GONE), headers=headers, method="QUERY", max_retries=1, max_event_bytes=1)
    line, sent, _ = server.requests[0]
    assert line.startswith("QUERY ")
    assert (sent["x"], sent["last-event-id"]) == ("1,\t2", "…")


# TLS.


def test_https(secure_server: Server, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate / "certificate.pem"))
    ready = threading.Event()
    url = secure_server.start(
        OK + QUICK + b"id: 1\ndata: x\n\n", secure_server.hold(OK + b"data: y\n\n", ready)
    )
    source = EventSource(url, timeout=10)
    assert next(source).data == "x"
    thread, seen = in_thread(source)
    assert ready.wait(10)
    close_ends(source, thread)
    assert seen in (["y", "end"], ["end"])


def test_a_certificate_that_is_not_trusted_is_final(secure_server: Server) -> None:
    with EventSource(secure_server.start(b""), timeout=10) as source:
        with pytest.raises(EventSourceError, match="not trusted"):
            next(source)
        assert list(source) == []
