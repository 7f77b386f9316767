"""A file that is still being written, from its start on and then as it grows: bytes, as a source.

Law of this file
- The stream goes on at the end of the file until it is told to stop, or until `growing()` says that the writer is
  done; then the rest is read, and the stream is complete.
- What was sent must stay a part of the file. One that becomes shorter, or is deleted while somebody waits for more,
  raises OSError: the client has no whole file and must not believe it has.
- One thread iterates and closes; `cancel` wakes it from any other.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator, Iterator
from typing import Final

from streamkit.flow.byte_sources import BLOCK_BYTES, OpenFile, truncated

POLL_SECONDS: Final = 0.25
"""Between two looks at the end of the file: it feels immediate and costs two system calls."""


class GrowingFile:
    """The bytes of `file`, which it owns, as they come.

    growing: asked at the end of the file whether more may come; None is always. It is called on the producing
        thread; what it raises ends the stream as an abort.
    """

    def __init__(
        self,
        file: OpenFile,
        growing: Callable[[], object] | None = None,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        self._file = file
        self._growing = growing
        self._poll_seconds = poll_seconds
        self._wake = threading.Event()
        self._blocks = self._read()

    def __iter__(self) -> Iterator[bytes]:
        return self._blocks

    def __next__(self) -> bytes:
        return next(self._blocks)

    def cancel(self) -> None:
        """End at once, also in the middle of a wait; any thread."""
        self._wake.set()

    def close(self) -> None:
        """Close the file. The second call does nothing."""
        self._wake.set()
        self._blocks.close()
        self._file.close()

    def _read(self) -> Generator[bytes, None, None]:
        descriptor = self._file.descriptor()
        assert descriptor is not None
        had_a_name = os.fstat(descriptor).st_nlink > 0  # an unnamed temporary file never had one
        position = 0
        done = False
        while not self._wake.is_set():
            block = os.pread(descriptor, BLOCK_BYTES, position)
            if block:
                position += len(block)
                yield block
                continue
            facts = os.fstat(descriptor)
            if facts.st_size < position:
                raise truncated(facts.st_size, position)
            if done:
                return
            if self._growing is not None and not self._growing():
                done = True  # what was written before it said so is still to be read
                continue
            if had_a_name and facts.st_nlink == 0:
                raise OSError(f"the file was deleted after {position} bytes, while it was still followed")
            self._wake.wait(self._poll_seconds)
