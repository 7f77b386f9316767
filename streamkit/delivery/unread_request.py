"""What of a request is still to be read when its answer begins: then its connection cannot be taken from the server.

A body that is read behind a takeover would be cut: the server sees an end of file where the rest of it was, and what
it holds itself it may throw away at any time, to get at the next request. So a body that is announced counts as unread
unless one of those who read it can tell that it is not:

- gunicorn's `wsgi.input` knows what is left of it, and what was read ahead;
- that of `streamkit.serve` is complete or not;
- Werkzeug's server and uWSGI do not count, but a Werkzeug request (Flask's) that has read from them does.

Everything here only looks: nothing is read and nothing waits.
"""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from typing import Any


def has_unread_body(environ: Mapping[str, Any]) -> bool:
    """Whether a body is announced (RFC 9112 section 6.3) that nobody is known to have read to its end."""
    length = str(environ.get("CONTENT_LENGTH") or "0").strip()
    if not environ.get("HTTP_TRANSFER_ENCODING") and not length.strip("0"):
        return False
    given = environ.get("wsgi.input")
    return not (_read_from_gunicorn(given) or _read_from_streamkit(given) or _read_by_werkzeug(environ))


def _read_from_gunicorn(given: object) -> bool:
    reader = getattr(given, "reader", None)
    if reader is None:
        return False
    # `length` is what is left on the connection; the parser of a chunked body is gone at its end.
    left = getattr(reader, "length", getattr(reader, "parser", True))
    return not left and not _held(given) and not _held(reader)


def _held(part: object) -> bytes:
    """What was read ahead of the application: gunicorn throws it away with the rest of the body."""
    buffer = getattr(part, "buf", None)
    return buffer.getvalue() if isinstance(buffer, BytesIO) else b""


def _read_from_streamkit(given: object) -> bool:
    return getattr(getattr(given, "raw", None), "complete", None) is True


def _read_by_werkzeug(environ: Mapping[str, Any]) -> bool:
    if environ.get("wsgi.input_terminated"):
        return False  # the limit of its stream is not the length of the body
    stream = getattr(environ.get("werkzeug.request"), "__dict__", {}).get("stream")
    return getattr(stream, "is_exhausted", None) is True


def has_pipelined(environ: Mapping[str, Any]) -> bool:
    """Whether gunicorn has read a further request already: it would run it, and nobody would get the answer."""
    reader = getattr(environ.get("wsgi.input"), "reader", None)
    owner = getattr(reader, "req", reader)  # that of a chunked body has the request instead
    return bool(_held(getattr(owner, "unreader", None)))
