"""A file, or one range of it, handed to the server to send in its own fastest way (PEP 3333, `wsgi.file_wrapper`).

Only on servers whose wrapper is known to be right: gunicorn (22 to 27 by their source, `Response.sendfile`) and
streamkit's own send from the position of the descriptor as many bytes as Content-Length says, waitress reads in the
same way. uWSGI sends the whole file whatever the position is; Werkzeug's server and cheroot have no wrapper. The server
reads or calls `sendfile`, then closes; whether it sent everything is seen from the position that it left. A stream that
is told to stop meanwhile has its connection ended under the server, short of its Content-Length. What a middleware
drops without `close()` is closed by the thread that does that for bodies.
"""

from __future__ import annotations

import io
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping
from time import monotonic
from typing import Any

from streamkit.delivery.abandoned import abandoned
from streamkit.delivery.connection import WRITE_SECONDS, Connection
from streamkit.flow.byte_sources import BLOCK_BYTES, truncated
from streamkit.flow.stream import Stream

Wrapper = Callable[["SentFile", int], Iterable[bytes]]


def file_wrapper(environ: Mapping[str, Any]) -> Wrapper | None:
    """The server's wrapper, where it is known to be right."""
    known = (
        "gunicorn.socket" in environ
        or "streamkit.socket" in environ
        or environ.get("SERVER_SOFTWARE") == "waitress"
    )
    return environ.get("wsgi.file_wrapper") if known else None


class SentFile:
    """The file-like object that a server's wrapper gets: the bytes from `start` to `stop`. Used by one thread, but for
    `interrupt`.

    descriptor: of a regular file, lent until `close`. release: closes it.
    """

    def __init__(
        self,
        descriptor: int,
        start: int,
        stop: int,
        release: Callable[[], object],
        stream: Stream,
        connection: Connection,
    ) -> None:
        # Unbuffered, so that the position that `sendfile` begins at is that of the descriptor.
        self._file = io.FileIO(descriptor, closefd=False)
        self._start = start
        self._stop = stop
        self._release = release
        self._stream = stream
        self._connection = connection
        self._copying = False  # `socket.sendfile` is at work, or was
        self._failure: OSError | None = None
        self._began = monotonic()
        self._dropped = False  # nobody called `close`: the connection may be at another request by now
        self._reached = self._file.seek(start)
        self._closed = False
        self._lock = (
            threading.Lock()
        )  # held while `_closed` is set, or the connection is shut down before that
        self.fileno = self._file.fileno
        self.tell = self._file.tell
        connection.limit_file()
        itself = weakref.ref(self)  # the stream, which lives in the registry, must not keep what was dropped
        stream.call_on_cancel(lambda: _interrupt(itself()))

    def wrapped(self, wrapper: Wrapper) -> Iterable[bytes]:
        """What a WSGI application returns to have it sent."""
        return wrapper(self, BLOCK_BYTES)

    @property
    def mode(self) -> str:
        """As of any binary file. `socket.sendfile` asks for it before it sends, and servers that do not send never."""
        self._copying = True
        return "rb"

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes of the range. Raises OSError when the file has become shorter than that."""
        position = self._file.tell()
        left = self._stop - position
        wanted = left if size < 0 else min(size, left)
        if wanted <= 0:
            return b""
        try:
            data = self._file.read(wanted) or b""
        except OSError as error:
            self._failure = error
            raise
        if not data:
            raise truncated(position, self._stop)
        self._reached = max(self._reached, position + len(data))
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Move. `socket.sendfile` ends by moving to where it got; gunicorn moves the descriptor back after that."""
        if whence == os.SEEK_END:  # waitress asks how much there is, and would promise its client that
            return self._file.seek(self._stop + offset)
        position = self._file.seek(offset, whence)
        if whence == os.SEEK_SET:
            self._reached = max(self._reached, position)
        return position

    def interrupt(self) -> None:
        """The stream is told to stop: end the connection, so that the server's `sendfile` fails. Any thread."""
        with self._lock:
            if not (self._closed or self._dropped):  # else the connection may be at another request by now
                self._connection.hang_up()

    def close(self) -> None:
        """Called by the server at the end. Raises OSError when the file became shorter: that must not look complete."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        reached, shrunk = self._reached, False
        if not self._file.closed:  # by the garbage collector, which knows no order
            try:
                reached = min(max(reached, self._file.tell()), self._stop)
                shrunk = os.fstat(self._file.fileno()).st_size < self._stop
            except OSError:
                pass  # something has closed the descriptor that it was lent
            self._file.close()
        if reached > self._start:
            self._stream.sent(reached - self._start)
        error: OSError | None = None
        if reached == self._stop:
            self._stream.end("completed")
        elif shrunk:
            error = truncated(reached, self._stop)
            self._stream.end("failed", error)
            if not self._dropped:  # or a kept-alive client would read the next answer as the missing bytes
                self._connection.reset()
        else:
            waited = monotonic() - self._began >= WRITE_SECONDS - 1 and not self._dropped
            # The server gave up, and does not say why: a client that is still there has not read. What the kernel holds
            # for it goes, and the server does not linger (gunicorn's own thread would, for two seconds).
            gone = self._dropped or self._connection.is_gone()
            if waited and not gone:
                self._stream.end("too_slow")
                self._connection.reset()
            elif self._failure is not None or (self._copying and not gone and self._ended_unseen()):
                error = self._failure or truncated(reached, self._stop)
                self._stream.end("failed", error)
                if not self._dropped:
                    self._connection.reset()
            else:
                self._stream.end("client_gone")
        self._connection.release()
        try:
            self._release()
        finally:
            self._stream.leave(error)

    def _ended_unseen(self) -> bool:
        """Whether `sendfile` has met the end before it was there, and nobody knows: the file was shorter for a moment.
        A server that was told to stop, or has an exception of its own in flight, knows why it sends no more.
        """
        return self._stream.outcome is None and sys.exc_info()[1] is None

    def __del__(self) -> None:
        # A middleware that reads the file and drops it must not keep its descriptor and its place; as in `Body`.
        if not getattr(self, "_closed", True):
            self._dropped = True
            abandoned.put(self)


def _interrupt(file: SentFile | None) -> None:
    if file is not None:
        file.interrupt()
