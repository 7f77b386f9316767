"""A file that is handed to the server, and dropped by whoever stands between."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from streamkit import FileResponse, Limiter, streams
from streamkit.servers.wsgi_environ import FileWrapper
from tests.conftest import eventually

pytestmark = pytest.mark.usefixtures("running_loop", "nothing_left")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of a thousand bytes."""
    path = tmp_path / "file.txt"
    path.write_bytes(b"x" * 1000)
    return path


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


def test_a_file_that_was_shorter_for_a_moment_ends_the_connection(path: Path) -> None:
    server, client = socket.socketpair()
    outcomes: list[str | None] = []
    with server, client:
        response = FileResponse(path, on_close=lambda stream: outcomes.append(stream.outcome))
        answer: Any = response(request_on(server), lambda *_: None)
        os.truncate(path, 0)  # somebody rewrites it in place
        assert server.sendfile(answer.file, 0, 1000) == 0  # where gunicorn sees nothing wrong
        path.write_bytes(b"y" * 1000)
        with pytest.raises(OSError, match="truncated"):
            answer.close()
        assert outcomes == ["failed"]
        assert server.fileno() < 0  # the next answer would be read as the missing bytes


def test_a_file_that_is_not_sent_leaves_the_connection_alone(path: Path) -> None:
    """A middleware may answer something else; gunicorn asks for the descriptor also where it omits a body (HEAD)."""
    server, client = socket.socketpair()
    with server, client:
        answer: Any = FileResponse(path)(request_on(server), lambda *_: None)
        assert os.fstat(answer.file.fileno()).st_size == 1000
        answer.close()
        server.sendall(b"another answer")
        assert client.recv(100) == b"another answer"


def test_what_a_server_raises_itself_stays_what_it_is(path: Path) -> None:
    """gunicorn's worker that is aborted while it sends leaves by SystemExit."""
    server, client = socket.socketpair()
    outcomes: list[str | None] = []
    with server, client:
        response = FileResponse(path, on_close=lambda stream: outcomes.append(stream.outcome))
        answer: Any = response(request_on(server), lambda *_: None)
        assert answer.file.mode == "rb"
        with pytest.raises(SystemExit), contextlib.closing(answer):
            raise SystemExit(1)
    assert outcomes == ["client_gone"]


def test_the_end_of_a_file_is_the_promised_one(path: Path) -> None:
    """waitress promises its client what it finds by moving to the end."""
    buffers = pytest.importorskip("waitress.buffers")
    environ = {
        "REQUEST_METHOD": "GET",
        "SERVER_SOFTWARE": "waitress",
        "wsgi.file_wrapper": buffers.ReadOnlyFileBasedBuffer,
        "HTTP_RANGE": "bytes=500-899",
    }
    answer: Any = FileResponse(path)(environ, lambda *_: None)
    os.truncate(path, 600)
    assert answer.prepare(400) == 400
    with pytest.raises(OSError, match="truncated"):
        answer.close()


@pytest.mark.parametrize("delivery", ["auto", "detached", "threaded"])
def test_a_file_that_cannot_be_read_fails_before_the_head(
    path: Path, delivery: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes: list[str | None] = []
    statuses: list[str] = []
    server, client = socket.socketpair()

    def broken(*_: object) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    with server, client:
        response = FileResponse(
            path, delivery=delivery, on_close=lambda stream: outcomes.append(stream.outcome)
        )
        with monkeypatch.context() as patch:
            patch.setattr("os.pread", broken)
            b"".join(response(request_on(server), lambda status, *_: statuses.append(status)))
    assert [status[:3] for status in statuses] == ["500"]
    assert outcomes == ["failed"]
