"""The Content-Disposition header: how a download is called (RFC 6266, RFC 8187).

The law of this file:

- RFC 6266 section 4.3: recipients take only the last part of a path, and may not create a file anywhere else.
  A name with a path part is therefore a mistake and refused, not mended.
- RFC 6266 appendix D: both forms of the name, `filename` in plain ASCII for old recipients, `filename*` in UTF-8
  for the rest, in this order; no backslash escapes and no percent signs in the first, since recipients differ on them.
- RFC 8187 section 3.2: everything but `attr-char` is percent-encoded. Raw UTF-8 in a header is a fault.
"""

import unicodedata
from urllib.parse import quote

__all__ = ["content_disposition", "presentable_filename"]

_ATTR_CHAR_SYMBOLS = "!#$&+-.^_`|~"
"""`attr-char` of RFC 8187 section 3.2.1, less letters and digits."""

_NO_FALLBACK = frozenset('"%\\')
"""Printable ASCII that recipients read in more than one way inside a quoted string (RFC 6266 appendix D)."""

_NO_FILE = frozenset({"", ".", ".."})

_DIRECTION_MARKS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""The explicit directional formatting characters of UAX #9 section 2.1 to 2.5."""


def content_disposition(filename: str, *, attachment: bool = True) -> str:
    """The header's value for a file name, such as `attachment; filename="report.csv"`.

    filename: the bare name, any Unicode text. A name that plain ASCII cannot carry unharmed gets a fallback
        (accents dropped, everything else replaced by `_`) and its true form as `filename*`.
    attachment: True to save, False (`inline`) to show; the name then serves a later "save as".

    Raises TypeError unless the name is str; ValueError if it is empty, `.`, `..`, or holds `/`, a backslash, a
    control character (CR and LF would split the header) or a lone surrogate.
    """
    if not isinstance(filename, str):
        raise TypeError(f"filename is {type(filename).__name__}; give the name as str")
    _check(filename)
    disposition = "attachment" if attachment else "inline"
    fallback = _ascii_fallback(filename)
    value = f'{disposition}; filename="{fallback}"'
    if fallback != filename:
        value += f"; filename*=UTF-8''{quote(filename, safe=_ATTR_CHAR_SYMBOLS)}"
    return value


def presentable_filename(filename: str) -> str:
    """A name found on disk or in a store as one that `content_disposition` takes: never refused.

    The last part of a path; control characters, lone surrogates (bytes that were no UTF-8) and the marks that turn the
    direction of writing around (which make `gpj.exe` look like `exe.jpg`) become `_`; "download" if nothing is left.
    """
    last = filename.replace("\\", "/").rpartition("/")[2]
    clean = "".join(
        "_" if unicodedata.category(character) in {"Cc", "Cs"} or character in _DIRECTION_MARKS else character
        for character in last
    )
    return "download" if clean.strip() in _NO_FILE else clean


def _check(filename: str) -> None:
    if filename.strip() in _NO_FILE:
        raise ValueError(f"filename is {filename!r}, which names no file; give a name such as 'export.csv'")
    if "/" in filename or "\\" in filename:
        raise ValueError(
            f"filename {filename!r} has a path in it; give the last part alone (os.path.basename), or replace the "
            "slashes"
        )
    for character in filename:
        category = unicodedata.category(character)
        if category == "Cc":
            raise ValueError(
                f"filename {filename!r} holds the control character U+{ord(character):04X}; remove it, a header "
                "cannot carry it (RFC 9110 section 5.5)"
            )
        if category == "Cs":
            raise ValueError(
                f"filename {filename!r} holds a lone surrogate, which UTF-8 cannot encode; decode the name with "
                "the encoding it was written in, or with errors='replace'"
            )


def _ascii_fallback(filename: str) -> str:
    """The name in the part of ASCII that every recipient reads alike."""
    decomposed = unicodedata.normalize("NFKD", filename)
    # Compatibility forms may decompose into separators: U+2100 becomes a/c, U+2026 three dots, which Windows drops.
    fallback = "".join(
        "_" if character in "/\\" or character in _NO_FALLBACK or character > "~" else character
        for character in decomposed
        if not unicodedata.combining(character)
    )
    return fallback if fallback.strip(" .") else "_"
