"""Bytes as they come: a generator of chunks, a file object, or code that writes."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from streamkit.flow.framing import AbortedWhenBroken
from streamkit.flow.sources import Items
from streamkit.flow.writer import ChunkWriter, Writer
from streamkit.responses.options import StreamOptions, content_type
from streamkit.responses.streamed import FLUSH_BYTES, FLUSH_SECONDS, StreamedResponse

if TYPE_CHECKING:
    from typing_extensions import Unpack


_IN_UTF_8: Final = re.compile(r'charset="?utf-?8\b', re.IGNORECASE)


class ChunkFraming(AbortedWhenBroken):
    """Chunks are sent as they are. `text` says whether `str` is taken too, as UTF-8."""

    def __init__(self, *, text: bool = False) -> None:
        self._text = text

    def head(self) -> bytes:
        return b""

    def encode(self, item: object) -> bytes:
        if type(item) is bytes:
            return item
        if isinstance(item, (bytes, bytearray, memoryview)):
            return bytes(item)  # PEP 3333 allows no other type, and the producer may reuse its buffer
        if isinstance(item, str):
            if self._text:
                return item.encode()
            raise TypeError(
                "a chunk is str; yield bytes (text.encode()), or give a mimetype in UTF-8, such as text/plain"
            )
        raise TypeError(f"a chunk is {type(item).__name__}; yield bytes")

    def tail(self) -> bytes:
        return b""

    def join(self, frames: Sequence[bytes]) -> bytes:
        return b"".join(frames)


class StreamingResponse(StreamedResponse):
    """Chunks of bytes from any iterable, generator, callable or binary file; each goes out at once.

    chunks: items are bytes, or FLUSH; where the mimetype is in UTF-8 also `str`. Headers wait for the first chunk, so
        what is raised before it is a real HTTP error; raised later, the connection is aborted, never ended cleanly.
    mimetype: default application/octet-stream, which is sent with `X-Content-Type-Options: nosniff`. A text is in UTF-8
        unless a `charset` says otherwise.
    flush_bytes, flush_seconds: chunks are gathered to this size or age before they go out. Default: each at once.
    options: see StreamOptions.
    delivery: "auto" runs the producer on a thread of its own, so that a client that leaves is noticed while the
        producer is silent; "threaded" runs it on the request's thread.
    """

    def __init__(
        self,
        chunks: Items,
        *,
        mimetype: str = "application/octet-stream",
        flush_bytes: int = 1,
        flush_seconds: float | None = None,
        **options: Unpack[StreamOptions],
    ) -> None:
        kind = content_type(mimetype)
        super().__init__(
            "stream",
            ChunkFraming(text=_IN_UTF_8.search(kind) is not None),
            chunks,
            "chunks",
            content_type=kind,
            thread="own",
            wait_first=float("inf"),
            flush_bytes=flush_bytes,
            flush_seconds=flush_seconds,
            options=options,
        )
        generated_headers(self)
        if mimetype == "application/octet-stream":
            self.headers.setdefault("X-Content-Type-Options", "nosniff")

    @classmethod
    def from_writer(
        cls,
        write: Callable[[ChunkWriter], object],
        *,
        mimetype: str = "application/octet-stream",
        flush_bytes: int = FLUSH_BYTES,
        flush_seconds: float | None = FLUSH_SECONDS,
        **options: Unpack[StreamOptions],
    ) -> StreamingResponse:
        """The chunks that `write(out)` writes to `out`, a binary file that cannot seek.

        `write` runs on a thread of its own, in a copy of the caller's context; `out.write` waits while the client
        is behind and raises ClientDisconnected when the stream has to stop. The stream is complete when `write`
        returns.
        flush_bytes, flush_seconds: writes are gathered to this size (64 KiB) or age (0.5 s). The others as above.

        Raises TypeError for what is no function of one parameter, and for a generator function.
        """
        return cls(
            Writer(write), mimetype=mimetype, flush_bytes=flush_bytes, flush_seconds=flush_seconds, **options
        )


def generated_headers(response: StreamedResponse) -> None:
    """A generated body: not to be stored when it breaks off (RFC 9111 3.3), no ranges, not buffered by nginx."""
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers.setdefault("X-Accel-Buffering", "no")
    response.headers.setdefault("Accept-Ranges", "none")
