"""Repr-Digest and Want-Repr-Digest (RFC 9530)."""

from __future__ import annotations

import hashlib

import pytest

from streamkit.formats.digest_fields import repr_digest, wanted_digest


@pytest.mark.parametrize(
    ("header", "algorithm"),
    [
        (None, None),
        ("", None),
        ("sha-256=1", "sha-256"),
        ("sha-512=3, sha-256=10, unixsum=0", "sha-256"),  # section 4's own example
        ("sha-256=1, sha-512=2", "sha-512"),
        ("sha-256=5, sha-512=5", "sha-256"),
        ("sha-256=0", None),
        ("sha-256=0, sha-512=1", "sha-512"),
        ("md5=10", None),
        ("sha-256=1;x=2", "sha-256"),
        ("sha-256=11", None),  # 4: from 0 to 10
        ("sha-256=-1", None),
        ("sha-256", None),  # a boolean is no weight
        ("SHA-256=1", None),  # RFC 8941: keys are lower case
        ("sha-256=1, sha-256=0", None),  # RFC 8941 3.2: the last one counts
    ],
)
def test_wishes(header: str | None, algorithm: str | None) -> None:
    assert wanted_digest(header) == algorithm


def test_only_what_is_available() -> None:
    assert wanted_digest("sha-256=10, sha-512=1", ["sha-512"]) == "sha-512"


def test_the_field() -> None:
    digest = hashlib.sha256(b'{"hello": "world"}\n').digest()  # RFC 9530 appendix B.1
    assert repr_digest({"sha-256": digest}) == "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:"
