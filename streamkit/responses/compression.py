"""Whether an answer is compressed, and what its header then says (RFC 9110 sections 8.4, 8.8.3 and 12.5).

The law of this file:

- `compress=True` says that the content may be compressed; the request decides whether it is. So the answer depends on
  Accept-Encoding, and says so (`Vary`, section 12.5.5), also where nothing was compressed.
- Left alone: a 206, whose ranges count the bytes of one coding; 412 and 416, which say nothing; what has a coding
  already; what forbids to be changed (`no-transform`, section 7.7, of either side); what a digest was made for (RFC
  9530).
- What was true of the bytes before is taken back: Content-Length goes, a strong tag becomes a weak one (section
  8.8.3.3: a strong one would name two different byte sequences), and ranges cannot be asked for. A 304 says of the tag
  and of ranges what the 200 would say (section 15.4.5).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from streamkit.formats.accept_encoding import choose_coding
from streamkit.formats.content_codings import available_codings

__all__ = ["negotiate", "vary_by_encoding"]

_LEFT_ALONE = (204, 205, 206, 412, 416)

_CODED_OR_DIGESTED = (
    "Content-Encoding",
    "Content-Range",
    "Content-Digest",
    "Repr-Digest",
    "Digest",
    "Content-MD5",
)


def negotiate(headers: Any, environ: Mapping[str, Any], status: int) -> str | None:
    """Choose the coding of an answer that may be compressed, and write that into its header.

    headers: the response's (Werkzeug's or wsgiref's), changed in place. environ: the request's. status: the answer's
        code.

    Returns "zstd", "br" or "gzip", or None for none. Call it once for each answer, before its header is sent, for HEAD
    as for GET.
    """
    vary_by_encoding(headers)
    if status < 200 or status in _LEFT_ALONE or any(name in headers for name in _CODED_OR_DIGESTED):
        return None
    directives = [*_members(headers, "Cache-Control"), *_split(environ.get("HTTP_CACHE_CONTROL", ""))]
    if "no-transform" in (directive.lower() for directive in directives):
        return None
    coding = choose_coding(environ.get("HTTP_ACCEPT_ENCODING"), available_codings())
    if coding is None:
        return None
    if "Accept-Ranges" in headers:
        headers["Accept-Ranges"] = "none"
    tag = headers.get("ETag")
    if tag is not None and not tag.startswith("W/"):
        headers["ETag"] = f"W/{tag}"
    if status == 304:
        return None
    headers["Content-Encoding"] = coding
    del headers["Content-Length"]  # nothing happens where there is none
    return coding


def vary_by_encoding(headers: Any) -> None:
    """Add Accept-Encoding to Vary, all lines of it in one, unless it or `*` is there."""
    fields = _members(headers, "Vary")
    if not {"*", "accept-encoding"} & {field.lower() for field in fields}:
        headers["Vary"] = ", ".join([*fields, "Accept-Encoding"])


def _members(headers: Any, name: str) -> list[str]:
    """The members of a list field, of all its lines (RFC 9110 section 5.6.1)."""
    lines = headers.getlist if hasattr(headers, "getlist") else headers.get_all  # Werkzeug's, wsgiref's
    return [member for line in lines(name) for member in _split(line)]


def _split(line: str) -> list[str]:
    return [member.strip() for member in line.split(",") if member.strip()]
