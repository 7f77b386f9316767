"""Bytes that can be read by position: an open file, a file object, or a function that fetches ranges.

Law of this file
- A source is owned by one response and used by one thread, which closes it in every ending.
- `size` is what was promised when the source was opened. `blocks` yields exactly the bytes asked for, or raises:
  OSError where the file has become shorter, and whatever reading raises. Never fewer bytes in silence.
- A descriptor is read with `pread`, which has no position to disturb, and may be lent to a server (`descriptor`).
"""

from __future__ import annotations

import contextlib
import io
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, Protocol, cast

# 64 to 256 KiB reads are the fastest without sendfile; 8 KiB cost three times the CPU.
BLOCK_BYTES: Final = 256 * 1024

FETCH_BYTES: Final = 8 * 1024 * 1024
"""The most that one call of a `read_range` asks for: it bounds memory where the function returns bytes, and is the
part size that object stores recommend (Amazon S3: 8 to 16 MB)."""


class ByteSource(Protocol):
    """What a file response reads from."""

    size: int
    facts: os.stat_result | None  # of the regular file behind it, if there is one

    def blocks(self, start: int, stop: int) -> Iterator[bytes]:
        """The bytes from `start` up to `stop`, in blocks. Raises OSError where they are not all there."""
        ...

    def descriptor(self) -> int | None:
        """The descriptor of a regular file that holds these very bytes at these positions, or None."""
        ...

    def close(self) -> None:
        """Release what was opened. The second call does nothing."""
        ...


class OpenFile:
    """A regular file by its descriptor.

    owner: the file object that holds the descriptor and is closed at the end; None makes one.
    """

    def __init__(self, descriptor: int, facts: os.stat_result, owner: Any = None) -> None:
        self.size = facts.st_size
        self.facts: os.stat_result | None = facts
        self._descriptor = descriptor
        self._owner = io.FileIO(descriptor) if owner is None else owner

    def blocks(self, start: int, stop: int) -> Iterator[bytes]:
        while start < stop:
            block = os.pread(self._open(), min(BLOCK_BYTES, stop - start), start)
            if not block:
                raise truncated(start, stop)
            start += len(block)
            yield block

    def _open(self) -> int:
        if self._owner.closed:  # its number may be another file's by now
            raise ValueError("the file was closed while it was sent")
        return self._descriptor

    def descriptor(self) -> int | None:
        return self._open()

    def close(self) -> None:
        self._owner.close()


class FileObject:
    """A seekable binary file object whose bytes are not those of a descriptor: BytesIO, a member of a zip, gzip."""

    facts: os.stat_result | None = None

    def __init__(self, file: Any, size: int | None) -> None:
        self._file = file
        if size is None:
            file.seek(0, os.SEEK_END)  # of some (mmap before Python 3.13) it returns None
            size = file.tell()
        self.size: int = size

    def blocks(self, start: int, stop: int) -> Iterator[bytes]:
        self._file.seek(start)
        while start < stop:
            wanted = min(BLOCK_BYTES, stop - start)
            block = self._file.read(wanted)
            if not block:
                raise truncated(start, stop)
            if len(block) > wanted:
                raise OSError(f"read({wanted}) of {self._file!r} returned {len(block)} bytes")
            start += len(block)
            yield block

    def descriptor(self) -> int | None:
        return None

    def close(self) -> None:
        self._file.close()


RangeReader = Callable[[int, int], "bytes | bytearray | memoryview | Iterable[bytes]"]


class FetchedRanges:
    """An object in a store, read by `read_range(start, stop)`.

    It is called on the thread that sends, with at most `FETCH_BYTES` between start and stop, and returns these bytes,
    or fewer from the start on (it is asked again for the rest), as bytes, an iterable of bytes, or a file object;
    what has a `close` is closed.
    """

    facts: os.stat_result | None = None

    def __init__(self, read_range: RangeReader, size: int) -> None:
        self._read_range = read_range
        self.size = size

    def blocks(self, start: int, stop: int) -> Iterator[bytes]:
        while start < stop:
            end = min(stop, start + FETCH_BYTES)
            fetched = self._read_range(start, end)
            got = start
            try:
                for block in _pieces(fetched):
                    got += len(block)
                    if got > end:
                        raise OSError(
                            f"read_range({start}, {end}) returned more than the {end - start} bytes asked for"
                        )
                    if block:
                        yield block
            finally:
                close = getattr(fetched, "close", None)
                if close is not None:
                    close()
            if got == start:
                raise truncated(start, stop)
            start = got

    def descriptor(self) -> int | None:
        return None

    def close(self) -> None:
        pass


def _pieces(fetched: Any) -> Iterable[bytes]:
    if isinstance(fetched, (bytes, bytearray, memoryview)):
        return (bytes(fetched),)
    if isinstance(fetched, str) or not (hasattr(fetched, "read") or hasattr(fetched, "__iter__")):
        raise TypeError(
            f"read_range returned {type(fetched).__name__}; it returns bytes, an iterable of bytes or a file"
        )
    if hasattr(fetched, "read"):
        return iter(lambda: fetched.read(BLOCK_BYTES), b"")
    return cast("Iterable[bytes]", fetched)


def source_of_file(file: Any, size: int | None) -> ByteSource:
    """The source of an open binary file object, which it owns from now on; its position does not matter.

    Raises TypeError for what is no binary file, ValueError for one that cannot seek or is nothing regular.
    """
    if not (hasattr(file, "read") and hasattr(file, "seek")):
        raise TypeError(
            f"FileResponse takes a path, a binary file or read_range(start, stop), got {type(file).__name__}"
        )
    if isinstance(file, io.TextIOBase):
        raise TypeError("FileResponse takes a binary file, got one in text mode; open it with mode 'rb'")
    descriptor = _own_descriptor(file)
    if descriptor is not None:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            raise ValueError(
                f"{file!r} is not a regular file (a device, socket or FIFO); use StreamingResponse for it"
            )
        if hasattr(file, "flush"):
            file.flush()  # what was written to a temporary file is sent too
            facts = os.fstat(descriptor)
        return OpenFile(descriptor, facts, file)
    seekable = getattr(file, "seekable", None)
    if seekable is not None and not seekable():
        raise ValueError(f"{file!r} cannot seek; use StreamingResponse for it")
    return FileObject(file, size)


def _own_descriptor(file: Any) -> int | None:
    """The descriptor of Python's own file types, whose bytes are the descriptor's.

    Not of every object with `fileno()`: that of a GzipFile is the compressed file's.
    """
    inner = getattr(file, "file", None)  # tempfile's wrapper
    for candidate in (file, inner):
        raw = getattr(candidate, "raw", candidate)
        if isinstance(raw, io.FileIO) and type(candidate).__module__ in ("_io", "io"):
            with contextlib.suppress(OSError):
                return raw.fileno()
    return None


def truncated(position: int, promised: int) -> OSError:
    """The error of a file that became shorter while it was sent."""
    return OSError(
        f"the file ends at byte {position}, {promised} were promised: it was truncated while it was sent"
    )
