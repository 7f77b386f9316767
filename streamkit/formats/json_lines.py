"""Records to streams of JSON texts: NDJSON and JSON text sequences (RFC 7464).

The law of this file:

- RFC 8259 section 8.1: UTF-8 without a byte order mark. Section 6: no NaN, no infinity, which Python's `json`
  would write unless forbidden.
- NDJSON: one record a line, so no raw newline inside a record, and the last line ends like every other.
- RFC 7464 section 2.2: RS (0x1E), the text, LF. Section 2.4: a reader drops a number or literal without its LF,
  which is how it tells `123` from `12345` cut short; NDJSON readers cannot.
- Neither format can say that it is complete. Where that matters, ask for a closing record: the last line, with the
  number of records and the digest of all lines above it. Only `tail` writes it.

Every frame is bytes, so that a record that cannot be sent is refused when it is encoded, under its own number.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NoReturn

from streamkit.formats.json_values import compact_json

if TYPE_CHECKING:
    from hashlib import _Hash

__all__ = ["ClosingRecord", "JSONSeqEncoder", "NDJSONEncoder"]

RECORD_SEPARATOR = b"\x1e"
"""RS, the first byte of every record of a JSON text sequence (RFC 7464 section 2.2)."""

LF, CR, N, I = b"\n\rNI"  # noqa: E741
"""As numbers: `LF in text` takes a sixth of the time of `b"\\n" in text`."""

_NAMED = (RecursionError, UnicodeEncodeError, ValueError, TypeError)
"""What an encoder raises for a record that it cannot encode."""

ClosingRecord = bool | Callable[[int, str], object]
"""True for `{"rows": n, "sha256": "..."}`, False for none, or a function from these two to a record of your own."""


class RecordEncoder:
    """What the encoders of records have in common: `dumps`, the count and errors that name the record.

    - `dumps` takes one record and returns one JSON text as str or bytes (UTF-8): `orjson.dumps`,
      `msgspec.json.encode`, `functools.partial(json.dumps, cls=...)`. The default is `compact_json`: ASCII on one
      line, no NaN and no infinity. Any value is a record, None too (`null`). (orjson and msgspec write NaN as
      `null`; what the standard `json` writes for it is refused.)
    - `closing_record`: end a complete stream with a record that says so: the number of records before it (`rows`) and
      the SHA-256, in hex, of all bytes of the body before the line that it stands on.

    `records` is the number of records encoded so far. For one thread and one stream.
    """

    content_type = "application/json"
    """The media type, as the Content-Type header has it."""

    def __init__(
        self,
        dumps: Callable[[object], str | bytes] | None = None,
        closing_record: ClosingRecord = False,
    ) -> None:
        if dumps is not None and not callable(dumps):
            raise TypeError(
                f"dumps is {type(dumps).__name__}; give a callable that takes a record and returns str or bytes"
            )
        if not (isinstance(closing_record, bool) or callable(closing_record)):
            raise TypeError(
                f"closing_record is {type(closing_record).__name__}; give True, or a callable that takes the number "
                "of records and the SHA-256 and returns a record"
            )
        self.records = 0
        self._dumps = dumps
        self._closing_record = closing_record
        self._digest: _Hash | None = hashlib.sha256() if closing_record else None

    def head(self) -> bytes:
        """What precedes the first record: nothing."""
        return b""

    def tail(self) -> bytes:
        """What ends a stream that is complete: the closing record where one was asked for."""
        return b"" if self._digest is None else self._frame(self._closing_text())

    def encode(self, record: object) -> bytes:
        """One record as the format has it. Raises ValueError or TypeError with the number of the record, from 1."""
        frame = self._frame(self._text(record))
        if self._digest is not None:
            self._digest.update(frame)
        return frame

    def _frame(self, text: bytes) -> bytes:
        """A JSON text with what the format puts around it."""
        raise NotImplementedError

    def join(self, frames: Sequence[bytes]) -> bytes:
        """Frames, in the order they were made, as one chunk."""
        return b"".join(frames)

    def _text(self, record: object) -> bytes:
        """One record as JSON in UTF-8, counted."""
        dumps = self._dumps
        try:
            text = compact_json(record).encode("ascii") if dumps is None else self._dumped(dumps(record))
        except _NAMED as error:
            raise self._named(error) from error
        self.records += 1
        return text

    def _named(self, error: Exception) -> Exception:
        """The error with the number of the record, as a ValueError or a TypeError."""
        number = self.records + 1
        if isinstance(error, RecursionError):
            return ValueError(f"record {number} contains itself, or is nested too deeply to encode")
        if isinstance(error, UnicodeEncodeError):
            return ValueError(
                f"record {number} holds a lone surrogate, U+{ord(error.object[error.start]):04X}, which "
                "UTF-8 cannot encode; let dumps escape it (ensure_ascii), or replace it before"
            )
        return (TypeError if isinstance(error, TypeError) else ValueError)(f"record {number}: {error}")

    def _dumped(self, text: object) -> bytes:
        """What a custom `dumps` returned, as bytes. Raises if this format cannot carry it."""
        if isinstance(text, str):
            text = text.encode("utf-8")
        elif not isinstance(text, bytes):
            raise TypeError(f"dumps returned {type(text).__name__}; it has to return str or bytes")
        if not text:
            raise ValueError("dumps returned nothing; an empty text is not JSON (RFC 8259 section 2)")
        if N in text or I in text:  # hardly a text has one: cheaper than to look for the words
            _refuse_constants(text)
        self._check(text)
        return text

    def _closing_text(self) -> bytes:
        """The closing record. Its digest ends here: whatever the format has put before its line is in it."""
        digest = "" if self._digest is None else self._digest.hexdigest()
        if callable(self._closing_record):
            return compact_json(self._closing_record(self.records, digest)).encode("ascii")
        return compact_json({"rows": self.records, "sha256": digest}).encode("ascii")

    def _check(self, text: bytes) -> None:
        """Raise ValueError for what a custom `dumps` must not return in this format."""


class NDJSONEncoder(RecordEncoder):
    """Newline-delimited JSON: one compact record a line, each ended by LF.

    A custom `dumps` whose output has a raw CR or LF is refused, because a reader would see two broken records:
    leave out `indent`, and an option that appends a newline.
    """

    content_type = "application/x-ndjson"

    def encode(self, record: object) -> bytes:
        """One record and its LF.

        Raises ValueError (NaN or infinity, a lone surrogate, a record that contains itself, a newline from
        `dumps`) or TypeError (no JSON form), with the number of the record.
        """
        dumps = self._dumps
        if dumps is None:
            frame = self._text(record) + b"\n"
        else:  # as in `_text`, in one function: with a fast `dumps` calls are most of the time
            try:
                text = dumps(record)
                if type(text) is not bytes or LF in text or CR in text or N in text or I in text or not text:
                    text = self._dumped(text)
            except _NAMED as error:
                raise self._named(error) from error
            self.records += 1
            frame = text + b"\n"
        if self._digest is not None:
            self._digest.update(frame)
        return frame

    def _frame(self, text: bytes) -> bytes:
        return text + b"\n"

    def _check(self, text: bytes) -> None:
        if LF in text or CR in text:
            raise ValueError(
                "dumps returned a text with a raw newline, which would end the record early; let it write one "
                "line, without indent and without a newline at the end"
            )


class JSONSeqEncoder(RecordEncoder):
    """A JSON text sequence (RFC 7464): RS, the record, LF. A record cut short is noticed, numbers too.

    A custom `dumps` may indent: only a raw RS is refused, which no valid JSON text has.
    """

    content_type = "application/json-seq"

    def _frame(self, text: bytes) -> bytes:
        return b"\x1e" + text + b"\n"

    def _check(self, text: bytes) -> None:
        if RECORD_SEPARATOR in text:
            raise ValueError("dumps returned a text with a raw RS (0x1E); JSON writes it as \\u001e")


def _refuse_constants(text: bytes) -> None:
    """Raise ValueError if a JSON text names a number that JSON does not have (RFC 8259 section 6)."""
    if b"NaN" in text or b"Infinity" in text:
        json.loads(text, parse_constant=_refuse_constant)  # they may stand inside a string


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(
        f"dumps wrote {name}, which JSON does not have; send None or text, or use allow_nan=False"
    )
