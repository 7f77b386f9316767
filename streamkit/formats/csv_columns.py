"""Which cells of a row stand in a table, and in which order, whatever the row is.

The law of this file:

- A row with names (mapping, dataclass) is looked up by name, a row without (list, tuple, and everything that is one)
  by position. A named tuple, a `sqlite3.Row` and the row of a cursor have both: they go by position, and names that
  are selected are turned into positions once.
- RFC 4180 section 2.4: all records have the same number of fields. The first row decides how many cells a row has
  before the selection, and every later row is held to that: a cell that is missing must not be read as another.
- A selection (`columns`) leaves out what it does not name; without one, a name too many is an error, like one too few.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence, Set
from operator import attrgetter, itemgetter
from typing import Any, cast

__all__ = ["CellsOf", "ColumnSelection", "Columns", "column_names", "is_sequence"]

Columns = Sequence[str | int] | Mapping[str, str] | None
"""Names of columns; positions from 0, for rows without names; or names and what the header calls them."""

CellsOf = Callable[[Any, int], Sequence[object]]
"""From a row and its number (for errors) to its cells."""


class ColumnSelection:
    """The columns of one table. `header` and `columns` are those of `CSVEncoder`, which see; for one thread.

    labels: what the header row says, once that is known. width: the cells of a row that is written; 0 before the first.
    """

    def __init__(self, header: Sequence[str] | bool | None, columns: Columns) -> None:
        self.labels, self._selected = checked_header(header), _checked_columns(columns)
        self.width = 0
        self._header_given = self.labels is not None
        self._sources: tuple[Any, ...] | None = None  # names that came from a cursor
        self._row_width = 0  # the cells of a row without names, before the selection
        self._keys: tuple[Any, ...] = ()  # what rows with names are looked up by
        if self._selected is not None:
            if self.labels is None:
                self.labels = _labels(columns, self._selected)
            elif isinstance(columns, Mapping) or len(self.labels) != len(self._selected):
                raise ValueError(
                    f"header has {len(self.labels)} names and columns {len(self._selected)}; give as many, or the "
                    "names of the header as the values of columns={name: label}, without header"
                )

    def from_source(self, names: Sequence[str]) -> None:
        """Take the names of a cursor's columns, before the first row."""
        self._sources = tuple(names)
        if self.labels is None:
            self.labels = self._sources if self._selected is None else self._positions_named(self._sources)

    def begin(self, row: object) -> bool:
        """Take names and width from the first row. True if that gave labels that were not known before."""
        names = column_names(row)
        if names is None and not is_sequence(row):
            raise _not_a_row(row, 1)
        by_name = _is_by_name(row)
        if not by_name:
            self._row_width = len(cast("Sequence[object]", row))
        if self._selected is not None:
            self._keys = self._selected
            self.width = len(self._selected)
        else:
            known = self.labels if self._header_given else (self._sources or names)
            self._keys = known or ()
            self.width = self._row_width = len(self._keys) or self._row_width
        if self.width == 0:
            raise ValueError("row 1 has no cells; a row of a CSV table needs at least one")
        if self.labels is not None or names is None:
            return False
        self.labels = names if self._selected is None else self._positions_named(names)
        return self.labels is not None

    def cells_of(self, row: object, number: int) -> CellsOf:
        """The function that makes the cells of any row of this row's type; `as_it_is` where nothing has to be done."""
        if not _is_by_name(row):
            if not is_sequence(row):
                raise _not_a_row(row, number)
            return self.as_it_is if self._selected is None else self._selecting(row, number)
        if not self._keys:
            raise TypeError(
                f"row {number} is {type(row).__name__} but the rows before it had no names; give `header`, "
                "or rows of one kind"
            )
        if any(type(key) is int for key in self._keys) and self._selected is not None:
            raise TypeError(
                f"row {number} is {type(row).__name__}, whose cells have names; select columns by name, not by position"
            )
        self._refuse_ambiguous(column_names(row) or (), number)
        return self._from_mapping() if isinstance(row, Mapping) else self._from_dataclass(row, number)

    def _refuse_ambiguous(self, names: tuple[Any, ...], number: int) -> None:
        """Raise ValueError where a name stands for two columns: a row that goes by name has the cell of one only."""
        where = f"row {number}"
        if self._selected is None:
            names = self._keys
            where = "the header" if self._header_given else "the cursor" if self._sources else where
        if len(set(names)) == len(names):
            return
        for name in self._keys:
            if names.count(name) > 1:
                raise ValueError(
                    f"{where} has {names.count(name)} columns of the name {name!r}, and rows that go by name have one "
                    "cell for both; name them apart (in SQL with AS), or give rows that are tuples"
                )

    def as_it_is(self, row: Any, number: int) -> Sequence[object]:
        """A row without names whose cells are written as they stand."""
        if len(row) != self._row_width:
            raise self.wrong_width(row, number)
        return cast("Sequence[object]", row)

    def wrong_width(self, row: object, number: int) -> ValueError:
        """The error for a row with too few or too many cells."""
        given = len(cast("Sequence[object]", row))
        source = "the header" if self._header_given and self._selected is None else "row 1"
        if self._sources is not None and not self._header_given:
            source = "the cursor"
        return ValueError(
            f"row {number} has {given} {'cell' if given == 1 else 'cells'}, but {source} has {self._row_width}"
        )

    # ---- one function for each kind of row

    def _selecting(self, row: object, number: int) -> CellsOf:
        names, width = column_names(row) or self._sources, self._row_width
        if not width:  # the rows before it had names
            self._row_width = width = len(cast("Sequence[object]", row))
        positions = [self._position(column, names, number) for column in self._keys]
        pick = _picker(itemgetter, positions)

        def cells_of_sequence(row: Any, number: int) -> Sequence[object]:
            if len(row) != width:
                raise self.wrong_width(row, number)
            return pick(row)

        return cells_of_sequence

    def _position(self, column: str | int, names: Sequence[Any] | None, number: int) -> int:
        if isinstance(column, int):
            if column >= self._row_width:
                raise ValueError(
                    f"columns has position {column}, but row {number} has {self._row_width} cells, counted from 0"
                )
            return column
        if names is None:
            raise ValueError(
                f"columns has {column!r}, but the cells of row {number} have no names; give positions from 0, or rows "
                "with names"
            )
        if names.count(column) != 1:
            found = "is no column" if column not in names else f"are {names.count(column)} columns"
            raise ValueError(f"columns has {column!r}, but there {found} of this name among {list(names)}")
        return names.index(column)

    def _from_dataclass(self, row: object, number: int) -> CellsOf:
        names = column_names(row) or ()
        if self._selected is not None:  # asked for by name, a property is as good as a field
            names += tuple(key for key in self._keys if hasattr(row, key))
        self._check_names(dict.fromkeys(names), number)
        pick = _picker(attrgetter, self._keys)
        return lambda row, number: pick(row)

    def _from_mapping(self) -> CellsOf:
        pick = _picker(itemgetter, self._keys)
        width = self.width if self._selected is None else None

        def cells_of_mapping(row: Any, number: int) -> Sequence[object]:
            size = len(row)
            if width is not None and size != width:
                self._check_names(row, number)
            try:
                cells = pick(row)
            except KeyError:
                self._check_names(row, number)
                raise
            if len(row) != size:  # a defaultdict has just invented what was missing
                raise ValueError(
                    f"row {number} lacks columns; every row needs the columns {list(self._keys)}"
                )
            return cells

        return cells_of_mapping

    def _positions_named(self, names: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Labels for a selection by position, where the rows have names after all."""
        selected = cast("tuple[int, ...]", self._selected or ())
        return tuple(names[column] for column in selected) if max(selected) < len(names) else None

    def _check_names(self, row: Mapping[Any, object], number: int) -> None:
        """Raise ValueError unless the keys of a row are the columns, each once."""
        columns = list(self._keys)
        missing = [name for name in columns if name not in row]
        if missing:
            raise ValueError(f"row {number} has no {missing[0]!r}; every row needs the columns {columns}")
        if self._selected is not None:
            return
        unknown = [name for name in row if name not in columns]
        if unknown:
            raise ValueError(
                f"row {number} has {unknown[0]!r}, which is no column; the columns are {columns}: name all of them "
                "in `header`, or leave out the others with `columns`"
            )


def column_names(row: object) -> tuple[Any, ...] | None:
    """The names that a row brings along, or None."""
    if isinstance(row, Mapping):
        return tuple(row)
    if _is_dataclass(row):
        return tuple(field.name for field in dataclasses.fields(cast("Any", row)))
    fields = getattr(row, "_fields", None)  # named tuples, SQLAlchemy rows
    if isinstance(fields, tuple):
        return fields
    keys = getattr(row, "keys", None)  # sqlite3.Row
    if callable(keys) and is_sequence(row):
        return tuple(keys())
    return None


def is_sequence(row: object) -> bool:
    """Whether a row has cells in an order: sized, iterable, and neither text, bytes nor a set."""
    if isinstance(row, tuple | list):
        return True
    if isinstance(row, str | bytes | bytearray | memoryview | Set | Mapping | type):
        return False
    return hasattr(row, "__len__") and hasattr(row, "__iter__")


def checked_header(header: Sequence[str] | bool | None) -> tuple[str, ...] | None:
    """The names of a header that was given, or None. Raises TypeError or ValueError for what is none."""
    if header is None or header is False:
        return None
    if isinstance(header, str | bytes | bool) or not is_sequence(header):
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


def _checked_columns(columns: Columns) -> tuple[str | int, ...] | None:
    if columns is None:
        return None
    if isinstance(columns, str | bytes) or not (isinstance(columns, Mapping) or is_sequence(columns)):
        raise TypeError(
            f"columns is {columns!r}; give a list of names, a list of positions, a mapping of names to labels, or None"
        )
    selected = tuple(columns)
    if not selected:
        raise ValueError("columns is empty; select at least one, or give None for all")
    for column in selected:
        if isinstance(column, bool) or not isinstance(column, str | int):
            raise TypeError(
                f"columns has {column!r}, which is {type(column).__name__}; a column is a name or a position"
            )
        if isinstance(column, int) and column < 0:
            raise ValueError(f"columns has {column}; positions count from 0")
    if len({type(column) for column in selected}) > 1:
        raise TypeError(f"columns mixes names and positions, {list(selected)}; give one kind")
    if isinstance(columns, Mapping):
        checked_header(tuple(columns.values()))
    return selected


def _labels(columns: Columns, selected: tuple[str | int, ...]) -> tuple[Any, ...] | None:
    if isinstance(columns, Mapping):
        return tuple(columns.values())
    return None if isinstance(selected[0], int) else selected


def _picker(getter: Callable[..., Any], keys: Sequence[Any]) -> Callable[[Any], tuple[object, ...]]:
    """`getter(*keys)`, which always returns a tuple: with one key `itemgetter` would return the bare value."""
    if len(keys) > 1:
        return cast("Callable[[Any], tuple[object, ...]]", getter(*keys))
    one = getter(*keys)
    return lambda row: (one(row),)


def _is_by_name(row: object) -> bool:
    return isinstance(row, Mapping) or _is_dataclass(row)


def _is_dataclass(row: object) -> bool:
    return dataclasses.is_dataclass(row) and not isinstance(row, type)


def _not_a_row(row: object, number: int) -> TypeError:
    return TypeError(
        f"row {number} is {type(row).__name__}; a row is a list, tuple, mapping or dataclass instance "
        "(a single cell goes into a list of one)"
    )
