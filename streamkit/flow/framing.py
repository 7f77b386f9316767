"""What a stream asks of a format: the bytes of its beginning, its items, and each of its ends.

The formats package knows bytes but not how streams end; a response joins both by handing the stream one `Framing`.
All methods are called from one thread at a time: `head`, `encode` and `tail` by the producer's, the others by the
one that sends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

Frame = TypeVar("Frame", bound="str | bytes")


class Framing(Protocol[Frame]):
    """How one stream is put into bytes. Frames are all `str` or all `bytes`; `join` makes the bytes of a chunk.

    heartbeat: bytes that are sent when nothing else was for a while; None where the format has no filler.
    resets: whether a failed stream resets the connection. Rows and files do, since behind a proxy that speaks
        HTTP/1.0 a plain close looks complete; events do not, since a reset could overtake the error event.
    """

    @property
    def heartbeat(self) -> bytes | None: ...

    @property
    def resets(self) -> bool: ...

    @property
    def head_first(self) -> bool:
        """Whether the head goes out before the producer is opened; else the producer may have a say in it."""
        ...

    @property
    def keeps_frames(self) -> bool:
        """Whether the frame of an item that has an `encode` method is now always what that returns."""
        ...

    @property
    def encode_batch(self) -> Callable[[Sequence[object], list[Frame]], int] | None:
        """Encodes items that are there together, faster than one by one; None where a format has no way to.

        It takes the first, and as many more as it likes; appends a frame for each; and returns how long they are.
        """
        ...

    def head(self) -> Frame:
        """What is sent before the first item; empty where there is nothing."""
        ...

    def encode(self, item: object) -> Frame:
        """One item. Raises TypeError or ValueError for what cannot be sent."""
        ...

    def tail(self) -> Frame:
        """What ends a stream that is complete. Never called for one that is not."""
        ...

    def join(self, frames: Sequence[Frame]) -> bytes:
        """Frames in order, as the bytes of one chunk."""
        ...

    def finish(self) -> bytes:
        """What follows the last chunk of a stream that is complete (a compressor's last block); usually nothing."""
        ...

    def failed(self, error: BaseException) -> bytes:
        """The last words of a stream whose producer raised; empty where the format has none."""
        ...

    def paused(self) -> bytes | None:
        """The last bytes of a stream that ends early as planned, so that its client comes back and resumes.

        None where an early end must not look complete: the stream is then aborted.
        """
        ...


class AbortedWhenBroken:
    """The ends of rows, records and bytes: what breaks off is aborted, since half of it must not look like all of it.

    To be mixed into an encoder, which says how the rest of a `Framing` is done. No fillers, no last words.
    """

    heartbeat = None
    resets = True
    head_first = False
    keeps_frames = False

    @property
    def encode_batch(self) -> Callable[[Any, Any], int] | None:
        return None

    def finish(self) -> bytes:
        return b""

    def failed(self, error: BaseException) -> bytes:
        return b""

    def paused(self) -> bytes | None:
        return None
