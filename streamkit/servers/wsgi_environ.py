"""The environ of one request (PEP 3333, "environ Variables"), from its head and the two ends of its connection."""

from __future__ import annotations

import io
import socket
import ssl
import sys
from typing import IO, Any
from urllib.parse import unquote_to_bytes

from streamkit.servers.request_head import RequestHead

_READ_BYTES = 65536
"""64 to 256 KiB reads were measured about as fast as sendfile; 64 bounds what a write may hold."""


class FileWrapper:
    """`wsgi.file_wrapper`: an iterable of blocks of a binary file, from its current position to its end.

    Returned from an application together with a Content-Length it is sent with `socket.sendfile`, at most
    Content-Length bytes. Any middleware may iterate it instead. `close()` closes the file.
    """

    def __init__(self, file: IO[bytes], block_size: int = _READ_BYTES) -> None:
        self.file = file
        self.block_size = block_size

    def __iter__(self) -> FileWrapper:
        return self

    def __next__(self) -> bytes:
        block = self.file.read(self.block_size)
        if not block:
            raise StopIteration
        return block

    def close(self) -> None:
        """Close the file, where it can be closed."""
        close = getattr(self.file, "close", None)
        if close is not None:
            close()


def make_environ(
    head: RequestHead,
    wsgi_input: IO[bytes],
    sock: socket.socket,
    peer: Any,
    server: tuple[str, int],
    *,
    multithread: bool,
) -> dict[str, Any]:
    """The whole environ, a new dict.

    peer: what `accept` gave for the client. server: host and port for SERVER_NAME and SERVER_PORT.

    Headers of the same name are joined by commas, Cookie by "; " (RFC 9110 section 5.3, RFC 6265 section 5.4).
    Names with an underscore are dropped: `X_User` and `X-User` would share a variable, and proxies only remove
    the second from what clients send.
    """
    remote_host, remote_port = (peer[0], str(peer[1])) if isinstance(peer, tuple) else (str(peer), "")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": head.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(head.path.encode("latin-1")).decode("latin-1"),
        "QUERY_STRING": head.query,
        "REQUEST_URI": head.target,  # as it was sent; Werkzeug and others look for both of these names
        "RAW_URI": head.target,
        "SERVER_NAME": server[0],
        "SERVER_PORT": str(server[1]),
        "SERVER_PROTOCOL": f"HTTP/{head.version[0]}.{head.version[1]}",
        "REMOTE_ADDR": remote_host,
        "REMOTE_PORT": remote_port,
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "https" if isinstance(sock, ssl.SSLSocket) else "http",
        "wsgi.input": wsgi_input,
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr if sys.stderr is not None else io.StringIO(),
        "wsgi.multithread": multithread,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "wsgi.file_wrapper": FileWrapper,
        "streamkit.socket": sock,
    }
    for name, value in head.headers:
        if "_" in name:
            continue
        key = name.upper().replace("-", "_")
        if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            key = "HTTP_" + key
        if key in environ:
            separator = "; " if key == "HTTP_COOKIE" else ","
            environ[key] = environ[key] + separator + value
        else:
            environ[key] = value
    return environ
