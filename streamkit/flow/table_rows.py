"""The rows of a table, with the names of their columns where the source knows them.

Law of this file
- A cursor may come late (from a callable) and may learn its columns late (at its first fetch), but the header has to
  be written before the first row, and where there is no row at all. So names are handed over when the rows are opened.
- The raw iterator is handed out, so naming costs nothing per row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from streamkit.flow.batched import BatchedSource
from streamkit.flow.flush import Flush
from streamkit.flow.sources import Source, check_items, open_source


class TableRows(BatchedSource):
    """A source of whatever `rows` is. name_columns: called with the names that it brings, on the opening thread.

    Raises TypeError or ValueError for what cannot be rows; for what a function returns instead of rows, when the
    stream iterates it. Threads as in `Source`.
    """

    def __init__(self, rows: object, name_columns: Callable[[Sequence[str]], object]) -> None:
        check_items(rows, "rows")
        self._rows: object | None = rows
        self._name_columns = name_columns
        self._source: Source[Any] | None = None
        self._cancelled = False

    def __iter__(self) -> Iterator[Any]:
        return iter(self._opened())

    def batches(self) -> Iterator[Sequence[Any] | Flush] | None:
        """The rows of a cursor as they were fetched; None for others, which are to be iterated."""
        source = self._opened()
        return source.batches() if isinstance(source, BatchedSource) else None

    def _opened(self) -> Source[Any]:
        if self._source is not None:
            return self._source
        rows, self._rows = self._rows, None
        self._source = source = open_source(rows, what="rows")
        names = getattr(source, "columns", None)
        if names is not None:
            self._name_columns(names)
        if self._cancelled:
            source.cancel()
        return source

    def __next__(self) -> Any:
        raise TypeError("these rows are iterated with iter(), which opens them")

    def close(self) -> None:
        """Close the source; or what it would have been made of, where that was never opened."""
        source, self._source = self._source, None
        rows, self._rows = self._rows, None
        if source is not None:
            source.close()
        elif not callable(rows):
            close = getattr(rows, "close", None)
            if close is not None:
                close()

    def cancel(self) -> None:
        """End the rows; any thread."""
        self._cancelled = True
        if self._source is not None:
            self._source.cancel()
