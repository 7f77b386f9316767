"""The head of a request: bytes in, method, target, headers and framing out (RFC 9112 sections 2 to 6).

No socket, clock or thread here. Everything a request says about its own length is settled in this file, strictly,
because a server that reads it otherwise than the proxy in front of it can be made to answer somebody else's
request. What is refused carries the status that tells the client so.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote

MAX_REQUEST_LINE = 8192
"""Bytes of the request line: RFC 9112 section 3 asks for at least 8000. More is answered 414."""

MAX_HEADER_BYTES = 65536
"""Bytes of all header lines together: http.server allows as much for one line. More is answered 431."""

MAX_HEADERS = 100
"""Header lines: the limit of http.client, gunicorn and Apache. More is answered 431."""

_MAX_EMPTY_LINES = 4  # RFC 9112 2.2: at least one empty line before the request line is to be ignored

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
# A target is visible ASCII by the standard; curl sends bytes above 0x7f as they were typed, and so does WSGI take them.
_REQUEST_LINE = re.compile(rb"(" + _TOKEN + rb") ([\x21\x22\x24-\x7e\x80-\xff]+) HTTP/([0-9])\.([0-9])")
_HEADER_LINE = re.compile(rb"(" + _TOKEN + rb"):[ \t]*([\t\x20-\x7e\x80-\xff]*)")
_HOST = re.compile(r"[A-Za-z0-9\-._~!$&'()*+,;=%:\[\]]*")
_ABSOLUTE = re.compile(r"https?://([^/?]+)(.*)", re.IGNORECASE)
_LENGTH = re.compile(r"[0-9]{1,18}", re.ASCII)


class RequestRefused(Exception):
    """A request that is not taken. `status` is the status line's end; "" asks to close without a word."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True)
class RequestHead:
    """One request without its body.

    target: as it was sent, decoded as Latin-1. path, query: its parts, still percent-encoded; path is "" for `*`.
    version: (1, 0) or (1, 1). headers: in order, names as sent, values decoded as Latin-1 and stripped.
    length: bytes of the body by Content-Length, None where it is chunked; 0 where there is no body.
    keep_alive: whether the client would use the connection again. expects_continue: whether it waits for a 100 before
    it sends the body.
    """

    method: str
    target: str
    path: str
    query: str
    version: tuple[int, int]
    headers: tuple[tuple[str, str], ...]
    length: int | None
    keep_alive: bool
    expects_continue: bool

    @property
    def log_path(self) -> str:
        """The path for a log line: no query (it may hold tokens), nothing that could end or quote it."""
        return quote(self.path.encode("latin-1"), safe="/%:@!$&()*+,;=~.-_") or "*"


def make_head(
    method: str, target: str, version: tuple[int, int], headers: Iterable[tuple[str, str]]
) -> RequestHead:
    """Check a request whose lines are parsed already, and settle its framing. Raises RequestRefused."""
    headers = tuple(headers)
    values: dict[str, list[str]] = {}
    for name, value in headers:
        values.setdefault(name.lower(), []).append(value)
    if method == "CONNECT":
        raise RequestRefused("501 Not Implemented", "CONNECT is for proxies")
    hosts = values.get("host", [])
    if len(hosts) > 1 or (not hosts and version >= (1, 1)):
        raise RequestRefused("400 Bad Request", f"one Host header is needed, there are {len(hosts)}")
    if hosts and _HOST.fullmatch(hosts[0]) is None:
        raise RequestRefused("400 Bad Request", "the Host header is not a host name")
    path, query, authority = _split_target(method, target)
    if authority:  # RFC 9112 3.2.2: it stands above the Host header
        headers = (*(item for item in headers if item[0].lower() != "host"), ("Host", authority))
    connection = _tokens(values.get("connection", []))
    expectations = _tokens(values.get("expect", []))
    if expectations - {"100-continue"}:
        raise RequestRefused("417 Expectation Failed", "100-continue is the only expectation known")
    return RequestHead(
        method=method,
        target=target,
        path=path,
        query=query,
        version=version,
        headers=headers,
        length=_body_length(values, version),
        keep_alive=version >= (1, 1) and "close" not in connection,
        expects_continue=bool(expectations) and version >= (1, 1),
    )


def split_request_line(line: bytes) -> tuple[str, str, tuple[int, int]]:
    """Method, target and version, (1, 0) or (1, 1), of a request line without its line end. Raises RequestRefused."""
    match = _REQUEST_LINE.fullmatch(line)
    if match is None:
        raise RequestRefused("400 Bad Request", "the first line is not method, target, HTTP version")
    version = (int(match[3]), int(match[4]))
    if version[0] != 1:
        raise RequestRefused("505 HTTP Version Not Supported", "this server speaks HTTP/1.1 and HTTP/1.0")
    # A higher minor version is answered as 1.1 (RFC 9110 section 2.5).
    return match[1].decode("ascii"), match[2].decode("latin-1"), min(version, (1, 1))


def split_header_line(line: bytes) -> tuple[str, str]:
    """Name and value of a header line, given without its line end and not empty. Raises RequestRefused."""
    if line[0] in b" \t":
        raise RequestRefused("400 Bad Request", "obsolete line folding (RFC 9112 section 5.2)")
    match = _HEADER_LINE.fullmatch(line)
    if match is None:  # among others a space before the colon (section 5.1), a bare CR (2.2), NUL
        raise RequestRefused("400 Bad Request", "a header line is not name, colon, value")
    return match[1].decode("ascii"), match[2].rstrip(b" \t").decode("latin-1")


def _split_target(method: str, target: str) -> tuple[str, str, str]:
    authority = ""
    if target == "*" and method == "OPTIONS":
        return "", "", ""
    if not target.startswith("/"):
        match = _ABSOLUTE.fullmatch(target)
        if match is None or _HOST.fullmatch(match[1]) is None:
            raise RequestRefused(
                "400 Bad Request", "the request target is neither a path nor an http address"
            )
        authority, target = match[1], match[2]
        if not target.startswith("/"):
            target = "/" + target
    path, _, query = target.partition("?")
    return path, query, authority


def _body_length(values: dict[str, list[str]], version: tuple[int, int]) -> int | None:
    """Section 6.3. None for chunked, 0 for no body."""
    lengths = values.get("content-length", [])
    codings = values.get("transfer-encoding", [])
    if codings:
        if version < (1, 1):
            raise RequestRefused(
                "400 Bad Request", "HTTP/1.0 has no Transfer-Encoding (RFC 9112 section 6.1)"
            )
        if lengths:
            raise RequestRefused("400 Bad Request", "both Transfer-Encoding and Content-Length")
        names = [name.strip(" \t").lower() for name in ",".join(codings).split(",")]
        if names == ["chunked"]:
            return None
        if names.count("chunked") > 1 or "" in names:
            raise RequestRefused(
                "400 Bad Request", "Transfer-Encoding is not a list with one chunked at its end"
            )
        raise RequestRefused("501 Not Implemented", "chunked is the only transfer coding known")
    if not lengths:
        return 0
    if len(lengths) > 1 or _LENGTH.fullmatch(lengths[0]) is None:
        raise RequestRefused("400 Bad Request", "Content-Length is not one decimal number")
    return int(lengths[0])


def _tokens(values: list[str]) -> set[str]:
    return {
        token.strip(" \t").lower() for value in values for token in value.split(",") if token.strip(" \t")
    }


class HeadParser:
    """Takes lines off the front of a buffer until one request head is whole. Not thread-safe; one per request."""

    def __init__(self) -> None:
        self.asks_head = False
        """Whether what came begins as a HEAD request, whose refusal has no body either (RFC 9110 section 9.3.2)."""
        self._request_line: tuple[str, str, tuple[int, int]] | None = None
        self._headers: list[tuple[str, str]] = []
        self._header_bytes = 0
        self._empty_lines = 0
        self._searched = 0

    def feed(self, buffer: bytearray) -> RequestHead | None:
        """Consume complete lines of `buffer`, which the caller appends to between calls.

        Returns the head when its empty line was reached (the buffer then starts with the body), None while it is
        not. Raises RequestRefused as soon as the bytes cannot become a request, or exceed a limit.
        """
        while True:
            if self._request_line is None:
                self.asks_head = buffer.startswith(b"HEAD ")
                _refuse_other_protocols(buffer)
            end = buffer.find(b"\n", self._searched)
            self._check_limits(len(buffer) if end < 0 else end + 1)
            if end < 0:
                self._searched = len(buffer)
                return None
            line = bytes(buffer[: end + 1])
            del buffer[: end + 1]
            self._searched = 0
            # RFC 9112 2.2 allows a bare LF; two parsers that disagree about it are how requests are smuggled.
            if not line.endswith(b"\r\n"):
                raise RequestRefused("400 Bad Request", "a line ends in a bare LF")
            head = self._take_line(line[:-2])
            if head is not None:
                return head

    def _check_limits(self, line_bytes: int) -> None:
        if self._request_line is None:
            if line_bytes > MAX_REQUEST_LINE + 2:
                raise RequestRefused("414 URI Too Long", f"the request line exceeds {MAX_REQUEST_LINE} bytes")
        elif self._header_bytes + line_bytes > MAX_HEADER_BYTES:
            raise RequestRefused(
                "431 Request Header Fields Too Large", f"the headers exceed {MAX_HEADER_BYTES} bytes"
            )

    def _take_line(self, line: bytes) -> RequestHead | None:
        if self._request_line is None:
            self._take_request_line(line)
            return None
        if not line:
            return make_head(*self._request_line, self._headers)
        self._header_bytes += len(line) + 2
        if len(self._headers) >= MAX_HEADERS:
            raise RequestRefused(
                "431 Request Header Fields Too Large", f"more than {MAX_HEADERS} header lines"
            )
        self._headers.append(split_header_line(line))
        return None

    def _take_request_line(self, line: bytes) -> None:
        if not line:
            self._empty_lines += 1
            if self._empty_lines > _MAX_EMPTY_LINES:
                raise RequestRefused("400 Bad Request", "empty lines instead of a request")
            return
        self._request_line = split_request_line(line)


def _refuse_other_protocols(buffer: bytearray) -> None:
    """Answer at once where not even the first byte can begin a request: nobody will send the end of the line."""
    if buffer.startswith(b"\x16\x03"):
        raise RequestRefused("", "a TLS handshake on a port that speaks plain HTTP")
    first = buffer[:1]
    if first and first != b"\x16" and first not in b"\r\n" and re.match(_TOKEN, first) is None:
        raise RequestRefused("400 Bad Request", "the first byte cannot begin a request")
