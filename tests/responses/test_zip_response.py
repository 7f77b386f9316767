"""Zip archives as answers: lengths, every kind of data, and archives that must not look complete."""

from __future__ import annotations

import datetime
import io
import os
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from streamkit.errors import StreamkitError
from streamkit.responses.zip_archive import ZipResponse
from tests.responses.test_streamed import Answer, body_of

pytestmark = pytest.mark.usefixtures("nothing_left")


def read(body: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "data.bin"
    path.write_bytes(os.urandom(400_000))
    os.utime(path, (1_700_000_000, 1_700_000_000))
    return path


@pytest.mark.parametrize("deflate", [False, True])
def test_every_kind_of_data(file: Path, deflate: bool) -> None:
    entries = iter(
        [
            ("bytes", b"abc"),
            ("bytearray", bytearray(b"abc")),
            ("memoryview", memoryview(b"abc")),
            ("large", b"x" * 700_000),
            ("path", file),
            ("memoryview with gaps", memoryview(b"a-b-c-")[::2]),
            ("iterable", [b"a", b"", bytearray(b"bc")]),
            ("generator", (b"%d\n" % n for n in range(1000))),
            ("function that returns bytes", lambda: b"abc"),
            ("function that returns a path", lambda: file),
            ("function that returns an iterable", lambda: iter([b"abc"])),
            ("empty", b""),
            ("nothing", []),
            ("folder/", b""),
            ("\u65e5/\xe4.txt", b"abc"),
        ]
    )
    answer = Answer(ZipResponse(entries, deflate=deflate, filename="b\xfccher.zip"))  # type: ignore[arg-type]
    assert answer.error is None
    assert answer.headers["Content-Type"] == "application/zip"
    assert "filename*=UTF-8''b%C3%BCcher.zip" in answer.headers["Content-Disposition"]
    assert "Content-Length" not in answer.headers
    found = read(answer.body)
    assert len(found) == 15
    data = file.read_bytes()
    assert found["path"] == found["function that returns a path"] == data
    assert found["generator"] == b"".join(b"%d\n" % n for n in range(1000))
    assert found["large"] == b"x" * 700_000
    assert found["empty"] == found["nothing"] == found["folder/"] == b""
    for name in ("bytes", "bytearray", "memoryview", "memoryview with gaps", "iterable", "\u65e5/\xe4.txt"):
        assert found[name] == b"abc"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_stored_entries_of_known_size_have_a_length(file: Path, method: str) -> None:
    entries = [
        ("a", b"abc"),
        ("folder/", b""),
        ("d\xe4/file", file),
        ("e", b"", 0),
        ("f", memoryview(b"a-b-")[::2]),
    ]
    answer = Answer(ZipResponse(entries), method)
    expected = len(Answer(ZipResponse(entries)).body)
    assert answer.headers["Content-Length"] == str(expected)
    assert len(answer.body) == (expected if method == "GET" else 0)


@pytest.mark.parametrize(
    ("entries", "deflate"),
    [([("a", [b"abc"])], False), ([("a", lambda: b"abc")], False), ([("a", b"abc")], True)],
)
def test_no_length_where_it_is_not_known(entries: Any, deflate: bool) -> None:
    assert "Content-Length" not in Answer(ZipResponse(entries, deflate=deflate)).headers


def test_times(file: Path) -> None:
    zone = datetime.timezone(datetime.timedelta(hours=5))
    moment = datetime.datetime(2020, 5, 17, 10, 30, 20)
    entries = [
        ("naive", b"", moment),
        ("aware", b"", moment.astimezone().astimezone(zone)),
        ("seconds", b"", moment.timestamp()),
        ("file", file),
        ("file at another time", file, moment),
    ]
    with zipfile.ZipFile(io.BytesIO(Answer(ZipResponse(entries)).body)) as archive:
        times = {info.filename: info.date_time for info in archive.infolist()}
    own = datetime.datetime.fromtimestamp(1_700_000_000)
    assert times.pop("file") == tuple(own.timetuple())[:6]
    assert set(times.values()) == {(2020, 5, 17, 10, 30, 20)}


WRONG: list[tuple[Any, type[Exception], str]] = [
    ([("../a", b"")], ValueError, "leads out of the folder"),
    ([("/a", b"")], ValueError, "leads out of the folder"),
    ([("a\\b", b"")], ValueError, "backslash"),
    ([("a\0", b"")], ValueError, "control character"),
    ([("a", b""), ("a", b"")], ValueError, "already"),
    ([("a", b""), ("a/", b"")], ValueError, "a file and a folder 'a'"),
    ([("a", Path("no/such/file"))], FileNotFoundError, "no/such/file"),
    ([("a", __file__)], TypeError, "data of 'a' is str; give text as bytes"),
    ([("a", lambda: __file__)], TypeError, "data of 'a' is str"),
    ([("a", Path("/"))], IsADirectoryError, "give its files"),
    ([("a", Path("/dev/null"))], ValueError, "no regular file"),
    ([("a", None)], TypeError, "data of 'a' is NoneType"),
    ([("a", 5)], TypeError, "data of 'a' is int"),
    ([("a", ["text"])], TypeError, "block of str"),
    ([("folder/", b"abc")], ValueError, "directory, which has no data"),
    ([("path/", Path(__file__))], ValueError, "'path/' is a directory, which has no data"),
    ([("list/", [b"abc"])], ValueError, "'list/' is a directory, which has no data"),
    ([("function/", lambda: [b"abc"])], ValueError, "'function/' is a directory, which has no data"),
    ([("a",)], TypeError, "entry 1 is"),
    (["ab"], TypeError, "entry 1 is 'ab'"),
    ([(b"a", b"")], TypeError, "bytes; give str"),
    ([("a", b"", "today")], TypeError, "was modified 'today'"),
    ([("a", b"", float("nan"))], ValueError, "'a' was modified nan, which is no time"),
    ([("a", b"", float("inf"))], ValueError, "'a' was modified inf, which is no time"),
    ([("a", b"", datetime.datetime(1, 1, 1))], ValueError, r"'a' was modified datetime.*, which is no time"),
    (5, TypeError, "entries is 5; give an iterable"),
    ({"a": b""}, TypeError, r"this is a mapping; give its \.items\(\)"),
]


@pytest.mark.parametrize("lazily", [False, True])
@pytest.mark.parametrize(("entries", "error", "message"), WRONG, ids=[row[2] for row in WRONG])
def test_what_is_refused_before_the_first_byte(
    entries: Any, error: type[Exception], message: str, lazily: bool
) -> None:
    if lazily and isinstance(entries, list):
        entries = iter(entries)
    # Two entries of one name are seen when the second comes; everything else before anything is sent.
    with pytest.raises(error, match=message):
        raise Answer(ZipResponse(entries)).error or AssertionError


def failing() -> Iterator[bytes]:
    yield b"x" * 300_000
    raise OSError("disk read error")


@pytest.mark.parametrize("deflate", [False, True])
def test_an_archive_that_breaks_off_has_no_directory(deflate: bool) -> None:
    answer = Answer(ZipResponse([("a", b"abc"), ("b", failing), ("c", b"")], deflate=deflate))
    assert isinstance(answer.error, OSError)
    assert b"PK\1\2" not in answer.body
    assert b"PK\5\6" not in answer.body
    with pytest.raises(zipfile.BadZipFile):
        read(answer.body)


@pytest.mark.parametrize("change", ["shorter", "longer", "gone", "replaced"])
def test_a_file_that_changes_after_its_length_was_promised(file: Path, change: str) -> None:
    """Never fewer or more bytes than promised in an answer that looks whole."""
    response = ZipResponse([("a", b"abc"), ("file", file)])
    if change == "gone":
        file.unlink()
    elif change == "replaced":
        other = file.with_suffix(".other")
        other.write_bytes(b"other")
        other.rename(file)
    else:
        os.truncate(file, 399_999 if change == "shorter" else 400_001)
    answer = Answer(response)
    assert isinstance(answer.error, (OSError, ValueError, StreamkitError))
    assert len(answer.body) != int(answer.headers["Content-Length"])


@pytest.mark.parametrize("change", [-1, 1])
def test_a_file_that_changes_while_it_is_sent(file: Path, change: int) -> None:
    size = 5_000_000
    os.truncate(file, size)
    blocks = iter(body_of(ZipResponse([("file", file)])))
    first = next(blocks)
    os.truncate(file, size + change)
    if change > 0:  # sent as far as was promised
        assert len(read(first + b"".join(blocks))["file"]) == size
    else:
        with pytest.raises(OSError, match="1 bytes shorter"):
            list(blocks)
    blocks.close()


def test_a_fifo_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    answer: list[Exception] = []

    def ask() -> None:
        try:
            ZipResponse([("a", tmp_path / "fifo")])
        except Exception as error:
            answer.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(10)
    assert "no regular file" in str(answer[0])


def test_data_is_opened_in_its_turn_and_closed(file: Path) -> None:
    log: list[str] = []

    def data(name: str) -> Callable[[], Iterator[bytes]]:
        def blocks() -> Iterator[bytes]:
            log.append(f"open {name}")
            try:
                yield b"x"
            finally:
                log.append(f"close {name}")

        return blocks

    def entries() -> Iterator[tuple[str, Any]]:
        try:
            yield "a", data("a")
            yield "b", data("b")
        finally:
            log.append("close entries")

    Answer(ZipResponse(entries()))
    assert log == ["open a", "close a", "open b", "close b", "close entries"]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_entries_are_closed_once_whether_they_were_iterated_or_not(method: str) -> None:
    class Entries:
        closed = 0

        def __init__(self) -> None:
            self.left = iter([("a", b"abc")])

        def __iter__(self) -> Iterator[Any]:
            return self

        def __next__(self) -> Any:
            return next(self.left)

        def close(self) -> None:
            self.closed += 1

    entries = Entries()
    Answer(ZipResponse(entries), method)
    assert entries.closed == 1


def test_a_client_that_leaves_closes_the_data() -> None:
    closed = threading.Event()

    def endless() -> Iterator[bytes]:
        try:
            while True:
                yield b"x" * 65536
        finally:
            closed.set()

    body = body_of(ZipResponse([("a", endless())]))
    assert next(iter(body))
    body.close()
    assert closed.wait(10)
