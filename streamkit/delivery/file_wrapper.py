"""A whole file handed to the server to send in its own fastest way (PEP 3333, `wsgi.file_wrapper`).

Only whole files, and only on servers whose wrapper is right: uWSGI and wsgiref send a part of a file wrongly, and
Werkzeug's and cheroot's have none. The server reads or calls `sendfile`, then closes; whether it sent everything is
seen from the position that it left.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, BinaryIO

from streamkit.delivery.connection import Connection
from streamkit.flow.file_range import BLOCK_BYTES, truncated
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
    """The file-like object that a server's wrapper gets. Used by one thread, the server's."""

    def __init__(self, file: BinaryIO, size: int, stream: Stream, connection: Connection) -> None:
        self._file = file
        self._size = size
        self._stream = stream
        self._connection = connection
        self._reached = 0
        self.fileno = file.fileno
        self.tell = file.tell
        connection.limit_writes()

    @classmethod
    def wrapped(
        cls, wrapper: Wrapper, file: BinaryIO, size: int, stream: Stream, connection: Connection
    ) -> Iterable[bytes]:
        """What a WSGI application returns to have `file` sent."""
        return wrapper(cls(file, size, stream, connection), BLOCK_BYTES)

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes. Raises OSError when the file has become shorter than its Content-Length."""
        data = self._file.read(size)
        if not data and size and self._file.tell() < self._size:
            raise truncated(self._file.tell(), self._size)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Move. `socket.sendfile` ends by moving to where it got; gunicorn moves the descriptor back after that."""
        position = self._file.seek(offset, whence)
        if whence == os.SEEK_SET:
            self._reached = max(self._reached, position)
        return position

    def close(self) -> None:
        """Called by the server at the end. Raises OSError when the file became shorter: that must not look complete."""
        if self._file.closed:
            return
        sent = min(max(self._reached, self._file.tell()), self._size)
        shrunk = os.fstat(self._file.fileno()).st_size < self._size
        self._file.close()
        if sent:
            self._stream.sent(sent)
        error: OSError | None = None
        if sent == self._size:
            self._stream.end("completed")
        elif shrunk:
            error = truncated(sent, self._size)
            self._stream.end("failed", error)
            self._connection.reset()  # or a kept-alive client would read the next answer as the missing bytes
        else:
            self._stream.end("client_gone")
        self._connection.release()
        self._stream.leave(error)
