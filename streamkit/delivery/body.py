"""The body of a streamed response: the iterator that a WSGI server iterates, and where a stream may leave its thread.

The body is made in the view and opened by the WSGI call. Opening finds the connection, makes the record, and waits for
the first item where that costs nothing, so that a failure is still a real 4xx or 5xx. Then the server iterates:

- The first piece goes out through a captured descriptor where the connection can be taken over (see `takeover`). If the
  server wrote it untouched, the rest is the event loop's and the iteration ends.
- Else the server's thread goes on: waits for pieces with a deadline, sends heartbeats, looks whether the client is
  still there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextvars import Context
from functools import partial
from time import monotonic
from typing import Any, Final, Literal, NoReturn

from streamkit.delivery.abandoned import abandoned
from streamkit.delivery.connection import WRITE_SECONDS, Connection, NoConnection, client_connection
from streamkit.delivery.detached import DetachedConnection
from streamkit.delivery.event_loop import event_loop
from streamkit.delivery.outflow import FOREVER, NOBODY_READS, Limits, Outflow
from streamkit.delivery.takeover import OPENING_BYTES, NotOurs, Takeover, lent_descriptor, name_obstacle
from streamkit.delivery.unread_request import has_unread_body
from streamkit.errors import Draining, StreamkitError, TooManyStreams
from streamkit.flow.chunks import Chunks
from streamkit.flow.framing import Framing
from streamkit.flow.stream import Stream
from streamkit.flow.streams import streams

log: Final = logging.getLogger("streamkit")

PROBE_SECONDS: Final = 0.5  # how often an idle connection is asked; a client that left is noticed within 1 s


class Body:
    """The iterable of one response. Opened once, iterated once, by one thread; `close()` is idempotent.

    make_chunks: called at the opening, gives the pump or the batches. wait_first: seconds that the opening waits for
        the first item (None: not at all, inf: as long as it takes). wait_open: whether it waits until a callable has
        been called; what the first item raises after that is no failure of the opening.
    detach: whether the connection may be taken over.
    """

    def __init__(
        self,
        kind: str,
        framing: Framing[Any],
        make_chunks: Callable[[Framing[Any], Stream, Context], Chunks[Any]],
        close_unopened: Callable[[], object],
        context: Context,
        *,
        limits: Limits,
        wait_first: float | None,
        wait_open: bool,
        detach: bool,
        on_close: Callable[[Stream], object] | None,
    ) -> None:
        self.stream: Stream | None = None
        # Of the request that is answered; bound before the first piece.
        self.environ: Mapping[str, Any] = {}
        self.content_length: int | None = None  # what the headers promise, if anything
        self.coding: str | None = None  # the Content-Encoding that they name
        self.framing = framing
        self.limits = limits
        self.connection: Connection = NoConnection()
        self._kind = kind
        self._make_chunks = make_chunks
        self._close_unopened = close_unopened
        self._context = context
        self._wait_first = wait_first
        self._wait_open = wait_open
        self._detach = detach
        self._on_close = on_close
        self._callbacks: list[Callable[[], object]] = []
        self._releases: list[Callable[[], object]] = []
        self._outflow: Outflow | None = None
        self._takeover: Takeover | None = None
        self._captured = b""  # the piece that was written while the descriptor was captured
        self._writing = False  # the server has a piece of ours in hand
        self._closed = False
        self._dropped = False  # nobody called `close`: another thread does, at any time
        self._handed_over: Literal["", "server", "loop"] = ""

    def call_on_close(self, callback: Callable[[], object]) -> None:
        """Run `callback()` at the end of the stream, whatever the end; also when it is never opened."""
        if self.stream is None:
            self._callbacks.append(callback)
        else:
            self.stream.call_on_close(callback)

    def release_at_end(self, release: Callable[[], object]) -> None:
        """Run `release()`, which never blocks, before all callbacks. Called before the opening."""
        self._releases.append(release)

    # -- opening ------------------------------------------------------------------------------------------------

    def check_unsent(self) -> None:
        """Raise StreamkitError where this was sent, or closed, already."""
        if self.stream is not None or self._closed:
            raise StreamkitError("a streamed response can be sent once; make a new one for each request")

    def begin(self) -> Stream:
        """Make the record and find the connection, once. Raises StreamkitError the second time."""
        self.check_unsent()
        abandoned.watch()
        self.stream = stream = Stream(self._kind, self.environ, self._context)
        for release in self._releases:
            stream.release_at_end(release)
        if self._on_close is not None:
            stream.call_on_close(partial(self._on_close, stream))
        for callback in self._callbacks:
            stream.call_on_close(callback)
        self._callbacks.clear()
        try:
            streams._add(stream)
        except BaseException:
            stream.end("drained")
            self.close()
            raise
        self.connection = client_connection(self.environ)
        return stream

    def hand_over(self) -> tuple[Stream, Connection]:
        """The record and the connection, for somebody else who sends the body and ends the stream from now on."""
        stream = self.begin()
        self._handed_over = "server"
        self._closed = True
        return stream, self.connection

    def open(self) -> None:
        """Make the record and start the producer; wait for its first item as far as that was asked for.

        Raises what the producer raises meanwhile, Draining where the process is about to end, and TooManyStreams where
        descriptors or threads are used up; then the stream has ended.
        """
        stream = self.begin()
        try:
            if self._detach:
                descriptor = lent_descriptor(self.environ)
                if descriptor is not None:
                    event_loop.start()
                    self._takeover = Takeover(descriptor)
            chunks = self._make_chunks(self.framing, stream, self._context)
            self._outflow = outflow = Outflow(stream, chunks, self.framing, self.limits, self.content_length)
            outflow.is_gone = self.connection.is_gone
            chunks.start()
            if self._wait_first is not None or self._wait_open:
                self._await_first(stream, outflow)
        except TooManyStreams as error:  # no fault of the producer: a line for the operator, no traceback
            log.warning("refused a stream at %s: %s", ascii(stream.path), error)
            stream.end("failed")
            self.close()
            raise
        except BaseException as error:
            stream.end("failed", error)
            self.close()
            raise

    def _await_first(self, stream: Stream, outflow: Outflow) -> None:
        chunks = outflow.chunks
        wait = FOREVER if self._wait_first is None else monotonic() + self._wait_first
        until = min(wait, outflow.expires_at)
        opened_only = self._wait_first is None
        while not chunks.ready(min(until, monotonic() + PROBE_SECONDS), opened_only=opened_only):
            if stream.outcome == "drained":
                raise Draining("this process is stopping, and the first item had not come yet")
            if stream.outcome is not None or monotonic() >= until:
                return
            if self.connection.is_gone():
                stream.end("client_gone")
                return
        # A function that failed is told from a first item that did, and may have done so just now or a moment later.
        too_late = opened_only and chunks.opened
        if chunks.error is not None and not stream.events and not too_late:
            if isinstance(chunks.error, OSError) and self.connection.is_gone():
                stream.end("client_gone")  # it was reading the body of the request
                return
            raise chunks.error

    # -- iterating ----------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        self._writing = False
        if self._closed or self._handed_over:
            raise StopIteration
        if self.stream is None:
            self.open()
        outflow = self._outflow
        assert outflow is not None
        if self._captured:
            self._leave_the_server(outflow)
        if self._takeover is not None:
            piece = self._next_piece(outflow, OPENING_BYTES)
            cut = len(piece) >= min(OPENING_BYTES, outflow.piece_bytes)
            if outflow.over or (outflow.chunks.finished and not cut):
                self._give_up()  # nobody is waited for: the server may keep the connection
            else:
                self._capture(piece)
        else:
            if not outflow.stream.chunks:
                self.connection.limit_writes()
            piece = self._next_piece(outflow)
        outflow.sent(len(piece), monotonic())
        self._writing = True
        return piece

    def _next_piece(self, outflow: Outflow, most: int | None = None) -> bytes:
        """Wait for the next piece, of `most` bytes. Raises the end, clean or not."""
        usual = outflow.piece_bytes
        outflow.piece_bytes = min(most or usual, usual)
        try:
            while True:
                piece = outflow.step(min(monotonic() + PROBE_SECONDS, outflow.wake_at))
                if piece is None:
                    self._stop(outflow)
                if not outflow.over and self.connection.is_gone():
                    outflow.stream.end("client_gone")
                elif piece:
                    assert isinstance(piece, bytes), "spans of files are for the event loop"
                    return piece
                elif outflow.holds_back:
                    outflow.wait(PROBE_SECONDS)
        finally:
            outflow.piece_bytes = usual

    # -- leaving the server -------------------------------------------------------------------------------------

    def _capture(self, piece: bytes) -> None:
        assert self._takeover is not None
        try:
            self._takeover.capture()
        except OSError as error:
            name_obstacle(f"a socket pair cannot be made: {error}")
            self._give_up()
            return
        self._captured = piece

    def _leave_the_server(self, outflow: Outflow) -> None:
        """See what the server wrote. Raises StopIteration if the stream goes on without it, else returns."""
        takeover = self._takeover  # whatever is raised here, `close` finds it
        assert takeover is not None
        try:
            answer = takeover.verify(self._captured, self.content_length, self.coding)
            connection = takeover.finish()
        except (NotOurs, OSError) as obstacle:
            name_obstacle(str(obstacle))
            takeover.restore(self._send_what_was_captured)
            self._takeover, self._captured = None, b""
            return
        detached = DetachedConnection(event_loop, connection, outflow, answer.data, chunked=answer.chunked)
        self.connection.release()
        self.connection = NoConnection()
        outflow.is_gone = bool  # the loop finds that out first
        self._outflow, self._captured, self._handed_over = None, b"", "loop"
        event_loop.adopt(detached)
        raise StopIteration

    def _send_what_was_captured(self, data: bytes) -> None:
        self.connection.limit_writes()
        self.connection.send(data)

    def _give_up(self) -> None:
        """Let the server keep its connection; nothing was captured."""
        takeover, self._takeover = self._takeover, None
        if takeover is not None:
            takeover.close()
        self.connection.limit_writes()

    # -- ends ---------------------------------------------------------------------------------------------------

    def _stop(self, outflow: Outflow) -> NoReturn:
        """A clean end, or the error without one."""
        error = outflow.error
        if outflow.stream.outcome in NOBODY_READS:
            self.connection.break_off()
        elif error is not None and outflow.framing.resets:
            self.connection.reset()
        try:
            self.close()
        except Exception:  # how the body ends is decided: a StopIteration must not end it cleanly
            log.exception("stream %s: a callback failed", outflow.stream.id)
        raise StopIteration if error is None else error

    def close(self) -> None:
        """End the stream if it has not ended, close the producer, take leave. Raises the first error of these.

        The server calls it when it is done with the response, which may be long before a detached stream ends.
        """
        if self._closed:
            return
        self._closed = True
        try:
            self._let_go()
        finally:
            if self._handed_over != "loop":
                self._end()

    def _let_go(self) -> None:
        """Leave the connection to its server."""
        takeover, self._takeover = self._takeover, None
        try:
            if self._captured and takeover is not None:  # the server stopped after one piece
                if self._dropped:
                    takeover.give_up()
                else:
                    takeover.restore(self._send_what_was_captured)
            elif takeover is not None:
                takeover.close()
        except OSError:
            pass  # the client has left; the stream ends all the same
        finally:
            if not self._dropped:  # or the limits may be those of the next response on this connection by now
                self.connection.release()

    def _end(self) -> None:
        stream = self.stream
        if stream is None:
            self._close_never_opened()
            return
        stalled = self._writing and monotonic() - (stream.last_write or 0.0) >= WRITE_SECONDS - 1
        stream.end("too_slow" if stalled else "client_gone")
        outflow, self._outflow = self._outflow, None
        failure: BaseException | None = None
        try:
            if outflow is not None:
                outflow.chunks.close()
            else:  # refused before it began
                self._context.run(self._close_unopened)
        except BaseException as error:  # the callbacks run all the same
            failure = error
        goes_on = outflow is not None and not outflow.chunks.finished
        if goes_on and not self._dropped and has_unread_body(self.environ):
            # The producer may be reading the body at this moment, and so would a server that goes on to the next
            # request: each would get a part of both.
            self.connection.hang_up()
        stream.leave(failure)

    def _close_never_opened(self) -> None:
        first: BaseException | None = None
        callbacks: list[Callable[[], object]] = [
            *self._releases,
            partial(self._context.run, self._close_unopened),
        ]
        if self._on_close is not None:
            unsent = Stream(self._kind, self.environ, self._context)
            callbacks.append(partial(self._on_close, unsent))
        callbacks += self._callbacks
        self._callbacks.clear()
        for callback in callbacks:
            try:
                callback()
            except BaseException as error:  # all run, then the first error is raised
                first = error if first is None else first
        if first is not None:
            raise first

    def __del__(self) -> None:
        # A middleware that drops a body without close() must not leave a thread and a cursor behind; nor may a
        # finalizer take a lock that the interrupted thread may hold.
        if not getattr(self, "_closed", True) and self.stream is not None:
            self._dropped = True
            abandoned.put(self)
