"""The entries of a zip archive as they are asked for: files opened, iterables iterated and closed, one at a time.

Law of this file
- One thread does all of it, the one that iterates the chunks. At any moment at most one entry is open.
- A path is an `os.PathLike`, never `str`: a text that came from a user must not be able to name a file of the server.
- A file is read as long as it was when it was looked at: one that has shrunk is an error, one that has grown is sent as
  far as was promised. It is opened without waiting (a FIFO would wait for ever) and has to be a regular file.
- After an error nothing more is written, the directory least of all.
"""

from __future__ import annotations

import datetime
import os
import stat
import time
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from streamkit.formats.zip_archive import ZipEncoder, archive_length, check_entry_name

__all__ = ["EntryData", "ZipChunks", "ZipEntry", "stored_length"]

READ_BYTES: Final = 64 * 1024  # as fast as larger blocks, and several fit into the queue between two threads

Data = bytes | bytearray | memoryview | os.PathLike[str] | Iterable[bytes]
EntryData = Data | Callable[[], Data]
"""Bytes; a path, as `pathlib.Path`; an iterable of bytes; or a function that returns one of these."""

Modified = datetime.datetime | float | None
ZipEntry = tuple[str, EntryData] | tuple[str, EntryData, Modified]
"""A name, its data, and when it was modified: a datetime (without a zone: local time) or seconds since the epoch."""


class _Parts(NamedTuple):
    name: str
    data: Any
    modified: float | None


class ZipChunks:
    """The bytes of an archive, as an iterable for one thread.

    now: the time of modification of what has none of its own.

    Raises TypeError for what cannot be entries. When it is iterated: ValueError or TypeError for entries that cannot be
    in an archive, OSError from files, and whatever the data raises; the archive then has no directory.
    """

    def __init__(self, entries: Iterable[ZipEntry], *, deflate: bool, now: float) -> None:
        if isinstance(entries, Mapping):
            raise TypeError("entries are pairs, and this is a mapping; give its .items()")
        if not isinstance(entries, Iterable):
            raise TypeError(f"entries is {entries!r:.80}; give an iterable of (name, data)")
        self._entries: Iterable[ZipEntry] | None = entries
        self._deflate = deflate
        self._now = now
        self._chunks = self._archive()

    def __iter__(self) -> Iterator[bytes]:
        return self._chunks

    def close(self) -> None:
        """Close the data of the entry in hand and `entries`, also where nothing was iterated (HEAD)."""
        self._chunks.close()
        entries, self._entries = self._entries, None
        _close(entries)

    def _archive(self) -> Generator[bytes, None, None]:
        entries, self._entries = self._entries, None
        assert entries is not None
        encoder = ZipEncoder()
        iterator = iter(entries)
        try:
            for number, entry in enumerate(iterator, 1):
                yield from _entry_chunks(encoder, _parts(entry, number), self._deflate, self._now)
        finally:
            _close(iterator, entries)
        yield encoder.tail()


def stored_length(entries: Iterable[ZipEntry], *, now: float) -> int | None:
    """The length of the archive of these entries, stored; None where that is not known before they are sent.

    It is known for a list or tuple of which every entry is bytes or a path. Raises what is wrong about names, and
    OSError for files that cannot be looked at, before anything was sent.
    """
    if not isinstance(entries, (list, tuple)):
        return None
    sizes = []
    for number, entry in enumerate(entries, 1):
        name, data, modified = _parts(entry, number)
        if isinstance(data, (bytes, bytearray, memoryview)):
            size = memoryview(data).nbytes
            sizes.append((name, now if modified is None else modified, size, True))
        elif isinstance(data, os.PathLike):
            facts = _regular(os.stat(data), data)
            sizes.append((name, facts.st_mtime if modified is None else modified, facts.st_size, False))
        else:
            return None
    return archive_length(sizes)


def _parts(entry: Any, number: int) -> _Parts:
    if not isinstance(entry, tuple) or len(entry) not in (2, 3):
        raise TypeError(f"entry {number} is {entry!r:.80}; give (name, data) or (name, data, modified)")
    name, data, modified = entry if len(entry) == 3 else (*entry, None)
    check_entry_name(name)
    _check_data(name, data)
    if modified is None:
        return _Parts(name, data, None)
    if isinstance(modified, bool) or not isinstance(modified, (datetime.datetime, int, float)):
        raise TypeError(
            f"{name!r} was modified {modified!r}; give a datetime, seconds since the epoch, or None"
        )
    try:
        seconds = modified.timestamp() if isinstance(modified, datetime.datetime) else modified
        time.localtime(seconds)
    except (ValueError, OverflowError, OSError) as error:
        raise ValueError(f"{name!r} was modified {modified!r}, which is no time here: {error}") from error
    return _Parts(name, data, seconds)


def _check_data(name: str, data: Any) -> None:
    """Raise TypeError or ValueError for what the entry `name` cannot be made of, whatever a function may return."""
    if _is_function(data):
        return
    if isinstance(data, str):
        raise TypeError(
            f"the data of {name!r} is str; give text as bytes, text.encode(), and a file as a pathlib.Path"
        )
    empty = isinstance(data, (bytes, bytearray, memoryview)) and not memoryview(data).nbytes
    if name.endswith("/") and not empty:
        raise ValueError(f"{name!r} is a directory, which has no data; give b''")


def _is_function(data: object) -> bool:
    return callable(data) and not isinstance(data, type)


def _entry_chunks(encoder: ZipEncoder, parts: _Parts, deflate: bool, now: float) -> Iterator[bytes]:
    name, data, modified = parts
    if _is_function(data):
        data = data()
        _check_data(name, data)
    if isinstance(data, os.PathLike):
        yield from _file_chunks(encoder, name, data, modified, deflate)
        return
    modified = now if modified is None else modified
    if isinstance(data, (bytes, bytearray, memoryview)):
        whole = bytes(data)
        deflate = deflate and bool(whole)
        yield encoder.begin(name, modified, deflate=deflate, size=len(whole), crc=zlib.crc32(whole))
        for start in range(0, len(whole), READ_BYTES):
            yield encoder.data(whole[start : start + READ_BYTES])
        yield encoder.end()
        return
    try:
        blocks = iter(data)
    except TypeError:
        raise TypeError(
            f"the data of {name!r} is {type(data).__name__}; give bytes, a path, an iterable of bytes, or a function "
            "that returns one"
        ) from None
    try:
        yield encoder.begin(name, modified, deflate=deflate)
        for block in blocks:
            if not isinstance(block, (bytes, bytearray, memoryview)):
                raise TypeError(f"the data of {name!r} has a block of {type(block).__name__}; yield bytes")
            yield encoder.data(bytes(block))
        yield encoder.end()
    finally:
        _close(blocks, data)


def _file_chunks(
    encoder: ZipEncoder, name: str, path: os.PathLike[str], modified: float | None, deflate: bool
) -> Iterator[bytes]:
    with open(path, "rb", buffering=0, opener=_open_regular) as file:
        facts = os.fstat(file.fileno())
        left = facts.st_size
        yield encoder.begin(
            name, facts.st_mtime if modified is None else modified, deflate=deflate, size=left
        )
        while left:
            block = file.read(min(READ_BYTES, left))
            if not block:
                raise OSError(f"{os.fspath(path)!r} has become {left} bytes shorter while it was sent")
            left -= len(block)
            yield encoder.data(block)
        yield encoder.end()


def _open_regular(path: str, flags: int) -> int:
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    try:
        _regular(os.fstat(descriptor), path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _regular(facts: os.stat_result, path: str | os.PathLike[str]) -> os.stat_result:
    if stat.S_ISDIR(facts.st_mode):
        raise IsADirectoryError(f"{os.fspath(path)!r} is a directory; give its files, each as an entry")
    if not stat.S_ISREG(facts.st_mode):
        raise ValueError(f"{os.fspath(path)!r} is no regular file; to send what it gives, give an iterable")
    return facts


def _close(thing: object, origin: object = None) -> None:
    """Close an iterator, then the iterable that it came from, each if it has a `close`."""
    for each in (thing,) if thing is origin else (thing, origin):
        close = getattr(each, "close", None)
        if callable(close):
            close()
