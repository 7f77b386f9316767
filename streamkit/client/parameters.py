"""What `EventSource` and `download` refuse before they open anything.

The law: `TypeError` for a value of another kind, `ValueError` for one out of range. The message names the parameter,
what it may be, and what was given; of headers and credentials only the kind, since a message ends up in logs.
"""

from __future__ import annotations

import ssl
from typing import Final

LONGEST_TIMEOUT: Final = 2_147_483
"""Seconds, 24 days: `poll` counts milliseconds in 32 bits."""


def check_connection(timeout: object, ssl_context: object, proxy: object) -> None:
    """Raise unless connections can be opened so."""
    if timeout is not None:
        is_number = isinstance(timeout, (int, float)) and not isinstance(timeout, bool)
        if not is_number or not 0 < timeout <= LONGEST_TIMEOUT:  # type: ignore[operator]
            raise (ValueError if is_number else TypeError)(
                f"timeout must be seconds above 0, at most {LONGEST_TIMEOUT}, or None to wait for ever, "
                f"not {timeout!r:.80}"
            )
    if not isinstance(ssl_context, (ssl.SSLContext, type(None))):
        raise TypeError(
            "ssl_context must be an ssl.SSLContext, or None for what the system trusts, not "
            f"{type(ssl_context).__name__}"
        )
    if not isinstance(proxy, (str, type(None))):
        raise TypeError(
            f"proxy must be 'environment', the URL of a proxy, or None for none, not {type(proxy).__name__}"
        )


def check_limit(name: str, value: object, least: int) -> None:
    """Raise unless `value` is a whole number from `least` on, or None."""
    if value is None:
        return
    is_number = isinstance(value, int) and not isinstance(value, bool)
    if not is_number or value < least:  # type: ignore[operator]
        raise (ValueError if is_number else TypeError)(
            f"{name} must be a whole number of at least {least}, or None for no limit, not {value!r:.80}"
        )


def check_callback(name: str, value: object, takes: str) -> None:
    """Raise unless `value` can be called, or is None."""
    if value is not None and not callable(value):
        raise TypeError(f"{name} must be a function that takes {takes}, or None for none, not {value!r:.80}")
