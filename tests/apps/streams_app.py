"""A WSGI application of streams that behave and streams that do not, for tests against real servers."""

from __future__ import annotations

import json
import os
import queue
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from streamkit import (
    CSVResponse,
    EventSourceResponse,
    FileResponse,
    JSONArrayResponse,
    JSONSeqResponse,
    NDJSONResponse,
    ServerSentEvent,
    StreamingResponse,
    streams,
)

if "WRITE_SECONDS" in os.environ:  # tests do not wait half a minute for a client that never reads
    from streamkit.delivery import body, connection, detached, file_wrapper

    for module in (body, connection, detached, file_wrapper):
        module.WRITE_SECONDS = float(os.environ["WRITE_SECONDS"])  # type: ignore[misc]

closed: list[str] = []  # which producers were closed, in order
outcomes: list[str] = []

_file = tempfile.NamedTemporaryFile(suffix=".bin")  # noqa: SIM115 - lives as long as the process
_file.write(bytes(range(256)) * 4096)
_file.flush()


def closing(name: str, items: Iterable[Any]) -> Iterator[Any]:
    try:
        yield from items
    finally:
        closed.append(name)


def ended(stream: Any) -> None:
    outcomes.append(f"{stream.kind}:{stream.outcome}")


def broken(stream: Any) -> None:
    raise RuntimeError("a callback with a bug")


def failing_after(count: int, item: Any) -> Iterator[Any]:
    for _ in range(count):
        yield item
    raise RuntimeError("secret detail")


def quiet() -> Iterator[str]:
    yield "first"
    queue.Queue().get()  # type: ignore[var-annotated]  # for ever, like a producer that waits for somebody else
    yield "never"


def quiet_until_cancelled() -> Iterator[str]:
    stream = streams.current()
    assert stream is not None
    yield "first"
    stream.cancelled.wait(60)


def silent() -> Iterator[str]:
    """Not even a first item until the stream is told to stop."""
    stream = streams.current()
    assert stream is not None
    stream.cancelled.wait(60)
    yield "too late"


def endless(block: bytes) -> Iterator[bytes]:
    while True:
        yield block


def zipped(out: Any) -> None:
    with zipfile.ZipFile(out, "w") as archive:
        for number in range(20):
            archive.writestr(f"{number}.txt", f"content {number}\n" * 1000)


def refused() -> Iterator[list[str]]:
    raise ConnectionRefusedError("secret: a database that is down")
    yield


ROUTES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "/events": lambda _: EventSourceResponse(
        closing("events", (ServerSentEvent({"n": n}, id=str(n)) for n in range(3))), on_close=ended
    ),
    "/tokens": lambda _: EventSourceResponse(["Hel", "lo"], done="[DONE]"),
    "/quiet": lambda _: EventSourceResponse(quiet(), on_close=ended),
    "/cancelled": lambda _: EventSourceResponse(
        closing("cancelled", quiet_until_cancelled()), on_close=ended
    ),
    "/beating": lambda _: EventSourceResponse(closing("beating", quiet_until_cancelled()), heartbeat=0.05),
    "/events-fail": lambda _: EventSourceResponse(failing_after(2, "x"), on_close=ended),
    "/csv": lambda _: CSVResponse(closing("csv", ([n, f"name {n}", n / 4] for n in range(5000)))),
    "/csv-callback": lambda _: CSVResponse(closing("csv", [["a", "b"]]), on_close=broken),
    "/csv-fail": lambda _: CSVResponse(failing_after(5000, ["a", "b"]), on_close=ended),
    "/csv-early": lambda _: CSVResponse(failing_after(0, None)),
    "/csv-refused": lambda _: CSVResponse(refused()),
    "/ndjson": lambda _: NDJSONResponse({"n": n} for n in range(5000)),
    "/ndjson-silent": lambda _: NDJSONResponse(closing("ndjson-silent", silent()), on_close=ended),
    "/array-silent": lambda _: JSONArrayResponse(closing("array-silent", silent()), on_close=ended),
    "/array": lambda _: JSONArrayResponse({"n": n} for n in range(5000)),
    "/array-fail": lambda _: JSONArrayResponse(failing_after(5000, {"a": 1})),
    "/seq": lambda _: JSONSeqResponse({"n": n} for n in range(50)),
    "/bytes": lambda _: StreamingResponse(endless(b"x" * 1000) if _["QUERY_STRING"] else [b"one,", b"two"]),
    "/zip": lambda _: StreamingResponse.from_writer(zipped, mimetype="application/zip"),
    "/endless": lambda _: StreamingResponse(closing("endless", endless(b"x" * 65536)), on_close=ended),
    "/file": lambda _: FileResponse(_file.name),
    "/named": lambda _: FileResponse(_["QUERY_STRING"], on_close=ended),
    "/expires": lambda _: EventSourceResponse(quiet_until_cancelled(), max_duration=2, on_close=ended),
}


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    path = environ["PATH_INFO"]
    if path == "/state":
        state = {
            "closed": closed,
            "outcomes": outcomes,
            "live": [stream.as_dict() for stream in streams if stream.path != "/state"],
        }
        start_response("200 OK", [("Content-Type", "application/json")])
        return [json.dumps(state).encode()]
    if path not in ROUTES:
        start_response("404 Not Found", [("Content-Type", "text/plain")])
        return [b"no such stream\n"]
    answer: Iterable[bytes] = ROUTES[path](environ)(environ, start_response)
    return answer
