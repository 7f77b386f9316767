"""The head of a response: what an application may say in `start_response`, and the bytes that are made of it.

PEP 3333 leaves framing and connection to the server: an application that sends hop-by-hop headers makes answers
that are chunked twice, so those are an error here. No socket in this file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from email.utils import formatdate

from streamkit.formats.header_fields import HOP_BY_HOP

SERVER_NAME = "streamkit"
"""The Server header where the application sends none. It has no version: that only helps those who look for holes."""

_STATUS = re.compile(r"([2-5][0-9]{2})(?: [\t\x20-\x7e\x80-\xff]*)?", re.ASCII)
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_LENGTH = re.compile(r"[0-9]{1,18}", re.ASCII)


@dataclass(frozen=True)
class ResponseHead:
    """A checked status and headers. length: Content-Length in bytes, None where there is none."""

    status: str
    headers: tuple[tuple[str, str], ...]
    length: int | None
    is_event_stream: bool

    @property
    def code(self) -> int:
        """The status as a number."""
        return int(self.status[:3])

    def allows_body(self, method: str) -> bool:
        """Whether body bytes may follow (RFC 9112 section 6.3; RFC 9110 section 15.3.6 for 205)."""
        return method != "HEAD" and self.code not in (204, 205, 304)

    def encode(self, version: str, framing: list[tuple[str, str]]) -> bytes:
        """Status line, headers, `framing` headers and the empty line. Date and Server are added where absent."""
        # RFC 9112 section 4: the space is not optional.
        status = self.status if len(self.status) > 3 else self.status + " "
        lines = [f"{version} {status}"]
        names = set()
        for name, value in self.headers:
            names.add(name.lower())
            # RFC 9110 8.6: never in a 204. A 205 has none but the one below, whatever the application would send.
            if name.lower() == "content-length" and self.code in (204, 205):
                continue
            lines.append(f"{name}: {value}")
        if self.code == 205:  # clients know only of 204 and 304 that nothing follows
            lines.append("Content-Length: 0")
        if "date" not in names:
            lines.append(f"Date: {formatdate(usegmt=True)}")
        if "server" not in names:
            lines.append(f"Server: {SERVER_NAME}")
        lines += [f"{name}: {value}" for name, value in framing]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def check_head(status: object, headers: object) -> ResponseHead:
    """What an application gave to `start_response`. Raises TypeError or ValueError that show what is wrong."""
    if not isinstance(status, str):
        raise TypeError(f"the status is {status!r}; it must be a str such as '200 OK'")
    if _STATUS.fullmatch(status) is None:
        raise ValueError(
            f"the status is {status!r}; it must be a final status (200 to 599), a space and a reason"
        )
    if not isinstance(headers, (list, tuple)):
        raise TypeError(
            f"the headers are a {type(headers).__name__}; PEP 3333 asks for a list of (name, value)"
        )
    lengths: list[str] = []
    is_event_stream = False
    for item in headers:
        if not (isinstance(item, tuple) and len(item) == 2 and all(isinstance(part, str) for part in item)):
            raise TypeError(f"the header {item!r} is not a tuple of two str")
        name, value = item
        if _NAME.fullmatch(name) is None:
            raise ValueError(f"{name!r} is not a header name")
        if _VALUE.fullmatch(value) is None:
            raise ValueError(
                f"the value {value!r} of {name} has characters that are no header text; encode or quote it"
            )
        lower = name.lower()
        if lower in HOP_BY_HOP:
            raise ValueError(f"the header {name} belongs to the server (PEP 3333, hop-by-hop); leave it out")
        if lower == "content-length":
            lengths.append(value.strip())
        elif lower == "content-type":
            is_event_stream = value.lower().startswith("text/event-stream")
    if len(lengths) > 1 or (lengths and _LENGTH.fullmatch(lengths[0]) is None):
        raise ValueError(f"Content-Length is {', '.join(lengths)!r}; it must be one decimal number")
    length = int(lengths[0]) if lengths else None
    return ResponseHead(status, tuple(headers), length, is_event_stream)


def plain_answer(status: str) -> tuple[ResponseHead, bytes]:
    """The head and body of a text answer that says no more than its status."""
    data = status.encode("ascii") + b"\n"
    headers = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(data)))]
    return check_head(status, headers), data
