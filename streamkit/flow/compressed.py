"""Any format in a content coding (RFC 9110 section 8.4): a framing around a framing.

Law of this file
- Frames stay what the format makes. They are compressed when they are joined, by the thread that sends, and every
  chunk is flushed: what was due is readable when it arrives, the first row and whatever stands before a `FLUSH` too.
- Only a complete stream gets the coding's end (`finish`); last words of one that broke off are coded without it.
- Sizes and ages that make a chunk due are those before compression; bytes that are counted, limited and timed
  (`Stream.bytes`, `max_bytes`, rates) are those sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic

from streamkit.flow.framing import Frame, Framing
from streamkit.formats.content_codings import compressor

__all__ = ["CompressedFraming"]


class CompressedFraming(Generic[Frame]):
    """`framing` in a coding: "gzip", "br" or "zstd" (see `available_codings`, whose ValueError it raises).

    One stream's. `head`, `encode` and `tail` are the format's, on the producer's thread; `join`, `finish`, `failed`
    and `paused` compress, on the sending thread alone.

    heartbeat: None. A heartbeat is written by no thread that could compress it, so a compressed event stream has none.
    """

    heartbeat = None
    keeps_frames = False

    def __init__(self, framing: Framing[Frame], coding: str) -> None:
        self._framing = framing
        self._compressor = compressor(coding)
        self.coding = coding
        self.head_first = framing.head_first
        self.head = framing.head
        self.encode_batch = framing.encode_batch
        self.encode = framing.encode  # called for every item: not through another call
        self.tail = framing.tail

    @property
    def resets(self) -> bool:
        """As the format has it."""
        return self._framing.resets

    def join(self, frames: Sequence[Frame]) -> bytes:
        """Frames in order, as the bytes of one chunk that can be decoded at once."""
        return self._coded(self._framing.join(frames))

    def finish(self) -> bytes:
        """The coding's end. Once, after the last chunk of a stream that is complete; for no other."""
        return self._compressor.finish()

    def failed(self, error: BaseException) -> bytes:
        """The format's last words, coded; the coding stays without its end."""
        return self._coded(self._framing.failed(error))

    def paused(self) -> bytes | None:
        """As `failed`, for a planned end; None where the format has no such words."""
        words = self._framing.paused()
        return None if words is None else self._coded(words)

    def _coded(self, data: bytes) -> bytes:
        # A flush of nothing would write a few bytes, and an empty chunk must stay empty: it is none.
        return self._compressor.compress(data) if data else b""
