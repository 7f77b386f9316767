"""Zip archives made while they are sent."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from streamkit.flow.zip_entries import ZipChunks, ZipEntry, stored_length
from streamkit.formats.content_disposition import content_disposition
from streamkit.responses.given_items import refuse_lookalikes
from streamkit.responses.options import StreamOptions, switch
from streamkit.responses.streamed import FLUSH_BYTES, FLUSH_SECONDS, StreamedResponse
from streamkit.responses.streaming import ChunkFraming, generated_headers

if TYPE_CHECKING:
    from typing_extensions import Unpack


class ZipResponse(StreamedResponse):
    """A zip archive of files and generated data, never whole in memory or on disk; of any length.

    entries: an iterable of (name, data) or (name, data, modified). data: bytes, a path (`pathlib.Path`, never `str`:
        a text from a user could name any file), an iterable of bytes, or a function that returns one of these and is
        called when its turn comes. modified: a datetime, seconds since the epoch, or None for a file's own time, or
        now. A name that ends in `/`, with `b""`, is an empty directory. Names that could lead out of the folder where
        the archive is unpacked are refused, and so are names twice, or of a file and a folder.
    filename: makes it a download under this name (RFC 6266, any Unicode).
    deflate: False stores data as it is, which suits what is compressed already (images, video, PDF) and is many times
        faster; True compresses it.
    flush_bytes, flush_seconds: a chunk goes out at about this size (64 KiB) or age (0.5 s).
    options: see StreamOptions. delivery: the entries are taken on a thread of their own; "threaded" takes them on the
        request's, for data that belongs to it (a cursor of `sqlite3`).

    Stored entries in a list or tuple, each of them bytes or a path, give an exact Content-Length, so that a client
    shows progress; what is wrong about them (a name, a file that is not there) is then raised here. Otherwise what is
    raised before the first entry is a real HTTP error. Raised later, the connection is aborted and the archive has no
    directory: no reader takes it for complete.
    """

    def __init__(
        self,
        entries: Iterable[ZipEntry],
        *,
        filename: str | None = None,
        deflate: bool = False,
        flush_bytes: int = FLUSH_BYTES,
        flush_seconds: float | None = FLUSH_SECONDS,
        **options: Unpack[StreamOptions],
    ) -> None:
        refuse_lookalikes(entries, "entries")
        switch("deflate", deflate)
        now = time.time()  # of entries that have no time of their own
        length = None if deflate else stored_length(entries, now=now)
        super().__init__(
            "zip",
            ChunkFraming(),
            ZipChunks(entries, deflate=deflate, now=now),
            "entries",
            content_type="application/zip",
            thread="own",
            wait_first=float("inf"),
            flush_bytes=flush_bytes,
            flush_seconds=flush_seconds,
            options=options,
        )
        generated_headers(self)
        if length is not None:
            self.headers["Content-Length"] = str(length)
        if filename is not None:
            self.headers["Content-Disposition"] = content_disposition(filename)
