"""Reading an event stream end to end, socket to events: `EventSource` against httpx-sse and sseclient-py.

A server in another process sends what it has as fast as it is read: token events, each in a chunk of its own as WSGI
servers send them, and the same without chunks. Each peer reads through the HTTP client that it is made for, httpx and
requests, where that is installed. Where it is not, httpx-sse reads through h11, driven as httpx's transport drives it
but without the layers above, and sseclient-py through `http.client`: both lighter than what their users have. The last
column says which it was. In processor time of the reader.
"""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec

import h11
import sseclient

from benchmarks.decode_events import httpx_sse_decode
from benchmarks.measure import Figure, cpu, medians, must_agree
from streamkit import EventSource

EVENTS = 20_000
ROUNDS = 7
PATHS = {"one event a chunk": "/chunks", "no chunks": "/plain"}

Side = Callable[[str], tuple[int, int]]


def _event(number: int) -> bytes:
    delta = {"index": 0, "delta": {"content": f" word{number % 97}"}, "finish_reason": None}
    data = {"id": "chatcmpl-BmT1ZkQyZ0vYwJ6x", "object": "chat.completion.chunk", "choices": [delta]}
    return b"id: %d\ndata: %b\n\n" % (number, json.dumps(data, separators=(",", ":")).encode())


def serve() -> None:
    """Print a port, and send the stream to whoever asks for it there, until somebody connects and says nothing."""
    events = [_event(number) for number in range(EVENTS)]
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(event), event) for event in events)
    bodies = {
        b"/chunks": head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n",
        b"/plain": head + b"Connection: close\r\n\r\n" + b"".join(events),
    }
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        while True:
            connection, _ = listener.accept()
            with connection, connection.makefile("rb") as request:
                words = request.readline().split()
                if len(words) != 3:
                    return  # whoever closes the server connects once and says nothing
                while request.readline() not in (b"\r\n", b""):
                    pass
                connection.sendall(bodies[words[1]])


@contextmanager
def _server() -> Iterator[int]:
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.client"], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline())
            yield port
            socket.create_connection(("127.0.0.1", port)).close()
            process.wait(10)
        finally:
            process.kill()


def streamkit_read(url: str) -> tuple[int, int]:
    """The number of events and of the characters of their data."""
    events = characters = 0
    with EventSource(url, max_retries=0, proxy=None) as source:
        for event in source:
            events += 1
            characters += len(event.data or "")
    return events, characters


@contextmanager
def _plain_response(url: str) -> Iterator[http.client.HTTPResponse]:
    host, _, path = url.removeprefix("http://").partition("/")
    connection = http.client.HTTPConnection(host)
    connection.request("GET", f"/{path}", headers={"Accept": "text/event-stream"})
    response = connection.getresponse()
    try:
        yield response
    finally:
        response.close()
        connection.close()


def httpx_sse_on_h11(url: str) -> tuple[int, int]:
    """The same with the parser of httpx-sse, on what is at the bottom of httpx."""
    host, _, path = url.removeprefix("http://").partition("/")
    name, _, port = host.partition(":")
    connection = h11.Connection(h11.CLIENT)
    request = h11.Request(
        method="GET", target=f"/{path}", headers=[("Host", host), ("Accept", "text/event-stream")]
    )
    with socket.create_connection((name, int(port))) as plain:
        plain.sendall((connection.send(request) or b"") + (connection.send(h11.EndOfMessage()) or b""))
        return httpx_sse_decode(_h11_pieces(connection, plain))


def _h11_pieces(connection: h11.Connection, plain: socket.socket) -> Iterator[bytes]:
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(plain.recv(65536))
        elif isinstance(event, h11.Data):
            yield bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            return


def sseclient_on_http_client(url: str) -> tuple[int, int]:
    """The same with sseclient-py, as its documentation has it."""
    with _plain_response(url) as response:
        return _counted(sseclient.SSEClient(response).events())


def httpx_sse_on_httpx(url: str) -> tuple[int, int]:
    """The same with httpx-sse on httpx."""
    import httpx
    from httpx_sse import connect_sse

    with httpx.Client(trust_env=False) as client, connect_sse(client, "GET", url) as source:
        return _counted(source.iter_sse())


def sseclient_on_requests(url: str) -> tuple[int, int]:
    """The same with sseclient-py on requests, as its documentation has it."""
    import requests

    with requests.Session() as session:
        session.trust_env = False
        response = session.get(url, stream=True, headers={"Accept": "text/event-stream"})
        return _counted(sseclient.SSEClient(response).events())


def _counted(found: Iterable[sseclient.Event]) -> tuple[int, int]:
    events = characters = 0
    for event in found:
        events += 1
        characters += len(event.data)
    return events, characters


def _peers() -> dict[str, tuple[str, Side]]:
    """For each peer the HTTP client that is installed, and how it reads through it."""
    httpx_sse = ("httpx", httpx_sse_on_httpx) if find_spec("httpx") else ("h11", httpx_sse_on_h11)
    on_requests = find_spec("requests") is not None
    return {
        "httpx-sse": httpx_sse,
        "sseclient-py": ("requests", sseclient_on_requests)
        if on_requests
        else ("http.client", sseclient_on_http_client),
    }


def figures() -> Iterator[Figure]:
    """Two figures for each framing."""
    peers = _peers()
    with _server() as port:
        for what, path in PATHS.items():
            url = f"http://127.0.0.1:{port}{path}"
            sides = {"streamkit": partial(streamkit_read, url)}
            sides |= {name: partial(side, url) for name, (_, side) in peers.items()}
            must_agree(what, {name: side() for name, side in sides.items()})
            taken = medians(sides, rounds=ROUNDS, clock=cpu)
            speed = {name: EVENTS / seconds for name, seconds in taken.items()}
            for name, (through, _) in peers.items():
                yield Figure(
                    f"{what}: streamkit / {name}",
                    speed["streamkit"] / speed[name],
                    3.0,
                    True,
                    f"{speed['streamkit']:,.0f} / {speed[name]:,.0f} events/s, through {through}",
                )


if __name__ == "__main__":
    serve()
