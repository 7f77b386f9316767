"""The body of a file for a sender that can copy from descriptor to descriptor: a slow download on no thread.

Law of this file
- Nothing here waits but for the disk, and for that only where the kernel's read-ahead, which is asked for, came late.
- As long as a thread of a server sends, chunks are bytes. Once the event loop does (`notify`), the rest of each range
  is one `FileSpan`, which holds no bytes at all: ten thousand stalled downloads cost no buffers.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from contextvars import Context
from typing import Any, Final

from streamkit.flow.byte_sources import truncated
from streamkit.flow.chunks import Chunks
from streamkit.flow.file_range import FileParts
from streamkit.flow.framing import Framing
from streamkit.flow.stream import Stream

BLOCK_BYTES: Final = 256 * 1024  # read at once where there is no sendfile, as in `byte_sources`
AHEAD_BYTES: Final = 1024 * 1024  # what the kernel is asked to have read when its turn comes


class FileSpan:
    """Bytes `start` to `stop` of an open file; it has a length and can be cut like bytes, but holds none."""

    __slots__ = ("descriptor", "start", "stop")

    def __init__(self, descriptor: int, start: int, stop: int) -> None:
        self.descriptor = descriptor
        self.start = start
        self.stop = stop

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, part: slice) -> FileSpan:
        start, stop, _ = part.indices(len(self))
        return FileSpan(self.descriptor, self.start + start, self.start + max(start, stop))

    def send_to(self, connection: int) -> int:
        """Copy to a non-blocking socket; returns how many bytes it took.

        Raises BlockingIOError when it has no room, ConnectionError when its client has left, and OSError when the file
        became shorter or cannot be read.
        """
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self.descriptor, self.start, AHEAD_BYTES, os.POSIX_FADV_WILLNEED)
        taken = os.sendfile(connection, self.descriptor, self.start, len(self))
        if not taken:
            raise truncated(self.start, self.stop)
        return taken


class FileChunks(Chunks[bytes]):
    """The pieces of `parts`, whose source has a descriptor. It owns `parts`."""

    def __init__(self, parts: FileParts, framing: Framing[bytes], stream: Stream, context: Context) -> None:
        self.finished = False
        self.error: BaseException | None = None
        self._parts = parts
        self._stream = stream
        self._descriptor = -1
        self._pieces: deque[bytes | tuple[int, int]] = deque()
        self._spans = False

    def start(self) -> None:
        descriptor = self._parts.source.descriptor()
        assert descriptor is not None, "only files with a descriptor are sent like this"
        self._descriptor = descriptor
        self._pieces = deque(self._parts.pieces)
        span = next((piece for piece in self._pieces if not isinstance(piece, bytes)), (0, 0))
        if span[0] < span[1] and not os.pread(
            descriptor, 1, span[0]
        ):  # raises OSError where it cannot be read
            raise truncated(*span)

    def ready(self, until: float, *, opened_only: bool = False) -> bool:
        return True

    def take(self, until: float) -> Any:
        """Bytes, or a FileSpan once `notify` was called. Raises OSError."""
        while self._pieces:
            piece = self._pieces.popleft()
            if isinstance(piece, bytes):
                self._stream.produced += 1
                return piece
            start, stop = piece
            if start >= stop:
                continue
            self._stream.produced += 1
            if self._spans:
                return FileSpan(self._descriptor, start, stop)
            block = os.pread(self._descriptor, min(BLOCK_BYTES, stop - start), start)
            if not block:
                raise truncated(start, stop)
            self._pieces.appendleft((start + len(block), stop))
            return block
        self.finished = True
        return b""

    def notify(self, wake: Callable[[], object]) -> None:
        self._spans = True
        wake()

    def abandon(self) -> None:
        self.finished = True
        self._parts.close()

    def close(self) -> None:
        self.abandon()
