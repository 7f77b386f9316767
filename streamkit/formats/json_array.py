"""Records to one JSON array (RFC 8259 section 5), written record by record.

The law of this file: the closing bracket is the proof that the array is complete. It is written by `tail` and
nowhere else, so that every parser fails on a stream that broke, and for no other reason does the file end in it.
"""

from collections.abc import Callable

from streamkit.formats.json_lines import RecordEncoder

__all__ = ["JSONArrayEncoder"]


class JSONArrayEncoder(RecordEncoder):
    """One JSON array with a record a line: `[` first, `,` and LF between records, `]` and LF at a complete end.

    No record at all makes `[]`. Without a custom `dumps` a record has no raw newline, so that `tail` and `grep`
    work on the lines. Parameters, attributes and thread rules are those of `NDJSONEncoder`.
    """

    content_type = "application/json"

    def __init__(self, dumps: Callable[[object], str | bytes] | None = None) -> None:
        super().__init__(dumps)
        self._separator = b""

    def head(self) -> bytes:
        """The opening bracket."""
        return b"["

    def encode(self, record: object) -> bytes:
        """One record, after the separator if it is not the first. Raises what `NDJSONEncoder.encode` raises."""
        frame = self._separator + self._text(record)
        self._separator = b",\n"
        return frame

    def tail(self) -> bytes:
        """The closing bracket and LF. Only for an array that is complete."""
        return b"]\n"
