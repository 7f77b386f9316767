"""A port that is kept for a server which takes it later."""

from __future__ import annotations

import socket
import sys

import pytest

from streamkit.servers.http_server import StreamServer
from streamkit.servers.reserved_port import reserved_port
from tests.servers.raw_client import ask, get, nothing_left_behind


def app(environ: object, start_response: object) -> list[bytes]:
    start_response("200 OK", [("Content-Length", "2")])  # type: ignore[operator]
    return [b"ok"]


def test_a_server_takes_the_port_and_nobody_else_does() -> None:
    with nothing_left_behind(), reserved_port(("127.0.0.1", 0)) as port:
        if sys.platform == "linux":
            with socket.socket() as other, pytest.raises(OSError, match="in use"):
                other.bind(("127.0.0.1", port))
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
        for _ in range(2):  # as a server that is started again
            with StreamServer(app, port=port).start() as server:
                assert ask(server, get(headers="Connection: close\r\n")).endswith(b"ok")


def test_an_address_that_cannot_be_bound_is_an_error() -> None:
    with nothing_left_behind(), pytest.raises(OSError, match="assign"), reserved_port(("192.0.2.1", 0)):
        pass
