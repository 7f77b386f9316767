"""Rows as CSV (RFC 4180)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from streamkit.flow.cursor_rows import column_names, is_cursor
from streamkit.flow.framing import AbortedWhenBroken
from streamkit.flow.sources import Items
from streamkit.flow.table_rows import TableRows
from streamkit.formats.content_disposition import content_disposition
from streamkit.formats.csv_columns import Columns
from streamkit.formats.csv_rows import CSVEncoder
from streamkit.responses.given_items import check_given
from streamkit.responses.options import StreamOptions, switch
from streamkit.responses.streamed import FLUSH_BYTES, FLUSH_SECONDS, StreamedResponse
from streamkit.responses.streaming import generated_headers

if TYPE_CHECKING:
    from typing_extensions import Unpack


class CSVFraming(CSVEncoder, AbortedWhenBroken):
    """Rows of one table."""


class CSVResponse(StreamedResponse):
    """A CSV export: the first row at once, then chunks by size or age; constant memory.

    rows: an iterable of sequences, mappings, dataclasses or named tuples, a cursor (DB-API, SQLAlchemy) that has
        executed its query, or a callable that returns one. They are taken on the request's own thread, so a cursor
        opened in the view works, and it is closed there. What is raised before the first row is a real HTTP error;
        later the connection is aborted, never ended cleanly. A row of another width than the first is such an error.
    header: the column names. None takes them from the cursor, the keys or the fields of the first row; False writes
        none.
    columns: which columns, in this order: names, positions from 0 for rows without names, or a mapping of names to
        what the header calls them. None takes all.
    filename: makes it a download under this name (RFC 6266, any Unicode). None shows it in place.
    dialect: of the `csv` module. bom: a UTF-8 byte order mark, which Excel wants. guard_formulas: see CSVEncoder.
    end_row: a last row, or a function from the number of rows to one, as evidence that the table is complete.
    flush_bytes, flush_seconds: a chunk goes out at about this size (64 KiB) or age (0.5 s, looked at whenever
        rows arrive).
    options: see StreamOptions.
    """

    def __init__(
        self,
        rows: Items,
        *,
        header: Sequence[str] | bool | None = None,
        filename: str | None = None,
        dialect: Any = "excel",
        bom: bool = False,
        guard_formulas: bool = False,
        end_row: Sequence[object] | Callable[[int], Sequence[object] | None] | None = None,
        columns: Columns = None,
        flush_bytes: int = FLUSH_BYTES,
        flush_seconds: float | None = FLUSH_SECONDS,
        **options: Unpack[StreamOptions],
    ) -> None:
        check_given(rows, "rows")
        switch("bom", bom)
        switch("guard_formulas", guard_formulas)
        self._encoder = encoder = CSVFraming(
            header=header,
            dialect=dialect,
            bom=bom,
            guard_formulas=guard_formulas,
            end_row=end_row,
            columns=columns,
        )
        names = column_names(rows) if is_cursor(rows) else None
        if names is not None:  # most cursors know them at once, so that HEAD has the Content-Type of GET
            encoder.name_columns(names)
        super().__init__(
            "csv",
            encoder,
            TableRows(rows, encoder.name_columns),
            "rows",
            content_type=encoder.content_type,
            thread="request",
            wait_first=float("inf"),
            flush_bytes=flush_bytes,
            flush_seconds=flush_seconds,
            options=options,
        )
        self._first_type = encoder.content_type
        generated_headers(self)
        if filename is not None:
            self.headers["Content-Disposition"] = content_disposition(filename)

    def _before_start(self) -> None:
        # Whether there is a header row may be known only from the first row; unless somebody else gave the type.
        if self.headers.get("Content-Type") == self._first_type:
            self.headers["Content-Type"] = self._encoder.content_type
