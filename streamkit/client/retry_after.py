"""The `Retry-After` header of an answer (RFC 9110 section 10.2.3)."""

from __future__ import annotations

from time import time

from streamkit.formats.header_fields import parse_http_date


def retry_after_seconds(value: str | None) -> float | None:
    """Return the seconds to wait that a header tells, 0 or more; None where there is none that can be read."""
    value = (value or "").strip()
    if value.isascii() and value.isdigit() and len(value) < 10:
        return float(value)
    date = parse_http_date(value)
    return None if date is None else max(0.0, date - time())
