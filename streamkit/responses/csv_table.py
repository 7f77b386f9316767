"""Rows as CSV (RFC 4180)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from streamkit.formats.content_disposition import content_disposition
from streamkit.formats.csv_rows import CSVEncoder
from streamkit.responses.streamed import (
    FLUSH_BYTES,
    FLUSH_SECONDS,
    StreamedResponse,
    StreamOptions,
)
from streamkit.responses.streaming import generated_headers

if TYPE_CHECKING:
    from typing_extensions import Unpack


class CSVFraming(CSVEncoder):
    """A table that breaks off is aborted: half of it must not look like all of it."""

    heartbeat = None
    resets = True

    def failed(self, error: BaseException) -> bytes:
        return b""

    def paused(self) -> bytes | None:
        return None


class CSVResponse(StreamedResponse):
    """A CSV export: the first row at once, then chunks by size or age; constant memory.

    rows: an iterable of sequences, mappings or dataclasses, a DB-API cursor that has executed its query, or a
        callable that returns one. They are taken on the request's own thread, so a cursor opened in the view works.
        What is raised before the first row is a real HTTP error; later the connection is aborted, never ended
        cleanly.
    header: the column names. None takes them from the cursor, the keys or the fields of the first row; False writes
        none.
    filename: makes it a download under this name (RFC 6266, any Unicode). None shows it in place.
    dialect: of the `csv` module. bom: a UTF-8 byte order mark, which Excel wants. guard_formulas: see CSVEncoder.
    end_row: a last row, or a function from the number of rows to one, as evidence that the table is complete.
    flush_bytes, flush_seconds: a chunk goes out at about this size (64 KiB) or age (0.5 s, looked at whenever a row
        arrives).
    options: see StreamOptions.
    """

    def __init__(
        self,
        rows: object,
        *,
        header: Sequence[str] | bool | None = None,
        filename: str | None = None,
        dialect: Any = "excel",
        bom: bool = False,
        guard_formulas: bool = False,
        end_row: Sequence[object] | Callable[[int], Sequence[object]] | None = None,
        flush_bytes: int = FLUSH_BYTES,
        flush_seconds: float | None = FLUSH_SECONDS,
        **options: Unpack[StreamOptions],
    ) -> None:
        if header is None and getattr(rows, "fetchmany", None) is not None:
            description = getattr(rows, "description", None)
            if description:  # DB-API 2.0: a sequence per column, its name first
                header = [str(column[0]) for column in description]
        self._encoder = CSVFraming(
            header=header, dialect=dialect, bom=bom, guard_formulas=guard_formulas, end_row=end_row
        )
        super().__init__(
            "csv",
            self._encoder,
            rows,
            "rows",
            content_type=self._encoder.content_type,
            thread="request",
            wait_first=float("inf"),
            flush_bytes=flush_bytes,
            flush_seconds=flush_seconds,
            **options,
        )
        self._own_type = self.headers["Content-Type"] == self._encoder.content_type
        generated_headers(self)
        if filename is not None:
            self.headers["Content-Disposition"] = content_disposition(filename)

    def _before_start(self) -> None:
        if self._own_type:  # whether there is a header row may be known only from the first row
            self.headers["Content-Type"] = self._encoder.content_type
