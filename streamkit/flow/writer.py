"""Code that wants a file to write to (`zipfile`, `tarfile`, `pandas.to_csv`, `COPY ... TO STDOUT`) as a producer.

`write(out)` runs on a stream thread of its own, from its first line to its last; `out.write` waits while the client
is behind, and raises ClientDisconnected once the stream has to stop, so that the code unwinds.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextvars import Context
from typing import TYPE_CHECKING

from streamkit.errors import ClientDisconnected
from streamkit.flow.framing import Framing
from streamkit.flow.producer import Producer
from streamkit.flow.pump import Pump
from streamkit.flow.stream import Stream

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class ChunkWriter(io.BufferedIOBase):
    """A binary file that can only be written: what is written becomes the stream. Used by one thread.

    `tell()` is the number of bytes written; it cannot seek. `flush()` sends what is buffered. `close()` may be
    called any number of times and does not end the stream: that ends when the function returns.
    """

    def __init__(self, pump: Pump[bytes]) -> None:
        self._pump = pump
        self._position = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def write(self, data: ReadableBuffer, /) -> int:
        """Queue `data`; waits while the client is behind.

        Raises ClientDisconnected when the stream has ended, TypeError for text, ValueError after `close()`.
        """
        if self.closed:
            raise ValueError("write to a closed stream: the function closed `out` and went on writing")
        if isinstance(data, str):
            raise TypeError(
                "out.write() takes bytes, got str; encode it, or wrap it: io.TextIOWrapper(out, 'utf-8')"
            )
        block = bytes(data)  # a copy: the caller may use its buffer again
        if block and not self._pump.put(block):
            raise ClientDisconnected("the stream has ended; stop writing")
        self._position += len(block)
        return len(block)

    def flush(self) -> None:
        if not self.closed:
            self._pump.flush()


class WriterPump(Pump[bytes]):
    """A pump whose producer is a function that writes."""

    def __init__(
        self,
        write: Callable[[ChunkWriter], object],
        framing: Framing[bytes],
        stream: Stream,
        context: Context,
        *,
        flush_bytes: int,
        flush_seconds: float | None,
    ) -> None:
        nothing: Iterator[object] = iter(())
        super().__init__(
            Producer(nothing, "chunks"),
            framing,
            stream,
            context,
            flush_bytes=flush_bytes,
            flush_seconds=flush_seconds,
        )
        self._write = write

    def _produce(self) -> None:
        self._write(ChunkWriter(self))
