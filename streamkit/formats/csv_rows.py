"""Rows to CSV text (RFC 4180).

The law of this file:

- RFC 4180 section 2: every record ends in CRLF; a cell that holds the delimiter, a quote, a *lone* CR or a LF
  is quoted; a quote inside is doubled; every record has as many cells as the first. A row of another width is
  an error, because a reader would shift its cells into the wrong columns without a word.
- The first row decides: its keys make the header where none was given, and its length is everybody's length.
- A line ends in CRLF, or in the CR or LF of a dialect; no reader takes anything else for the end of a record.
- Nothing here ends a table that broke: `CSVEncoder.tail` is for success alone.

What becomes of a cell (the rules are those of `csv.writer`, so that nobody has to learn new ones):

==========================  =======================================================================
cell                        text
==========================  =======================================================================
`None`                      nothing (an empty cell)
`str`                       as it is, quoted where RFC 4180 asks for it
`int`, `Decimal`            `str()`: `42`, `1.50`
`float`                     `repr()`: the shortest text that reads back as the same number; `nan`, `inf`
`bool`                      `True` or `False`
`date`, `time`              ISO 8601: `2026-11-21`, `08:30:00`
`datetime`                  ISO 8601 with a space for the `T`: `2026-11-21 08:30:00+00:00`
`bytes` and its kin         TypeError: their text would be `b'...'`; decode them, or send base64 or hex
anything else               `str()`
==========================  =======================================================================
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, cast

from streamkit.formats.csv_columns import CellsOf, Columns, ColumnSelection, is_sequence
from streamkit.formats.formula_guard import guarded

__all__ = ["CSVEncoder"]

BYTES: Final = (bytes, bytearray, memoryview)
LONG_LINE: Final = 1024
"""Characters. A batch is left after a longer line: a hundred more like it would be no small piece."""

BYTE_ORDER_MARK = "\ufeff"
"""What Excel needs to read a file as UTF-8. `csv.reader` takes it for a part of the first name."""


class _Line:
    """A file for `csv.writer` whose `write` gives the line back: `str(line)` is the line itself, made in C."""

    write = str


class _Lines:
    """A file for `csv.writer` that appends to a list."""

    def __init__(self, lines: list[str]) -> None:
        self.write = lines.append


class CSVEncoder:
    """Turns rows into lines of CSV, the header before the first of them.

    Rows are sequences (list, tuple, named tuple, `sqlite3.Row`), mappings or dataclass instances. A mapping and
    a dataclass are looked up by column name, so a missing or unknown name is a ValueError; a sequence goes by
    position, so a wrong number of cells is a ValueError. Errors give the number of the row, from 1, the
    header not counted. Strings, bytes, sets, numbers and None are no rows: TypeError.

    - `header`: a sequence of names is written as given; None (the default) takes the names from the cursor or from the
      first row where it has some (keys, fields) and writes no header where it has none; False never writes one.
    - `columns`: which columns, in this order: names, positions from 0 (for rows without names), or a mapping of names
      to what the header calls them. What is not named is left out. None (the default) takes all, and then a row with
      a name too many is refused like one with too few.
    - `dialect`: a `csv` dialect, by name or class. "excel" is RFC 4180; "excel-tab", "unix" or your own.
    - `bom`: begin with a UTF-8 byte order mark, for Excel; off by default, since other readers trip over it.
    - `guard_formulas`: put `'` before every text (also in the header) that a spreadsheet would calculate; see
      `formula_guard`. Off by default because it changes data: a reader cannot tell a guard from a quote.
    - `end_row`: the last row of a table that is complete, a sequence or a callable that takes the number of
      rows and returns one (or None for no row); it may have another width than the rest.

    `rows` is the number of rows encoded so far. For one thread and one table.
    """

    def __init__(
        self,
        header: Sequence[str] | bool | None = None,
        dialect: str | type[csv.Dialect] | csv.Dialect = "excel",
        bom: bool = False,
        guard_formulas: bool = False,
        end_row: Sequence[object] | Callable[[int], Sequence[object] | None] | None = None,
        columns: Columns = None,
    ) -> None:
        self._columns = ColumnSelection(header, columns)
        self._write_header = header is not False
        self._dialect = dialect
        self._guard = guard_formulas
        if isinstance(end_row, str | bytes) or not (
            end_row is None or callable(end_row) or is_sequence(end_row)
        ):
            raise TypeError(
                f"end_row is {type(end_row).__name__}; give a sequence of cells, or a callable that takes the "
                "number of rows and returns one"
            )
        self._end_row = end_row
        self._start = BYTE_ORDER_MARK if bom else ""
        self._write, self._terminator, self._escapes = _line_writer(dialect)
        self.rows = 0
        self._head: str | None = None
        # Frames given to join() so far, less the head: the number of a row is its place here.
        self._joined = 0
        # The type and the width of rows that need no preparation. No row has type None: the first is prepared.
        self._kind: type | None = None
        self._width = 0
        self._cells_of: dict[type, CellsOf] = {}
        self._written: list[str] = []  # by `_write_rows`; empty between two calls
        self._write_rows = csv.writer(_Lines(self._written), dialect, lineterminator="\r\n").writerows

    @property
    def has_header(self) -> bool | None:
        """Whether the table has a header row; None while that depends on a first row not seen yet."""
        if not self._write_header:
            return False
        if self._columns.labels is not None:
            return True
        return None if self._columns.width == 0 else False

    @property
    def content_type(self) -> str:
        """The Content-Type: RFC 7111 (UTF-8) with the `header` parameter of RFC 4180 section 3 where known."""
        known = {True: "; header=present", False: "; header=absent", None: ""}[self.has_header]
        return f"text/csv; charset=utf-8{known}"

    def name_columns(self, names: Sequence[str]) -> None:
        """What the source of the rows (a cursor) calls its columns; before `head`."""
        self._columns.from_source(names)

    def head(self) -> str:
        """What precedes the first row and is known without it: the byte order mark and the header, if it is known."""
        text = self._start
        if self._write_header and self._columns.labels is not None:
            text += self._line(self._columns.labels, "the header")
        self._head = text
        return text

    def encode(self, row: object) -> str:
        """One row as text with its line end; before the first one, the header that was derived from it.

        Raises ValueError (wrong width, missing or unknown name, not writable in this dialect) or TypeError (not
        a row, bytes in a cell); the message has the number of the row.
        """
        if type(row) is not self._kind:
            return self._encode_prepared(row)
        if len(row) != self._width:  # type: ignore[arg-type]
            raise self._columns.wrong_width(row, self.rows + 1)
        try:
            line = self._write(row)
        except Exception as error:
            raise self._refusal(f"row {self.rows + 1}", error) from error
        if ("'" in line or "<" in line) and _may_hold_bytes(line):
            self._refuse_bytes(cast("Sequence[object]", row), f"row {self.rows + 1}")
        self.rows += 1
        return line

    def encode_batch(self, rows: Sequence[Any], lines: list[str]) -> int:
        """As `encode`, for several rows: one or more of them, from the first on, by one call as far as they are alike.

        Their lines are appended to `lines`, and the number of characters in them is returned. Raises what `encode`
        raises; the lines of the rows before are there then.
        """
        written = self._written
        refused: Exception | None = None
        try:
            self._write_rows(self._alike(rows))
        except Exception as error:
            refused = error
        text = "".join(written)
        if _may_hold_bytes(text):
            good = _rows_without_bytes(rows, written)
            if good < len(written):  # the next call begins with a row that has bytes, and refuses it
                del written[good:]
                text, refused = "".join(written), None
        lines += written
        self.rows += len(written)
        written.clear()
        if refused is not None:
            raise self._refusal(f"row {self.rows + 1}", refused) from refused
        return len(text) or self._encode_one_by_one(rows, lines)

    def _alike(self, rows: Sequence[Any]) -> Iterator[Any]:
        """Rows that are written as they are, up to one that is not, or is long: the next may be as long.

        The interpreter can be handed to another thread between two of them, which `csv.writer` alone would not do.
        """
        kind, width, written = self._kind, self._width, self._written
        for row in rows:
            if type(row) is not kind or len(row) != width:  # type: ignore[arg-type]
                return
            yield row
            if len(written[-1]) > LONG_LINE:
                return

    def _encode_one_by_one(self, rows: Sequence[object], lines: list[str]) -> int:
        size = 0
        for row in rows:
            line = self.encode(row)
            lines.append(line)
            size += len(line)
            if self._kind is not None or len(line) > LONG_LINE:
                break
        return size

    def tail(self) -> str:
        """The end row where one was asked for. Only for a table that is complete."""
        end_row = self._end_row(self.rows) if callable(self._end_row) else self._end_row
        if end_row is None:
            return ""
        if not is_sequence(end_row):
            raise TypeError(f"end_row returned {type(end_row).__name__}; return a sequence of cells, or None")
        return self._line(end_row, "the end row")

    def join(self, frames: Sequence[str]) -> bytes:
        """Frames, in the order they were made, as UTF-8.

        Raises ValueError for a lone surrogate, which no UTF-8 text can hold (RFC 3629 section 3), and says in
        which row it is.
        """
        if not self._joined and frames and frames[0] is self._head:
            self._joined = -1
        self._joined += len(frames)
        try:
            return "".join(frames).encode("utf-8")
        except UnicodeEncodeError:
            raise self._lone_surrogate(frames) from None

    # ---- the slower road: the first row, and rows that have to become a sequence of cells

    def _encode_prepared(self, row: object) -> str:
        number = self.rows + 1
        before = ""
        if not self.rows and self._columns.begin(row) and self._write_header:
            before = self._line(self._columns.labels or (), "the header")
        cells_of = self._cells_of.get(type(row))
        if cells_of is None:
            cells_of = self._cells_of[type(row)] = self._columns.cells_of(row, number)
        line = before + self._line(cells_of(row, number), f"row {number}")
        if cells_of == self._columns.as_it_is and not (self._guard or self._escapes or self._terminator):
            # Such rows are written as they are from here on.
            self._kind, self._width = type(row), self._columns.width
        self.rows += 1
        return line

    def _line(self, cells: Sequence[object], where: str) -> str:
        """Cells as one line, with every check; `where` names it in errors."""
        try:
            line = self._write(guarded(cells) if self._guard else cells)
        except Exception as error:
            raise self._refusal(where, error) from error
        if self._escapes or "'" in line or "<mem" in line:
            self._refuse_bytes(cells, where)
        return line if self._terminator is None else line[:-2] + self._terminator

    # ---- errors

    def _refuse_bytes(self, cells: Sequence[object], where: str) -> None:
        for place, cell in enumerate(cells, 1):
            if isinstance(cell, BYTES):
                raise TypeError(
                    f"{where} has {type(cell).__name__} in cell {place}; CSV is text: decode it, or write it as "
                    "base64 or hex"
                )

    def _refusal(self, where: str, error: Exception) -> ValueError:
        if isinstance(error, csv.Error):
            return ValueError(f"{where} cannot be written in the CSV dialect {self._dialect!r}: {error}")
        # What str() of a cell has raised; an int of more than 4,300 digits is a ValueError.
        return ValueError(f"{where} has a cell whose text cannot be made: {type(error).__name__}: {error}")

    def _lone_surrogate(self, frames: Sequence[str]) -> ValueError:
        for place, frame in enumerate(frames):
            try:
                frame.encode("utf-8")
            except UnicodeEncodeError as error:
                number = self._joined - len(frames) + place + 1
                where = f"row {number}" if number > 0 else "the header"
                if number > self.rows:
                    where = "the end row"
                return ValueError(
                    f"{where} holds a lone surrogate, U+{ord(frame[error.start]):04X}, which UTF-8 cannot encode; "
                    "text from os.fsdecode or a cut JSON escape has them: replace them before"
                )
        raise AssertionError("every frame can be encoded, but not all of them together")


def _rows_without_bytes(rows: Sequence[Any], lines: Sequence[str]) -> int:
    """How many rows come before the first that has bytes in a cell."""
    for place, (row, line) in enumerate(zip(rows, lines, strict=False)):
        if _may_hold_bytes(line) and any(isinstance(cell, BYTES) for cell in row):
            return place
    return len(lines)


def _may_hold_bytes(text: str) -> bool:
    """Whether there can be bytes among the cells of which `csv.writer` has made this.

    What they become has an apostrophe in it (b'..', or b".." around one), and a view has a bracket. Looking for one
    character in the text is cheaper than asking every cell for its type.
    """
    return ("'" in text and ("b'" in text or 'b"' in text)) or "<mem" in text


def _line_writer(
    dialect: str | type[csv.Dialect] | csv.Dialect,
) -> tuple[Callable[[Any], str], str | None, bool]:
    """A function from cells to a line; the line end to put in place of its CRLF (or None); whether it escapes."""
    try:
        given = csv.writer(_Line, dialect).dialect
    except (csv.Error, TypeError) as error:
        raise ValueError(f"dialect is {dialect!r}: {error}; known names are {csv.list_dialects()}") from error
    end = given.lineterminator
    if end not in ("\r\n", "\n", "\r"):
        raise ValueError(f"dialect is {dialect!r}, whose lines end in {end!r}; give one with CRLF, LF or CR")
    # csv.writer before Python 3.13 quotes a CR or LF only if the line end has it. Readers stop at both.
    write = csv.writer(_Line, dialect, lineterminator="\r\n").writerow
    return cast("Callable[[Any], str]", write), None if end == "\r\n" else end, given.escapechar is not None
