"""What a FileResponse reads from: file objects, stores, files that grow, and all of them when they misbehave."""

from __future__ import annotations

import gzip
import io
import mmap
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streamkit import FileResponse
from streamkit.flow.byte_sources import FETCH_BYTES
from tests.conftest import eventually
from tests.responses.test_streamed import Answer

pytestmark = pytest.mark.usefixtures("nothing_left")

DATA = bytes(range(256)) * 4


def test_the_bytes_of_a_gzip_file_are_those_that_it_gives(tmp_path: Path) -> None:
    """Its fileno() is that of the compressed file."""
    path = tmp_path / "data.gz"
    path.write_bytes(gzip.compress(DATA))
    file = gzip.open(path)  # noqa: SIM115 - the response closes it
    answer = Answer(FileResponse(file, filename="data"), HTTP_RANGE="bytes=10-19")
    assert file.closed
    assert answer.headers["Content-Range"] == "bytes 10-19/1024"
    assert answer.body == DATA[10:20]


class Quiet(io.BytesIO):
    """As mmap before Python 3.13."""

    def seek(self, *args: Any) -> None:  # type: ignore[override]
        super().seek(*args)


def test_a_file_object_whose_seek_says_nothing() -> None:
    assert Answer(FileResponse(Quiet(DATA), filename="x.bin")).headers["Content-Length"] == str(len(DATA))
    memory = mmap.mmap(-1, len(DATA))
    memory[:] = DATA
    answer = Answer(FileResponse(memory, filename="x.bin"), HTTP_RANGE="bytes=-4")
    assert answer.body == DATA[-4:]
    assert memory.closed


def test_a_member_of_a_zip(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.bin", DATA)
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        response = FileResponse(archive.open("x/data.bin"), as_attachment=True)
        assert response.headers["Content-Disposition"] == 'attachment; filename="data.bin"'
        assert Answer(response, HTTP_RANGE="bytes=-4").body == DATA[-4:]


def test_the_position_of_a_file_object_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(DATA)
    file = (tmp_path / "data").open("rb")
    file.read(100)
    assert Answer(FileResponse(file)).body == DATA
    assert file.closed


def test_what_cannot_seek_is_refused() -> None:
    reader, writer = os.pipe()
    os.close(writer)
    with open(reader, "rb") as pipe, pytest.raises(ValueError, match="StreamingResponse"):
        FileResponse(pipe)

    class Unseekable(io.BytesIO):
        def seekable(self) -> bool:
            return False

    with pytest.raises(ValueError, match="cannot seek"):
        FileResponse(Unseekable())


class Broken(io.BytesIO):
    """A disk that fails at byte 600,000."""

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell() >= 600_000:
            raise OSError(5, "Input/output error")
        return super().read(size)


def test_a_disk_error_is_no_end() -> None:
    file = Broken(bytes(1_000_000))
    outcomes: list[Any] = []
    answer = Answer(FileResponse(file, on_close=lambda stream: outcomes.append(stream.outcome)))
    assert isinstance(answer.error, OSError)
    assert len(answer.body) < 1_000_000
    assert outcomes == ["failed"]
    assert file.closed


def test_a_disk_error_before_the_first_byte_is_an_early_failure() -> None:
    file = Broken(bytes(1_000_000))
    started: list[str] = []
    response = FileResponse(file)
    with pytest.raises(OSError, match="Input/output"):
        response(
            {"REQUEST_METHOD": "GET", "HTTP_RANGE": "bytes=700000-"}, lambda status, _: started.append(status)
        )
    assert started == []
    assert file.closed


def test_a_file_object_that_lies_about_its_size() -> None:
    answer = Answer(FileResponse(io.BytesIO(b"12345"), size=10))
    assert isinstance(answer.error, OSError)
    assert Answer(FileResponse(io.BytesIO(b"12345"), size=3)).body == b"123"


# -- stores -------------------------------------------------------------------------------------------------------


class Store:
    """An object in a store; `piece` makes the answer to one request of its bytes."""

    def __init__(self, content: bytes, piece: Any = bytes) -> None:
        self.content = content
        self.asked: list[tuple[int, int]] = []
        self.piece = piece

    def __call__(self, start: int, stop: int) -> Any:
        self.asked.append((start, stop))
        return self.piece(self.content[start:stop])


@pytest.mark.parametrize(
    "piece",
    [
        bytes,
        bytearray,
        memoryview,
        io.BytesIO,
        lambda data: iter([data[:1], b"", data[1:]]),
        lambda data: [data],
        lambda data: data[:100],  # shorter than asked for: the rest is asked for
    ],
    ids=["bytes", "bytearray", "memoryview", "file", "iterator", "list", "short"],
)
def test_an_object_in_a_store(piece: Any) -> None:
    store = Store(DATA, piece)
    answer = Answer(FileResponse(store, size=len(DATA), filename="x.bin", etag='"v"'))
    assert (answer.status, answer.body) == ("200 OK", DATA)
    answer = Answer(FileResponse(store, size=len(DATA), etag='"v"'), HTTP_RANGE="bytes=1-2,1000-")
    assert answer.status[:3] == "206"
    assert DATA[1000:] in answer.body
    store.asked.clear()
    assert (
        Answer(FileResponse(store, size=len(DATA), etag='"v"'), HTTP_IF_NONE_MATCH='"v"').status[:3] == "304"
    )
    assert Answer(FileResponse(store, size=len(DATA)), "HEAD").headers["Content-Length"] == "1024"
    assert store.asked == []  # nothing was fetched for nothing


def test_a_store_is_asked_for_bounded_pieces() -> None:
    size = FETCH_BYTES * 2 + 5
    asked: list[tuple[int, int]] = []

    def zeros(start: int, stop: int) -> bytes:
        asked.append((start, stop))
        return bytes(stop - start)

    answer = Answer(FileResponse(zeros, size=size))
    assert len(answer.body) == size
    assert asked == [(0, FETCH_BYTES), (FETCH_BYTES, 2 * FETCH_BYTES), (2 * FETCH_BYTES, size)]
    assert max(map(len, answer.chunks)) <= 256 * 1024


class ClosedBody(io.BytesIO):
    """A response body of a store's client."""

    closed_bodies = 0

    def close(self) -> None:
        ClosedBody.closed_bodies += 1
        super().close()


def test_what_a_store_lends_is_closed_in_every_ending() -> None:
    body = iter(
        FileResponse(Store(bytes(1_000_000), ClosedBody), size=1_000_000)(
            {"REQUEST_METHOD": "GET"}, lambda *_: None
        )
    )
    next(body)
    body.close()  # type: ignore[attr-defined]
    assert ClosedBody.closed_bodies >= 1


@pytest.mark.parametrize(
    ("piece", "error"),
    [
        (lambda data: data + b"x", OSError),
        (lambda data: b"", OSError),
        (lambda data: "text", TypeError),
        (lambda data: None, TypeError),
    ],
)
def test_a_store_that_does_not_keep_its_word(piece: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        FileResponse(Store(DATA, piece), size=len(DATA))({"REQUEST_METHOD": "GET"}, lambda *_: None)


def test_sizes() -> None:
    with pytest.raises(ValueError, match="size="):
        FileResponse(lambda start, stop: b"")
    with pytest.raises(ValueError, match="size is -1; give a whole number from 0 on"):
        FileResponse(lambda start, stop: b"", size=-1)
    with pytest.raises(TypeError, match=r"size is 1\.5; give a whole number"):
        FileResponse(lambda start, stop: b"", size=1.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="path has its own"):
        FileResponse("/etc/hostname", size=3)
    answer = Answer(FileResponse(lambda start, stop: b"", size=0), HTTP_RANGE="bytes=0-")
    assert (answer.status, answer.body) == ("200 OK", b"")


# -- files that grow ----------------------------------------------------------------------------------------------


def opened(response: Any) -> tuple[Any, dict[str, str]]:
    headers: dict[str, str] = {}
    body = response({"REQUEST_METHOD": "GET"}, lambda _, pairs: headers.update(pairs))
    return body, headers


def take(body: Iterator[bytes], size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += next(body)
    return data


def test_a_growing_file_is_followed_until_its_writer_is_done(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_bytes(b"one,")
    growing = [True]
    body, headers = opened(FileResponse(path, follow=lambda: growing[0]))
    assert "Content-Length" not in headers
    assert "ETag" not in headers
    assert headers["Accept-Ranges"] == "none"
    assert headers["Cache-Control"] == "no-store"
    assert take(body, 4) == b"one,"
    with path.open("ab") as log:
        log.write(b"two,")
    assert take(body, 4) == b"two,"
    with path.open("ab") as log:
        log.write(b"end")
    growing[0] = False
    assert b"".join(body) == b"end"
    body.close()


def test_a_growing_file_ends_when_the_client_has_left(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_bytes(b"one,")
    outcomes: list[Any] = []
    body, _ = opened(FileResponse(path, follow=True, on_close=lambda stream: outcomes.append(stream.outcome)))
    assert take(body, 4) == b"one,"
    body.close()
    eventually(lambda: outcomes == ["client_gone"])


@pytest.mark.parametrize("fault", ["truncated", "deleted"])
def test_a_growing_file_that_goes_wrong_is_not_complete(tmp_path: Path, fault: str) -> None:
    path = tmp_path / "log.txt"
    path.write_bytes(b"one,")
    outcomes: list[Any] = []
    body, _ = opened(FileResponse(path, follow=True, on_close=lambda stream: outcomes.append(stream.outcome)))
    assert take(body, 4) == b"one,"
    if fault == "truncated":
        os.truncate(path, 2)
    else:
        path.unlink()
    with pytest.raises(OSError, match=fault):
        next(body)
    eventually(lambda: outcomes == ["failed"])


def test_a_growing_file_that_is_cut_when_its_writer_was_done_is_not_complete(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_bytes(b"one,")

    def growing() -> bool:
        with path.open("ab") as log:
            log.write(b"x" * 1_000_000)
        return False

    body, _ = opened(FileResponse(path, follow=growing, delivery="threaded"))
    assert take(body, 4) == b"one,"
    assert set(next(body)) == {ord("x")}
    os.truncate(path, 2)
    with pytest.raises(OSError, match="truncated"):
        list(body)


def test_what_cannot_be_followed() -> None:
    with pytest.raises(ValueError, match="follow"):
        FileResponse(io.BytesIO(), follow=True)
    with pytest.raises(ValueError, match="follow"):
        FileResponse(lambda start, stop: b"", size=1, follow=True)
