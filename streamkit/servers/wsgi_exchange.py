"""One request answered by a WSGI application over one connection: framing, closing, and every way it can go wrong.

Who owns what: the exchange owns the bytes of one response; it calls `close()` of the returned iterable exactly
once, whatever happened; it never closes the connection in the ordinary course, but says whether it can be used
again (`keep_alive`) or has to be reset (`must_reset`).

What the standards demand (PEP 3333; RFC 9112 sections 6 to 8): a chunk of the application is one write, and the head
travels with the first that is not empty, so an early failure is still a real 500. **An answer that failed must not
look complete**: no last chunk, never a full Content-Length, and a reset where only the end of the connection
would have said "complete". Event streams are not reset, since a reset could overtake their last event; their
clients reconnect at any end.
"""

from __future__ import annotations

import io
import logging
import os
import socket
import stat
import sys
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any

from streamkit.delivery.connection import SocketConnection
from streamkit.errors import ClientDisconnected, DecodeError
from streamkit.formats.chunked import LAST_CHUNK
from streamkit.servers.request_body import RequestBody
from streamkit.servers.request_head import RequestHead
from streamkit.servers.response_head import ResponseHead, check_head, plain_answer
from streamkit.servers.wsgi_environ import FileWrapper

logger = logging.getLogger("streamkit.server")

WSGIApplication = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
_ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]

_JOIN_BYTES = 16384
"""Up to here the parts of a write are joined: a copy costs less than the work of `sendmsg`."""

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class ContentLengthError(Exception):
    """The application's body is shorter or longer than the Content-Length it declared."""


class WSGIExchange:
    """Run an application once for one request.

    sock: a blocking socket; its timeout bounds each wait for a client that does not read.
    body: the request body whose `wsgi_input()` is in `environ`.
    status_version: what the status line says, "HTTP/1.1" or "HTTP/1.0".
    can_chunk: whether both sides speak HTTP/1.1; without that a body of unknown length ends with the connection.
    continue_sent: whether somebody answered `Expect: 100-continue` already.
    may_keep_alive: asked once, when the head is made, whether the connection shall be kept.

    After `run`: `status` (0: nothing was sent), `body_bytes` that were handed to the kernel, `keep_alive`,
    `must_reset`, `was_replaced()`. One exchange is used by one thread.
    """

    def __init__(
        self,
        sock: socket.socket,
        head: RequestHead,
        body: RequestBody,
        environ: dict[str, Any],
        *,
        status_version: str,
        can_chunk: bool,
        may_keep_alive: Callable[[], bool],
        continue_sent: bool = False,
    ) -> None:
        self.environ = environ
        self.status = 0
        self.body_bytes = 0
        self.keep_alive = False
        self.must_reset = False
        self._socket = sock
        self._inode = os.fstat(sock.fileno()).st_ino
        self._request = head
        self._body = body
        self._status_version = status_version
        self._can_chunk = can_chunk
        self._may_keep_alive = may_keep_alive
        self._response: ResponseHead | None = None
        self._head_sent = False
        self._chunked = False
        self._close_delimited = False
        self._completed = False
        self._client_error: OSError | None = None
        self._continue_owed = head.expects_continue and not continue_sent and not body.complete
        if self._continue_owed:
            body.before_first_read = self._send_continue

    def run(self, application: WSGIApplication) -> None:
        """Call the application, send its answer, close its iterable.

        Any error is answered here. An Exception is logged too, and does not escape; SystemExit and the like do, after
        `close()`.
        """
        iterable: Iterable[bytes] | None = None
        try:
            try:
                iterable = application(self.environ, self.start_response)
                self._transmit(iterable)
                self._complete()
            except BaseException as error:
                self._fail(error)
                if not isinstance(error, Exception):
                    raise
            finally:
                self._close(iterable)
        finally:
            if not self._completed:
                self.keep_alive = False
            self._client_error = None  # its traceback refers to this frame, which holds the iterable

    def was_replaced(self) -> bool:
        """Whether the application moved the connection away and put another socket under the descriptor.

        It sends the rest by itself then, and the last thing on that connection (RFC 9112 section 9.6). Requests that
        were read ahead must not run: nobody would get their answers.
        """
        descriptor = self._socket.fileno()
        return descriptor < 0 or os.fstat(descriptor).st_ino != self._inode

    # The application's side

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: _ExcInfo | None = None, /
    ) -> Callable[[bytes], None]:
        """PEP 3333 `start_response`; returns `write`. Raises RuntimeError when called twice without `exc_info`."""
        if exc_info is not None:
            try:
                if self._head_sent and exc_info[1] is not None:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # the traceback refers to this frame
        elif self._response is not None:
            raise RuntimeError(
                "start_response was called twice; only a call with exc_info may replace the first"
            )
        self._response = check_head(status, headers)
        return self._write

    def _write(self, data: bytes) -> None:
        """Send one piece of the body now, as one write. Raises OSError where the client is gone or stalls."""
        response = self._response
        if response is None:
            raise RuntimeError("the application yielded body bytes before it called start_response")
        if not isinstance(data, bytes):
            raise TypeError(
                f"the application yielded {type(data).__name__}; WSGI takes bytes and nothing else"
            )
        if not data or not response.allows_body(self._request.method):
            return
        if response.length is not None and self.body_bytes + len(data) > response.length:
            raise ContentLengthError(
                f"the body is longer than its Content-Length of {response.length} bytes; the surplus was not sent"
            )
        parts = [] if self._head_sent else [self._make_head(response, bodiless=False)]
        if self._chunked:
            parts += [b"%x\r\n" % len(data), data, b"\r\n"]
        else:
            parts.append(data)
        self._head_sent = True
        self._send(parts)
        self.body_bytes += len(data)

    def _send_continue(self) -> None:
        if not self._head_sent:  # after the head a 100 would be read as body
            self._continue_owed = False
            self._send([_CONTINUE])

    # The response's way out

    def _transmit(self, iterable: Iterable[bytes]) -> None:
        response = self._response
        if response is not None and not response.allows_body(self._request.method):
            return  # not iterated: HEAD runs no producer
        if isinstance(iterable, FileWrapper) and response is not None and response.length is not None:
            self._transmit_file(iterable, response, response.length)
            return
        single = iterable[0] if isinstance(iterable, (list, tuple)) and len(iterable) == 1 else None
        if response is not None and isinstance(single, bytes):
            self._add_length(response, len(single))  # PEP 3333, "Handling the Content-Length Header"
        for data in iterable:
            self._write(data)
            # An application that is itself a generator calls start_response only now.
            if self._response is not None and not self._response.allows_body(self._request.method):
                return

    def _transmit_file(self, wrapper: FileWrapper, response: ResponseHead, length: int) -> None:
        """At most `length` bytes from the file's position; a file that ends earlier is found by `_complete`."""
        left = length - self.body_bytes
        if left <= 0 or not _is_plain_file(wrapper.file):
            while left > 0 and (data := wrapper.file.read(min(wrapper.block_size, left))):
                self._write(data)
                left -= len(data)
            return
        if not self._head_sent:
            head = self._make_head(response, bodiless=False)
            self._head_sent = True
            self._send([head])
        start = wrapper.file.tell()
        try:
            self._socket.sendfile(wrapper.file, start, left)
        except OSError as error:
            # Anything else is the file's trouble, and no client's.
            if isinstance(error, (ConnectionError, TimeoutError)) or self._socket.fileno() < 0:
                self._client_error = error
            raise
        finally:
            self.body_bytes += wrapper.file.tell() - start  # sendfile leaves the position at what was sent

    def _complete(self) -> None:
        response = self._response
        if response is None:
            raise RuntimeError("the application returned without calling start_response")
        bodiless = not response.allows_body(self._request.method)
        short = not bodiless and response.length is not None and self.body_bytes != response.length
        if short and not self.was_replaced():  # else somebody else sends the rest
            if SocketConnection(self._socket).is_gone():
                raise ClientDisconnected("the client left before it had the whole body")
            raise ContentLengthError(
                f"the body has {self.body_bytes} bytes, its Content-Length says {response.length}"
            )
        if not self._head_sent:
            if not bodiless:
                response = self._add_length(response, 0)
            head = self._make_head(response, bodiless=bodiless)
            self._head_sent = True
            self._send([head])
        elif self._chunked:
            self._send([LAST_CHUNK])
        self._completed = True

    def _add_length(self, response: ResponseHead, length: int) -> ResponseHead:
        """Declare a length that the application did not, where the head is still to be sent."""
        if response.length is None and not self._head_sent:
            response = check_head(response.status, [*response.headers, ("Content-Length", str(length))])
            self._response = response
        return response

    def _make_head(self, response: ResponseHead, *, bodiless: bool) -> bytes:
        """Settle the framing (RFC 9112 section 6) and whether the connection is kept, and say so."""
        if response.length is None and not bodiless:
            self._chunked = self._can_chunk
            self._close_delimited = not self._can_chunk
        # Where 100 Continue was not sent, the client may or may not send its body: only a close is unambiguous. And who
        # is told of the close in time sends nothing into it (RFC 9112 section 9.6).
        unwanted = self._continue_owed or not self._body.can_be_drained
        self.keep_alive = not self._close_delimited and not unwanted and self._may_keep_alive()
        framing = [("Transfer-Encoding", "chunked")] if self._chunked else []
        if not self.keep_alive:
            framing.append(("Connection", "close"))
        self.status = response.code
        return response.encode(self._status_version, framing)

    def _send(self, parts: list[bytes]) -> None:
        """All of `parts`, in one system call where the kernel has room. The timeout bounds each wait, not the sum."""
        try:
            size = sum(map(len, parts))
            # Sockets of other kinds need not have it: TLS' own refuse it.
            if size <= _JOIN_BYTES or type(self._socket) is not socket.socket:
                parts = [b"".join(parts)]
                sent = self._socket.send(parts[0])
            else:
                sent = self._socket.sendmsg(parts)
            if sent < size:
                view = memoryview(b"".join(parts))
                while sent < size:
                    sent += self._socket.send(view[sent:])
        except OSError as error:
            self._client_error = error
            raise

    # The ends

    def _close(self, iterable: object) -> None:
        close = getattr(iterable, "close", None)
        if close is None:
            return
        try:
            close()
        except Exception as error:
            if not self._is_of_client(error):
                logger.exception("close() of the answer to %s raised", self._for_log())

    def _is_of_client(self, error: BaseException) -> bool:
        """Whether an exception only says that the client has left, stalls, or sent a broken body."""
        if isinstance(error, ClientDisconnected):
            return True
        seen: BaseException | None = error
        while seen is not None:
            if seen is self._client_error or seen is self._body.error:
                return True
            seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
        return False

    def _fail(self, error: BaseException) -> None:
        """Answer a failure where nothing was sent yet; make sure that nobody takes the answer for complete else."""
        # An application that closed the connection itself has told whoever is to know why.
        if self._is_of_client(error) or self._socket.fileno() < 0:
            logger.debug("%s ended early: %r", self._for_log(), error)
            refusal = _refusal_of(self._body.error)
            if refusal and not self._head_sent and self._client_error is None:
                self._answer_plainly(refusal)
        else:
            if isinstance(error, Exception):  # the others go on to somebody who says so
                logger.error("error while answering %s", self._for_log(), exc_info=error)
            if not self._head_sent:
                self._answer_plainly("500 Internal Server Error")
        is_event_stream = self._response is not None and self._response.is_event_stream
        looks_complete = self._close_delimited and not self._completed and not is_event_stream
        # Who does not read shall not hold what the kernel has buffered for it either.
        self.must_reset = looks_complete or isinstance(self._client_error, TimeoutError)

    def _answer_plainly(self, status: str) -> None:
        """A short text instead of the application's answer; the connection ends with it."""
        self._may_keep_alive = lambda: False
        self._chunked = self._close_delimited = False
        self._response, data = plain_answer(status)
        bodiless = not self._response.allows_body(self._request.method)
        head = self._make_head(self._response, bodiless=bodiless)
        self._head_sent = self._completed = True
        try:
            self._send([head] if bodiless else [head, data])
            self.body_bytes = 0 if bodiless else len(data)
        except OSError as error:
            logger.debug("the client of %s left before its %s: %r", self._for_log(), status, error)

    def _for_log(self) -> str:
        """Method and path without query, safe for a log: nothing in it is as the client sent it but plain ASCII."""
        return f"{self._request.method} {self._request.log_path}"


def _refusal_of(error: Exception | None) -> str:
    if isinstance(error, DecodeError):
        return "400 Bad Request"
    if isinstance(error, TimeoutError):
        return "408 Request Timeout"
    return ""


def _is_plain_file(file: object) -> bool:
    """Whether the bytes of the descriptor are the bytes of the file object: a GzipFile has a `fileno()` too."""
    raw = getattr(file, "raw", file) if isinstance(file, io.BufferedReader) else file
    if not isinstance(raw, io.FileIO) or sys.platform == "win32":
        return False
    return stat.S_ISREG(os.fstat(raw.fileno()).st_mode)
