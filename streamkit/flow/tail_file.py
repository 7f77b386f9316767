"""The last lines of a growing file, and then what is added to it: `tail -F`, as a source.

Law of this file
- The file is opened, and refused, when the source is made; it is closed in every ending.
- A line is delivered when its newline has been written: what is read of it before that is held back.
- The path is what is followed, not the file: a file that was renamed away is read to its end, then the new
  one from its start. A file that became shorter than what was read of it starts again at 0.
- Memory is bounded by one block and one line, whatever the size of the file.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import stat
import threading
from collections.abc import Generator, Iterator
from typing import Final

# What one read asks for: large enough that the system call does not count, small beside the longest line.
BLOCK_BYTES: Final = 64 * 1024

# 1 MiB: far above any log line meant for eyes (journald cuts at 48 KiB, Docker at 16 KiB), and a bound for
# a file that holds no newline at all.
MAX_LINE_BYTES: Final = 1024 * 1024


class LineSplitter:
    """Bytes as they come, cut anywhere, into lines of text without their ends.

    A line ends with LF; one CR before it belongs to the end. encoding: one that has LF as the byte 0A and
    uses that byte for nothing else (UTF-8, Latin-1 and the Asian multi-byte encodings do; UTF-16 does not);
    what does not decode becomes U+FFFD. max_line_bytes: a longer line comes in pieces of this size, without
    waiting for its end; no character is cut in two.

    Raises ValueError for an encoding without that property and for a limit below 1, LookupError for an
    unknown encoding.
    """

    def __init__(self, encoding: str, max_line_bytes: int) -> None:
        if "\n".encode(encoding) != b"\n":
            raise ValueError(
                f"encoding is {encoding!r}, in which a newline is not the byte 0A: convert to UTF-8 first"
            )
        if max_line_bytes < 1:
            raise ValueError(
                f"max_line_bytes is {max_line_bytes!r}: give the longest line in bytes, 1 or more"
            )
        self._encoding = encoding
        self._new_decoder = codecs.getincrementaldecoder(encoding)
        self._limit = max_line_bytes
        self._held = bytearray()
        # Keeps the bytes of a character that was cut in two; None while no piece of this line is out.
        self._pieces: codecs.IncrementalDecoder | None = None

    def feed(self, data: bytes) -> list[str]:
        """The lines, and the pieces of lines too long, that `data` completes."""
        lines: list[str] = []
        *ended, rest = data.split(b"\n")
        for part in ended:
            if self._held or self._pieces or len(part) > self._limit:
                self._held += part
                self._cut_pieces(lines)
                self._end_line(lines)
            else:
                lines.append(part.removesuffix(b"\r").decode(self._encoding, "replace"))
        if rest:
            self._held += rest
            self._cut_pieces(lines)
        return lines

    def finish(self) -> list[str]:
        """What was held back: a last line without its newline. The splitter is as new after that."""
        lines: list[str] = []
        if self._held or self._pieces:
            self._end_line(lines)
        return lines

    def _cut_pieces(self, lines: list[str]) -> None:
        held, limit = self._held, self._limit
        if len(held) <= limit:
            return
        if self._pieces is None:
            self._pieces = self._new_decoder("replace")
        start = 0
        while len(held) - start > limit:
            text = self._pieces.decode(bytes(held[start : start + limit]))
            start += limit
            if text:
                lines.append(text)
        del held[:start]

    def _end_line(self, lines: list[str]) -> None:
        end = bytes(self._held.removesuffix(b"\r"))
        self._held.clear()
        if self._pieces is None:
            lines.append(end.decode(self._encoding, "replace"))
            return
        text = self._pieces.decode(end, True)
        self._pieces = None
        if text:  # what is left of a line in pieces may be nothing but its CR
            lines.append(text)


class FileTail:
    """The lines of a growing file; see `tail_file`."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        lines: int,
        follow: bool,
        from_start: bool,
        poll_seconds: float,
        splitter: LineSplitter,
    ) -> None:
        if not isinstance(path, (str, os.PathLike)):
            raise TypeError(
                f"path is {path!r}: give the path of the file, which is opened (and reopened) here"
            )
        if lines < 0:
            raise ValueError(f"lines is {lines!r}: give how many existing lines to begin with, 0 or more")
        if not 0 < poll_seconds <= threading.TIMEOUT_MAX:
            raise ValueError(
                f"poll_seconds is {poll_seconds!r}: give the time between two looks at the file, more than 0"
            )
        self._path = os.fspath(path)
        self._last_lines = lines
        self._follow = follow
        self._from_start = from_start
        self._poll_seconds = poll_seconds
        self._splitter = splitter
        self._wake = threading.Event()
        self._file = _open_regular(self._path)
        self._iterator = self._lines()

    def __iter__(self) -> Iterator[str]:
        return self._iterator

    def __next__(self) -> str:
        return next(self._iterator)

    def close(self) -> None:
        """Close the file. The second call does nothing."""
        self._wake.set()
        self._iterator.close()
        self._file.close()

    def cancel(self) -> None:
        """End it at once, also in the middle of a wait; any thread."""
        self._wake.set()

    def _lines(self) -> Generator[str, None, None]:
        splitter, wake = self._splitter, self._wake
        try:
            if not self._from_start:
                self._seek_to_last_lines()
            while not wake.is_set():
                block = self._file.read(BLOCK_BYTES)
                if block:
                    yield from splitter.feed(block)
                elif not self._follow:
                    yield from splitter.finish()
                    return
                elif self._is_truncated():
                    yield from splitter.finish()  # its newline will never come
                    self._file.seek(0)
                elif not wake.wait(self._poll_seconds) and self._is_replaced():
                    yield from self._last_of_replaced()
        finally:
            self._file.close()

    def _is_truncated(self) -> bool:
        return os.fstat(self._file.fileno()).st_size < self._file.tell()

    def _is_replaced(self) -> bool:
        """Whether the path names another file now. While this one is open its inode cannot be used again."""
        try:
            named = os.stat(self._path)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return False  # renamed or removed, and the new one is not there or not ready yet
        return not os.path.samestat(named, os.fstat(self._file.fileno()))

    def _last_of_replaced(self) -> Iterator[str]:
        # A logger goes on writing to the renamed file until somebody tells it to open the new one, so
        # the old one gets one more wait before its last bytes are read.
        self._wake.wait(self._poll_seconds)
        while not self._wake.is_set() and (block := self._file.read(BLOCK_BYTES)):
            yield from self._splitter.feed(block)
        if self._wake.is_set():
            return
        try:
            new = _open_regular(self._path)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return  # gone again: the loop goes on looking
        old, self._file = self._file, new
        old.close()
        yield from self._splitter.finish()

    def _seek_to_last_lines(self) -> None:
        """Go to where the last lines begin, reading backwards block by block.

        When the file is followed, an unfinished last line is not one of them: it belongs to what grows. When
        it is not, it counts as a line, as for tail(1).
        """
        file = self._file
        position = size = file.seek(0, os.SEEK_END)
        # The newline before the first line wanted: the (lines + 1)th from the end, if the last byte is one.
        wanted = self._last_lines + 1
        while position > 0 and not self._wake.is_set():
            length = min(BLOCK_BYTES, position)
            position -= length
            block = _read_at(file, position, length)
            if position + length == size and not self._follow and not block.endswith(b"\n"):
                wanted -= 1
            newlines = block.count(b"\n")
            if newlines < wanted and wanted:
                wanted -= newlines
                continue
            end = len(block)
            for _ in range(wanted):
                end = block.rindex(b"\n", 0, end)
            file.seek(position + end + 1 if wanted else size)
            return
        file.seek(0)


def _read_at(file: io.FileIO, position: int, length: int) -> bytes:
    file.seek(position)
    return file.read(length) or b""


def _open_regular(path: str) -> io.FileIO:
    """Open a regular file, unbuffered. Raises what `open` raises, and ValueError for anything special."""
    # Before opening: to open a device may do something, to open a FIFO may wait.
    _check_kind(path, os.stat(path).st_mode)
    # Non-blocking, for the path may name something else by now; it means nothing for a regular file.
    file = io.FileIO(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))
    try:
        _check_kind(path, os.fstat(file.fileno()).st_mode)
    except BaseException:
        file.close()
        raise
    return file


def _check_kind(path: str, mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "is a directory: give the path of one file in it", path)
    if not stat.S_ISREG(mode):
        raise ValueError(
            f"{path!r} is not a regular file: only those have a last line to begin at;"
            " read a FIFO or a device with open(path)"
        )


def tail_file(
    path: str | os.PathLike[str],
    *,
    lines: int = 10,
    follow: bool = True,
    from_start: bool = False,
    encoding: str = "utf-8",
    poll_seconds: float = 0.25,
    max_line_bytes: int = MAX_LINE_BYTES,
) -> FileTail:
    """The last lines of a file, `str` without their ends, then those that are added, until the client leaves.

    path: of a regular file, followed by name: through rotation (renamed and made anew) and truncation. A file
    that was truncated and grew beyond the old place between two looks cannot be told from one that only grew.
    lines: how many existing lines to begin with; 10 as in tail(1), 0 for new ones only.
    follow: False ends at the end of the file, and delivers a last line without a newline. from_start: True
    begins with the first line of the file; `lines` is not used then.
    encoding: see `LineSplitter`; bytes that do not decode become U+FFFD.
    poll_seconds: between two looks at the end of the file: 0.25 s feels immediate and costs two system calls.
    max_line_bytes: 1 MiB; a longer line is delivered in pieces.

    Raises, at the call, FileNotFoundError and PermissionError as `open` does, IsADirectoryError, ValueError
    for a FIFO, a device or a value out of range, and LookupError for an unknown encoding. The file stays open
    until `close()`. `cancel()` may be called from any thread and wakes a waiting `next()` at once.
    """
    splitter = LineSplitter(encoding, max_line_bytes)
    return FileTail(path, lines, follow, from_start, poll_seconds, splitter)
