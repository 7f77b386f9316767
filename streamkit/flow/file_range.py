"""A part of a file as a source: blocks in order, and never fewer bytes than were promised in silence."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, Final

# 64 to 256 KiB reads are the fastest without sendfile; 8 KiB cost three times the CPU.
BLOCK_BYTES: Final = 256 * 1024


class FileRange:
    """The bytes from `start` up to `stop` of `file`, which it owns. Raises OSError when the file has become shorter."""

    def __init__(self, file: BinaryIO, start: int, stop: int) -> None:
        self.file = file
        self.start = start
        self.stop = stop

    def __iter__(self) -> Iterator[bytes]:
        self.file.seek(self.start)
        position = self.start
        while position < self.stop:
            block = self.file.read(min(BLOCK_BYTES, self.stop - position))
            if not block:
                raise truncated(position, self.stop)
            position += len(block)
            yield block

    def close(self) -> None:
        """Close the file."""
        self.file.close()


def truncated(position: int, promised: int) -> OSError:
    """The error of a file that became shorter while it was sent."""
    return OSError(
        f"the file ends at byte {position}, {promised} were promised: it was truncated while it was sent"
    )
