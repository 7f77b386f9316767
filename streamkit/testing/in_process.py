"""One request to a WSGI application in this process, as a server would make it (PEP 3333), with an end to it.

The law:

- A thread plays the server: it calls the application, iterates what it returned, and calls `close()` on it, whatever
  happened. All of that happens on this one thread, as servers do it.
- The caller waits for that thread, with a deadline. When it is over the client *has left*: the thread stops at
  the next chunk. A producer that is blocked is told through the environ (`waitress.client_disconnected`, which
  waitress made and streamkit's responses ask twice a second); no thread can be ended from outside, so one whose
  producer ignores that goes on until its next chunk. It is a daemon: it never keeps the interpreter from its end.
"""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final
from urllib.parse import unquote_to_bytes
from wsgiref.headers import Headers

WSGIApplication = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

MAX_BYTES: Final = 64 * 1024 * 1024
"""What is kept of one body: an endless stream that never has what is looked for must not fill the memory."""
LEAVE_SECONDS: Final = 2.0
"""How long a producer that was told gets to notice: four looks of streamkit's, which takes one each 0.5 s."""


def environ_for(
    path: str, *, method: str = "GET", headers: Mapping[str, str] | None = None, body: bytes = b""
) -> dict[str, Any]:
    """A WSGI environ (PEP 3333) for `path`, which may have a query; text beyond ASCII is sent as UTF-8.

    Raises ValueError where `path` has no leading slash.
    """
    if not path.startswith("/"):
        raise ValueError(
            f'path is {path!r}; it begins with "/" and may have a query, such as "/events?topic=a"'
        )
    path_part, _, query = path.partition("?")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(path_part).decode("latin-1"),
        "QUERY_STRING": _as_sent(query),
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_HOST": "localhost",
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    for name, value in (headers or {}).items():
        key = name.upper().replace("-", "_")
        environ[key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"] = _as_sent(value)
    return environ


def check_timeout(timeout: object) -> None:
    """Raise ValueError unless a thread can be waited for so long."""
    is_number = isinstance(timeout, (int, float)) and not isinstance(timeout, bool)
    if not (is_number and 0 < timeout <= threading.TIMEOUT_MAX):  # type: ignore[operator]
        raise ValueError(f"timeout is {timeout!r}; give a number of seconds above 0")


def _as_sent(text: str) -> str:
    """UTF-8, byte by byte as a str (PEP 3333, "Unicode Issues"): what a server makes of the bytes of a client."""
    return text.encode().decode("latin-1")


class Exchange:
    """One request: `start`, wait, `leave`, and `wait_closed`; then the attributes say what came."""

    def __init__(self, app: WSGIApplication, environ: dict[str, Any]) -> None:
        self.status = 0
        self.headers = Headers([])
        self.chunks: list[bytes] = []
        self.iterable: object = None
        """What the application returned."""
        self.complete = False
        """The body came to its end by itself."""
        self.closed = False
        """The server's thread is done, `close()` included."""
        self.error: BaseException | None = None
        """What the application, `enough` or `close()` raised."""
        self.first_chunk = threading.Event()
        """There is a byte of the body, or never will be."""
        self._app = app
        self._environ = environ
        self._environ["waitress.client_disconnected"] = self._has_left
        self._size = 0
        self._left = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def surroundings(self) -> tuple[object, object]:
        """What the body may know but does not own: the application and the environ."""
        return self._app, self._environ

    def start(self, enough: Callable[[bytes], bool]) -> None:
        """Make the request. `enough(chunk)` is called on the server's thread; True makes the client leave."""
        self._thread = threading.Thread(
            target=self._serve, args=(enough,), name="streamkit-testing", daemon=True
        )
        self._thread.start()

    def leave(self) -> None:
        """The client leaves: the server's thread stops at the next chunk, and a producer that asks is told."""
        self._left.set()

    def wait_closed(self, seconds: float) -> bool:
        """Whether the server's thread was done within `seconds`."""
        assert self._thread is not None
        self._thread.join(seconds)
        return self.closed

    def _has_left(self) -> bool:
        return self._left.is_set()

    def _serve(self, enough: Callable[[bytes], bool]) -> None:
        try:
            self._iterate(enough)
        except BaseException as error:
            self.error = error
        finally:
            self.closed = True
            self.first_chunk.set()

    def _iterate(self, enough: Callable[[bytes], bool]) -> None:
        self.iterable = body = self._app(self._environ, self._start_response)
        try:
            if self.chunks and self._stop_at(enough, b"".join(self.chunks)):  # from the old write() callable
                return
            for chunk in body:
                if not isinstance(chunk, bytes):
                    raise TypeError(
                        f"the application yielded {type(chunk).__name__}; a body is bytes (PEP 3333)"
                    )
                if chunk:
                    self._write(chunk)
                    if self._stop_at(enough, chunk):
                        return
                elif self._left.is_set():
                    return
            self._need_head()
            self.complete = True
        finally:
            close = getattr(body, "close", None)
            if close is not None:
                close()

    def _stop_at(self, enough: Callable[[bytes], bool], chunk: bytes) -> bool:
        return self._left.is_set() or enough(chunk)

    def _start_response(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        if exc_info is not None and self.chunks:
            raise exc_info[1].with_traceback(exc_info[2])  # the head is on its way: PEP 3333, start_response
        if self.status and exc_info is None:
            raise AssertionError("the application called start_response twice without exc_info (PEP 3333)")
        self.status = int(status.split(" ", 1)[0])
        self.headers = Headers(list(headers))
        return self._write

    def _need_head(self) -> None:
        if not self.status:
            raise AssertionError("the application did not call start_response before its body (PEP 3333)")

    def _write(self, chunk: bytes) -> None:
        self._need_head()
        self._size += len(chunk)
        if self._size > MAX_BYTES:
            raise OverflowError(
                f"the body has more than {MAX_BYTES} bytes, and what was asked for was not in it"
            )
        self.chunks.append(chunk)
        self.first_chunk.set()
