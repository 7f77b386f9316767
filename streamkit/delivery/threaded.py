"""A response body on the server's own thread: the iterator that any WSGI server can send.

The body is made in the view and opened by the WSGI call. Opening finds the connection, makes the record, and waits
for the first item where that costs nothing, so that a failure is still a real 4xx or 5xx. From then on the server's
thread iterates, which is: wait for chunks with a deadline, send heartbeats, look whether the client is still there.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextvars import Context
from functools import partial
from time import monotonic
from typing import Any, Final, NoReturn

from streamkit.delivery.abandoned import abandoned
from streamkit.delivery.connection import WRITE_SECONDS, Connection, NoConnection, client_connection
from streamkit.errors import QuotaExceeded, StreamExpired, StreamkitError
from streamkit.flow.chunks import Chunks
from streamkit.flow.framing import Framing
from streamkit.flow.stream import Stream, streams

PROBE_SECONDS: Final = 0.5  # how often an idle connection is asked; a client that left is noticed within 1 s
CHUNK_BYTES: Final = 256 * 1024  # larger blocks go out in pieces: a write deadline holds for one piece
FOREVER: Final = float("inf")


class ThreadedBody:
    """The iterable of one response. Opened once, iterated once, by one thread; `close()` is idempotent.

    make_chunks: called at the opening, gives the pump or the batches. wait_first: seconds that the opening waits
        for the first item (None: not at all, inf: as long as it takes). wait_open: whether it waits until a
        callable has been called.
    heartbeat, max_duration: seconds; max_bytes: bytes; None is off. A stream's real duration is 80 to 100 % of
        `max_duration`.
    """

    def __init__(
        self,
        kind: str,
        framing: Framing[Any],
        make_chunks: Callable[[Stream, Context], Chunks[Any]],
        close_unopened: Callable[[], object],
        context: Context,
        *,
        wait_first: float | None,
        wait_open: bool,
        heartbeat: float | None,
        max_duration: float | None,
        max_bytes: int | None,
        on_close: Callable[[Stream], object] | None,
    ) -> None:
        self.stream: Stream | None = None
        # Of the request that is answered; bound before the first chunk.
        self.environ: Mapping[str, object] = {}
        self.content_length: int | None = None  # what the headers promise, if anything
        self._kind = kind
        self._framing = framing
        self._make_chunks = make_chunks
        self._close_unopened = close_unopened
        self._context = context
        self._wait_first = wait_first
        self._wait_open = wait_open
        self._heartbeat = FOREVER if heartbeat is None or framing.heartbeat is None else heartbeat
        self._max_duration = FOREVER if max_duration is None else max_duration * random.uniform(0.8, 1.0)
        self._max_bytes = max_bytes
        self._on_close = on_close
        self._callbacks: list[Callable[[], object]] = []
        self.connection: Connection = NoConnection()
        self._chunks: Chunks[Any] | None = None
        self._rest = memoryview(b"")  # of a block that is longer than a chunk
        self._beat_at = FOREVER
        self._expires_at = FOREVER
        self._writing = False  # the server has a chunk of ours in hand
        self._over = False  # nothing more is taken from the producer
        self._error: BaseException | None = None  # raised instead of a clean end
        self._closed = False

    def call_on_close(self, callback: Callable[[], object]) -> None:
        """Run `callback()` at the end of the stream, whatever the end; also when it is never opened."""
        if self.stream is None:
            self._callbacks.append(callback)
        else:
            self.stream.call_on_close(callback)

    # -- opening ------------------------------------------------------------------------------------------------

    def begin(self) -> Stream:
        """Make the record and find the connection, once. Raises StreamkitError the second time."""
        if self.stream is not None or self._closed:
            raise StreamkitError("a streamed response can be sent once; make a new one for each request")
        abandoned.watch()
        self.stream = stream = Stream(self._kind, self.environ, self._context)
        if self._on_close is not None:
            stream.call_on_close(partial(self._on_close, stream))
        for callback in self._callbacks:
            stream.call_on_close(callback)
        self._callbacks.clear()
        self.connection = client_connection(self.environ)
        streams._add(stream)
        return stream

    def hand_over(self) -> tuple[Stream, Connection]:
        """The record and the connection, for somebody else who sends the body and ends the stream from now on."""
        stream = self.begin()
        self._closed = self._over = True
        return stream, self.connection

    def open(self) -> None:
        """Make the record and start the producer; wait for its first item as far as that was asked for.

        Raises what the producer raises before its first item; then the stream has ended.
        """
        stream = self.begin()
        now = monotonic()
        self._expires_at = now + self._max_duration
        self._beat_at = now + self._heartbeat
        try:
            self._chunks = chunks = self._make_chunks(stream, self._context)
            chunks.start()
            if self._wait_first is not None or self._wait_open:
                self._await_first(stream, chunks)
        except BaseException as error:
            stream.end("failed", error)
            self.close()
            raise

    def _await_first(self, stream: Stream, chunks: Chunks[Any]) -> None:
        until = min(FOREVER if self._wait_first is None else monotonic() + self._wait_first, self._expires_at)
        opened_only = self._wait_first is None
        while not chunks.ready(min(until, monotonic() + PROBE_SECONDS), opened_only=opened_only):
            if stream.outcome is not None or monotonic() >= until:
                return
            if self.connection.is_gone():
                stream.end("client_gone")
                return
        if chunks.error is not None and not stream.events:
            raise chunks.error

    # -- iterating ----------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        self._writing = False
        if self._over:
            self._stop()
        if self.stream is None:
            self.open()
        if self._rest:
            return self._piece()
        stream, chunks = self.stream, self._chunks
        assert stream is not None
        assert chunks is not None
        if not stream.chunks:
            self.connection.limit_writes()
        while True:
            if stream.outcome is not None:
                return self._end_early(stream)
            try:
                chunk = chunks.take(min(monotonic() + PROBE_SECONDS, self._beat_at, self._expires_at))
            except BaseException as error:
                return self._fail(stream, error)
            if (
                not chunk and chunks.finished
            ):  # looked at first: a client may close as soon as it has everything
                return self._finish(stream, chunks.error)
            if self.connection.is_gone():
                stream.end("client_gone")
            elif chunk:
                return self._send(stream, chunk)
            elif monotonic() >= self._expires_at:
                stream.end("expired")
            elif monotonic() >= self._beat_at and stream.outcome is None:
                return self._count(stream, self._framing.heartbeat or b"")

    def _send(self, stream: Stream, chunk: bytes) -> bytes:
        total = stream.bytes + len(chunk)
        if self._max_bytes is not None and total > self._max_bytes:
            stream.end("expired")
            quota = f"the stream has {total} bytes, max_bytes allows {self._max_bytes}"
            return self._end_early(stream, QuotaExceeded(quota))
        if self.content_length is not None and total > self.content_length:
            return self._fail(stream, self._wrong_length(total))
        if len(chunk) > CHUNK_BYTES:
            self._rest = memoryview(chunk)
            return self._piece()
        return self._count(stream, chunk)

    def _piece(self) -> bytes:
        assert self.stream is not None
        piece = bytes(self._rest[:CHUNK_BYTES])
        self._rest = self._rest[CHUNK_BYTES:]
        return self._count(self.stream, piece)

    def _count(self, stream: Stream, chunk: bytes) -> bytes:
        stream.sent(len(chunk))
        self._beat_at = monotonic() + self._heartbeat
        self._writing = True
        return chunk

    def _wrong_length(self, size: int) -> ValueError:
        return ValueError(f"the body has {size} bytes, but its Content-Length says {self.content_length}")

    # -- ends ---------------------------------------------------------------------------------------------------

    def _finish(self, stream: Stream, error: BaseException | None) -> bytes:
        if stream.outcome is not None:  # a producer that was told to stop may end like one that is complete
            return self._end_early(stream)
        if error is None and self.content_length not in (None, stream.bytes):
            error = self._wrong_length(stream.bytes)
        if error is not None:
            return self._fail(stream, error)
        stream.end("completed")
        return self._stop()

    def _fail(self, stream: Stream, error: BaseException) -> bytes:
        """The last words of the format, if it has any; then the error, so that no server ends the body cleanly."""
        if stream.outcome is not None:  # it was told to stop before: that is the reason, this its consequence
            return self._end_early(stream)
        stream.end("failed", error)
        return self._part(stream, self._framing.failed(error), error)

    def _end_early(self, stream: Stream, reason: StreamkitError | None = None) -> bytes:
        """Somebody else decided the end: the client left, its time is over, or the process stops."""
        if stream.outcome in ("client_gone", "too_slow"):
            self.connection.hang_up()
            return self._stop()
        words = self._framing.paused()
        if words is not None:
            # What was produced is sent, except over a quota; told to stop, `take` does not wait.
            queued = self._chunks.take(0) if self._chunks is not None and reason is None else b""
            return self._part(stream, queued + words, None)
        reason = reason or StreamExpired(f"the stream was {stream.outcome} before it was complete")
        return self._part(stream, self._framing.failed(reason), reason)

    def _part(self, stream: Stream, words: bytes, error: BaseException | None) -> bytes:
        self._over, self._error = True, error
        return self._count(stream, words) if words else self._stop()

    def _stop(self) -> NoReturn:
        """A clean end, or the error without one."""
        error, self._error = self._error, None
        if error is not None and self._framing.resets:
            self.connection.reset()
        self.close()
        raise error or StopIteration

    def close(self) -> None:
        """End the stream if it has not ended, close the producer, take leave. Raises the first error of these."""
        if self._closed:
            return
        self._closed = self._over = True
        self._rest = memoryview(b"")
        stream = self.stream
        if stream is None:
            self._close_never_opened()
            return
        stalled = self._writing and monotonic() - (stream.last_write or 0.0) >= WRITE_SECONDS - 1
        stream.end("too_slow" if stalled else "client_gone")
        self.connection.release()
        chunks, self._chunks = self._chunks, None
        failure: BaseException | None = None
        try:
            if chunks is not None:
                chunks.close()
        except BaseException as error:  # the callbacks run all the same
            failure = error
        stream.leave(failure)

    def _close_never_opened(self) -> None:
        first: BaseException | None = None
        callbacks: list[Callable[[], object]] = [partial(self._context.run, self._close_unopened)]
        if self._on_close is not None:
            unsent = Stream(self._kind, self.environ, self._context)
            callbacks.append(partial(self._on_close, unsent))
        callbacks += self._callbacks
        self._callbacks.clear()
        for callback in callbacks:
            try:
                callback()
            except BaseException as error:  # all run, then the first error is raised
                first = first or error
        if first is not None:
            raise first

    def __del__(self) -> None:
        # A middleware that drops a body without close() must not leave a thread and a cursor behind; nor may a
        # finalizer take a lock that the interrupted thread may hold.
        if not getattr(self, "_closed", True) and self.stream is not None:
            abandoned.put(self)
