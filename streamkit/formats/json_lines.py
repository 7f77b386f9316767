"""Records to streams of JSON texts: NDJSON and JSON text sequences (RFC 7464).

The law of this file:

- RFC 8259 section 8.1: UTF-8 without a byte order mark. Section 6: no NaN, no infinity, which Python's `json`
  would write unless forbidden.
- NDJSON: one record a line, so no raw newline inside a record, and the last line ends like every other.
- RFC 7464 section 2.2: RS (0x1E), the text, LF. Section 2.4: a reader drops a number or literal without its LF,
  which is how it tells `123` from `12345` cut short; NDJSON readers cannot.
- Neither format can say that it is complete. Where that matters, make the last record say so (`{"end": true}`).

Every frame is bytes, so that a record that cannot be sent is refused when it is encoded, under its own number.
"""

from collections.abc import Callable, Sequence

from streamkit.formats.json_values import compact_json

__all__ = ["JSONSeqEncoder", "NDJSONEncoder"]

RECORD_SEPARATOR = b"\x1e"
"""RS, the first byte of every record of a JSON text sequence (RFC 7464 section 2.2)."""


class RecordEncoder:
    """What the encoders of records have in common: `dumps`, the count and errors that name the record.

    `dumps` takes one record and returns one JSON text as str or bytes (UTF-8): `orjson.dumps`,
    `msgspec.json.encode`, `functools.partial(json.dumps, cls=...)`. The default is `compact_json`: ASCII on one
    line, no NaN and no infinity. Any value is a record, None too (`null`).

    `records` is the number of records encoded so far. For one thread and one stream.
    """

    content_type = "application/json"
    """The media type, as the Content-Type header has it."""

    def __init__(self, dumps: Callable[[object], str | bytes] | None = None) -> None:
        if dumps is not None and not callable(dumps):
            raise TypeError(
                f"dumps is {type(dumps).__name__}; give a callable that takes a record and returns str or bytes"
            )
        self.records = 0
        self._dumps = dumps

    def head(self) -> bytes:
        """What precedes the first record: nothing."""
        return b""

    def tail(self) -> bytes:
        """What ends a stream that is complete: nothing."""
        return b""

    def join(self, frames: Sequence[bytes]) -> bytes:
        """Frames, in the order they were made, as one chunk."""
        return b"".join(frames)

    def _text(self, record: object) -> bytes:
        """One record as JSON in UTF-8. Raises ValueError or TypeError with the number of the record, from 1."""
        dumps = self._dumps
        try:
            text = compact_json(record).encode("ascii") if dumps is None else self._dumped(dumps(record))
        except RecursionError:
            raise ValueError(
                f"record {self.records + 1} contains itself, or is nested too deeply to encode"
            ) from None
        except UnicodeEncodeError as error:
            raise ValueError(
                f"record {self.records + 1} holds a lone surrogate, U+{ord(error.object[error.start]):04X}, which "
                "UTF-8 cannot encode; let dumps escape it (ensure_ascii), or replace it before"
            ) from None
        except ValueError as error:
            raise ValueError(f"record {self.records + 1}: {error}") from error
        except TypeError as error:
            raise TypeError(f"record {self.records + 1}: {error}") from error
        self.records += 1
        return text

    def _dumped(self, text: object) -> bytes:
        """What a custom `dumps` returned, as bytes. Raises if this format cannot carry it."""
        if isinstance(text, str):
            text = text.encode("utf-8")
        elif not isinstance(text, bytes):
            raise TypeError(f"dumps returned {type(text).__name__}; it has to return str or bytes")
        if not text:
            raise ValueError("dumps returned nothing; an empty text is not JSON (RFC 8259 section 2)")
        self._check(text)
        return text

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
        return self._text(record) + b"\n"

    def _check(self, text: bytes) -> None:
        if b"\n" in text or b"\r" in text:
            raise ValueError(
                "dumps returned a text with a raw newline, which would end the record early; let it write one "
                "line, without indent and without a newline at the end"
            )


class JSONSeqEncoder(RecordEncoder):
    """A JSON text sequence (RFC 7464): RS, the record, LF. A record cut short is noticed, numbers too."""

    content_type = "application/json-seq"

    def encode(self, record: object) -> bytes:
        """RS, one record and LF (RFC 7464 section 2.2). Raises what `NDJSONEncoder.encode` raises.

        A custom `dumps` may indent: only a raw RS is refused, which no valid JSON text has.
        """
        return b"\x1e" + self._text(record) + b"\n"

    def _check(self, text: bytes) -> None:
        if RECORD_SEPARATOR in text:
            raise ValueError("dumps returned a text with a raw RS (0x1E); JSON writes it as \\u001e")
