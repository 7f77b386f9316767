"""The parameters of a file response: checked before the file is opened, and what follows from them."""

from __future__ import annotations

import mimetypes
import os
from collections.abc import Mapping

from streamkit.formats.conditional import parse_etag
from streamkit.formats.digest_fields import ALGORITHMS
from streamkit.formats.header_fields import check_header, http_date
from streamkit.responses.options import whole


def whole_or_empty(size: int | None) -> None:
    """Check `size`, which unlike other sizes may be 0."""
    if size != 0:
        whole("size", size)


def check_validators(etag: object, last_modified: object) -> None:
    """Raise TypeError or ValueError for what is neither a validator, nor None, nor False."""
    if etag is True or not (etag is None or isinstance(etag, (str, bool))):
        raise TypeError(f"etag is {etag!r}; give a str, None for the file's own, or False for none")
    if isinstance(etag, str) and parse_etag(etag) != etag:
        raise ValueError(f"etag is {etag!r}; give it with its quotes, such as '\"v1\"' or 'W/\"v1\"'")
    if last_modified is True or not (last_modified is None or isinstance(last_modified, (int, float))):
        raise TypeError(
            f"last_modified is {last_modified!r}; give seconds since the epoch (of a datetime its timestamp()), None "
            "for the file's own, or False for none"
        )
    if isinstance(last_modified, (int, float)):
        http_date(last_modified)  # raises ValueError for what is no time


def checked_digests(digests: bool | Mapping[str, bytes]) -> tuple[str, ...] | Mapping[str, bytes]:
    """The algorithms to compute on demand, or the digests that are known. Raises TypeError or ValueError."""
    if isinstance(digests, Mapping):
        for name, digest in digests.items():
            length = {"sha-256": 32, "sha-512": 64}.get(name)
            if not isinstance(digest, bytes) or len(digest) != length:
                raise ValueError(
                    f"repr_digest[{name!r}] is {digest!r}; give the digest() of sha-256 or sha-512 as bytes"
                )
        return digests
    if not isinstance(digests, bool):
        raise TypeError(
            f'repr_digest is {digests!r}; give True, False, or the digests that are known, as {{"sha-256": digest}}'
        )
    return ALGORITHMS if digests else ()


def own_name(file: object) -> str | None:
    """What a file object is called, without folders; None for one that has no name."""
    name = getattr(file, "name", None)
    return os.path.basename(name) if isinstance(name, str) else None


def content_type_of(name: str | None, mimetype: str | None) -> str:
    """The Content-Type of `mimetype`; None guesses it from `name`. Raises as `check_header` does."""
    if mimetype is None:
        mimetype, coding = mimetypes.guess_type(name or "")
        if mimetype is None or coding is not None:  # a .tar.gz is not a tar file to the one who gets it
            mimetype = "application/octet-stream"
    check_header("Content-Type", mimetype)
    return f"{mimetype}; charset=utf-8" if mimetype.startswith("text/") and ";" not in mimetype else mimetype
