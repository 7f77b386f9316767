"""A client on a raw socket that does what clients do to streams: read slowly, leave, break off, come back.

The law: it reads only when it is asked to, so what it has not read stays in the kernel and, when that is full, holds
up the server. One client belongs to one thread; closing it twice is fine.
"""

from __future__ import annotations

import collections
import http.client
import os
import socket
import struct
from collections.abc import Mapping
from types import TracebackType
from typing import Final
from urllib.parse import urlsplit

from streamkit.client.response_head import FinalResponse
from streamkit.formats.event_stream import ServerSentEvent
from streamkit.formats.event_stream_decoder import EventStreamDecoder

READ_BYTES: Final = 64 * 1024
STALLED_BUFFER_BYTES: Final = 4096  # the kernel takes what it allows at least, about 2 to 4 KiB


class Client:
    """A client of the server at `url` (`http://host:port`), one request at a time. A context manager.

    ```python
    with Client(server.url) as client:
        first = client.open("/events").take(2)
        client.leave()
        missed = client.resume().take(1)
    ```

    timeout: seconds for the connection, for the head and for each read; then TimeoutError. After `open`, `.status` and
    `.headers` are those of the answer. Raises ValueError for a `url` that is not plain http, and TypeError for one that
    is no `str`.
    """

    def __init__(self, url: str, *, timeout: float = 10.0) -> None:
        if not isinstance(url, str):
            raise TypeError(f"url is {url!r}; give http://host:port, such as the url of a RunningServer")
        parts = urlsplit(url)
        if parts.scheme != "http" or parts.hostname is None:
            raise ValueError(f"url is {url!r}; give http://host:port of a running server")
        self._address = (parts.hostname, parts.port or 80)
        self._host_header = parts.netloc
        self._timeout = timeout
        self._socket: socket.socket | None = None
        self._response: http.client.HTTPResponse | None = None
        self._request: tuple[str, str, dict[str, str], bytes] | None = None
        self._decoder = EventStreamDecoder()
        self._events: collections.deque[ServerSentEvent] = collections.deque()
        self._left_to_read: int | None = None
        self._cursor = ""
        self._buffer_bytes = 0  # what the kernel gave before a stall; 0 while there is none
        self.complete = False
        """The body came to its proper end."""

    # -- coming -------------------------------------------------------------------------------------------------

    def open(
        self,
        path: str,
        *,
        last_event_id: str | None = None,
        headers: Mapping[str, str] | None = None,
        method: str = "GET",
        body: bytes = b"",
    ) -> Client:
        """Connect, send a request and read the head of the answer. Returns itself.

        last_event_id: sent as `Last-Event-ID` where it is not empty. A connection that is open is left first. Raises
        OSError where there is no connection, TimeoutError where no head comes, `http.client.HTTPException` where what
        comes is no head.
        """
        fields = {name.lower(): value for name, value in (headers or {}).items()}
        named = fields.pop("last-event-id", "")
        self._request = (path, method, fields, body)
        self._cursor = named if last_event_id is None else last_event_id
        self._connect()
        return self

    def resume(self) -> Client:
        """Come back as a browser does: the same request again, with the last id that was seen. Returns itself.

        Raises RuntimeError where nothing was opened before.
        """
        if self._request is None:
            raise RuntimeError(
                "nothing was opened, so there is nothing to come back to; call open(path) first"
            )
        self._cursor = self.last_event_id
        self._connect()
        return self

    def _connect(self) -> None:
        self.leave()
        assert self._request is not None
        path, method, headers, body = self._request
        lines = {"host": self._host_header, "accept": "*/*", **headers}
        if self._cursor:
            lines["last-event-id"] = self._cursor
        if body:
            lines["content-length"] = str(len(body))
        head = f"{method} {path} HTTP/1.1\r\n" + "".join(
            f"{name}: {value}\r\n" for name, value in lines.items()
        )
        self._decoder = EventStreamDecoder(last_event_id=self._cursor)
        self._events.clear()
        self._buffer_bytes = 0
        self.complete = False
        self._socket = socket.create_connection(self._address, timeout=self._timeout)
        try:
            self._socket.sendall(head.encode() + b"\r\n" + body)
            self._response = FinalResponse(self._socket, method=method)
            self._response.begin()
            self._left_to_read = None if self._response.chunked else self._response.length
        except BaseException:
            self.leave()
            raise

    # -- reading ------------------------------------------------------------------------------------------------

    @property
    def status(self) -> int:
        """The status code of the answer. Raises RuntimeError before `open`."""
        return self._answer().status

    @property
    def headers(self) -> http.client.HTTPMessage:
        """The headers of the answer, asked without regard to case. Raises RuntimeError before `open`."""
        return self._answer().headers

    @property
    def last_event_id(self) -> str:
        """The id in force after the events that were taken, else the one that was sent; `""` where there is none."""
        # What was decoded and not taken the client has not seen.
        return self._cursor if self._events else self._decoder.last_event_id

    def read(self) -> bytes:
        """The bytes of the body that come next, without the framing of HTTP; `b""` at its proper end.

        Raises TimeoutError where nothing comes, ConnectionError for a reset, and `http.client.IncompleteRead` for a
        body that is cut off (one that is ended by closing the connection cannot tell); RuntimeError after `leave` and
        `reset`, when a body that was not complete never will be.
        """
        response = self._answer()
        if self.complete:
            return b""
        if self._socket is None:
            raise RuntimeError("this client has left; call resume(), or open(path) again")
        if self._buffer_bytes:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._buffer_bytes)
            self._buffer_bytes = 0
        limit = READ_BYTES if self._left_to_read is None else min(READ_BYTES, self._left_to_read)
        data = response.read1(limit) if limit else b""
        if self._left_to_read is not None:
            self._left_to_read -= len(data)
            if not data and self._left_to_read:
                raise http.client.IncompleteRead(data, self._left_to_read)
        if not data:
            self.complete = True
        return data

    def read_all(self) -> bytes:
        """All the rest of the body. Raises what `read` raises. Not for endless streams."""
        pieces = []
        while data := self.read():
            pieces.append(data)
        return b"".join(pieces)

    def take(self, n: int) -> list[ServerSentEvent]:
        """The next `n` events; fewer where the stream ends first. Raises what `read` raises."""
        while len(self._events) < n and (data := self.read()):
            self._events.extend(self._decoder.feed(data))
        taken = [self._events.popleft() for _ in range(min(n, len(self._events)))]
        if taken:
            self._cursor = taken[-1].id or ""
        return taken

    def stall(self) -> None:
        """Stop reading and take the least the kernel allows, so that the server's writes come to a halt soon.

        How soon depends on what the server's kernel buffers, up to some MiB. Reading again ends it.
        """
        self._answer()
        if self._socket is not None and not self._buffer_bytes:
            self._buffer_bytes = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, STALLED_BUFFER_BYTES)

    def _answer(self) -> http.client.HTTPResponse:
        if self._response is None:
            raise RuntimeError("there is no answer; call open(path) first")
        return self._response

    # -- going --------------------------------------------------------------------------------------------------

    def leave(self) -> None:
        """Close the connection as a browser does whose tab is closed. `status` and `headers` stay."""
        sock, self._socket = self._socket, None
        if sock is not None:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # the server was faster
            sock.close()
        if self._response is not None:
            self._response.close()

    def reset(self) -> None:
        """Break the connection off with a TCP reset, as a crash or a firewall does."""
        if self._socket is not None:
            # Lingering for 0 s turns closing into a reset (SO_LINGER, socket(7)). The descriptor itself is closed:
            # `socket.close` would wait for the file object that the response reads from.
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            os.close(self._socket.detach())
        self.leave()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.leave()
