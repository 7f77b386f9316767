"""What has arrived of a download: the `.part` file, and beside it what it is a part of.

The law:

- `name.part` holds the first bytes of one representation (RFC 9110 section 3.2), and `name.part.json` says of which:
  where it is from, the validator to resume with, and its length. Without a note that fits the bytes are worth nothing.
- The note is written before the first byte, so bytes of one file never stand under the note of another.
- One process writes: the file is locked as long as it is open, and the lock dies with its process.
- The target appears whole or not at all: it is flushed to the disk, then renamed.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from streamkit.errors import DownloadError

HASH_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Note:
    """What the bytes of a `.part` file are a part of."""

    source: str
    """The SHA-256 of its URL."""
    validator: str | None
    """What `If-Range` takes: a strong ETag, or a strong Last-Modified date; None where there is none."""
    size: int | None
    """Bytes of the whole; None where the server did not say."""


class PartialFile:
    """The `.part` file of `path`, open and locked. `size` is what it holds. One thread uses it.

    Raises `DownloadError` where another process holds it, and `OSError` where it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.part = path.with_name(path.name + ".part")
        self._note_path = path.with_name(path.name + ".part.json")
        self._descriptor = os.open(self.part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Between open and lock another process may have completed and renamed what was opened here.
            if not self._still_there():
                raise BlockingIOError
            self.size = os.fstat(self._descriptor).st_size
        except BlockingIOError:
            os.close(self._descriptor)
            raise DownloadError(
                f"{self.part} is being written by another download; wait for its end"
            ) from None
        except BaseException:
            os.close(self._descriptor)
            raise

    def _still_there(self) -> bool:
        try:
            return os.path.samestat(os.stat(self.part), os.fstat(self._descriptor))
        except FileNotFoundError:
            return False

    def note(self, source: str) -> Note | None:
        """Return what the bytes are a part of; None where that is not known, or is not from `source`."""
        try:
            fields = json.loads(self._note_path.read_bytes())
            note = Note(fields["source"], fields["validator"], fields["size"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        sound = isinstance(note.validator, str) and isinstance(note.size, (int, type(None)))
        return note if sound and note.source == source else None

    def begin(self, note: Note) -> None:
        """Throw away what there is, and say what will come."""
        os.ftruncate(self._descriptor, 0)
        self.size = 0
        self._note_path.write_text(json.dumps(asdict(note)))

    def append(self, data: bytes) -> None:
        """Write all of `data` at the end. Raises `OSError`; what was written before it failed is kept and counted."""
        rest = memoryview(data)
        while rest:
            written = os.pwrite(self._descriptor, rest, self.size)
            self.size += written
            rest = rest[written:]

    def digest(self, algorithm: str, start: int = 0) -> bytes:
        """Return the digest of the bytes from `start` on."""
        found = hashlib.new(algorithm)
        while data := os.pread(self._descriptor, HASH_BYTES, start):
            found.update(data)
            start += len(data)
        return found.digest()

    def complete(self) -> None:
        """Make the bytes the file at `path`, in one step that also survives a power cut."""
        os.fsync(self._descriptor)
        self.part.replace(self.path)
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        self._note_path.unlink(missing_ok=True)

    def remove(self) -> None:
        """Throw the bytes and the note away."""
        self._note_path.unlink(missing_ok=True)
        self.part.unlink(missing_ok=True)

    def close(self) -> None:
        """Release the lock. An empty part is removed: there is nothing to resume."""
        try:
            if self.size == 0 and self._still_there():
                self.remove()
        finally:
            os.close(self._descriptor)
