"""Lines of real files that grow, shrink, are rotated and vanish."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from streamkit.flow import tail_file as module
from streamkit.flow.tail_file import BLOCK_BYTES, FileTail, LineSplitter, tail_file
from tests.conftest import descriptors

QUICK = 0.005  # seconds between two looks, in tests


@pytest.fixture(autouse=True)
def every_file_is_closed() -> Iterator[None]:
    before = descriptors()
    yield
    assert descriptors() - before == set()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "server.log"


@pytest.fixture
def follow(path: Path) -> Iterator[Any]:
    """`follow(**options)` tails `path`; closed at the end of the test."""
    opened: list[FileTail] = []

    def open_it(**options: Any) -> FileTail:
        opened.append(tail_file(path, **{"poll_seconds": QUICK, **options}))
        return opened[-1]

    yield open_it
    for source in opened:
        source.close()


def append(path: Path, text: str) -> None:
    with open(path, "a", newline="") as file:
        file.write(text)


def last(path: Path, **options: Any) -> list[str]:
    source = tail_file(path, follow=False, **options)
    try:
        return list(source)
    finally:
        source.close()


def at_look(source: FileTail, changes: Mapping[int, Callable[[], object]]) -> list[float | None]:
    """Run `changes[n]` when the source waits for the n-th time from now, instead of waiting.

    Returns the list of the waits, which grows.
    """
    looks: list[float | None] = []
    is_set = source._wake.is_set

    def look(timeout: float | None = None) -> bool:
        looks.append(timeout)
        assert len(looks) < 1000, "nothing comes"
        changes.get(len(looks), is_set)()
        return is_set()

    source._wake.wait = look  # type: ignore[method-assign]
    return looks


# -- bytes to lines -----------------------------------------------------------------------------------

SPLIT = [
    (b"", []),
    (b"a", ["a"]),
    (b"a\n", ["a"]),
    (b"a\r\nb\r\n", ["a", "b"]),
    (b"\n\n", ["", ""]),
    (b"\r\n", [""]),
    (b"a\rb\n", ["a\rb"]),  # a CR alone ends no line
    (b"a\r\r\n", ["a\r"]),
    ("\u00e9\u20ac\U0001f600\n".encode(), ["\u00e9\u20ac\U0001f600"]),
    (
        "a\u2028b\x0bc\x85d\n".encode(),
        ["a\u2028b\x0bc\x85d"],
    ),  # nor does what str.splitlines takes for an end
    (b"\xff\xfe\n", ["\ufffd\ufffd"]),
    (b"\xe2\x82\nok\n", ["\ufffd", "ok"]),  # a cut character does not eat the newline
    (b"\x00\n", ["\x00"]),
]


@pytest.mark.parametrize(("data", "lines"), SPLIT)
def test_split_whole_and_cut_at_every_byte(data: bytes, lines: list[str]) -> None:
    for cut in range(len(data) + 1):
        splitter = LineSplitter("utf-8", 1000)
        assert splitter.feed(data[:cut]) + splitter.feed(data[cut:]) + splitter.finish() == lines
    splitter = LineSplitter("utf-8", 1000)
    single = [line for byte in data for line in splitter.feed(bytes([byte]))]
    assert single + splitter.finish() == lines


@pytest.mark.parametrize("limit", range(1, 14))
@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_long_line_comes_in_pieces_and_no_character_is_cut(limit: int, end: str) -> None:
    text = "ab\u20accd\U0001f600e"
    data = (text + end).encode()
    for step in (1, 3, len(data)):
        splitter = LineSplitter("utf-8", limit)
        pieces: list[str] = []
        for start in range(0, len(data), step):
            pieces += splitter.feed(data[start : start + step])
            assert len(splitter._held) <= limit
        pieces += splitter.finish()
        assert "".join(pieces) == text
        assert "" not in pieces
        assert "\ufffd" not in "".join(pieces)
        assert splitter.feed(b"next\n") + splitter.finish() != []


def test_a_line_of_exactly_the_limit_is_one_line() -> None:
    splitter = LineSplitter("utf-8", 4)
    assert splitter.feed(b"abcd") == []
    assert splitter.feed(b"\nabcde") == ["abcd", "abcd"]
    assert splitter.feed(b"\nx\n") == ["e", "x"]


def test_other_encodings() -> None:
    assert LineSplitter("latin-1", 100).feed(b"\xe9\n") == ["\u00e9"]
    assert LineSplitter("shift_jis", 100).feed("\u65e5\u672c\n".encode("shift_jis")) == ["\u65e5\u672c"]
    for encoding in ("utf-16", "utf-16-le", "utf-32", "cp037"):
        with pytest.raises(ValueError, match="convert to UTF-8"):
            LineSplitter(encoding, 100)
    with pytest.raises(LookupError):
        LineSplitter("no such encoding", 100)


# -- the last lines -----------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [1, 2, 3, 7, BLOCK_BYTES])
@pytest.mark.parametrize(
    "text", ["", "a\n", "a", "\n", "\n\n", "a\nb\nc\n", "a\nb\nc", "one\r\n\r\ntwo\n\nthree\n"]
)
def test_the_last_lines_as_tail_gives_them(
    path: Path, monkeypatch: pytest.MonkeyPatch, text: str, block: int
) -> None:
    monkeypatch.setattr(module, "BLOCK_BYTES", block)
    path.write_text(text, newline="")
    every_line = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")] if text else []
    for lines in range(len(every_line) + 2):
        assert last(path, lines=lines) == (every_line[-lines:] if lines else [])
    assert last(path, from_start=True, lines=1) == every_line


def test_ten_lines_unless_asked_otherwise(path: Path) -> None:
    path.write_text("".join(f"{number}\n" for number in range(100)))
    assert last(path) == [str(number) for number in range(90, 100)]


def test_the_last_line_of_a_large_file_is_found_without_reading_it_all(path: Path) -> None:
    with open(path, "wb") as file:
        file.truncate(1 << 40)  # a hole of one tebibyte: to read it would take minutes
        file.seek(0, os.SEEK_END)
        file.write(b"\nfirst\nsecond\n")
    assert last(path, lines=2) == ["first", "second"]


# -- growth -------------------------------------------------------------------------------------------


def test_growth_is_followed(path: Path, follow: Any) -> None:
    path.write_text("a\nb\n")
    source = follow(lines=1)
    assert next(source) == "b"
    at_look(source, {1: lambda: append(path, "c\nd\n")})
    assert [next(source), next(source)] == ["c", "d"]


def test_an_unfinished_line_is_held_until_its_newline_comes(path: Path, follow: Any) -> None:
    path.write_text("a\nb\nunfin")
    source = follow(lines=1)
    assert next(source) == "b"  # the one that grows is not one of the last lines
    looks = at_look(source, {1: lambda: append(path, "ish"), 3: lambda: append(path, "ed\r\n")})
    assert next(source) == "unfinished"
    assert looks == [QUICK] * 3


@pytest.mark.parametrize("text", ["", "a\n", "a\nb"])
def test_only_what_is_new_and_never_half_a_line(path: Path, follow: Any, text: str) -> None:
    path.write_text(text)
    source = follow(lines=0)
    append(path, "X\n")
    # The place to begin at is found at the first `next()`.
    at_look(source, {1: lambda: append(path, "Y\n")})
    assert next(source) == "Y"


def test_a_line_without_an_end_is_delivered_in_pieces(path: Path, follow: Any) -> None:
    path.write_bytes(b"x" * 25)
    source = follow(from_start=True, max_line_bytes=10)
    assert [next(source), next(source)] == ["x" * 10, "x" * 10]
    at_look(source, {1: lambda: append(path, "\n")})
    assert next(source) == "x" * 5


# -- truncation and rotation --------------------------------------------------------------------------


def test_a_truncated_file_is_read_from_its_start(path: Path, follow: Any) -> None:
    path.write_text("old one\nold two\npart")
    source = follow()
    assert [next(source), next(source)] == ["old one", "old two"]
    at_look(source, {1: lambda: path.write_text("new\n")})  # the same inode, copytruncate
    assert [next(source), next(source)] == ["part", "new"]


def test_a_rotated_file_is_read_to_its_end_and_then_the_new_one(path: Path, follow: Any) -> None:
    path.write_text("a\n")
    source = follow()
    assert next(source) == "a"
    old = path.with_suffix(".1")

    def rotate() -> None:
        path.rename(old)
        append(old, "b\n")
        path.write_text("d\n")

    # At look 2 the new file has been seen, but the logger has not been told of it yet.
    at_look(source, {1: rotate, 2: lambda: append(old, "c\nno newline"), 3: lambda: append(path, "e\n")})
    assert [next(source) for _ in range(5)] == ["b", "c", "no newline", "d", "e"]


def test_a_file_that_is_gone_for_a_while(path: Path, follow: Any) -> None:
    path.write_text("a\n")
    source = follow()
    assert next(source) == "a"
    old = path.with_suffix(".1")
    changes = {
        1: lambda: path.rename(old),
        3: lambda: append(old, "still the old one\n"),
        5: old.unlink,
        7: lambda: path.write_text("new\n"),
    }
    at_look(source, changes)
    assert next(source) == "still the old one"
    assert next(source) == "new"


def test_rotated_twice(path: Path, follow: Any) -> None:
    path.write_text("0\n")
    source = follow()
    assert next(source) == "0"
    for number in ("1", "2", "3"):

        def rotate(number: str = number) -> None:
            new = path.with_suffix(".new")
            new.write_text(f"{number}\n")
            new.replace(path)

        at_look(source, {1: rotate})
        assert next(source) == number


def test_a_writer_that_rotates_loses_nothing(path: Path, follow: Any) -> None:
    # A reader cannot know of a file that was there and gone between two looks, so the writer
    # rotates a file when a line of it has been read.
    files, lines_each = 5, 500
    has_been_read = [threading.Event() for _ in range(files)]

    def write() -> None:
        for number in range(files):
            with open(path, "a") as file:
                for line in range(lines_each):
                    file.write(f"{number * lines_each + line}\n")
                    file.flush()
                assert has_been_read[number].wait(20)
                path.rename(path.with_suffix(f".{number}"))
                file.write(f"last of {number}\n")

    path.touch()
    source = follow(from_start=True, poll_seconds=0.02)
    writer = threading.Thread(target=write)
    writer.start()
    lines = []
    for line in source:
        lines.append(line)
        if line.isdecimal():
            has_been_read[int(line) // lines_each].set()
        elif line == f"last of {files - 1}":
            break
    writer.join(20)
    expected = []
    for number in range(files):
        expected += [str(number * lines_each + line) for line in range(lines_each)] + [f"last of {number}"]
    assert lines == expected


# -- the ends -----------------------------------------------------------------------------------------


def test_cancel_wakes_a_wait_at_once(path: Path) -> None:
    path.write_text("a\n")
    source = tail_file(path, poll_seconds=3600)
    waits = threading.Event()
    wait = source._wake.wait

    def told(timeout: float | None = None) -> bool:
        waits.set()
        return wait(timeout)

    source._wake.wait = told  # type: ignore[method-assign]
    lines: list[str] = []
    thread = threading.Thread(target=lambda: lines.extend(source))
    thread.start()
    assert waits.wait(10)
    source.cancel()
    thread.join(10)
    assert not thread.is_alive()
    assert lines == ["a"]
    source.close()


def test_cancel_before_the_first_line(path: Path) -> None:
    path.write_text("a\n")
    source = tail_file(path)
    source.cancel()
    assert list(source) == []
    source.close()
    source.close()
    source.cancel()


def test_closed_without_a_line_taken(path: Path) -> None:
    path.write_text("a\n")
    tail_file(path).close()
    gc.collect()


def test_closed_after_an_error(path: Path) -> None:
    path.write_text("a\n")
    source = tail_file(path, poll_seconds=QUICK)
    assert next(source) == "a"

    def a_folder_instead() -> None:
        path.rename(path.with_suffix(".1"))
        path.mkdir()

    at_look(source, {1: a_folder_instead})
    with pytest.raises(IsADirectoryError):
        next(source)
    source.close()


# -- what is refused, at the call ---------------------------------------------------------------------


def test_a_missing_file(path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        tail_file(path)
    assert caught.value.filename == str(path)


def test_a_file_that_is_open_already(path: Path) -> None:
    path.touch()
    with path.open() as file, pytest.raises(TypeError, match="give the path of the file"):
        tail_file(file)  # type: ignore[arg-type]


def test_a_folder(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError, match="give the path of one file in it"):
        tail_file(tmp_path)


def test_a_fifo_and_a_device(path: Path) -> None:
    os.mkfifo(path)
    for special in (path, "/dev/null"):
        with pytest.raises(ValueError, match="not a regular file"):
            tail_file(special)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"lines": -1}, "0 or more"),
        ({"poll_seconds": 0}, "more than 0"),
        ({"poll_seconds": float("nan")}, "more than 0"),
        ({"max_line_bytes": 0}, "1 or more"),
        ({"encoding": "utf-16"}, "convert to UTF-8"),
    ],
)
def test_values_out_of_range(path: Path, options: dict[str, Any], told: str) -> None:
    path.touch()
    with pytest.raises(ValueError, match=told):
        tail_file(path, **options)
