"""User name and password as an `Authorization` header (RFC 7617)."""

from __future__ import annotations

import re
from base64 import b64encode


def basic_authorization(user: str, password: str) -> str:
    """Return the value of the header, in UTF-8 (RFC 7617 section 2.1).

    Raises `ValueError` for a colon in the user name, which the format cannot carry, for control characters, and
    for lone surrogates.
    """
    if ":" in user:
        raise ValueError("a user name with a colon cannot be sent: basic authentication ends the name there")
    if re.search("[\x00-\x1f\x7f\ud800-\udfff]", user + password):
        raise ValueError(
            "a user name or password with a control character or a lone surrogate cannot be sent"
        )
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode()
