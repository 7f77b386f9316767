"""Records to one JSON array (RFC 8259 section 5), written record by record.

The law of this file: the closing bracket is the proof that the array is complete. It is written by `tail` and
nowhere else, so that every parser fails on a stream that broke, and for no other reason does the file end in it.
"""

from __future__ import annotations

from collections.abc import Callable

from streamkit.formats.json_lines import ClosingRecord, RecordEncoder

__all__ = ["JSONArrayEncoder"]


class JSONArrayEncoder(RecordEncoder):
    """One JSON array with a record a line: `[` first, `,` and LF between records, `]` and LF at a complete end.

    No record at all makes `[]`. Without a custom `dumps` a record has no raw newline, so that `tail` and `grep`
    work on the lines. A closing record is the array's last element. Parameters, attributes and thread rules are those
    of `NDJSONEncoder`.
    """

    content_type = "application/json"

    def __init__(
        self,
        dumps: Callable[[object], str | bytes] | None = None,
        closing_record: ClosingRecord = False,
    ) -> None:
        super().__init__(dumps, closing_record)
        self._separator = b""

    def head(self) -> bytes:
        """The opening bracket."""
        return b"["

    def encode(self, record: object) -> bytes:
        """One record, after the separator if it is not the first. Raises what `NDJSONEncoder.encode` raises."""
        text = self._text(record)
        frame = self._separator + text
        if self._digest is not None:
            self._digest.update(frame if self._separator else b"[" + text)
        self._separator = b",\n"
        return frame

    def tail(self) -> bytes:
        """The closing record where one was asked for, the bracket and LF. Only for an array that is complete."""
        if self._digest is None:
            return b"]\n"
        self._digest.update(self._separator)  # it ends the line above that of the closing record
        return self._separator + self._closing_text() + b"]\n"
