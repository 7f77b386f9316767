"""Accept-Encoding by RFC 9110 section 12.5.3."""

from __future__ import annotations

import pytest

from streamkit.formats.accept_encoding import choose_coding

AVAILABLE = ("zstd", "br", "gzip")


@pytest.mark.parametrize(
    ("header", "coding"),
    [
        (None, None),  # no wish
        ("", None),  # an empty field: identity alone
        ("gzip", "gzip"),
        ("gzip, deflate, br, zstd", "zstd"),  # equal weights: the server's order
        ("gzip;q=1.0, br;q=0.8", "gzip"),
        ("GZIP", "gzip"),
        ("x-gzip", "gzip"),  # 8.4.1.3
        ("gzip;Q=0.5", "gzip"),
        ("gzip ; q=0.5 ,\tbr ; q=0.4", "gzip"),
        ("gzip;q=0", None),
        ("gzip;q=0.000", None),
        ("deflate", None),  # not to be had
        ("*", "zstd"),
        ("*;q=0", None),
        ("zstd;q=0, *;q=0.1", "br"),
        ("*;q=0.1, gzip;q=0.2", "gzip"),
        ("identity", None),
        ("identity;q=1, *;q=0", None),  # what Chromium sends for video
        ("identity;q=0.5, gzip;q=0.4", None),  # identity is preferred
        ("identity;q=0.4, gzip;q=0.5", "gzip"),
        ("identity;q=0, *", "zstd"),
        ("identity;q=0", None),  # nothing is acceptable
        ("gzip;q=0, gzip", None),
        # malformed elements count as not written
        ("gzip;q=high", None),
        ("gzip;q=1.1", None),
        ("gzip;q=0.1234", None),
        ("gzip;q=-1", None),
        ("gzip;level=9", None),
        ("gzip br", None),
        (";q=1, , gzip", "gzip"),
        ("gzip;q=\u0661", None),  # an Arabic-Indic 1 is no digit here
        ("\0, br", "br"),
    ],
)
def test_the_choice(header: str | None, coding: str | None) -> None:
    assert choose_coding(header, AVAILABLE) == coding


def test_nothing_available() -> None:
    assert choose_coding("gzip, *", ()) is None


def test_a_huge_header_is_read_once() -> None:
    assert choose_coding("a;q=0.1," * 100_000 + "br", AVAILABLE) == "br"
