"""The parameters of a file response: checked before the file is opened, and what follows from them."""

from __future__ import annotations

import mimetypes
import os
from collections.abc import Mapping

from streamkit.formats.conditional import parse_etag
from streamkit.formats.content_disposition import content_disposition, presentable_filename
from streamkit.formats.digest_fields import ALGORITHMS
from streamkit.formats.header_fields import http_date
from streamkit.responses.options import content_type, switch


def check_switches(
    as_attachment: object, follow_symlinks: object, dotfiles: object, precompressed: object, follow: object
) -> None:
    """Raise TypeError for what switches nothing on or off."""
    if not isinstance(as_attachment, bool):
        raise TypeError(f"as_attachment is {as_attachment!r}; it is True or False, and the name is filename=")
    switch("follow_symlinks", follow_symlinks)
    switch("dotfiles", dotfiles)
    switch("precompressed", precompressed)
    if not (isinstance(follow, bool) or callable(follow)):
        raise TypeError(
            f"follow is {follow!r}; give True, False, or a function that says whether the file grows"
        )


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


def disposition_of(filename: str | None, name: str | None, as_attachment: bool) -> str | None:
    """The Content-Disposition, or None for none. Raises TypeError or ValueError for what is no name."""
    if filename is not None:
        return content_disposition(filename, attachment=as_attachment)
    if not as_attachment:
        return None
    if name is None:
        raise ValueError("as_attachment needs filename=: what is sent has no name to offer")
    return content_disposition(presentable_filename(name))


def content_type_of(name: str | None, mimetype: str | None) -> str:
    """The Content-Type of `mimetype`; None guesses it from `name`. Raises as `content_type` does."""
    if mimetype is None:
        mimetype, coding = mimetypes.guess_type(f"./{name or ''}")  # else "a:b.html?.jpg" is read as a URL
        if mimetype is None or coding is not None:  # a .tar.gz is not a tar file to the one who gets it
            mimetype = "application/octet-stream"
    return content_type(mimetype)
