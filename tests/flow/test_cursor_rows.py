"""Rows of real sqlite3 cursors, and of a driver that behaves as others do."""

from __future__ import annotations

import sqlite3
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from streamkit.flow.cursor_rows import BATCH_ROWS, CursorRows, cursor_rows
from streamkit.flow.flush import FLUSH, Flush

COUNT = """
    with recursive numbers(n) as (select 1 union all select n + 1 from numbers limit ?)
    select n, 'row ' || n as name from numbers
"""
ENDLESS = "with recursive n(x) as (select 1 union all select x + 1 from n) select x from n where x < 0"


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:", check_same_thread=False)
    yield connection
    connection.close()


class Driver:
    """A cursor that shows how it was used. `late`: the columns are known after the first fetch only."""

    def __init__(self, rows: int, *, late: bool = False, short: int | None = None) -> None:
        self._rows: list[Any] = [(number,) for number in range(rows)]
        self._late = late
        self._short = short
        self.description: Any = None if late else [("n", None)]
        self.fetches: list[int] = []
        self.closed = 0

    def fetchmany(self, size: int, /) -> Sequence[Any]:
        self.fetches.append(size)
        if self._late:
            self.description = [("n", None)]
        taken = min(size, self._short or size)
        rows, self._rows = self._rows[:taken], self._rows[taken:]
        return rows

    def close(self) -> None:
        self.closed += 1


@pytest.mark.parametrize("count", [1, 2, 5, 6, 7, 11, BATCH_ROWS, BATCH_ROWS + 1, 2 * BATCH_ROWS + 1])
@pytest.mark.parametrize("batch", [1, 5, BATCH_ROWS])
def test_every_row_once_and_in_order(connection: sqlite3.Connection, count: int, batch: int) -> None:
    source = cursor_rows(connection.execute(COUNT, [count]), batch=batch)
    assert source.columns == ["n", "name"]
    items = list(source)
    assert [item for item in items if item is not FLUSH] == [(n, f"row {n}") for n in range(1, count + 1)]
    source.close()


def test_no_rows_but_columns(connection: sqlite3.Connection) -> None:
    source = cursor_rows(connection.execute("select 1 as a, 2 as b where 0"))
    assert source.columns == ["a", "b"]
    assert list(source) == []
    source.close()


def test_rows_keep_the_type_that_the_connection_gives_them(connection: sqlite3.Connection) -> None:
    connection.row_factory = sqlite3.Row
    source = cursor_rows(connection.execute("select 1 as a"))
    row = next(source)
    assert isinstance(row, sqlite3.Row)
    assert row["a"] == 1
    source.close()


def test_the_first_row_goes_out_alone_and_a_flush_stands_between_batches() -> None:
    driver = Driver(10)
    source = cursor_rows(driver, batch=4)
    assert [item if item is FLUSH else item[0] for item in source] == [
        *(0, FLUSH),
        *(1, 2, 3, 4, FLUSH),
        *(5, 6, 7, 8, FLUSH),
        9,
    ]
    assert driver.fetches == [1, 4, 4, 4, 4]


def test_the_batches_are_the_rows_as_they_were_fetched() -> None:
    batches = cursor_rows(Driver(8), batch=4).batches()
    assert batches is not None
    assert list(batches) == [[(0,)], FLUSH, [(1,), (2,), (3,), (4,)], FLUSH, [(5,), (6,), (7,)]]


def test_batches_of_any_kind_can_be_sliced() -> None:
    class OfDeques(Driver):
        def fetchmany(self, size: int, /) -> Any:
            return deque(super().fetchmany(size))

    class OfTuples(Driver):
        def fetchmany(self, size: int, /) -> Any:
            return tuple(super().fetchmany(size))

    for driver in (OfDeques(5), OfTuples(5)):
        source = cursor_rows(driver, batch=4)
        assert sliced(source) == [(n,) for n in range(5)]
        source.close()


def sliced(source: CursorRows) -> list[Any]:
    batches = source.batches()
    assert batches is not None
    return [row for batch in batches if not isinstance(batch, Flush) for row in batch[:]]


def test_a_batch_that_iterates_in_its_own_way() -> None:
    class Negative(list[Any]):
        def __iter__(self) -> Iterator[Any]:
            return ((-row[0],) for row in super().__iter__())

    class Own(Driver):
        def fetchmany(self, size: int, /) -> Any:
            return Negative(super().fetchmany(size))

    assert sliced(cursor_rows(Own(3))) == [(0,), (-1,), (-2,)]


def test_no_batches_where_a_row_was_taken_before() -> None:
    source = cursor_rows(Driver(9))
    assert next(source) == (0,)
    assert source.batches() is None
    assert [row for row in source if row is not FLUSH] == [(n,) for n in range(1, 9)]


def test_a_flush_among_the_rows_stands_between_batches() -> None:
    driver = Driver(0)
    driver._rows = [(0,), (1,), FLUSH, (2,)]
    batches = cursor_rows(driver).batches()
    assert batches is not None
    assert list(batches) == [[(0,)], FLUSH, [(1,)], FLUSH, [(2,)]]


def test_a_batch_is_not_fetched_before_it_is_wanted() -> None:
    driver = Driver(100)
    source = cursor_rows(driver, batch=10)
    assert driver.fetches == []  # nor anything before the first row is
    assert next(source) == (0,)
    assert driver.fetches == [1]
    source.close()


def test_a_short_batch_is_not_taken_for_the_end() -> None:
    # PEP 249, fetchmany: "fewer rows may be returned" than asked for; only an empty answer is the end.
    source = cursor_rows(Driver(7, short=3), batch=5)
    assert [item[0] for item in source if item is not FLUSH] == list(range(7))


@pytest.mark.parametrize("count", [0, 1, 9])
def test_a_cursor_that_knows_its_columns_late(count: int) -> None:
    source = cursor_rows(Driver(count, late=True), batch=4)
    assert source.columns == ["n"]
    assert [item[0] for item in source if item is not FLUSH] == list(range(count))


def test_no_result_set(connection: sqlite3.Connection) -> None:
    connection.execute("create table t (a)")
    for cursor in (connection.cursor(), connection.execute("insert into t values (1)")):
        with pytest.raises(ValueError, match="execute a SELECT before handing it over"):
            cursor_rows(cursor)


def test_no_result_set_where_the_driver_raises() -> None:
    class Raising(Driver):
        def fetchmany(self, size: int, /) -> Sequence[Any]:
            raise RuntimeError("no results to fetch")

    with pytest.raises(ValueError, match="execute a SELECT") as caught:
        cursor_rows(Raising(0, late=True))
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_an_asynchronous_cursor_is_refused() -> None:
    class AsynchronousDriver:
        description = (("n", None),)

        async def fetchmany(self, size: int, /) -> Sequence[Any]:
            raise AssertionError("never called")

        def close(self) -> None:
            pass

    with pytest.raises(TypeError, match=r"asynchronous cursor, .*AsynchronousDriver, which needs"):
        cursor_rows(AsynchronousDriver())  # type: ignore[arg-type]


@pytest.mark.parametrize("batch", [0, -1])
def test_a_batch_has_a_row(batch: int) -> None:
    with pytest.raises(ValueError, match="1 or more"):
        cursor_rows(Driver(1), batch=batch)


@pytest.mark.parametrize("rows_taken", [0, 1, 3, 100])
def test_close_closes_the_cursor_once_wherever_it_stands(rows_taken: int) -> None:
    driver = Driver(5)
    source = cursor_rows(driver, batch=2)
    for _ in range(rows_taken):
        next(source, None)
    source.close()
    source.close()
    assert driver.closed == 1
    assert list(source) == []


def test_the_connection_stays_open(connection: sqlite3.Connection) -> None:
    cursor = connection.execute("select 1")
    cursor_rows(cursor).close()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        cursor.fetchone()
    assert connection.execute("select 2").fetchone() == (2,)


def test_cancel_interrupts_a_query_that_runs(connection: sqlite3.Connection) -> None:
    running = threading.Event()
    connection.set_progress_handler(lambda: running.set(), 1000)
    # The first row is there at once, and the second never comes: sqlite3 takes the first in `execute`.
    source = cursor_rows(connection.execute(f"select 1 union all select * from ({ENDLESS})"))
    rows: list[object] = []
    thread = threading.Thread(target=lambda: rows.extend(source))
    running.clear()
    thread.start()
    try:
        assert running.wait(10)
    finally:
        source.cancel()
        thread.join(10)
    assert not thread.is_alive()
    assert rows in ([], [(1,), FLUSH])  # how many rows sqlite3 reads ahead depends on the version of Python
    source.close()
    assert connection.execute("select 2").fetchone() == (2,)


def test_cancel_leaves_other_queries_of_the_connection_alone(connection: sqlite3.Connection) -> None:
    source = cursor_rows(connection.execute(COUNT, [10]), batch=2)
    other = connection.execute(COUNT, [10])
    assert next(source) == (1, "row 1")
    source.cancel()  # at rest: nothing of this cursor runs
    assert len(other.fetchall()) == 10
    assert list(source) == [FLUSH]
    source.close()


def test_an_interrupt_by_somebody_else_is_an_error() -> None:
    class Interrupted(Driver):
        def fetchmany(self, size: int, /) -> Sequence[Any]:
            raise sqlite3.OperationalError("interrupted")

    with pytest.raises(sqlite3.OperationalError, match="interrupted"):
        next(cursor_rows(Interrupted(1)))


def test_cancel_before_the_first_row_and_after_the_end() -> None:
    driver = Driver(5)
    source = cursor_rows(driver)
    source.cancel()
    assert list(source) == []
    assert driver.fetches == []
    source.close()
    source.cancel()


def test_cancel_beside_a_connection_that_its_owner_closed(connection: sqlite3.Connection) -> None:
    class Fetching(Driver):
        def fetchmany(self, size: int, /) -> Sequence[Any]:
            other = sqlite3.connect(":memory:")
            other.close()
            self.connection = other
            source.cancel()
            return []

    source = cursor_rows(Fetching(1))
    assert list(source) == []
    source.close()
