"""One connection that has left its server: its socket, what is on its way out, and how it is closed.

Law of this file
- Everything runs on the event loop's thread but `wake`, which any thread may call and which never blocks.
- At most one piece is unsent (`_unsent`). While it is, nothing is taken from the stream, so a client that does not read
  holds back its producer and nobody else. No progress for `WRITE_SECONDS` ends the stream as `too_slow`.
- What the client sends is thrown away: the answer said `Connection: close`. Its end of file is its leaving.
- The stream is released (record, callbacks, limiter) when its last byte is with the kernel; the socket may linger after
  that, so that the last bytes are not lost to a reset (RFC 9112 section 9.6).
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from time import monotonic
from typing import Final, Protocol

from streamkit.delivery.abandoned import abandoned
from streamkit.delivery.connection import WRITE_SECONDS, reset_connection
from streamkit.delivery.outflow import FOREVER, NOBODY_READS, PIECE_BYTES, Outflow
from streamkit.delivery.sending import SEND_FLAGS, send_at_once
from streamkit.errors import TooManyStreams
from streamkit.flow.stream_threads import stream_threads

LINGER_SECONDS: Final = 2.0  # gunicorn lingers 2 s, nginx 5 s between reads
TURN_PIECES: Final = 4  # sent in one turn of a connection; then others have theirs
MOST_UNREAD_BYTES: Final = 1 << 20  # of a client that talks on a connection that was said to close

log: Final = logging.getLogger("streamkit")


class Loop(Protocol):
    """What a connection asks of its event loop."""

    def ready(self, connection: DetachedConnection) -> None:
        """Give `connection` a turn (`advance`) soon. Any thread."""
        ...

    def watch(self, connection: DetachedConnection, *, writing: bool) -> None:
        """Watch for readability, and for room to write or not. The loop's thread."""
        ...

    def schedule(self, connection: DetachedConnection, deadline: float) -> None:
        """Call `on_deadline` at `deadline` (time.monotonic()) or before. The loop's thread."""
        ...

    def forget(self, connection: DetachedConnection) -> None:
        """The socket is about to be closed. The loop's thread."""
        ...


class DetachedConnection:
    """A detached stream. See the file's head for who calls what."""

    __slots__ = (
        "_chunked",
        "_loop",
        "_progress_at",
        "_received",
        "_socket",
        "_unsent",
        "_woken",
        "deadline",
        "descriptor",
        "outflow",
        "scheduled",
    )

    def __init__(
        self, loop: Loop, sock: socket.socket, outflow: Outflow, opening: bytes, *, chunked: bool
    ) -> None:
        self._loop = loop
        self._socket = sock
        self.descriptor = sock.fileno()
        self.outflow: Outflow | None = outflow  # None once the stream is released
        self._chunked = chunked
        self._unsent: bytes | memoryview = opening
        self._progress_at = monotonic()
        self._received = 0
        self._woken = False
        self.deadline = FOREVER  # when something has to be done, by the loop's clock
        self.scheduled = FOREVER  # when the loop will look, at the latest

    def wake(self) -> None:
        """Have the connection take its turn. Any thread; never blocks."""
        if not self._woken:
            self._woken = True
            self._loop.ready(self)

    # -- the loop's thread --------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin: send the opening, and listen to the stream."""
        outflow = self.outflow
        assert outflow is not None
        outflow.stream.delivery = "detached"
        self._loop.watch(self, writing=False)
        outflow.stream.call_on_cancel(self.wake)
        outflow.chunks.notify(self.wake)
        self.on_writable()

    def advance(self) -> None:
        """Send what is due and can be sent now."""
        self._woken = False
        outflow = self.outflow
        if outflow is None:
            return
        if self._unsent:
            if outflow.stream.outcome in NOBODY_READS:
                self._abort()
            return
        for _ in range(TURN_PIECES):
            piece = outflow.step(0.0)
            if piece is None:
                self._end()
                return
            if not piece:
                break
            if not self._send(b"%x\r\n%b\r\n" % (len(piece), piece) if self._chunked else piece):
                return
            outflow.sent(len(piece))
        else:
            self.wake()
        self.deadline = wake_at = outflow.wake_at
        if wake_at < self.scheduled:
            self._loop.schedule(self, wake_at)

    def _send(self, data: bytes) -> bool:
        """Send `data`; False if the connection had no room for all of it, or is gone."""
        size = len(data)
        taken = -1 if send_at_once is None else send_at_once(self.descriptor, data, size, SEND_FLAGS)
        if taken == size:
            return True
        if taken < 0:
            try:
                taken = self._socket.send(data)
            except (BlockingIOError, InterruptedError):
                taken = 0
            except OSError:
                self._gone()
                return False
        self._unsent = memoryview(data)[taken:]
        if not self._unsent:
            return True
        self._hold()
        return False

    def _hold(self) -> None:
        self._progress_at = now = monotonic()
        self._loop.watch(self, writing=True)
        self.deadline = now + WRITE_SECONDS
        self._loop.schedule(self, self.deadline)

    def on_writable(self) -> None:
        """There is room: send on."""
        if self._unsent:
            try:
                taken = self._socket.send(self._unsent[:PIECE_BYTES])
            except (BlockingIOError, InterruptedError):
                taken = 0
            except OSError:
                self._gone()
                return
            self._unsent = self._unsent[taken:]
            if self._unsent:
                if taken:
                    self._hold()
                return
        self._loop.watch(self, writing=False)
        if self.outflow is not None and self.outflow.over:
            self._linger()
        else:
            self.advance()

    def on_readable(self) -> None:
        """The client has left, or says something that nobody will answer."""
        try:
            data = self._socket.recv(65536)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        self._received += len(data)
        if not data or self._received > MOST_UNREAD_BYTES:
            self._gone()

    def on_deadline(self) -> None:
        """The time that was scheduled has come."""
        outflow = self.outflow
        if outflow is None:
            self._close()  # it has lingered long enough
        elif self._unsent:
            outflow.stream.end("too_slow")
            self._abort()
        else:
            self.advance()

    # -- ends ---------------------------------------------------------------------------------------------------

    def _end(self) -> None:
        """The stream is over: terminate the body if it is complete, and only then."""
        outflow = self.outflow
        assert outflow is not None
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
        self._close()

    def _abort(self) -> None:
        """End with a reset: it frees what the kernel holds for a client that does not read, and looks broken."""
        self._close(reset_connection)

    def abort(self) -> None:
        """End at once, after a failure of this code itself. Never raises."""
        try:
            if self.outflow is not None:
                self.outflow.stream.end("failed")
            self._abort()
        except Exception:
            log.exception("closing a detached connection failed")

    def drop(self) -> None:
        """Close this process' copy of the socket: the connection is another process'."""
        self.outflow = None
        self._socket.close()

    def _close(self, close: Callable[[socket.socket], object] = socket.socket.close) -> None:
        self._loop.forget(self)
        self._unsent = b""
        self.deadline = FOREVER
        close(self._socket)
        self._release()

    def _release(self) -> None:
        """Let go of the stream. Never blocks: callbacks of the user run elsewhere."""
        outflow, self.outflow = self.outflow, None
        if outflow is None:
            return
        stream = outflow.stream
        stream.end("client_gone")  # unless it has an outcome
        try:
            outflow.chunks.abandon()
        except Exception:
            log.exception("stream %s: closing its source failed", stream.id)
        try:
            stream.leave(elsewhere=run_elsewhere)
        except Exception:
            log.exception("stream %s: its end failed", stream.id)


def run_elsewhere(task: Callable[[], object]) -> None:
    """Run what may block on a stream thread; where none is to be had, it is late rather than lost."""
    try:
        stream_threads.run(task)
    except TooManyStreams:
        abandoned.run(task)
