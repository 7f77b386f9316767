"""Repr-Digest and Want-Repr-Digest: a checksum of the whole file, also beside a part of it (RFC 9530).

The law of this file:

- Section 3: Repr-Digest covers the selected representation, content coding included, so a 206 carries the digest of
  the whole. It is a dictionary of byte sequences (RFC 8941): `sha-256=:base64:`.
- Section 4: Want-Repr-Digest is a dictionary of weights from 0 (never) to 10. A wish may be left unanswered, so what
  cannot be read is no wish.
- Section 5: of the registered algorithms only sha-256 and sha-512 are active; the others are insecure.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Collection, Mapping

__all__ = ["ALGORITHMS", "repr_digest", "wanted_digest"]

ALGORITHMS = ("sha-256", "sha-512")
"""The active algorithms of section 7.2, the cheaper one on most processors first."""

# RFC 8941 sections 3.1.2 and 3.2; parameters may follow and mean nothing here.
_MEMBER = re.compile(r"[ \t]*([a-z*][a-z0-9_\-.*]*)=([0-9]{1,2})(?:;[ -~]*)?[ \t]*")


def wanted_digest(header: str | None, available: Collection[str] = ALGORITHMS) -> str | None:
    """The algorithm out of `available` that a Want-Repr-Digest likes best; None where it wants none of them.

    The first one of `ALGORITHMS` wins among equal weights. Never raises.
    """
    weights: dict[str, int] = {}
    for member in (header or "").split(","):
        match = _MEMBER.fullmatch(member)
        if match and int(match[2]) <= 10:
            weights[match[1]] = int(match[2])  # RFC 8941 section 3.2: the last one of a name counts
    wanted = [name for name in ALGORITHMS if name in available and weights.get(name)]
    return max(wanted, key=weights.__getitem__, default=None)


def repr_digest(digests: Mapping[str, bytes]) -> str:
    """The value of Repr-Digest for these digests, as `hashlib`'s `digest()` gives them."""
    return ", ".join(f"{name}=:{b64encode(digest).decode('ascii')}:" for name, digest in digests.items())
