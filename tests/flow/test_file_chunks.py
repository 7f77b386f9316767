"""Files for the event loop: spans that are cut like bytes, copied by the kernel, and true to what was promised."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextvars import copy_context
from pathlib import Path

import pytest

from streamkit.flow.file_chunks import FileChunks, FileSpan
from streamkit.flow.file_range import FileParts
from streamkit.flow.open_file import open_path
from streamkit.flow.stream import Stream
from streamkit.responses.streaming import ChunkFraming

DATA = bytes(range(256)) * 4096


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "data.bin"
    path.write_bytes(DATA)
    return path


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.settimeout(10)
    yield ours, theirs
    ours.close()
    theirs.close()


def chunks_of(path: Path, *pieces: bytes | tuple[int, int]) -> FileChunks:
    parts = FileParts(open_path(str(path)))
    if pieces:
        parts.pieces = pieces
    context = copy_context()
    chunks = FileChunks(parts, ChunkFraming(), Stream("file", {}, context), context)
    chunks.start()
    return chunks


def test_a_span_is_cut_like_bytes(path: Path) -> None:
    span = FileSpan(3, 100, 200)
    assert len(span) == 100
    assert [(part.start, part.stop) for part in (span[:30], span[30:], span[30:][:500], span[200:])] == [
        (100, 130),
        (130, 200),
        (130, 200),
        (200, 200),
    ]


def test_before_the_loop_has_it_the_body_is_bytes(path: Path) -> None:
    chunks = chunks_of(path)
    data = b"".join(iter(lambda: chunks.take(0.0), b""))
    assert data == DATA
    assert chunks.finished
    chunks.close()
    chunks.close()


def test_then_ranges_are_spans_and_what_stands_between_them_is_not(path: Path) -> None:
    chunks = chunks_of(path, b"--a\r\n", (10, 20), b"--b\r\n", (7, 7), (30, 40))
    woken = []
    assert chunks.take(0.0) == b"--a\r\n"
    chunks.notify(lambda: woken.append(1))
    assert woken  # what is ready is asked for
    first, between, second, end = (chunks.take(0.0) for _ in range(4))
    assert (first.start, first.stop, between, second.start, end) == (10, 20, b"--b\r\n", 30, b"")
    assert chunks.finished
    chunks.abandon()


def test_a_span_is_copied_as_far_as_there_is_room(
    path: Path, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = pair
    chunks = chunks_of(path)
    chunks.notify(lambda: None)
    span = chunks.take(0.0)
    received = b""
    while len(span):
        try:
            span = span[span.send_to(ours.fileno()) :]
        except BlockingIOError:
            received += theirs.recv(1 << 16)
    while len(received) < len(DATA):
        received += theirs.recv(1 << 16)
    assert received == DATA
    chunks.abandon()


def test_a_file_that_became_shorter_is_an_error(
    path: Path, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, _ = pair
    chunks = chunks_of(path)
    chunks.notify(lambda: None)
    span = chunks.take(0.0)
    os.truncate(path, 0)
    with pytest.raises(OSError, match="truncated while it was sent"):
        span.send_to(ours.fileno())
    chunks.abandon()
