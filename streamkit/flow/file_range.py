"""Parts of a file as a source: ranges of it in order, with text between them where there are several."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from streamkit.flow.byte_sources import ByteSource


class FileParts:
    """The body of a file response. It owns `source`; `pieces` may be replaced until iteration begins.

    pieces: in order, either bytes to send or a half-open `(start, stop)` of the source. Raises OSError when the file
    has become shorter than that.
    """

    def __init__(self, source: ByteSource) -> None:
        self.source = source
        self.pieces: Sequence[bytes | tuple[int, int]] = [(0, source.size)]

    def __iter__(self) -> Iterator[bytes]:
        for piece in self.pieces:
            if isinstance(piece, bytes):
                yield piece
            else:
                yield from self.source.blocks(*piece)

    def single(self) -> tuple[int, int] | None:
        """The one range that is all there is to send, or None."""
        piece = self.pieces[0] if len(self.pieces) == 1 else None
        return piece if isinstance(piece, tuple) else None

    def close(self) -> None:
        """Close the source."""
        self.source.close()
