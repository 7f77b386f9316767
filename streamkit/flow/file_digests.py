"""Checksums of whole files, each computed once as long as the file stays the same.

The cache is keyed by what tells two states of a file apart: device, inode, size, and the times of its last write and
last change in nanoseconds (the second cannot be set back). A file that may still change within a tick of the clock is
not remembered.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from typing import Final

from streamkit.flow.byte_sources import ByteSource
from streamkit.formats.conditional import STILL_SECONDS

MAX_REMEMBERED: Final = 1024
"""Digests kept, about 300 bytes each; the one that was asked for the longest ago goes first."""

_HASHES: Final = {"sha-256": hashlib.sha256, "sha-512": hashlib.sha512}

_Key = tuple[str, int, int, int, int, int, int]


class FileDigests:
    """A bounded cache of digests. Thread-safe; two threads that ask for the same new one may both compute it."""

    def __init__(self, limit: int = MAX_REMEMBERED) -> None:
        self._limit = limit
        # Owned for the length of one dictionary operation; nothing is called under it.
        self._lock = threading.Lock()
        self._digests: dict[_Key, bytes] = {}
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._renew_lock)

    def _renew_lock(self) -> None:
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._digests)

    def digest(self, source: ByteSource, algorithm: str) -> bytes | None:
        """The digest of all bytes of `source`; None where the file changed while it was read.

        algorithm: "sha-256" or "sha-512". Reads the whole source, at about 1 to 2 s per GiB, unless it is remembered.
        Raises OSError for one that cannot be read to its end.
        """
        key = _key(source, algorithm)
        if key is not None:
            with self._lock:
                known = self._digests.pop(key, None)
                if known is not None:
                    self._digests[key] = known  # the youngest again
                    return known
        state = _HASHES[algorithm]()
        for block in source.blocks(0, source.size):
            state.update(block)
        if key != _key(source, algorithm):
            return None
        digest = state.digest()
        facts = _facts_now(source)
        if key is not None and facts is not None and _is_still(facts):
            with self._lock:
                self._digests[key] = digest
                while len(self._digests) > self._limit:
                    del self._digests[next(iter(self._digests))]
        return digest


def _facts_now(source: ByteSource) -> os.stat_result | None:
    descriptor = source.descriptor()
    return None if descriptor is None else os.fstat(descriptor)


def _key(source: ByteSource, algorithm: str) -> _Key | None:
    facts = _facts_now(source)
    if facts is None:
        return None
    return (
        algorithm,
        facts.st_dev,
        facts.st_ino,
        facts.st_size,
        facts.st_mtime_ns,
        facts.st_ctime_ns,
        source.size,  # which may be less, of a file that has grown since it was opened
    )


def _is_still(facts: os.stat_result) -> bool:
    newest = max(facts.st_mtime_ns, facts.st_ctime_ns)
    return time.time_ns() - newest >= STILL_SECONDS * 1_000_000_000


file_digests: Final = FileDigests()
