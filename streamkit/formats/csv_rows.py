"""Rows to CSV text (RFC 4180).

The law of this file:

- RFC 4180 section 2: every record ends in CRLF; a cell that holds the delimiter, a quote, a *lone* CR or a LF
  is quoted; a quote inside is doubled; every record has as many cells as the first. A row of another width is
  an error, because a reader would shift its cells into the wrong columns without a word.
- The first row decides: its keys make the header where none was given, and its length is everybody's length.
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

import csv
import dataclasses
import datetime
import decimal
import re
from collections.abc import Callable, Mapping, Sequence, Set
from operator import attrgetter, itemgetter
from typing import Any, cast

__all__ = ["CSVEncoder", "guard_formula"]

BYTE_ORDER_MARK = "\ufeff"
"""What Excel needs to read a file as UTF-8. `csv.reader` takes it for a part of the first name."""

FORMULA_STARTS = frozenset("=+-@\t\r\n")
"""First characters that make a spreadsheet calculate a cell (OWASP, "CSV Injection")."""

_HARMLESS = frozenset(
    {type(None), bool, int, float, decimal.Decimal, datetime.date, datetime.time, datetime.datetime}
)
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")


class _Line:
    """A file for `csv.writer` whose `write` gives the line back: `str(line)` is the line itself, made in C."""

    write = str


class CSVEncoder:
    """Turns rows into lines of CSV, the header before the first of them.

    Rows are sequences (list, tuple, named tuple, `sqlite3.Row`), mappings or dataclass instances. A mapping and
    a dataclass are looked up by column name, so a missing or unknown name is a ValueError; a sequence goes by
    position, so a wrong number of cells is a ValueError. Errors give the number of the row, from 1, the
    header not counted. Strings, bytes, sets, numbers and None are no rows: TypeError.

    - `header`: a sequence of names is written as given; None (the default) takes the names from the first row
      where it has some (keys, fields) and writes no header where it has none; False never writes one.
    - `dialect`: a `csv` dialect, by name or class. "excel" is RFC 4180; "excel-tab", "unix" or your own.
    - `bom`: begin with a UTF-8 byte order mark, for Excel; off by default, since other readers trip over it.
    - `guard_formulas`: put `'` before every text (also in the header) that a spreadsheet would calculate; see
      `guard_formula`. Off by default because it changes data: a reader cannot tell a guard from a quote.
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
    ) -> None:
        self._names = _checked_header(header)
        self._write_header = header is not False
        self._dialect = dialect
        self._guard = guard_formulas
        if isinstance(end_row, str | bytes) or not (
            end_row is None or callable(end_row) or _is_sequence(end_row)
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
        self._joined = (
            0  # frames given to join() so far, less the head: the number of a row is its place here
        )
        # The type and the width of rows that need no preparation. No row has type None: the first is prepared.
        self._kind: type | None = None
        self._width = 0
        self._columns: tuple[str, ...] = ()  # what mappings and dataclasses are looked up by
        self._cells_of: dict[type, Callable[[Any], Sequence[object]]] = {}

    @property
    def has_header(self) -> bool | None:
        """Whether the table has a header row; None while that depends on a first row not seen yet."""
        if not self._write_header:
            return False
        if self._names is not None:
            return True
        return None if self._width == 0 else bool(self._columns)

    @property
    def content_type(self) -> str:
        """The Content-Type: RFC 7111 (UTF-8) with the `header` parameter of RFC 4180 section 3 where known."""
        known = {True: "; header=present", False: "; header=absent", None: ""}[self.has_header]
        return f"text/csv; charset=utf-8{known}"

    def head(self) -> str:
        """What precedes the first row and is known without it: the byte order mark and a header that was given."""
        text = self._start
        if self._names is not None:
            text += self._line(self._names, "the header")
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
            raise self._wrong_width(row)
        try:
            line = self._write(row)
        except csv.Error as error:
            raise self._refusal(f"row {self.rows + 1}", error) from error
        # Whatever bytes become has an apostrophe in it (b'..', or b".." around one), and a view has a bracket.
        # Looking for one character in the line is cheaper than asking every cell for its type.
        if ("'" in line and ("b'" in line or 'b"' in line)) or ("<" in line and "<mem" in line):
            self._refuse_bytes(cast("Sequence[object]", row), f"row {self.rows + 1}")
        self.rows += 1
        return line

    def tail(self) -> str:
        """The end row where one was asked for. Only for a table that is complete."""
        end_row = self._end_row(self.rows) if callable(self._end_row) else self._end_row
        if end_row is None:
            return ""
        if not _is_sequence(end_row):
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
        before = "" if self.rows else self._begin(row)
        cells_of = self._cells_of.get(type(row))
        if cells_of is None:
            cells_of = self._cells_of[type(row)] = self._find_cells_of(row)
        line = before + self._line(cells_of(row), f"row {self.rows + 1}")
        if cells_of == self._same and not (self._guard or self._escapes or self._terminator):
            self._kind = type(row)  # from here on rows of this type are written as they are
        self.rows += 1
        return line

    def _begin(self, row: object) -> str:
        """Take names and width from the first row; return the header line if it is to be written."""
        derived = _column_names(row)
        if derived is None and not _is_sequence(row):
            raise self._not_a_row(row)
        self._columns = self._names or derived or ()
        self._width = len(self._columns) or len(cast("Sequence[object]", row))
        if self._width == 0:
            raise ValueError("row 1 has no cells; a row of a CSV table needs at least one")
        if self._names or not self._write_header or derived is None:
            return ""
        return self._line(derived, "the header")

    def _find_cells_of(self, row: object) -> Callable[[Any], Sequence[object]]:
        """The function that makes cells in column order of any row of this row's type."""
        by_name = isinstance(row, Mapping) or _is_dataclass(row)
        if not by_name and not _is_sequence(row):
            raise self._not_a_row(row)
        if not by_name:
            return self._same
        if not self._columns:
            raise TypeError(
                f"row {self.rows + 1} is {type(row).__name__} but the rows before it had no names; give `header`, "
                "or rows of one kind"
            )
        getter = itemgetter if isinstance(row, Mapping) else attrgetter
        if not isinstance(row, Mapping):
            self._check_names(dict.fromkeys(_column_names(row) or ()))
        # With one name a getter returns the bare value, so it is asked for that name twice.
        pick = cast("Callable[[Any], Sequence[object]]", getter(*self._columns, *self._columns[-1:]))
        width = self._width

        def cells_of_dataclass(row: Any) -> Sequence[object]:
            return pick(row)[:width]

        def cells_of_mapping(row: Any) -> Sequence[object]:
            if len(row) != width:
                self._check_names(row)
            try:
                cells = pick(row)[:width]
            except KeyError:
                self._check_names(row)
                raise
            if len(row) != width:  # a defaultdict has just invented what was missing
                self._check_names(row)
            return cells

        return cells_of_mapping if isinstance(row, Mapping) else cells_of_dataclass

    def _same(self, row: Any) -> Sequence[object]:
        if len(row) != self._width:
            raise self._wrong_width(row)
        return cast("Sequence[object]", row)

    def _line(self, cells: Sequence[object], where: str) -> str:
        """Cells as one line, with every check; `where` names it in errors."""
        if self._guard:
            cells = _guarded(cells)
        try:
            line = self._write(cells)
        except csv.Error as error:
            raise self._refusal(where, error) from error
        if self._escapes or "'" in line or "<mem" in line:
            self._refuse_bytes(cells, where)
        return line if self._terminator is None else line[:-2] + self._terminator

    # ---- errors

    def _refuse_bytes(self, cells: Sequence[object], where: str) -> None:
        for place, cell in enumerate(cells, 1):
            if isinstance(cell, bytes | bytearray | memoryview):
                raise TypeError(
                    f"{where} has {type(cell).__name__} in cell {place}; CSV is text: decode it, or write it as "
                    "base64 or hex"
                )

    def _wrong_width(self, row: object) -> ValueError:
        given = len(cast("Sequence[object]", row))
        source = "the header" if self._names is not None else "row 1"
        return ValueError(
            f"row {self.rows + 1} has {given} cells; {self._width} are expected, as many as {source} has"
        )

    def _check_names(self, row: Mapping[Any, object]) -> None:
        """Raise ValueError unless the keys of a row are the columns, each once."""
        number, columns = self.rows + 1, list(self._columns)
        missing = [name for name in columns if name not in row]
        if missing:
            raise ValueError(f"row {number} has no {missing[0]!r}; every row needs the columns {columns}")
        unknown = [name for name in row if name not in columns]
        if unknown:
            raise ValueError(
                f"row {number} has {unknown[0]!r}, which is no column; the columns are {columns}: name all of them "
                "in `header`, or leave the key out"
            )
        if len(set(columns)) != len(columns):
            raise ValueError(
                f"the header names a column twice, {columns}; rows with names need each name once"
            )

    def _not_a_row(self, row: object) -> TypeError:
        return TypeError(
            f"row {self.rows + 1} is {type(row).__name__}; a row is a list, tuple, mapping or dataclass instance "
            "(a single cell goes into a list of one)"
        )

    def _refusal(self, where: str, error: csv.Error) -> ValueError:
        return ValueError(f"{where} cannot be written in the CSV dialect {self._dialect!r}: {error}")

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


def guard_formula(cell: object) -> object:
    """The cell with `'` before it if a spreadsheet would take it for a formula, else the cell itself.

    That is: its text begins with `=`, `+`, `-`, `@`, TAB, CR or LF (OWASP, "CSV Injection") and it is no
    number. Numbers and dates pass, and so does a text that is a plain numeric literal, such as `-5` or `+1.5e3`.
    The change cannot be undone by a reader, who cannot tell it from a text that began with `'`.
    """
    kind = type(cell)
    if kind in _HARMLESS:
        return cell
    # csv.writer takes a str subclass by its value and everything else by str().
    text = cell if isinstance(cell, str) else str(cell)
    if text[:1] in FORMULA_STARTS and not _NUMBER.fullmatch(text):
        return f"'{text}"
    return cell


def _guarded(cells: Sequence[object]) -> Sequence[object]:
    # Most rows need no guard: a look at first characters is cheaper than a call for every cell.
    for cell in cells:
        if type(cell) is str:
            if cell[:1] in FORMULA_STARTS:
                break
        elif type(cell) not in _HARMLESS:
            break
    else:
        return cells
    return [guard_formula(cell) for cell in cells]


def _line_writer(
    dialect: str | type[csv.Dialect] | csv.Dialect,
) -> tuple[Callable[[Any], str], str | None, bool]:
    """A function from cells to a line; the line end to put in place of its CRLF (or None); whether it escapes."""
    try:
        given = csv.writer(_Line, dialect).dialect
    except (csv.Error, TypeError) as error:
        raise ValueError(f"dialect is {dialect!r}: {error}; known names are {csv.list_dialects()}") from error
    end = given.lineterminator
    if end != "\r\n" and set(end) <= {"\r", "\n"}:
        # csv.writer before Python 3.13 quotes a CR or LF only if the line end has it. Readers stop at both.
        write = csv.writer(_Line, dialect, lineterminator="\r\n").writerow
    else:
        write = csv.writer(_Line, dialect).writerow
        end = ""
    return cast("Callable[[Any], str]", write), end or None, given.escapechar is not None


def _checked_header(header: Sequence[str] | bool | None) -> tuple[str, ...] | None:
    if header is None or header is False:
        return None
    if isinstance(header, str | bytes | bool) or not _is_sequence(header):
        raise TypeError(
            f"header is {header!r}; give a list of column names, None to take them from the first row, or False "
            "for none"
        )
    names = tuple(header)
    if not names:
        raise ValueError(
            "header is empty; give at least one column name, None to derive it, or False for none"
        )
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"header has {name!r}, which is {type(name).__name__}; column names are str")
    return names


def _column_names(row: object) -> tuple[str, ...] | None:
    """The names that a row brings along, or None."""
    if isinstance(row, Mapping):
        return tuple(row)
    if _is_dataclass(row):
        return tuple(field.name for field in dataclasses.fields(cast("Any", row)))
    fields = getattr(row, "_fields", None)  # named tuples, SQLAlchemy rows
    if isinstance(fields, tuple):
        return fields
    keys = getattr(row, "keys", None)  # sqlite3.Row
    if callable(keys) and _is_sequence(row):
        return tuple(keys())
    return None


def _is_dataclass(row: object) -> bool:
    return dataclasses.is_dataclass(row) and not isinstance(row, type)


def _is_sequence(row: object) -> bool:
    """Whether a row has cells in an order: sized, iterable, and neither text, bytes nor a set."""
    if isinstance(row, tuple | list):
        return True
    if isinstance(row, str | bytes | bytearray | memoryview | Set | Mapping | type):
        return False
    return hasattr(row, "__len__") and hasattr(row, "__iter__")
