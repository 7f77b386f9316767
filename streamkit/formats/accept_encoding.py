"""The Accept-Encoding header: which content coding an answer may have (RFC 9110 section 12.5.3).

The law of this file:

- No header is no wish. Section 12.5.3 would allow every coding then; programs that send none rarely decode one, so
  the answer stays without.
- A coding is acceptable if it is listed with a weight above 0, or if `*` is and it is not listed. Identity (no
  coding) is acceptable unless `identity;q=0`, or `*;q=0` without an entry of its own, says no.
- What cannot be read counts as not written: a broken weight takes its coding out of the list.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["choose_coding"]

_ELEMENT = re.compile(  # token [ OWS ";" OWS "q=" qvalue ]; sections 12.5.3 and 12.4.2, q in either case
    r"[ \t]*([!#$%&'*+\-.^_`|~0-9A-Za-z]+)[ \t]*(?:;[ \t]*[qQ]=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)[ \t]*)?"
)
_SAME_AS = {"x-gzip": "gzip", "x-compress": "compress"}  # section 8.4.1


def choose_coding(header: str | None, available: Sequence[str]) -> str | None:
    """The content coding to answer with: one of `available`, or None for none (identity).

    header: the value of Accept-Encoding; None where the request has none. Several fields joined by commas are one.
    available: the codings that can be sent, lower case ("zstd", "br", "gzip"), best first: it breaks a tie between
        equal weights. Identity is always available and need not be named.

    None comes back where there is no header, where identity has a higher weight than every coding available, where
    no coding is acceptable, and also where nothing at all is: the section lets a server answer 406 to
    `identity;q=0`, but a body without coding serves every client that exists. An unlisted identity loses against
    every acceptable coding.

    Whatever comes back, the answer's choice depended on the header: send `Vary: Accept-Encoding`. Pure; never raises.
    """
    weights = _weights(header)
    if not weights:
        return None
    others = weights.get("*", 0.0)
    best, best_weight = None, 0.0
    for coding in available:
        weight = weights.get(coding, others)
        if weight > best_weight:
            best, best_weight = coding, weight
    return None if weights.get("identity", 0.0) > best_weight else best


def _weights(header: str | None) -> dict[str, float]:
    """The weight of each coding listed, by its lower-case name; the lower one where it is listed twice."""
    weights: dict[str, float] = {}
    for element in (header or "").split(","):
        match = _ELEMENT.fullmatch(element)
        if match:
            name = match[1].lower()
            name = _SAME_AS.get(name, name)
            weight = 1.0 if match[2] is None else float(match[2])
            weights[name] = min(weight, weights.get(name, weight))
    return weights
