"""The rows of a DB-API cursor (PEP 249) or an SQLAlchemy result, in batches, as a source.

Law of this file
- The thread that iterates owns the cursor and closes it; the connection belongs to whoever opened it.
- Rows are fetched in batches: one by one costs a call (with some drivers a round trip) each, all at once
  costs the memory of the whole result.
- A connection may be shared, so it is interrupted only while this cursor is fetching.
"""

from __future__ import annotations

import inspect
import sqlite3
import threading
from collections.abc import Generator, Iterator, Sequence
from typing import Any, Final, Protocol

from streamkit.flow.batched import BatchedSource
from streamkit.flow.flush import FLUSH, Flush

# Rows. At about 100 bytes a row one batch nearly fills a 64 KiB chunk; more would only hold more memory.
BATCH_ROWS: Final = 500


class Cursor(Protocol):
    """What is needed of a cursor, beside a way to tell its columns (see `column_names`).

    `connection`, optional in PEP 249, is used where it is there.
    """

    def fetchmany(self, size: int, /) -> Sequence[Any]:
        """The next rows, `size` at most; empty at the end."""
        ...

    def close(self) -> object:
        """Close the cursor."""
        ...


class CursorRows(BatchedSource):
    """The rows of a cursor, as the cursor makes them; see `cursor_rows`.

    columns: the names of the columns, in order; None for the scalars of SQLAlchemy, which are no rows.
    """

    def __init__(self, cursor: Cursor, batch: int) -> None:
        if batch < 1:
            raise ValueError(f"batch is {batch!r}: give the number of rows to fetch at once, 1 or more")
        if inspect.iscoroutinefunction(cursor.fetchmany):
            raise TypeError(
                f"rows cannot come from an asynchronous cursor, {type(cursor).__qualname__}, which needs an event loop:"
                " use the driver's cursor for threads, or run the loop in a thread and put the rows into a queue.Queue"
            )
        self._cursor = cursor
        self._batch = batch
        # Owned for the length of an assignment, or of `interrupt`, which sets a flag in SQLite and returns.
        self._lock = threading.Lock()
        self._fetching = False
        self._cancelled = threading.Event()
        self._first: Sequence[Any] | None = None
        names = column_names(cursor)
        if names is None and not _is_of_scalars(cursor):
            names = self._fetch_for_names()
        self.columns = names
        self._batches = self._fetched()
        self._iterator = self._rows()

    def __iter__(self) -> Iterator[Any]:
        return self._iterator

    def __next__(self) -> Any:
        return next(self._iterator)

    def batches(self) -> Iterator[Sequence[Any] | Flush] | None:
        """The same rows, as they were fetched. None where somebody has looked at one: part of a batch is gone then."""
        untouched = inspect.getgeneratorstate(self._iterator) == inspect.GEN_CREATED
        return self._batches if untouched else None

    def close(self) -> None:
        """Close the cursor; the connection stays open. The second call does nothing."""
        with self._lock:
            cursor, self._cursor = self._cursor, _CLOSED
        self._iterator.close()
        self._batches.close()
        cursor.close()

    def cancel(self) -> None:
        """End the rows after the batch in hand; any thread.

        A query of `sqlite3` that is running is interrupted at once (`Connection.interrupt` is made to be
        called from another thread). With other drivers the `fetchmany` in progress returns first.
        """
        with self._lock:
            self._cancelled.set()
            # What SQLAlchemy makes of a result has the driver's own cursor inside.
            cursor = getattr(self._cursor, "cursor", self._cursor)
            connection = getattr(cursor, "connection", None)
            if self._fetching and isinstance(connection, sqlite3.Connection):
                try:
                    connection.interrupt()
                except sqlite3.ProgrammingError:  # closed by its owner: nothing runs on it any more
                    pass

    def _fetch_for_names(self) -> list[str]:
        # A server-side cursor (psycopg2's named ones) does not know its columns before the first fetch.
        cause: Exception | None = None
        try:
            self._first = self._cursor.fetchmany(1)
        except Exception as error:  # every driver has its own exception for "no result set"
            cause = error
        names = column_names(self._cursor)
        if names is None:
            raise ValueError(
                "the cursor has no result set: execute a SELECT before handing it over"
            ) from cause
        if cause is not None:
            raise cause
        return names

    def _fetch(self, size: int) -> Sequence[Any]:
        with self._lock:
            if self._cancelled.is_set():
                return ()
            self._fetching = True
        try:
            return self._cursor.fetchmany(size)
        except sqlite3.OperationalError as error:
            # SQLITE_INTERRUPT; the exception carries the number only since Python 3.11
            if self._cancelled.is_set() and str(error) == "interrupted":
                return ()
            raise
        finally:
            with self._lock:
                self._fetching = False

    def _rows(self) -> Generator[Any, None, None]:
        for batch in self._batches:
            if isinstance(batch, Flush):
                yield batch
            else:
                yield from batch

    def _fetched(self) -> Generator[Sequence[Any] | Flush, None, None]:
        # The first row alone: it is on its way while the database still works on the others.
        size = 1
        rows = self._fetch(size) if self._first is None else self._first
        self._first = None
        while rows:
            # A class of the driver's own may give other rows when it is iterated than when it is sliced.
            batch = rows if type(rows) in (list, tuple) else list(rows)
            if Flush in map(type, batch):  # of a cursor of somebody's own
                for row in batch:
                    yield row if isinstance(row, Flush) else [row]
            else:
                yield batch
            # A full batch: the next fetch may take long, so what is there goes first. A short one is most
            # likely the last, which the end of the stream sends anyhow.
            if len(rows) >= size:
                yield FLUSH
            size = self._batch
            rows = self._fetch(size)


class _ClosedCursor:
    def fetchmany(self, size: int, /) -> Sequence[Any]:
        return ()

    def close(self) -> None:
        pass


_CLOSED: Final = _ClosedCursor()


def is_cursor(thing: object) -> bool:
    """Whether this is a DB-API cursor or an SQLAlchemy result: something for `cursor_rows`."""
    if isinstance(thing, type) or not hasattr(thing, "fetchmany"):
        return False
    return hasattr(thing, "description") or callable(getattr(thing, "keys", None)) or _is_of_scalars(thing)


def _is_of_scalars(thing: object) -> bool:
    """Whether this is what `scalars()` of SQLAlchemy returns: fetched like a result, but without columns."""
    return callable(getattr(thing, "partitions", None)) and not hasattr(thing, "keys")


def column_names(cursor: Any) -> list[str] | None:
    """The names of a cursor's columns; None while it does not know them, or has no result set."""
    if hasattr(cursor, "description"):  # DB-API: a sequence for each column, whose first item is its name
        return None if cursor.description is None else [str(column[0]) for column in cursor.description]
    try:
        return list(map(str, cursor.keys()))  # SQLAlchemy
    except Exception:  # its own error for an INSERT or a result that was closed
        return None


def cursor_rows(cursor: Cursor, *, batch: int = BATCH_ROWS) -> CursorRows:
    """The rows of an executed DB-API cursor (`sqlite3`, psycopg, mysqlclient, Django's) or of an SQLAlchemy result.

    batch: rows a `fetchmany`, 500 by default; the first one asks for a single row, so that it goes out at
    once. Between two batches comes the item `FLUSH`. `.columns` holds the column names. `close()` closes the
    cursor, not the connection.

    A driver may still hold the whole result in memory: with psycopg and MySQL drivers use a server-side
    cursor, with SQLAlchemy `connection.execution_options(stream_results=True)`.

    Raises ValueError when the cursor has no result set or `batch` is below 1, TypeError for an asynchronous
    cursor. Its methods other than `cancel` belong to one thread; `sqlite3` insists that it be the one that made
    the connection.
    """
    return CursorRows(cursor, batch)
