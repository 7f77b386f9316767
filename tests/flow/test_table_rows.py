"""Rows with the names of their columns: when these are handed over, and who is closed."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from streamkit.flow.cursor_rows import column_names, cursor_rows, is_cursor
from streamkit.flow.flush import FLUSH
from streamkit.flow.table_rows import TableRows


class Result:
    """What SQLAlchemy's results offer instead of a `description`."""

    def __init__(self, rows: Sequence[Any], names: Sequence[str] | None = ("a", "b")) -> None:
        self._rows, self._names = list(rows), names
        self.closed = 0

    def keys(self) -> Sequence[str]:
        if self._names is None:
            raise RuntimeError("This result object does not return rows.")
        return self._names

    def fetchmany(self, size: int, /) -> Sequence[Any]:
        if self._names is None:
            raise RuntimeError("This result object does not return rows.")
        rows, self._rows = self._rows[:size], self._rows[size:]
        return rows

    def __iter__(self) -> Iterator[Any]:
        return iter(self._rows)

    def close(self) -> None:
        self.closed += 1


def test_what_is_a_cursor() -> None:
    connection = sqlite3.connect(":memory:")
    assert is_cursor(connection.cursor())
    assert is_cursor(Result([]))
    assert not is_cursor(Result)
    assert not is_cursor({"a": 1})
    assert not is_cursor([])
    connection.close()


def test_the_rows_of_a_result() -> None:
    result = Result([(1, 2), (3, 4), (5, 6)])
    source = cursor_rows(result, batch=2)
    assert source.columns == ["a", "b"]
    assert [row for row in source if row is not FLUSH] == [(1, 2), (3, 4), (5, 6)]
    source.close()
    assert result.closed == 1


def test_a_result_without_rows() -> None:
    assert column_names(Result([], None)) is None
    with pytest.raises(ValueError, match="no result set: execute a SELECT") as caught:
        cursor_rows(Result([], None))
    assert "does not return rows" in str(caught.value.__cause__)


def test_names_come_before_the_first_row() -> None:
    connection = sqlite3.connect(":memory:")
    log: list[Any] = []
    rows = TableRows(lambda: connection.execute("select 1 as a, 2 as b"), log.append)
    assert not log
    log.extend(row for row in rows if row is not FLUSH)
    assert log == [["a", "b"], (1, 2)]
    rows.close()
    rows.close()
    connection.close()


def test_names_come_before_the_first_batch() -> None:
    connection = sqlite3.connect(":memory:")
    log: list[Any] = []
    rows = TableRows(lambda: connection.execute("select 1 as a, 2 as b"), log.append)
    batches = rows.batches()
    assert log == [["a", "b"]]
    assert batches is not None
    assert list(batches) == [[(1, 2)], FLUSH]
    rows.close()
    connection.close()


def test_rows_without_batches_are_iterated() -> None:
    rows = TableRows(lambda: iter([(1, 2)]), print)
    assert rows.batches() is None
    assert list(rows) == [(1, 2)]


def test_rows_without_names() -> None:
    log: list[Any] = []
    assert list(TableRows([(1, 2)], log.append)) == [(1, 2)]
    assert not log


def test_what_was_never_opened_is_closed_or_never_called() -> None:
    result = Result([])
    TableRows(result, print).close()
    assert result.closed == 1
    TableRows(lambda: pytest.fail("called"), print).close()


def test_what_is_refused_is_closed() -> None:
    result = Result([], None)
    result.description = None  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="no result set"):
        iter(TableRows(result, print))
    assert result.closed == 1


def test_cancel_before_and_after_the_opening() -> None:
    connection = sqlite3.connect(":memory:")
    for early in (True, False):
        rows = TableRows(connection.execute("select 1 union select 2"), lambda names: None)
        if early:
            rows.cancel()
        iterator = iter(rows)
        rows.cancel()
        assert list(iterator) == []
        rows.close()
    connection.close()
