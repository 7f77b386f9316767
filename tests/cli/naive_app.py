"""An event stream as people write it without a library, or wrongly: for what `doctor` has to say about it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    path = environ["PATH_INFO"]
    if path == "/page":
        start_response("200 OK", [("Content-Type", "text/html"), ("Content-Length", "2")])
        return [b"ok"]
    if path == "/gone":
        start_response("404 Not Found", [("Content-Length", "0")])
        return []
    if path == "/late":
        start_response("200 OK", [("Content-Type", "text/event-stream")])
        return late()
    if path == "/whole":
        body = b"data: 1\n\n"
        start_response("200 OK", [("Content-Type", "text/event-stream"), ("Content-Length", str(len(body)))])
        return [body]
    if path == "/escape":
        start_response("200 OK", [("Content-Type", "text/event-stream")])
        return [b'event: a\x1b[2J\ndata: \x1b]0;owned\x07 \xe2\x80\xae\n\nid: x\ndata: {"deep":1}\n\n']
    if path == "/echo":
        text = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)).decode()
        start_response("200 OK", [("Content-Type", "text/event-stream")])
        words = [
            environ["REQUEST_METHOD"],
            environ.get("HTTP_X_WORD", ""),
            environ.get("HTTP_LAST_EVENT_ID", ""),
            text,
        ]
        return [f"data: {word}\n\n".encode() for word in words]
    start_response("200 OK", [("Content-Type", "text/event-stream")])
    return events(b"word " * 200 if path == "/big" else b"")


def events(padding: bytes) -> Iterator[bytes]:
    """A generator and a sleep: the first example of every tutorial."""
    for n in range(8):
        yield b"data: %d %s\n\n" % (n, padding)
        time.sleep(0.15)


def late() -> Iterator[bytes]:
    time.sleep(0.8)
    yield b"data: 1\n\n"
