"""The cursor that a client brings back: where in the stream it was (WHATWG HTML 9.2.4).

The law: it is client input, and whatever it is, the answer is a stream. Any other status than 200 stops a browser for
good, so a cursor that makes no sense is an *unknown* one, which a hub answers with a gap, and never an exception.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote_to_bytes

UNKNOWN_CURSOR = "\ufffd"
"""What stands for a cursor that cannot be read: one replacement character. No broker gives such an id, so it is unknown
to all of them; and it can be sent, logged and stored like any other text."""

MAX_CURSOR_BYTES = 4096
"""Longest cursor that is read, in UTF-8 bytes: half of what gunicorn and nginx let one header line have."""

QUERY_NAMES = ("lastEventId", "last_event_id")
"""Query parameters in place of the header, which a page cannot set for its first connection. The first is the only form
that event-source-polyfill sends; the second is the name that Mercure uses."""


def last_event_id(environ: Mapping[str, Any]) -> str | None:
    """Return the id of the last event that the client of a WSGI request has seen, or None where it has seen none.

    The `Last-Event-ID` header decides where it is present; present but empty is None. Otherwise the last value of
    `lastEventId` or `last_event_id` in the query string that is not empty.

    A cursor that is not UTF-8, is longer than 4096 bytes, or holds CR, LF or NUL gives `UNKNOWN_CURSOR`, which no
    stream has given out. (wsgiref strips bytes off the end of some ids, which then are no longer UTF-8.) Nothing that
    a client sends makes it raise. The text is what the client sent: compare it, but do not trust it. Safe from any
    thread. Raises TypeError for what is no environ.
    """
    if not hasattr(environ, "get"):
        advice = "; give request.environ" if hasattr(environ, "environ") else ""
        raise TypeError(f"environ is {type(environ).__name__}; it is the WSGI environ, a dict{advice}")
    header = environ.get("HTTP_LAST_EVENT_ID")
    if isinstance(header, str):
        # PEP 3333: the bytes of the header as Latin-1. White space around a value is not part of it (RFC 9110 5.5).
        return _cursor(_native_bytes(header).strip(b" \t"))
    query = environ.get("QUERY_STRING")
    if isinstance(query, str):
        for parameter in reversed(query.split("&")):
            name, _, value = parameter.partition("=")
            if value and name in QUERY_NAMES:
                return _cursor(unquote_to_bytes(_native_bytes(value.replace("+", " "))))
    return None


def _native_bytes(text: str) -> bytes:
    """Return the bytes that a server put into a WSGI string; of one that breaks PEP 3333, bytes that are not UTF-8."""
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return b"\xff"


def _cursor(value: bytes) -> str | None:
    if not value:
        return None
    if len(value) > MAX_CURSOR_BYTES or b"\r" in value or b"\n" in value or b"\0" in value:
        return UNKNOWN_CURSOR
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return UNKNOWN_CURSOR
