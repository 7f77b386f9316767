"""A long job with progress: read, hash and compress every file of the Python installation."""

from __future__ import annotations

import hashlib
import time
import zlib
from collections.abc import Iterator

from library import installation, installed_files

from streamkit import ServerSentEvent

MAX_FILES = 5000
BLOCK_BYTES = 1024 * 1024
REPORT_SECONDS = 0.1  # ten a second is as much as an eye takes in


def pack_installation(max_files: int = MAX_FILES) -> Iterator[ServerSentEvent]:
    """`progress` events with `files`, `total`, `bytes`, `name`, and one `result` with the digest of everything.

    Nothing has to be cancelled: who stops it closes the generator at its next event, a tenth of a second at most.
    """
    paths = [path for path in installed_files() if path.is_file()][:max_files]
    sizes = [path.stat().st_size for path in paths]
    total, done, packed = sum(sizes), 0, 0
    digest = hashlib.sha256()
    start = reported = time.monotonic()
    yield ServerSentEvent(
        {"files": 0, "of": len(paths), "bytes": 0, "total": total, "name": ""}, event="progress"
    )
    for number, path in enumerate(paths):
        packer = zlib.compressobj(6)
        with path.open("rb") as file:
            while block := file.read(BLOCK_BYTES):
                digest.update(block)
                packed += len(packer.compress(block))
                done += len(block)
                if time.monotonic() - reported >= REPORT_SECONDS:
                    reported = time.monotonic()
                    name = str(path.relative_to(installation()))
                    progress = {
                        "files": number,
                        "of": len(paths),
                        "bytes": done,
                        "total": total,
                        "name": name,
                    }
                    yield ServerSentEvent(progress, event="progress")
        packed += len(packer.flush())
    yield ServerSentEvent(
        {
            "files": len(paths),
            "bytes": done,
            "packed": packed,
            "sha256": digest.hexdigest(),
            "seconds": round(time.monotonic() - start, 2),
        },
        event="result",
    )
