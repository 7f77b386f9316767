"""A file that is handed to the server, and dropped by whoever stands between."""

from __future__ import annotations

import errno
import gc
import socket
from pathlib import Path
from typing import Any

import pytest

from streamkit import FileResponse, Limiter, streams
from streamkit.servers.wsgi_environ import FileWrapper
from tests.conftest import eventually

pytestmark = pytest.mark.usefixtures("nothing_left")


def request_on(server: socket.socket) -> dict[str, Any]:
    """The environ of a server that lends its socket, and sends files itself."""
    return {
        "REQUEST_METHOD": "GET",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "gunicorn.socket": server,
        "wsgi.file_wrapper": FileWrapper,
    }


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # the collector closes in any order
@pytest.mark.parametrize("read", [True, False])
@pytest.mark.parametrize("cycle", [True, False])
def test_a_file_that_is_dropped_without_close_gives_everything_back(
    tmp_path: Path, read: bool, cycle: bool
) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(b"x" * 100_000)
    limiter = Limiter(max_streams=1)
    outcomes: list[str | None] = []
    server, client = socket.socketpair()
    environ = request_on(server)
    with server, client:
        response = FileResponse(
            path, limiter=limiter, on_close=lambda stream: outcomes.append(stream.outcome)
        )
        answer = response(environ, lambda *_: None)
        assert isinstance(answer, FileWrapper)
        if read:
            assert b"".join(answer) == b"x" * 100_000
        assert len(limiter) == 1
        if cycle:
            answer.itself = answer  # type: ignore[attr-defined]
        del answer, response
        gc.collect()
        eventually(lambda: len(limiter) == 0)
        eventually(lambda: len(streams) == 0)
        assert outcomes == ["completed" if read else "client_gone"]
        server.sendall(b"the next answer")  # the connection is the server's
        assert client.recv(100) == b"the next answer"


def test_a_file_whose_descriptor_something_has_closed_ends_its_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(b"x" * 1000)
    limiter = Limiter(max_streams=1)
    server, client = socket.socketpair()
    environ = request_on(server)

    def closed(descriptor: int) -> None:
        raise OSError(errno.EBADF, "Bad file descriptor")

    with server, client:
        answer: Any = FileResponse(path, limiter=limiter)(environ, lambda *_: None)
        with monkeypatch.context() as patch:
            patch.setattr("streamkit.delivery.file_wrapper.os.fstat", closed)
            answer.close()
    assert len(limiter) == len(streams) == 0
