"""What all streamed responses share: headers, limits, errors before and after the first byte, and clean-up."""

from __future__ import annotations

import contextlib
import gc
import io
import logging
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any
from wsgiref.validate import validator

import pytest

from streamkit import (
    FLUSH,
    CSVResponse,
    EventSourceResponse,
    FileResponse,
    Hub,
    JSONArrayResponse,
    JSONSeqResponse,
    Limiter,
    NDJSONResponse,
    ServerSentEvent,
    StreamingResponse,
    streams,
)
from streamkit.errors import QuotaExceeded, StreamExpired, StreamkitError, TooManyStreams
from streamkit.flow.pump import Pump
from streamkit.flow.stream_threads import stream_threads
from streamkit.responses.zip_archive import ZipResponse
from tests.conftest import eventually

pytestmark = pytest.mark.usefixtures("nothing_left")

ITEMS: dict[type[Any], object] = {
    EventSourceResponse: "text",
    StreamingResponse: b"bytes",
    CSVResponse: ["a", "b"],
    NDJSONResponse: {"a": 1},
    JSONSeqResponse: {"a": 1},
    JSONArrayResponse: {"a": 1},
}
ALL = list(ITEMS)
ROWS = [kind for kind in ALL if kind is not EventSourceResponse]


class Answer:
    """One WSGI exchange, in the process: what a server would have been told."""

    def __init__(self, app: Callable[..., Any], method: str = "GET", **environ: str) -> None:
        self.status = ""
        self.headers: dict[str, str] = {}
        self.body = b""
        self.error: BaseException | None = None
        full = {"REQUEST_METHOD": method, "PATH_INFO": "/here", "SERVER_PROTOCOL": "HTTP/1.1", **environ}
        iterable: Iterable[bytes] = app(full, self.start_response)
        self.chunks: list[bytes] = []
        try:
            for chunk in iterable:
                assert type(chunk) is bytes
                self.chunks.append(chunk)
        except BaseException as error:
            self.error = error
        finally:
            if hasattr(iterable, "close"):
                iterable.close()
        self.body = b"".join(self.chunks)

    def start_response(self, status: str, headers: list[tuple[str, str]], exc_info: object = None) -> None:
        self.status = status
        self.headers = dict(headers)


def body_of(response: Any, **environ: str) -> Any:
    """The body that a framework with a response class of its own takes."""
    body, status, _ = response.get_wsgi_response({"REQUEST_METHOD": "GET", **environ})
    assert status.startswith("200 ")
    return body


def counted(items: Iterable[Any], closed: list[str]) -> Iterator[Any]:
    try:
        yield from items
    finally:
        closed.append("producer")


@pytest.mark.parametrize("kind", ALL)
def test_a_valid_wsgi_application(kind: type[Any]) -> None:
    environ = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/",
        "QUERY_STRING": "",
        "SERVER_NAME": "x",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": _Input(),
        "wsgi.errors": _Errors(),
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    for method in ("GET", "HEAD"):
        response = kind(iter([ITEMS[kind]]))
        iterable = validator(response)({**environ, "REQUEST_METHOD": method}, lambda *_: lambda _: None)
        body = b"".join(iterable)
        iterable.close()
        assert bool(body) is (method == "GET")


class _Input:
    def read(self, *_: int) -> bytes:
        return b""

    readline = read

    def readlines(self, *_: int) -> list[bytes]:
        return []

    def __iter__(self) -> Iterator[bytes]:
        return iter(())


class _Errors:
    def flush(self) -> None:
        pass

    def write(self, text: str) -> None:
        pass

    def writelines(self, lines: list[str]) -> None:
        pass


@pytest.mark.parametrize("kind", ALL)
def test_clean_up_in_order_and_once(kind: type[Any]) -> None:
    order: list[str] = []
    response = kind(
        counted([ITEMS[kind]] * 3, order), on_close=lambda stream: order.append(f"on_close {stream.outcome}")
    )
    response.call_on_close(lambda: order.append("call_on_close"))
    answer = Answer(response)
    assert answer.status == "200 OK"
    assert answer.error is None
    response.close()
    eventually(lambda: len(order) >= 3)
    assert order == ["producer", "on_close completed", "call_on_close"]


@pytest.mark.parametrize("kind", ALL)
def test_head_has_the_headers_and_never_runs_the_producer(kind: type[Any]) -> None:
    ran: list[str] = []

    def items() -> Iterator[object]:
        ran.append("ran")
        yield ITEMS[kind]

    closed: list[str] = []
    response = kind(items())
    response.call_on_close(lambda: closed.append("closed"))
    head = Answer(response, "HEAD")
    get = Answer(kind(iter([ITEMS[kind]])))
    assert head.body == b""
    assert ran == []
    assert closed == ["closed"]
    assert head.headers.items() <= get.headers.items() | {("Content-Type", head.headers["Content-Type"])}


@pytest.mark.parametrize("kind", ROWS)
def test_an_error_before_the_first_byte_is_raised_before_start_response(kind: type[Any]) -> None:
    closed: list[str] = []

    def items() -> Iterator[object]:
        raise LookupError("no such table")
        yield

    response = kind(items())
    response.call_on_close(lambda: closed.append("closed"))
    started: list[str] = []
    with pytest.raises(LookupError):
        response({"REQUEST_METHOD": "GET"}, lambda status, headers: started.append(status))
    assert started == []
    eventually(lambda: closed == ["closed"])


@pytest.mark.parametrize("kind", ALL)
def test_what_a_callable_raises_is_raised_before_start_response(kind: type[Any]) -> None:
    def start() -> Iterator[object]:
        raise PermissionError("not yours")

    with pytest.raises(PermissionError):
        kind(start)({"REQUEST_METHOD": "GET"}, lambda *_: pytest.fail("started"))


@pytest.mark.parametrize("kind", ALL)
def test_a_header_of_a_hook_that_cannot_be_sent_ends_the_response(kind: type[Any]) -> None:
    ended: list[str] = []
    response = kind([ITEMS[kind]], on_close=lambda stream: ended.append("ended"))
    response.headers["Content-Length"] = "many"
    with pytest.raises(ValueError, match="many"):
        Answer(response)
    assert ended == ["ended"]


def test_an_error_that_is_like_one_of_werkzeug_is_none() -> None:
    class NotFound(Exception):
        def get_response(self) -> bytes:
            return b"of another library"

    def rows() -> Any:
        raise NotFound

    with pytest.raises(NotFound):
        Answer(CSVResponse(rows))


def test_uwsgi_is_given_an_answer_and_the_log_says_why(caplog: pytest.LogCaptureFixture) -> None:
    """uWSGI itself would close the connection; and a response that never became a stream has no line of its own."""
    response = CSVResponse([["a"]], limiter=Limiter(1), limit_key=lambda environ: environ["user"])
    answer = Answer(response, **{"uwsgi.version": "2.0"})
    assert (answer.status, answer.body) == ("500 Internal Server Error", b"Internal Server Error\n")
    assert "KeyError: 'user'" in caplog.text


@pytest.mark.parametrize("server", ["gunicorn", "werkzeug"])
def test_an_error_that_a_server_takes_for_the_clients_is_answered(
    server: str, caplog: pytest.LogCaptureFixture
) -> None:
    def rows() -> Iterator[list[str]]:
        raise ConnectionRefusedError("the database is down")
        yield

    answer = Answer(CSVResponse(rows()), **{f"{server}.socket": None})
    assert (answer.status, answer.body) == ("500 Internal Server Error", b"Internal Server Error\n")
    assert "the database is down" in caplog.text


def test_a_generator_function_fails_too_late_for_a_real_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calling it runs none of its lines; whether the first one fails before anybody looks is chance."""

    def start() -> Iterator[str]:
        raise PermissionError("not yours")
        yield

    ready = Pump.ready

    def late(pump: Any, until: float, *, opened_only: bool = False) -> bool:
        eventually(lambda: pump.finished)
        return ready(pump, until, opened_only=opened_only)

    answers = [Answer(EventSourceResponse(start))]
    monkeypatch.setattr(Pump, "ready", late)
    answers.append(Answer(EventSourceResponse(start)))
    for answer in answers:
        assert answer.status == "200 OK"
        assert answer.body.startswith(b":\nevent: error\n")
        assert isinstance(answer.error, PermissionError)


def test_wait_first_lets_the_first_event_fail_as_a_real_error() -> None:
    def items() -> Iterator[str]:
        raise LookupError
        yield

    with pytest.raises(LookupError):
        EventSourceResponse(items(), wait_first=30)(
            {"REQUEST_METHOD": "GET"}, lambda *_: pytest.fail("started")
        )


@pytest.mark.parametrize("accept", ["", "text/event-stream"])
def test_a_drain_before_the_first_item_is_a_refusal(accept: str) -> None:
    """Nothing is sent yet: the client is told to come back, as one that comes a moment later."""
    opened, go_on = threading.Event(), threading.Event()

    def chunks() -> Iterator[bytes]:
        opened.set()
        go_on.wait(30)
        yield b"late"

    def stop() -> None:
        opened.wait(30)
        streams.drain()

    thread = threading.Thread(target=stop)
    thread.start()
    answer = Answer(StreamingResponse(chunks()), HTTP_ACCEPT=accept)
    thread.join()
    go_on.set()
    if accept:
        assert answer.status == "200 OK"
        assert answer.body.startswith(b":\nretry: ")
    else:
        assert answer.status.startswith("503 ")
        assert int(answer.headers["Retry-After"]) > 0


def test_wait_first_does_not_wait_longer_than_asked() -> None:
    go_on = threading.Event()

    def items() -> Iterator[str]:
        go_on.wait(30)
        yield "late"

    response = EventSourceResponse(items(), wait_first=0.01)
    body = iter(response({"REQUEST_METHOD": "GET"}, lambda *_: None))
    assert next(body) == b":\n"
    go_on.set()
    assert next(body) == b"data: late\n\n"
    response.close()


@pytest.mark.parametrize("kind", ALL)
def test_a_failure_later_never_ends_cleanly(kind: type[Any], caplog: pytest.LogCaptureFixture) -> None:
    def items() -> Iterator[object]:
        yield ITEMS[kind]
        raise LookupError("secret")

    outcomes: list[str | None] = []
    answer = Answer(kind(items(), on_close=lambda stream: outcomes.append(stream.outcome)))
    assert answer.status == "200 OK"
    assert isinstance(answer.error, LookupError)
    assert b"secret" not in answer.body
    eventually(lambda: outcomes == ["failed"])
    eventually(lambda: "LookupError: secret" in caplog.text)


def test_a_callback_that_fails_does_not_take_the_end_of_a_complete_body(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail() -> None:
        raise RuntimeError("a callback with a bug")

    response = CSVResponse([["a", "b"]])
    response.call_on_close(fail)
    answer = Answer(response)
    assert (answer.body, answer.error) == (b"a,b\r\n", None)
    assert "a callback with a bug" in caplog.text


class Falsy(Exception):
    """As collections of errors are that have a length."""

    def __bool__(self) -> bool:
        return False


def raising(error: type[Exception], after: int) -> Callable[[Any], None]:
    """A writer; a generator would turn StopIteration into a RuntimeError by itself (PEP 479)."""

    def write(out: Any) -> None:
        for _ in range(after):
            out.write(b"x")
            out.flush()
        raise error

    return write


@pytest.mark.parametrize("error", [StopIteration, Falsy])
def test_a_failure_that_looks_like_an_end_is_none(error: type[Exception]) -> None:
    response = StreamingResponse.from_writer(raising(error, 2))
    answer = Answer(response)
    assert answer.body == b"xx"
    assert isinstance(answer.error, (RuntimeError, Falsy))
    assert response.record is not None
    assert response.record.outcome == "failed"


@pytest.mark.parametrize("delivery", ["auto", "threaded"])
@pytest.mark.parametrize("error", [StopIteration, Falsy])
def test_a_failure_that_looks_like_an_end_is_raised_before_the_first_byte(
    error: type[Exception], delivery: Any
) -> None:
    def fail() -> Any:
        raise error

    for make in (
        lambda: StreamingResponse.from_writer(raising(error, 0)),
        lambda: CSVResponse(fail, delivery=delivery),
    ):
        with pytest.raises((RuntimeError, Falsy)):
            Answer(make())


def test_a_broken_array_never_parses() -> None:
    def items() -> Iterator[object]:
        yield {"a": 1}
        raise LookupError

    assert b"]" not in Answer(JSONArrayResponse(items())).body
    assert Answer(JSONArrayResponse([])).body.strip() == b"[]"


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (EventSourceResponse, None),
        (EventSourceResponse, b"no blank line"),
        (EventSourceResponse, float("nan")),
        (EventSourceResponse, "lone \ud800 surrogate"),
        (StreamingResponse, None),
        (StreamingResponse, "text"),
        (StreamingResponse, 7),
        (CSVResponse, None),
        (CSVResponse, "text"),
        (CSVResponse, ["one too few"]),
        (CSVResponse, ["lone \ud800 surrogate", ""]),
        (NDJSONResponse, {"x": float("nan")}),
        (NDJSONResponse, {"x": object()}),
        (JSONArrayResponse, {"x": float("inf")}),
        (JSONSeqResponse, {1, 2}),
    ],
)
def test_an_item_that_cannot_be_sent_fails_the_stream(kind: type[Any], wrong: object) -> None:
    closed: list[str] = []
    answer = Answer(kind(counted([ITEMS[kind], wrong, ITEMS[kind]], closed)))
    assert isinstance(answer.error, (TypeError, ValueError))
    assert str(answer.error)
    eventually(lambda: closed == ["producer"])


def function_of(value: object) -> Callable[[], object]:
    return lambda: value


async def asynchronous() -> None:
    pass


async def asynchronous_items() -> AsyncIterator[str]:
    yield "text"


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize(
    "wrong",
    ["text", b"bytes", None, 7, {"a": 1}, ServerSentEvent("x"), asynchronous, asynchronous_items],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_stream_of_items_is_refused_where_it_is_given(kind: type[Any], wrong: object) -> None:
    with pytest.raises(TypeError, match="cannot be"):
        kind(wrong)


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("wrong", ["text", b"bytes", None, 7, {"a": 1}])
def test_what_a_function_returns_is_refused_before_the_first_byte(kind: type[Any], wrong: object) -> None:
    with pytest.raises(TypeError, match="returned by"):
        kind(function_of(wrong))({"REQUEST_METHOD": "GET"}, lambda *_: pytest.fail("started"))


@pytest.mark.parametrize("kind", ALL)
def test_an_asynchronous_generator_is_refused(kind: type[Any]) -> None:
    with pytest.raises(TypeError, match="plain generator"):
        kind(asynchronous_items())


@pytest.mark.parametrize("kind", ALL)
def test_a_generator_that_has_ended_is_refused(kind: type[Any]) -> None:
    used = (item for item in [ITEMS[kind]])
    list(used)
    with pytest.raises(ValueError, match="has ended already; make a new one"):
        kind(used)


def test_a_hub_is_told_apart_from_its_events() -> None:
    with Hub("memory://") as hub, pytest.raises(TypeError, match=r"hub\.subscribe\(topic\)"):
        EventSourceResponse(hub)


def test_a_wrong_option_is_refused_by_the_class_that_was_called() -> None:
    with pytest.raises(
        TypeError, match=r"^EventSourceResponse has no option 'hartbeat' \(did you mean heartbeat\?\)"
    ):
        EventSourceResponse([], hartbeat=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"^CSVResponse has no option 'heartbeat'; it has header, "):
        CSVResponse([], heartbeat=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"^NDJSONResponse has no option 'content_type'"):
        NDJSONResponse([], content_type="text/plain")  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("kind", "parameters"),
    [
        (EventSourceResponse, {"heartbeat": 0}),
        (EventSourceResponse, {"heartbeat": -1}),
        (EventSourceResponse, {"heartbeat": float("nan")}),
        (EventSourceResponse, {"retry": -1}),
        (EventSourceResponse, {"retry": True}),
        (EventSourceResponse, {"wait_first": 0}),
        (EventSourceResponse, {"complete": "two\nlines"}),
        (EventSourceResponse, {"delivery": "pigeon"}),
        (CSVResponse, {"flush_bytes": 0}),
        (CSVResponse, {"flush_seconds": 0}),
        (CSVResponse, {"filename": "two\nlines.csv"}),
        (CSVResponse, {"max_duration": float("inf")}),
        (NDJSONResponse, {"max_bytes": 0}),
        (StreamingResponse, {"headers": {"X-A": "b\r\nSet-Cookie: c"}}),
        (StreamingResponse, {"headers": {"Transfer-Encoding": "chunked"}}),
        (StreamingResponse, {"headers": {"Connection": "keep-alive"}}),
        (StreamingResponse, {"headers": {"content-length": "-5"}}),
        (StreamingResponse, {"headers": [("Content-Length", "1_0")]}),
        (StreamingResponse, {"mimetype": "text"}),
        (StreamingResponse, {"mimetype": "text/ ;x"}),
        (StreamingResponse, {"mimetype": "text/plain\r\nX-A: b"}),
        (StreamingResponse, {"status": 99}),
        (StreamingResponse, {"status": "teapot"}),
        (StreamingResponse, {"status": "200 OK\r\nX-A: b"}),
        (StreamingResponse, {"status": "200 \u20ac"}),
        (StreamingResponse, {"limit_key": "a"}),
    ],
)
def test_parameters_out_of_range_are_refused(kind: type[Any], parameters: dict[str, Any]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the message is the parameter's own
        kind([], **parameters)


@pytest.mark.parametrize(
    ("kind", "parameters"),
    [
        (EventSourceResponse, {"lifecycle": "yes"}),
        (EventSourceResponse, {"complete": True}),
        (EventSourceResponse, {"on_error": "sorry"}),
        (CSVResponse, {"on_close": 3}),
        (CSVResponse, {"limiter": 5}),
        (CSVResponse, {"limiter": Limiter(1), "limit_key": 5}),
        (CSVResponse, {"compress": "gzip"}),
        (CSVResponse, {"bom": "no"}),
        (CSVResponse, {"guard_formulas": None}),
        (CSVResponse, {"flush_bytes": None}),
        (ZipResponse, {"deflate": 0}),
        (NDJSONResponse, {"max_rate": "1M"}),
        (NDJSONResponse, {"max_rate": True}),
        (NDJSONResponse, {"status": None}),
        (NDJSONResponse, {"headers": ["X-A"]}),
        (NDJSONResponse, {"headers": 5}),
        (NDJSONResponse, {"max_bytes": 1e6}),
        (StreamingResponse, {"mimetype": None}),
    ],
)
def test_parameters_of_another_type_are_refused(kind: type[Any], parameters: dict[str, Any]) -> None:
    name = list(parameters)[-1]
    with pytest.raises(TypeError, match=f"^{name} (is|has) "):
        kind([], **parameters)


@pytest.mark.parametrize(
    ("mimetype", "content_type"),
    [
        ("text/plain", "text/plain; charset=utf-8"),
        ("Text/Plain; format=flowed", "Text/Plain; format=flowed; charset=utf-8"),
        ('application/json; Charset="UTF-8"', 'application/json; Charset="UTF-8"'),
    ],
)
def test_text_in_utf_8(mimetype: str, content_type: str) -> None:
    answer = Answer(StreamingResponse(["\xe4"], mimetype=mimetype))
    assert (answer.headers["Content-Type"], answer.body) == (content_type, "\xe4".encode())


@pytest.mark.parametrize("mimetype", ["image/png", "text/plain; charset=iso-8859-1"])
def test_text_is_refused_where_nobody_would_read_utf_8(mimetype: str) -> None:
    with pytest.raises(TypeError, match="a chunk is str; yield bytes"):
        Answer(StreamingResponse(["\xe4"], mimetype=mimetype))
    answer = Answer(StreamingResponse([b"\xe4"], mimetype=mimetype))
    assert (answer.headers["Content-Type"], answer.body) == (mimetype, b"\xe4")


def test_the_byte_quota_aborts_rows_and_pauses_events() -> None:
    rows = Answer(CSVResponse((["x" * 100] for _ in range(100)), max_bytes=500, flush_bytes=1))
    assert isinstance(rows.error, QuotaExceeded)
    assert len(rows.body) <= 500
    events = Answer(EventSourceResponse(("x" * 100 for _ in range(100)), max_bytes=50))
    assert events.error is None
    assert events.body.split(b"\n")[-2].startswith(b"retry: ")


def test_who_is_told_to_come_back_comes_within_five_seconds_and_not_with_all_the_others() -> None:
    waits = []
    for _ in range(30):
        body = Answer(EventSourceResponse(["x" * 100], max_bytes=50)).body
        waits.append(int(body.rsplit(b"retry: ", 1)[1]))
    assert 1000 <= min(waits) < 2500
    assert 3500 < max(waits) <= 5000


def test_the_duration_aborts_rows() -> None:
    def rows() -> Iterator[dict[str, int]]:
        yield {"a": 1}
        stream = streams.current()
        assert stream is not None
        stream.cancelled.wait(30)

    answer = Answer(NDJSONResponse(rows(), max_duration=1))  # begun by then, on a busy machine too
    assert isinstance(answer.error, StreamExpired)
    assert answer.body == b'{"a":1}\n'


def test_flush_sends_what_is_buffered() -> None:
    answer = Answer(CSVResponse([["a"], ["b"], ["c"], FLUSH, ["d"]]))
    assert answer.chunks == [b"a\r\n", b"b\r\nc\r\n", b"d\r\n"]


def test_a_large_chunk_goes_out_in_pieces() -> None:
    answer = Answer(StreamingResponse([b"x" * 1_000_000]))
    assert len(answer.body) == 1_000_000
    assert max(map(len, answer.chunks)) <= 256 * 1024


@pytest.mark.parametrize("length", [9, 11])
def test_a_body_of_another_length_than_promised_is_no_whole_answer(length: int) -> None:
    answer = Answer(StreamingResponse([b"12345", b"67890"], headers={"Content-Length": str(length)}))
    assert isinstance(answer.error, ValueError)
    assert len(answer.body) <= length


@pytest.mark.parametrize("end", ["longer", "failed"])
@pytest.mark.parametrize("delivery", ["auto", "threaded"])
def test_the_last_promised_byte_waits_for_the_end(end: str, delivery: Any) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"12345"
        yield b"67890"
        if end == "failed":
            raise OSError("late")
        yield b"x"

    answer = Answer(StreamingResponse(chunks, headers={"Content-Length": "10"}, delivery=delivery))
    assert isinstance(answer.error, OSError if end == "failed" else ValueError)
    assert len(answer.body) < 10


def test_all_but_the_last_promised_byte_goes_out_before_the_end() -> None:
    go_on = threading.Event()

    def chunks() -> Iterator[bytes]:
        yield b"1234567890"
        go_on.wait(30)

    body = body_of(StreamingResponse(chunks(), headers={"Content-Length": "10"}))
    assert next(body) == b"123456789"
    go_on.set()
    assert list(body) == [b"0"]
    body.close()


def test_a_whole_answer_whose_producer_ends_late_has_not_expired() -> None:
    def chunks() -> Iterator[bytes]:
        yield b"12345"
        yield b"67890"
        response._body._outflow._expires_at = time.monotonic()  # type: ignore[union-attr]

    response = StreamingResponse(
        chunks(), headers={"Content-Length": "10"}, delivery="threaded", max_duration=60
    )
    answer = Answer(response)
    assert (answer.body, answer.error) == (b"1234567890", None)
    assert response.record is not None
    assert response.record.outcome == "completed"


def test_a_response_is_sent_once() -> None:
    response = StreamingResponse([b"x"])
    assert Answer(response).body == b"x"
    with pytest.raises(StreamkitError, match="once"):
        response({"REQUEST_METHOD": "GET"}, lambda *_: None)


def test_a_body_in_a_cycle_that_the_collector_finds_while_its_locks_are_held() -> None:
    """A finalizer runs at any instruction of any thread; one that took a lock could wait for itself for ever."""
    response = EventSourceResponse("x" * 1000 for _ in range(10**9))
    body: Any = iter(response({"REQUEST_METHOD": "GET"}, lambda *_: None))
    next(body)
    body.itself = body
    pump, stream = body._outflow.chunks, body.stream
    del body, response
    with streams._changed, stream._lock, pump._lock:
        gc.collect()
    eventually(lambda: stream.state == "ended")


def test_a_body_that_is_dropped_without_close_leaves_nothing() -> None:
    closed = threading.Event()

    def items() -> Iterator[str]:
        try:
            while True:
                yield "x" * 1000
        finally:
            closed.set()

    response = EventSourceResponse(items())
    body = iter(response({"REQUEST_METHOD": "GET"}, lambda *_: None))
    next(body)
    del body, response
    assert closed.wait(10)


@pytest.mark.parametrize("kind", ALL)
def test_a_producer_that_fails_in_close(kind: type[Any], caplog: pytest.LogCaptureFixture) -> None:
    class Failing:
        def __iter__(self) -> Failing:
            return self

        def __next__(self) -> object:
            return ITEMS[kind]

        def close(self) -> None:
            raise OSError("cannot close")

    closed: list[str] = []
    response = kind(Failing())
    response.call_on_close(lambda: closed.append("closed"))
    body = iter(response({"REQUEST_METHOD": "GET"}, lambda *_: None))
    next(body)
    try:
        body.close()
    except OSError:
        pass
    eventually(lambda: closed == ["closed"])
    eventually(lambda: len(streams) == 0)


def test_no_more_streams_than_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_threads, "maximum", 0)
    monkeypatch.setattr(stream_threads, "_idle", [])
    answer = Answer(EventSourceResponse(["x"]))
    assert answer.status == "503 Service Unavailable"
    assert int(answer.headers["Retry-After"]) > 0
    with pytest.raises(TooManyStreams):
        stream_threads.run(lambda: None)


@pytest.mark.parametrize("accept", ["text/event-stream", "*/*"])
@pytest.mark.parametrize("kind", [CSVResponse, FileResponse])
def test_a_page_of_another_origin_may_read_that_it_is_refused(kind: type[Any], accept: str) -> None:
    """Else its EventSource takes the refusal for a breach of CORS, and never comes back."""
    allow = {
        "Access-Control-Allow-Origin": "https://a.example",
        "Cross-Origin-Resource-Policy": "cross-origin",
    }
    limiter = Limiter(1)
    limiter.acquire()
    what: Any = io.BytesIO(b"abc") if kind is FileResponse else [["a"]]
    answer = Answer(kind(what, limiter=limiter, headers={**allow, "X-Rows": "1"}), HTTP_ACCEPT=accept)
    assert answer.status[:3] == ("200" if accept == "text/event-stream" else "503")
    assert answer.headers.items() >= allow.items()
    assert answer.headers["Cache-Control"] == "no-store"
    assert not {"X-Rows", "ETag", "Accept-Ranges"} & set(answer.headers)


def test_delivery_threaded_runs_rows_on_the_requests_thread() -> None:
    threads: set[int] = set()

    def items() -> Iterator[dict[str, int]]:
        threads.add(threading.get_ident())
        yield {"a": 1}

    Answer(NDJSONResponse(items()))
    assert threads != {threading.get_ident()}
    threads.clear()
    Answer(NDJSONResponse(items(), delivery="threaded"))
    assert threads == {threading.get_ident()}


def test_a_cursor_of_another_thread_is_explained(caplog: pytest.LogCaptureFixture) -> None:
    import sqlite3

    connection = sqlite3.connect(":memory:")
    rows = connection.execute("SELECT 1")

    def items() -> Iterator[Any]:
        yield "before"
        yield from rows

    assert isinstance(Answer(EventSourceResponse(items())).error, sqlite3.ProgrammingError)
    eventually(lambda: 'delivery="threaded"' in caplog.text)
    connection.close()


def test_log_lines_of_a_stream(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "streamkit")
    Answer(NDJSONResponse([1, 2]), REMOTE_ADDR="192.0.2.1", REMOTE_PORT="99")

    def lines(part: str) -> list[str]:
        told = [record.getMessage() for record in caplog.records if record.name == "streamkit"]
        return [line for line in told if part in line]

    (first,) = lines("opened: ndjson '/here' from 192.0.2.1:99")
    stream = first.partition(" opened: ")[0]
    eventually(lambda: len(lines(f"{stream} ")) == 2)  # the last by the thread that is done with it last
    last = lines(f"{stream} ")[1]
    assert "completed: ndjson '/here', 2 events, " in last


class TestEvents:
    def test_retry_travels_with_the_first_event(self) -> None:
        body = Answer(EventSourceResponse(["a", "b"], retry=3000)).body
        assert body == b":\nretry: 3000\ndata: a\n\ndata: b\n\n"

    def test_items(self) -> None:
        items = [ServerSentEvent("a", event="e", id="1"), "text", {"k": [1]}, 7, b"data: raw\n\n", FLUSH]
        body = Answer(EventSourceResponse(items)).body
        assert body == (
            b':\nevent: e\nid: 1\ndata: a\n\ndata: text\n\ndata: {"k":[1]}\n\ndata: 7\n\ndata: raw\n\n'
        )

    def test_lifecycle(self) -> None:
        body = Answer(EventSourceResponse(["a"], lifecycle=True)).body
        assert body == (
            b':\nevent: connected\ndata: {"heartbeat":15.0}\n\ndata: a\n\n'
            b"event: complete\nid: streamkit-complete\ndata: {}\n\n"
        )

    def test_a_job_that_is_complete_is_not_run_again(self) -> None:
        ran: list[int] = []

        def work() -> Iterator[str]:
            ran.append(1)
            yield "step"

        first = Answer(EventSourceResponse(work(), complete="done"))
        assert first.body.endswith(b"event: done\nid: streamkit-complete\ndata: {}\n\n")
        again = Answer(EventSourceResponse(work(), complete="done"), HTTP_LAST_EVENT_ID="streamkit-complete")
        assert again.status.startswith("204")
        assert again.body == b""
        assert ran == [1]

    def test_who_is_told_to_stay_away_may_read_that(self) -> None:
        response = EventSourceResponse([], complete="done", headers={"Access-Control-Allow-Origin": "*"})
        answer = Answer(response, HTTP_LAST_EVENT_ID="streamkit-complete")
        assert (answer.status[:3], answer.headers.get("Content-Type")) == ("204", None)
        assert answer.headers["Access-Control-Allow-Origin"] == "*"

    def test_a_failed_job_has_no_completion(self) -> None:
        def work() -> Iterator[str]:
            yield "step"
            raise LookupError

        answer = Answer(EventSourceResponse(work(), complete="done", done="[DONE]"))
        assert b"event: done" not in answer.body
        assert b"[DONE]" not in answer.body

    @pytest.mark.parametrize(
        ("words", "expected"),
        [
            (None, b'data: {"message":"The stream failed.","code":"stream_failed"}'),
            ("come back", b'data: {"message":"come back","code":"stream_failed"}'),
            ({"reason": 1}, b'data: {"reason":1}'),
            (ServerSentEvent("x", event="oops"), b"event: oops\ndata: x"),
        ],
    )
    def test_on_error_decides_what_the_client_is_told(self, words: Any, expected: bytes) -> None:
        def work() -> Iterator[str]:
            yield "step"
            raise LookupError("secret")

        answer = Answer(EventSourceResponse(work(), on_error=lambda error: words))
        assert expected in answer.body
        assert b"id:" not in answer.body

    def test_an_on_error_that_fails_tells_the_default(self, caplog: pytest.LogCaptureFixture) -> None:
        def work() -> Iterator[str]:
            yield "step"
            raise LookupError

        answer = Answer(EventSourceResponse(work(), on_error=lambda error: 1 / 0))  # type: ignore[arg-type,return-value]
        assert b'"message":"The stream failed."' in answer.body
        assert "on_error failed" in caplog.text

    @pytest.mark.parametrize("words", [{"when": object()}, {"share": float("nan")}, ["a"], 7, b"bytes"])
    def test_words_that_cannot_be_sent_tell_the_default(self, words: Any) -> None:
        def work() -> Iterator[str]:
            yield "step"
            raise LookupError("secret")

        answer = Answer(EventSourceResponse(work(), on_error=lambda error: words))
        assert answer.body.endswith(
            b'event: error\ndata: {"message":"The stream failed.","code":"stream_failed"}\n\n'
        )
        assert isinstance(answer.error, LookupError) or answer.error is None

    def test_an_on_error_that_wants_to_leave_tells_the_default(self) -> None:
        def work() -> Iterator[str]:
            yield "step"
            raise LookupError

        answer = Answer(EventSourceResponse(work(), on_error=lambda error: sys.exit(1)))
        assert b'"message":"The stream failed."' in answer.body

    def test_a_broken_token_stream_says_error_where_its_readers_look(self) -> None:
        def work() -> Iterator[str]:
            yield "{}"
            raise LookupError

        answer = Answer(EventSourceResponse(work(), done="[DONE]"))
        assert b'"error":{"message":' in answer.body

    def test_heartbeats_while_the_producer_is_blocked_and_before_its_first_item(self) -> None:
        go_on = threading.Event()

        def items() -> Iterator[str]:
            go_on.wait(30)
            yield "first"

        body = iter(EventSourceResponse(items(), heartbeat=0.01)({"REQUEST_METHOD": "GET"}, lambda *_: None))
        assert [next(body) for _ in range(4)] == [b":\n"] * 4
        go_on.set()
        while (chunk := next(body)) == b":\n":
            pass
        assert chunk == b"data: first\n\n"
        body.close()  # type: ignore[attr-defined]


class TestWriters:
    def test_writes_become_the_body(self) -> None:
        def write(out: Any) -> None:
            assert out.writable()
            assert not out.seekable()
            for n in range(3):
                assert out.write(memoryview(b"%d" % n)) == 1
            assert out.tell() == 3
            out.flush()
            out.close()
            out.close()

        assert Answer(StreamingResponse.from_writer(write)).body == b"012"

    def test_text_is_refused_and_a_closed_writer_too(self) -> None:
        def text(out: Any) -> None:
            out.write("text")

        def late(out: Any) -> None:
            out.write(b"first")
            out.close()
            out.write(b"second")

        with pytest.raises(TypeError, match="encode"):
            StreamingResponse.from_writer(text)({"REQUEST_METHOD": "GET"}, lambda *_: pytest.fail("started"))
        assert isinstance(Answer(StreamingResponse.from_writer(late)).error, ValueError)

    def test_a_writer_whose_client_left_is_told(self) -> None:
        from streamkit.errors import ClientDisconnected

        told: list[type[BaseException]] = []

        def write(out: Any) -> None:
            try:
                while True:
                    out.write(b"x" * 10_000)
            except BaseException as error:
                told.append(type(error))
                raise

        body = iter(StreamingResponse.from_writer(write)({"REQUEST_METHOD": "GET"}, lambda *_: None))
        next(body)
        body.close()  # type: ignore[attr-defined]
        eventually(lambda: told == [ClientDisconnected])


@pytest.mark.parametrize("kind", [NDJSONResponse, EventSourceResponse, CSVResponse])
def test_a_producer_that_is_never_silent_expires_too(kind: type[Any]) -> None:
    outcomes: list[str | None] = []
    items = (ITEMS[kind] for _ in iter(int, 1))
    response = kind(items, max_duration=0.05, on_close=lambda stream: outcomes.append(stream.outcome))
    body = iter(response({"REQUEST_METHOD": "GET"}, lambda *_: None))
    with contextlib.suppress(StreamExpired):
        for _ in body:
            pass
    body.close()
    eventually(lambda: outcomes == ["expired"])


class TestHooks:
    """What a framework's hooks do to a response between the view and the server."""

    @pytest.mark.parametrize("kind", ALL)
    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    def test_data_in_the_place_of_the_body(self, kind: type[Any], method: str) -> None:
        pytest.importorskip("werkzeug")  # whose method it is
        closed: list[str] = []
        response = kind(counted([ITEMS[kind]], closed), compress=True)
        response.call_on_close(lambda: closed.append("callback"))
        response.set_data(b"other")
        answer = Answer(response, method, HTTP_ACCEPT_ENCODING="gzip")
        assert answer.body == (b"other" if method == "GET" else b"")
        assert answer.headers["Content-Length"] == "5"
        assert "Content-Encoding" not in answer.headers
        assert closed == ["callback"]  # the generator was never begun

    @pytest.mark.parametrize("kind", ALL)
    def test_a_body_that_was_read_is_sent_as_it_was_read(self, kind: type[Any]) -> None:
        pytest.importorskip("werkzeug")  # whose method it is
        closed: list[str] = []
        response = kind(counted([ITEMS[kind]], closed), compress=True)
        data = response.get_data()
        answer = Answer(response, HTTP_ACCEPT_ENCODING="gzip")
        assert answer.body == data
        assert "Content-Encoding" not in answer.headers
        eventually(lambda: closed == ["producer"])

    def test_a_wrapped_body_keeps_its_place_in_the_limiter(self) -> None:
        limiter = Limiter(1)
        first = wrapped(CSVResponse(endless_rows(), limiter=limiter))
        body = body_of(first)
        next(iter(body))
        assert len(limiter) == 1
        assert Answer(wrapped(CSVResponse([["a"]], limiter=limiter))).status.startswith("503 ")
        body.close()
        eventually(lambda: len(limiter) == 0)

    def test_a_wrapped_body_resumes(self) -> None:
        with Hub("memory://") as hub:
            ids = [hub.publish("news", text) for text in ("one", "two", "three")]
            body = body_of(
                wrapped(EventSourceResponse(hub.subscribe("news"))),
                HTTP_LAST_EVENT_ID=ids[0],
                HTTP_ACCEPT="*/*",
            )
            received = b""
            for chunk in body:
                received += chunk
                if b"three" in received:
                    break
            body.close()
        assert b"data: two\n" in received
        assert b"data: one\n" not in received

    @pytest.mark.parametrize("kind", ROWS)
    def test_a_wrapped_body_that_fails_at_once_raises_before_the_start(self, kind: type[Any]) -> None:
        def rows() -> Iterator[object]:
            raise LookupError
            yield

        with pytest.raises(LookupError):
            wrapped(kind(rows()))({"REQUEST_METHOD": "GET"}, lambda *_: pytest.fail("started"))

    @pytest.mark.parametrize("kind", ALL)
    def test_a_wrapped_body_that_nobody_iterates_is_closed(self, kind: type[Any]) -> None:
        closed: list[str] = []
        response = kind([ITEMS[kind]])
        response.call_on_close(lambda: closed.append("callback"))
        assert Answer(wrapped(response), "HEAD").body == b""
        assert closed == ["callback"]

    def test_a_server_that_refuses_the_headers(self) -> None:
        closed: list[str] = []

        def start_response(*_: object) -> None:
            raise ValueError("no such header")

        with pytest.raises(ValueError, match="no such header"):
            CSVResponse(
                counted([["a"]], closed), on_close=lambda stream: closed.append(f"on_close {stream.outcome}")
            )({"REQUEST_METHOD": "GET"}, start_response)
        assert closed == ["producer", "on_close failed"]

    def test_a_response_that_is_sent_twice_takes_one_place(self) -> None:
        limiter = Limiter(1)
        response = CSVResponse([["a"]], limiter=limiter)
        assert Answer(response).body == b"a\r\n"
        for _ in range(2):
            with pytest.raises(StreamkitError, match="sent once"):
                Answer(response)
        assert len(limiter) == 0


def wrapped(response: Any) -> Any:
    """As by a hook that counts bytes."""
    response.response = (chunk for chunk in response.response)
    return response


def endless_rows() -> Iterator[list[str]]:
    while True:
        yield ["x" * 1000]
