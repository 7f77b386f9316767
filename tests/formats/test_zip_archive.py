"""Zip archives byte by byte, and what unpackers that others wrote make of them."""

from __future__ import annotations

import io
import itertools
import os
import shutil
import subprocess
import sys
import time
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import pytest

from streamkit.formats.zip_archive import ZipEncoder, archive_length, check_entry_name

GIB = 1 << 30
NOON = 1_795_262_400.0  # 2026-11-21 12:00:00 UTC


def archive(*entries: tuple[str, bytes], deflate: bool = False, known: bool = True) -> bytes:
    encoder = ZipEncoder()
    frames = []
    for name, data in entries:
        crc = zlib.crc32(data) if known else None
        frames += [
            encoder.begin(name, NOON, deflate=deflate, size=len(data) if known else None, crc=crc),
            encoder.data(data),
            encoder.end(),
        ]
    frames.append(encoder.tail())
    whole = b"".join(frames)
    assert encoder.offset == len(whole)
    return whole


@pytest.mark.parametrize("deflate", [False, True])
@pytest.mark.parametrize("known", [False, True])
def test_unpackers_read_it(tmp_path: Path, deflate: bool, known: bool) -> None:
    entries = [
        ("a.txt", b"hello " * 1000),
        ("empty", b""),
        ("d\xe4/\u65e5\u672c.bin", os.urandom(5000)),
        ("folder/", b""),
    ]
    data = archive(*entries, deflate=deflate, known=known)
    with zipfile.ZipFile(io.BytesIO(data)) as read:
        assert read.testzip() is None
        assert [(info.filename, read.read(info)) for info in read.infolist()] == entries
        assert all(info.flag_bits & 0x800 for info in read.infolist())
        assert [info.is_dir() for info in read.infolist()] == [False, False, False, True]
    path = tmp_path / "a.zip"
    path.write_bytes(data)
    subprocess.run([sys.executable, "-m", "zipfile", "-t", str(path)], check=True, capture_output=True)
    if shutil.which("unzip"):
        done = subprocess.run(["unzip", "-tq", str(path)], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, ""), done.stdout


def test_what_is_known_stands_before_the_data() -> None:  # readers that cannot seek need it there
    assert archive(("a", b"abc")).count(b"PK\7\x08") == 0
    assert archive(("a", b"abc"), known=False).count(b"PK\7\x08") == 1
    assert archive(("a", b"abc"), deflate=True).count(b"PK\7\x08") == 1


def test_nothing_but_the_tail_makes_it_complete() -> None:
    data = archive(("a", b"abc"), ("b", b"abc"))
    for end in range(data.index(b"PK\1\2")):
        with pytest.raises(zipfile.BadZipFile):
            zipfile.ZipFile(io.BytesIO(data[:end]))


def test_an_archive_of_nothing() -> None:
    assert zipfile.ZipFile(io.BytesIO(archive())).namelist() == []


@pytest.mark.parametrize(
    "sizes",
    [
        [],
        [0],
        [1, 2, 3],
        [4 * GIB - 2],
        [4 * GIB - 1],
        [4 * GIB],
        [5 * GIB, 1],
        [3 * GIB, 3 * GIB, 3 * GIB],
        [0] * 65_534,
        [0] * 65_535,
        [0] * 70_000,
    ],
    ids=lambda sizes: f"{len(sizes)} of {max(sizes, default=0)}",
)
def test_lengths_are_exact_whatever_the_size(sizes: list[int]) -> None:
    """The directory, read from a sparse archive, finds every entry where it is; zipfile checks each local header."""
    encoder = ZipEncoder()
    for number, size in enumerate(sizes):
        encoder.begin(f"entry {number}", NOON, size=size, crc=None if number % 2 else 0)
        encoder.skip(size)
    offset = encoder.offset
    tail = encoder.tail()
    planned = [(f"entry {n}", NOON, size, n % 2 == 0) for n, size in enumerate(sizes)]
    assert archive_length(planned) == encoder.offset == offset + len(tail)
    with zipfile.ZipFile(Sparse(offset, tail)) as read:  # type: ignore[arg-type]
        infos = read.infolist()
    assert [info.file_size for info in infos] == sizes
    assert all(a.header_offset + a.file_size < b.header_offset for a, b in itertools.pairwise(infos))


class Sparse(io.RawIOBase):
    """A file whose first `hole` bytes are zeros that exist nowhere."""

    def __init__(self, hole: int, tail: bytes) -> None:
        self._hole, self._tail, self._position = hole, tail, 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._position = offset + (0, self._position, self._hole + len(self._tail))[whence]
        return self._position

    def tell(self) -> int:
        return self._position

    def read(self, size: int = -1) -> bytes:
        start = self._position - self._hole
        zeros = bytes(max(0, -start))
        assert len(zeros) < 100, "only the directory is read"
        data = (zeros + self._tail)[max(0, start) :]
        data = data if size < 0 else data[:size]
        self._position += len(data)
        return data


def test_a_size_that_is_not_known_may_be_any() -> None:
    data = archive(("a", b"abc"), known=False)
    assert data[4:6] == (45).to_bytes(2, "little")  # zip64 (APPNOTE 4.4.3.2)
    assert zipfile.ZipFile(io.BytesIO(data)).read("a") == b"abc"


@pytest.mark.parametrize(
    ("modified", "expected"),
    [
        (time.mktime((2026, 11, 21, 8, 30, 58, 0, 0, -1)), (2026, 11, 21, 8, 30, 58)),
        (time.mktime((2026, 11, 21, 8, 30, 59, 0, 0, -1)), (2026, 11, 21, 8, 30, 58)),
        (0, (1980, 1, 1, 0, 0, 0)),
        (-5.5, (1980, 1, 1, 0, 0, 0)),
        (5e9, (2128, 6, 11, 8, 53, 20)),
    ],
)
def test_times(modified: float, expected: tuple[int, ...]) -> None:
    encoder = ZipEncoder()
    data = encoder.begin("a", modified, size=0, crc=0) + encoder.end() + encoder.tail()
    found = zipfile.ZipFile(io.BytesIO(data)).infolist()[0].date_time
    assert found == (expected if expected[0] < 2108 else (2107, 12, 31, 23, 59, 58))


WRONG_NAMES = [
    "",
    "/",
    "/etc/passwd",
    "..",
    "../a",
    "a/../../b",
    "a/..",
    "C:/a",
    "c:a",
    "a\\b",
    "a\0b",
    "a\nb",
    "a\x7f",
    "a//b",
    "./a",
    "a/./b",
    "a//",
    "a\udc80",
    "x" * 65_536,
]


@pytest.mark.parametrize("name", WRONG_NAMES, ids=ascii)
def test_names_that_lead_elsewhere(name: str) -> None:
    with pytest.raises(ValueError, match="entry name"):
        check_entry_name(name)


@pytest.mark.parametrize("name", ["a", "a/b", "a/", "...", "a..b", "\u65e5.txt", "a b", "x" * 65_535])
def test_names_that_are_fine(name: str) -> None:
    assert check_entry_name(name) == name.encode()


def test_a_name_is_text() -> None:
    with pytest.raises(TypeError, match="bytes; give str"):
        check_entry_name(b"a")  # type: ignore[arg-type]


def test_a_name_twice() -> None:
    with pytest.raises(ValueError, match="has an entry 'a' already"):
        archive(("a", b""), ("a", b""))


@pytest.mark.parametrize(
    "names", [("a", "a/"), ("a/", "a"), ("a", "a/b"), ("a/b/c", "a"), ("a/b/c", "a/b"), ("a", "a/b/c/")]
)
def test_no_name_is_a_file_and_a_folder(names: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="rename one"):
        archive(*((name, b"") for name in names))


def test_names_beside_and_in_each_other() -> None:
    names = ["a/b", "a/", "a/c/", "a/c/d", "ab", "b/", "b/c", "c/d/e", "c/d/f"]
    assert zipfile.ZipFile(io.BytesIO(archive(*((name, b"") for name in names)))).namelist() == names


def test_a_name_of_many_folders_costs_little_memory() -> None:
    """Names may come from users; the folders of this one are 500 MB, written out each."""
    encoder = ZipEncoder()
    tracemalloc.start()
    try:
        encoder.begin("a/" * 32_000 + "b", NOON, size=0, crc=0)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 20_000_000


def test_what_was_announced_is_held() -> None:
    encoder = ZipEncoder()
    encoder.begin("a", NOON, size=3)
    encoder.data(b"ab")
    with pytest.raises(ValueError, match="'a' has 2 bytes, but 3 were announced"):
        encoder.end()
    with pytest.raises(ValueError, match="'a' has 4 bytes or more, but 3"):
        encoder.data(b"cd")
    with pytest.raises(ValueError, match="'a' has no end"):
        encoder.tail()
    other = ZipEncoder()
    other.begin("a", NOON, size=1, crc=5)
    other.data(b"x")
    with pytest.raises(ValueError, match="not the data that its CRC"):
        other.end()


def test_entries_one_after_another() -> None:
    encoder = ZipEncoder()
    with pytest.raises(ValueError, match="no entry to write to"):
        encoder.data(b"x")
    encoder.begin("a", NOON)
    with pytest.raises(ValueError, match="'b' begins inside 'a'"):
        encoder.begin("b", NOON)
