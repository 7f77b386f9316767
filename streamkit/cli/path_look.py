"""One look at a stream: a request, and every read of its answer with the time it took to arrive.

The law: one thread, one connection, a deadline for the whole; memory is bounded by `MAX_ARRIVALS`, `MAX_BYTES` and the
decoder's own limit, also where few bytes are inflated to many. What goes wrong with the answer is part of the look;
only a server that cannot be reached at all raises.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from streamkit.cli.arguments import without_secrets
from streamkit.cli.failures import CommandFailed, UsageError
from streamkit.client.http_request import in_place_of, new_request
from streamkit.client.response_head import FinalResponse
from streamkit.errors import DecodeError
from streamkit.formats.event_stream import ServerSentEvent
from streamkit.formats.event_stream_decoder import EventStreamDecoder

MAX_ARRIVALS: Final = 100_000
"""Reads, or events, after which a look ends: what it has seen by then says enough."""

MAX_BYTES: Final = 16 * 1024 * 1024
"""Bytes of events, decompressed, after which a look ends; the largest event that the decoder takes is as large."""

CONNECT_SECONDS: Final = 10.0
"""For the connection and its TLS handshake; browsers wait longer, but nobody waits for a stream that long."""

_READ_BYTES: Final = 65536


@dataclass(frozen=True)
class Arrival:
    """An event, the seconds from the request to its arrival, and the Unix time of it."""

    at: float
    clock: float
    event: ServerSentEvent


@dataclass
class Look:
    """What one request has shown. Times are seconds since the request was sent."""

    url: str
    status: int | None = None
    """None where no header came."""
    reason: str = ""
    version: str = ""
    headers: list[tuple[str, str]] = field(default_factory=list)
    chunked: bool = False
    headers_at: float | None = None
    first_byte_at: float | None = None
    reads: list[tuple[float, int]] = field(default_factory=list)
    """When, and how many bytes, as they came (before decompression)."""
    events: list[Arrival] = field(default_factory=list)
    body: str = ""
    """What came that is no event stream, at most `_READ_BYTES` of it."""
    end: str = "open"
    """ "open": the deadline came first; "whole"; "broken": cut off, the proper end is missing; "reset": the same by a
    reset; "unreadable": not what its headers say."""
    end_at: float = 0.0
    trouble: str = ""

    def header(self, name: str) -> str:
        """The values of a header joined by commas, or "" (RFC 9110 5.3)."""
        return ", ".join(value for key, value in self.headers if key.lower() == name.lower())

    @property
    def is_event_stream(self) -> bool:
        """Whether its type is `text/event-stream`, whatever the parameters."""
        return self.header("Content-Type").partition(";")[0].strip().lower() == "text/event-stream"

    @property
    def ends_by_close(self) -> bool:
        """Whether nothing but the closing of the connection marks its end (RFC 9112 6.3, number 8)."""
        return not self.chunked and not self.header("Content-Length")


def look(
    url: str,
    seconds: float,
    headers: Mapping[str, str] | None = None,
    enough: Callable[[Look], bool] | None = None,
) -> Look:
    """Ask for `url` and read for at most `seconds`, or until `enough(look)`, asked after each read.

    headers: take the place of its own. A user name and password in the URL are sent as `Authorization`.

    Raises CommandFailed where there is no such host, nothing listens, or TLS fails; UsageError for a URL or a header
    that cannot be sent.
    """
    try:
        request = new_request(url, headers=headers)
    except ValueError as error:
        raise UsageError(f"cannot ask for {without_secrets(url)}: {error}") from None
    kind = http.client.HTTPSConnection if request.url.scheme == "https" else http.client.HTTPConnection
    connection = kind(request.host, request.port, timeout=CONNECT_SECONDS)
    connection.response_class = FinalResponse
    seen = Look(url)
    try:
        _connect(connection, url)
        sock = connection.sock
        own = {
            "Accept": "text/event-stream",
            "Cache-Control": "no-cache",
            "Accept-Encoding": "gzip, deflate",
        }
        start = time.monotonic()
        try:
            connection.request("GET", request.target, headers=in_place_of(own, request.headers))
            sock.settimeout(seconds)
            response = connection.getresponse()
        except TimeoutError:
            seen.end_at = time.monotonic() - start
            return seen
        except (http.client.HTTPException, OSError) as error:
            seen.end, seen.end_at = "broken", time.monotonic() - start
            # A status line that is none comes with its line end.
            seen.trouble = str(error).strip() or type(error).__name__
            return seen
        with response:
            seen.headers_at = time.monotonic() - start
            seen.status, seen.reason = response.status, response.reason
            seen.version = "1.0" if response.version == 10 else "1.1"
            seen.headers = response.getheaders()
            seen.chunked = bool(response.chunked)
            _read(seen, response, sock, start, seconds, enough)
        return seen
    except ValueError as error:  # a header that cannot be sent
        raise UsageError(f"cannot ask for {without_secrets(url)}: {error}") from None
    finally:
        connection.close()


def offered_protocol(url: str) -> str:
    """What the server chooses for a browser, "h2" or "http/1.1" (ALPN, RFC 7301); "" where it says nothing, or no TLS.

    The look itself speaks HTTP/1.1. Browsers share one HTTP/2 connection for all streams of a site; of HTTP/1.1 ones
    they open six. Raises nothing: what stands in the way has been told by the look.
    """
    parts = urlsplit(url)
    if parts.scheme != "https":
        return ""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["h2", "http/1.1"])
    try:
        with (
            socket.create_connection((parts.hostname or "", parts.port or 443), CONNECT_SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=parts.hostname) as secured,
        ):
            return secured.selected_alpn_protocol() or ""
    except OSError:
        return ""


def _connect(connection: http.client.HTTPConnection, url: str) -> None:
    try:
        connection.connect()
    except ssl.SSLCertVerificationError as error:
        raise CommandFailed(
            f"{without_secrets(url)} has a certificate that is not trusted: {error.verify_message}"
        ) from None
    except socket.gaierror:
        raise CommandFailed(f"there is no host {connection.host!r}") from None
    except OSError as error:
        raise CommandFailed(f"cannot reach {without_secrets(url)}: {error.strerror or error}") from None


def _read(
    seen: Look,
    response: http.client.HTTPResponse,
    sock: socket.socket,
    start: float,
    seconds: float,
    enough: Callable[[Look], bool] | None,
) -> None:
    unpack = _unpacker(seen.header("Content-Encoding"))
    decoder = EventStreamDecoder() if seen.is_event_stream else None
    kept = 0
    try:
        while max(len(seen.reads), len(seen.events)) < MAX_ARRIVALS and kept < MAX_BYTES:
            left = start + seconds - time.monotonic()
            if left <= 0:
                raise TimeoutError
            sock.settimeout(left)
            # Before Python 3.12 `read1` reads on where a Content-Length ends.
            length = response.length
            size = _READ_BYTES if length is None else min(_READ_BYTES, length)
            data = response.read1(size) if size else b""
            at, clock = time.monotonic() - start, time.time()
            if not data:
                seen.end, seen.end_at = ("broken", at) if response.length else ("whole", at)
                return
            seen.first_byte_at = at if seen.first_byte_at is None else seen.first_byte_at
            seen.reads.append((at, len(data)))
            for piece in unpack(data) if len(seen.body) < _READ_BYTES else ():
                if decoder is not None:
                    seen.events.extend(Arrival(at, clock, event) for event in decoder.feed(piece))
                    kept += len(piece)
                else:
                    seen.body = (seen.body + piece.decode("utf-8", "replace"))[:_READ_BYTES]
                if len(seen.events) >= MAX_ARRIVALS or kept >= MAX_BYTES or len(seen.body) == _READ_BYTES:
                    break
            if enough is not None and enough(seen):
                break
    except TimeoutError:
        pass
    except (DecodeError, zlib.error) as error:
        seen.end, seen.trouble = "unreadable", str(error)
    except http.client.IncompleteRead:
        seen.end = "broken"
    except (ConnectionResetError, ConnectionAbortedError):
        seen.end = "reset"
    except (http.client.HTTPException, OSError, ValueError) as error:
        seen.end, seen.trouble = "broken", str(error)
    seen.end_at = time.monotonic() - start


def _unpacker(encoding: str) -> Callable[[bytes], Iterable[bytes]]:
    """What turns the bytes of one read into those behind `encoding`, in pieces of at most `_READ_BYTES`."""
    if encoding.strip().lower() not in ("gzip", "x-gzip", "deflate"):
        return lambda data: (data,)
    packed = zlib.decompressobj(47)  # 32 + 15: gzip or zlib, whichever it is

    def unpack(data: bytes) -> Iterator[bytes]:
        more = True
        while more and not packed.eof:  # what follows the end would only be collected
            piece = packed.decompress(data, _READ_BYTES)
            data = packed.unconsumed_tail
            more = bool(data) or len(piece) == _READ_BYTES
            yield piece

    return unpack
