"""One connection that has left its server: its socket, what is on its way out, and how it is closed.

Law of this file
- Everything runs on the event loop's thread but `wake`, which any thread may call and which never blocks.
- At most one piece is unsent (`_unsent`). While it is, nothing is taken from the stream, so a client that does not read
  holds back its producer and nobody else. No progress for `WRITE_SECONDS` ends the stream as `too_slow`; one that is
  told to stop meanwhile waits `LEAVE_SECONDS` for the piece and its last words, or not at all where it is reset anyhow.
- What the client sends is thrown away: the answer said `Connection: close`. Its end of file is its leaving.
- The stream is released (record, callbacks, limiter) when its last byte is with the kernel; the socket may linger after
  that, so that the last bytes are not lost to a reset (RFC 9112 section 9.6).
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any, Final, Protocol

from streamkit.delivery.abandoned import abandoned
from streamkit.delivery.connection import WRITE_SECONDS, reset_connection
from streamkit.delivery.outflow import FOREVER, NOBODY_READS, PIECE_BYTES, Outflow, Piece
from streamkit.delivery.sending import SEND_FLAGS, send_at_once, size_argument
from streamkit.errors import TooManyStreams
from streamkit.flow.failure_log import log_failure
from streamkit.flow.file_chunks import FileSpan
from streamkit.flow.pushed import PushedSource
from streamkit.flow.pushed_chunks import PushedChunks
from streamkit.flow.stream import Tally
from streamkit.flow.stream_threads import stream_threads

LINGER_SECONDS: Final = 2.0  # gunicorn lingers 2 s, nginx 5 s between reads
LEAVE_SECONDS: Final = 0.5
"""What a client has to take what was sent to it when its stream is told to stop: a part of a drain's one second."""
TOLD_TO_STOP: Final = ("drained", "expired")
TURN_PIECES: Final = 4  # sent in one turn of a connection; then others have theirs
MOST_UNREAD_BYTES: Final = 1 << 20
"""What is read and thrown away of a client that goes on sending (a large body that the application did not want). Then
it is not listened to any more, and its leaving is noticed by a write."""


class Loop(Protocol):
    """What a connection asks of its event loop."""

    waiting: deque[DetachedConnection]
    """Connections with something to do; any thread may append, and calls `wake` then if the loop is `sleeping`."""
    sleeping: bool
    event: object
    event_bytes: bytes
    event_size: int
    event_argument: Any
    framed_event: bytes
    framed_size: int
    framed_argument: Any
    """The event that was sent last, its bytes and their number (and that as an argument of `send_at_once`), and the
    same framed as a chunk: thousands send the same one after another. The loop's thread."""

    def wake(self) -> None:
        """Have it look at `waiting`. Any thread; never blocks."""
        ...

    def frame_event(self, event: object) -> bool:
        """Make `event` the one that was sent last; False if it is no event with bytes of its own. The loop's thread."""
        ...

    def watch(self, connection: DetachedConnection, *, writing: bool) -> None:
        """Watch for readability, and for room to write or not. The loop's thread."""
        ...

    def schedule(self, connection: DetachedConnection, deadline: float) -> None:
        """Call `on_deadline` at `deadline` (time.monotonic()), before it, or a tick after it. The loop's thread."""
        ...

    def forget(self, connection: DetachedConnection) -> None:
        """The socket is about to be closed. The loop's thread."""
        ...


class DetachedConnection(Tally):
    """A detached stream. See the file's head for who calls what."""

    __slots__ = (
        "_chunked",
        "_chunks",
        "_closed",
        "_ended",
        "_leaves_at",
        "_loop",
        "_opening",
        "_received",
        "_socket",
        "_source",
        "_unsent",
        "_woken",
        "deadline",
        "deaf",
        "descriptor",
        "outflow",
        "scheduled",
    )

    def __init__(
        self, loop: Loop, sock: socket.socket, outflow: Outflow, opening: bytes, *, chunked: bool
    ) -> None:
        super().__init__(outflow.stream.tally)
        self._loop = loop
        self._socket = sock
        # A pushed source whose events go out as they come, and its chunks; None while anything else has to be seen to.
        self._source: PushedSource | None = None
        self._chunks: PushedChunks[bytes] | None = None
        self.descriptor = sock.fileno()
        self.outflow: Outflow | None = outflow  # None once the stream is released
        self._chunked = chunked
        self._opening = opening
        self._unsent: Piece | memoryview = b""
        self._closed = False
        self._ended = False  # the last byte of the answer is sent, or the next to be
        self._received = 0
        self.deaf = False  # what the client sends is not looked at any more
        self._woken = False
        self._leaves_at = FOREVER  # when a client that was told of the end has had its time
        self.deadline = FOREVER  # when something has to be done, by the loop's clock
        self.scheduled = FOREVER  # when the loop will look, at the latest

    def wake(self) -> None:
        """Have the connection take its turn. Any thread; never blocks."""
        if not self._woken:
            self._woken = True
            loop = self._loop
            try:
                loop.waiting.append(self)
                if loop.sleeping:
                    loop.wake()
            except BaseException:  # of a signal handler; a turn too many does no harm
                loop.waiting.append(self)
                loop.wake()
                raise

    def interrupt(self) -> None:
        """The stream is told to stop: have that seen to. Any thread; never blocks."""
        self._source = None
        self.wake()

    # -- the loop's thread --------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin: send the opening, and listen to the stream."""
        outflow = self.outflow
        assert outflow is not None
        outflow.stream.delivery = "detached"
        outflow.stream.tally = self
        self._loop.watch(self, writing=False)
        outflow.stream.call_on_cancel(self.interrupt)
        outflow.chunks.notify(self.wake)
        opening, self._opening = self._opening, b""
        if self._send(opening):
            self._advance(monotonic())

    def advance(self, now: float) -> None:
        """Send what is due and can be sent `now`."""
        self._woken = False
        source = self._source
        if source is not None:
            try:
                items = source.take()
            except BaseException as error:
                self._source = None
                assert self._chunks is not None
                self._chunks.fail(error)
                self._advance(now)
                return
            loop = self._loop
            if (
                len(items) == 1
                and not source.finished
                and (items[0] is loop.event or loop.frame_event(items[0]))
            ):
                # The path of one event to thousands: nothing else is touched, because memory is what it costs.
                data = loop.framed_event if self._chunked else loop.event_bytes
                size = loop.framed_size if self._chunked else loop.event_size
                argument = loop.framed_argument if self._chunked else loop.event_argument
                taken = send_at_once(self.descriptor, data, argument, SEND_FLAGS)  # type: ignore[misc]
                self.chunks += 1
                self.events += 1
                self.bytes += loop.event_size
                self.last_write = now
                if taken != size:
                    self._send_rest(data, taken)
                return
            self._source = None
            assert self._chunks is not None
            self._advance(now, self._chunks.chunk_of(items))
        elif self.outflow is not None:
            if not self._unsent:
                self._advance(now)
            else:
                self._look_at_end(self.outflow)

    def _advance(self, now: float, chunk: bytes = b"") -> None:
        """Send `chunk`, if it was taken already, and what comes after it."""
        outflow = self.outflow
        assert outflow is not None
        for turn in range(TURN_PIECES):
            piece = outflow.accept(chunk) if chunk and not turn else outflow.step(0.0)
            if not piece:
                break
            data = piece
            if self._chunked and isinstance(piece, bytes):  # a file has a length, and is never sent in chunks
                data = b"%x\r\n%b\r\n" % (len(piece), piece)
            outflow.sent(len(piece), now)
            if not self._send(data):
                return
        else:
            self.wake()  # others first
            return
        if piece is None:
            self._end()
            return
        self.deadline = wake_at = outflow.wake_at
        if wake_at < self.scheduled:
            self._loop.schedule(self, wake_at)
        if outflow.steady and send_at_once is not None:
            self._chunks = outflow.chunks  # type: ignore[assignment]
            self._source = outflow.chunks.source  # type: ignore[attr-defined]

    def _send(self, data: Piece) -> bool:
        """Send `data`; False if there is no room for all of it, or the client is gone, or its file is."""
        taken = -1
        if send_at_once is not None and isinstance(data, bytes):
            size = len(data)
            taken = send_at_once(self.descriptor, data, size_argument(size), SEND_FLAGS)
            if taken == size:
                return True
        return self._send_rest(data, taken)

    def _send_rest(self, data: Piece, taken: int) -> bool:
        """Keep the rest of `data`, of which `taken` bytes are sent; -1: none yet, or the call failed, so it is made."""
        if taken < 0:
            taken = self._transmit(data)
            if taken == len(data):
                return True
            if self._closed:
                return False
        self._unsent = data[taken:] if isinstance(data, FileSpan) else memoryview(data)[taken:]
        self._source = None  # its next event comes behind this
        self._hold()
        return False

    def _transmit(self, data: Piece | memoryview) -> int:
        """How many bytes of `data` the kernel takes now. Sees to the end if it takes none ever."""
        try:
            if isinstance(data, FileSpan):
                return data.send_to(self.descriptor)
            return self._socket.send(data)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as error:
            outflow = self.outflow
            if outflow is None or isinstance(error, ConnectionError) or not isinstance(data, FileSpan):
                self._gone()
            else:
                outflow.fail(error)
                self._abort()
            return 0

    def _hold(self) -> None:
        """Wait until there is room, for a time."""
        outflow = self.outflow
        assert outflow is not None
        self._loop.watch(self, writing=True)
        now, outcome = monotonic(), outflow.stream.outcome
        if outcome in TOLD_TO_STOP:
            if self._leaves_at == FOREVER:
                self._leaves_at = now + LEAVE_SECONDS
            self.deadline = self._leaves_at
        else:
            self.deadline = now + WRITE_SECONDS
            if outcome is None:
                self.deadline = min(self.deadline, outflow.expires_at)
        self._loop.schedule(self, self.deadline)

    def _look_at_end(self, outflow: Outflow) -> None:
        """See whether the stream was told to stop while its client has yet to take what was sent."""
        outcome = outflow.stream.outcome
        if outcome in NOBODY_READS or (outcome in TOLD_TO_STOP and outflow.framing.resets):
            self._abort()
        elif outcome in TOLD_TO_STOP:
            self._hold()

    def on_writable(self) -> None:
        """There is room: send on."""
        if self._unsent:
            taken = self._transmit(self._unsent[:PIECE_BYTES])
            if self._closed:
                return
            self._unsent = self._unsent[taken:]
            if self._unsent:
                if taken:
                    self._hold()
                return
        self._loop.watch(self, writing=False)
        if self._ended:
            self._linger()
        elif self.outflow is not None:
            self._advance(monotonic())

    def on_readable(self) -> None:
        """The client has left, or says something that nobody will answer."""
        try:
            data = self._socket.recv(65536)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        self._received += len(data)
        if not data:
            self._gone()
        elif self._received > MOST_UNREAD_BYTES:
            self.deaf = True
            self._loop.watch(self, writing=bool(self._unsent))

    def on_deadline(self) -> None:
        """The time that was scheduled has come."""
        outflow = self.outflow
        if outflow is None:
            self._close()  # it has lingered long enough
        elif self._unsent:
            if outflow.stream.outcome is None and monotonic() >= outflow.expires_at:
                outflow.stream.end("expired")
                self._look_at_end(outflow)
            else:
                outflow.stream.end("too_slow")
                self._abort()
        else:
            if self.last_write is not None:
                outflow.put_off_heartbeat(self.last_write)
            if self._source is None or not self._beat(outflow, monotonic()):
                self._advance(monotonic())

    def _beat(self, outflow: Outflow, now: float) -> bool:
        """Send a heartbeat if that is all that is due: ten thousand idle streams do nothing else. True if it was."""
        beat = outflow.beat(now)
        if not beat:
            return False
        outflow.sent(len(beat), now)
        if self._send(b"%x\r\n%b\r\n" % (len(beat), beat) if self._chunked else beat):
            self.deadline = outflow.wake_at
            self._loop.schedule(self, self.deadline)
        return True

    # -- ends ---------------------------------------------------------------------------------------------------

    def _end(self) -> None:
        """The stream is over: terminate the body if it is complete, and only then."""
        outflow = self.outflow
        assert outflow is not None
        self._ended = True
        if outflow.stream.outcome in NOBODY_READS or (outflow.error is not None and outflow.framing.resets):
            self._abort()
        elif outflow.error is not None or not self._chunked or self._send(b"0\r\n\r\n"):
            self._linger()

    def _linger(self) -> None:
        """Everything is with the kernel. Half-close, and wait a moment for the client to do the same."""
        self._release()
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            self._close()
            return
        self.deadline = monotonic() + LINGER_SECONDS
        self._loop.schedule(self, self.deadline)

    def _gone(self) -> None:
        outflow = self.outflow
        if outflow is not None:
            outflow.stream.end("client_gone")
        if outflow is None or self._chunked:
            self._close()
        else:  # who shut down one side alone, and reads on, would take the end of the connection for that of the body
            self._abort()

    def _abort(self) -> None:
        """End with a reset: it frees what the kernel holds for a client that does not read, and looks broken."""
        self._close(reset_connection)

    def abort(self) -> None:
        """End at once, after a failure of this code itself. Never raises."""
        try:
            if self.outflow is not None:
                self.outflow.stream.end("failed")
            self._abort()
        except BaseException:
            log_failure("closing a detached connection failed")

    def drop(self) -> None:
        """Close this process' copy of the socket: the connection is another process'."""
        self.outflow = None
        self._socket.close()

    def _close(self, close: Callable[[socket.socket], object] = socket.socket.close) -> None:
        self._closed = True
        self._loop.forget(self)
        self._unsent = b""
        self.deadline = FOREVER
        close(self._socket)
        self._release()

    def _release(self) -> None:
        """Let go of the stream. Never blocks: callbacks of the user run elsewhere."""
        outflow, self.outflow = self.outflow, None
        self._source = self._chunks = None
        if outflow is None:
            return
        stream = outflow.stream
        stream.end("client_gone")  # unless it has an outcome
        try:
            outflow.chunks.abandon()
        except BaseException:
            log_failure("stream %s: closing its source failed", stream.id)
        try:
            stream.leave(elsewhere=run_elsewhere)
        except BaseException:
            log_failure("stream %s: its end failed", stream.id)


def run_elsewhere(task: Callable[[], object]) -> None:
    """Run what may block on a stream thread; where none is to be had, it is late rather than lost."""
    try:
        stream_threads.run(task)
    except TooManyStreams:
        abandoned.run(task)
