"""Code that wants a file to write to (`zipfile`, `tarfile`, `pandas.to_csv`, `COPY ... TO STDOUT`) as a producer.

`write(out)` runs on a stream thread of its own, from its first line to its last; `out.write` waits while the client
is behind, and raises ClientDisconnected once the stream has to stop, so that the code unwinds.
"""

from __future__ import annotations

import inspect
import io
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterator
from contextvars import Context
from typing import TYPE_CHECKING

from streamkit.errors import ClientDisconnected
from streamkit.flow.framing import Framing
from streamkit.flow.producer import Producer
from streamkit.flow.pump import Pump
from streamkit.flow.sources import close_quietly
from streamkit.flow.stream import Stream

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class ChunkWriter(io.BufferedIOBase):
    """A binary file that can only be written: what is written becomes the stream. Made for one thread: several may
    write, each write whole, but `tell()` does not count theirs exactly.

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
        # A copy, since the caller may use its buffer again; of a view, since bytes(5) would be five NULs.
        block = data if type(data) is bytes else bytes(memoryview(data))
        if block and not self._pump.put(block):
            raise ClientDisconnected("the stream has ended; stop writing")
        self._position += len(block)
        return len(block)

    def flush(self) -> None:
        if not self.closed:
            self._pump.flush()


class Writer:
    """A function that writes, `write(out)`, in the place of items.

    Raises TypeError for what cannot be called, and for a generator function, which would write nothing. One that hides
    (behind a lambda) fails its stream.
    """

    __slots__ = ("write",)

    def __init__(self, write: Callable[[ChunkWriter], object]) -> None:
        if not callable(write):
            raise TypeError(
                f"write is {write!r}; give a function of one parameter, the file that it writes to"
            )
        if (
            inspect.isgeneratorfunction(write)
            or inspect.iscoroutinefunction(write)
            or inspect.isasyncgenfunction(write)
        ):
            raise TypeError(_writes_nothing(write))
        self.write = write

    def __iter__(self) -> Iterator[bytes]:
        """Nothing: what is written comes by `WriterPump`."""
        return iter(())


def _writes_nothing(write: object) -> str:
    return (
        f"{write!r} writes nothing when it is called; give a plain function that calls out.write(bytes), or"
        " give a generator of bytes to StreamingResponse itself"
    )


class WriterPump(Pump[bytes]):
    """A pump whose producer is a function that writes."""

    def __init__(
        self,
        writer: Writer,
        framing: Framing[bytes],
        stream: Stream,
        context: Context,
        *,
        flush_bytes: int,
        flush_seconds: float | None,
    ) -> None:
        super().__init__(
            Producer(writer, "chunks"),
            framing,
            stream,
            context,
            flush_bytes=flush_bytes,
            flush_seconds=flush_seconds,
        )
        self._write = writer.write

    def _produce(self) -> None:
        returned = self._write(ChunkWriter(self))
        if isinstance(returned, (Generator, AsyncGenerator, Coroutine)):  # nobody runs it
            close_quietly(returned)
            raise TypeError(_writes_nothing(self._write))
