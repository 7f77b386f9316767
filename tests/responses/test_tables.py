"""Tables and records as answers: what rows may come from, who closes it, and what a broken export looks like."""

from __future__ import annotations

import csv
import gc
import hashlib
import io
import itertools
import json
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from typing import Any, NamedTuple

import pytest

from streamkit import CSVResponse, JSONArrayResponse, JSONSeqResponse, NDJSONResponse
from tests.conftest import ROOT
from tests.responses.test_streamed import Answer, body_of

pytestmark = pytest.mark.usefixtures("nothing_left")

SELECT = (
    "with recursive n(id) as (select 1 union all select id + 1 from n limit {}) "
    "select id, 'row ' || id as name from n"
)


class Column(NamedTuple):
    """What psycopg has in `description`: a tuple with names of its own."""

    name: str
    type_code: int


class ServerCursor:
    """A server-side cursor as psycopg has it: rows in batches, and its columns known after the first fetch only.

    `fails_at`: the row that the database does not deliver. `log`: what was done, and on which thread.
    """

    def __init__(self, count: int, *, late: bool = True, fails_at: int | None = None) -> None:
        self.description: list[Column] | None = None if late else self._columns()
        self.itersize = 2000
        self._rows = iter(range(count))
        self._fails_at = fails_at
        self.log: list[tuple[str, int]] = []

    def _columns(self) -> list[Column]:
        return [Column("id", 23), Column("name", 25)]

    def fetchmany(self, size: int = 1) -> list[tuple[int, str]]:
        self.log.append(("fetch", threading.get_ident()))
        self.description = self._columns()
        rows = []
        for number in self._rows:
            if number == self._fails_at:
                raise RuntimeError("server closed the connection unexpectedly")
            rows.append((number, f"row {number}"))
            if len(rows) == size:
                break
        return rows

    def close(self) -> None:
        self.log.append(("close", threading.get_ident()))

    @property
    def closed(self) -> int:
        return [what for what, _ in self.log].count("close")


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:")  # bound to this thread: rows stay on the request's own
    yield connection
    connection.close()


def test_a_cursor_of_sqlite(connection: sqlite3.Connection) -> None:
    answer = Answer(CSVResponse(connection.execute(SELECT.format(3))))
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8; header=present"
    assert answer.body == b"id,name\r\n1,row 1\r\n2,row 2\r\n3,row 3\r\n"


def test_a_query_that_finds_nothing_has_a_header(connection: sqlite3.Connection) -> None:
    query = SELECT.format(1) + " where id = 7"
    assert Answer(CSVResponse(connection.execute(query))).body == b"id,name\r\n"
    assert Answer(CSVResponse(lambda: connection.execute(query))).body == b"id,name\r\n"


def test_a_cursor_that_is_made_when_the_stream_begins(connection: sqlite3.Connection) -> None:
    answer = Answer(CSVResponse(lambda: connection.execute(SELECT.format(2)), columns={"name": "Name"}))
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8; header=present"
    assert answer.body == b"Name\r\nrow 1\r\nrow 2\r\n"


def test_rows_of_sqlite_by_name(connection: sqlite3.Connection) -> None:
    connection.row_factory = sqlite3.Row
    answer = Answer(CSVResponse(connection.execute(SELECT.format(2)), columns=["name", "id"]))
    assert answer.body == b"name,id\r\nrow 1,1\r\nrow 2,2\r\n"


def test_a_type_that_is_set_later_is_kept() -> None:
    response = CSVResponse([{"a": 1}])
    response.content_type = "text/plain; charset=utf-8"
    assert Answer(response).headers["Content-Type"] == "text/plain; charset=utf-8"
    assert Answer(CSVResponse([{"a": 1}])).headers["Content-Type"].endswith("; header=present")


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("count", [0, 1, 1200])
def test_a_server_side_cursor(late: bool, count: int) -> None:
    cursor = ServerCursor(count, late=late)
    rows = list(csv.reader(io.StringIO(Answer(CSVResponse(cursor)).body.decode(), newline="")))
    assert rows == [["id", "name"], *([str(n), f"row {n}"] for n in range(count))]
    assert cursor.closed == 1


def test_head_has_the_type_of_get_and_closes_the_cursor(connection: sqlite3.Connection) -> None:
    cursor = ServerCursor(3, late=False)
    answer = Answer(CSVResponse(cursor), "HEAD")
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8; header=present"
    assert answer.body == b""
    assert [what for what, _ in cursor.log] == ["close"]


def dropped(response: CSVResponse) -> None:
    body = body_of(response)
    next(iter(body))
    body.close()


ENDINGS: dict[str, Callable[[ServerCursor], object]] = {
    "complete": lambda cursor: Answer(CSVResponse(cursor)),
    "the database fails": lambda cursor: Answer(CSVResponse(cursor)),
    "the client leaves": lambda cursor: dropped(CSVResponse(cursor)),
    "too many bytes": lambda cursor: Answer(CSVResponse(cursor, max_bytes=100)),
    "a cell that cannot be sent": lambda cursor: Answer(CSVResponse(cursor, header=["one"])),
    "wrong columns": lambda cursor: Answer(CSVResponse(cursor, columns=["none"])),
    "as records": lambda cursor: Answer(NDJSONResponse(cursor)),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_cursor_is_closed_once_on_its_own_thread_whatever_the_end(ending: str) -> None:
    cursor = ServerCursor(5000, fails_at=4000 if ending == "the database fails" else None)
    try:
        ENDINGS[ending](cursor)
    except ValueError:
        assert ending in ("a cell that cannot be sent", "wrong columns")
    assert cursor.closed == 1
    assert {thread for _, thread in cursor.log} == {threading.get_ident()}


def test_a_cursor_that_fails_late_is_no_complete_table() -> None:
    answer = Answer(CSVResponse(ServerCursor(10_000, fails_at=9_000), end_row=lambda count: ["rows", count]))
    assert "server closed the connection" in str(answer.error)
    assert answer.body.startswith(b"id,name\r\n0,row 0\r\n")
    assert b"rows," not in answer.body


def test_a_row_of_another_width_late(connection: sqlite3.Connection) -> None:
    def rows() -> Iterator[Sequence[object]]:
        yield from ((n, "x") for n in range(5000))
        yield (1,)

    answer = Answer(CSVResponse(rows(), header=["n", "x"]))
    assert isinstance(answer.error, ValueError)
    assert "row 5001 has 1 cell, but the header has 2" in str(answer.error)
    assert answer.body.startswith(b"n,x\r\n0,x\r\n")


@pytest.mark.parametrize("delivery", ["threaded", "detached"])
def test_a_row_of_a_cursor_that_cannot_be_sent(delivery: Any) -> None:
    query = f"select id, case id when 700 then x'00' else name end as name from ({SELECT.format(2000)})"
    with closing(sqlite3.connect(":memory:", check_same_thread=False)) as connection:
        response = CSVResponse(connection.execute(query), delivery=delivery)
        answer = Answer(response)
    assert isinstance(answer.error, TypeError)
    assert "row 700 has bytes in cell 2" in str(answer.error)
    assert answer.body.endswith(b"\r\n699,row 699\r\n")
    assert response.record.events == 699


def test_a_chunk_of_wide_rows_is_about_as_long_as_was_asked_for(connection: sqlite3.Connection) -> None:
    cursor = connection.execute(f"select id, printf('%.*c', 5000, 'x') as wide from ({SELECT.format(2000)})")
    response = CSVResponse(cursor, flush_bytes=20_000)
    answer = Answer(response)
    assert answer.error is None
    assert max(map(len, answer.chunks)) < 20_000 + 2 * 8 * 1024
    assert response.record.events == 2000
    assert answer.body.count(b"\r\n") == 2001


def test_small_chunks_of_a_cursor(connection: sqlite3.Connection) -> None:
    answer = Answer(CSVResponse(connection.execute(SELECT.format(100)), flush_bytes=1))
    assert [chunk.count(b"\r\n") for chunk in answer.chunks] == [2, *[1] * 99]


def test_rows_of_a_cursor_that_are_suddenly_long(connection: sqlite3.Connection) -> None:
    cursor = connection.execute(
        f"select id, printf('%.*c', id / 300 * 10000, 'x') as x from ({SELECT.format(450)})"
    )
    answer = Answer(CSVResponse(cursor))
    assert max(map(len, answer.chunks)) < 64 * 1024 + 3 * 10_100
    assert answer.body.count(b"\r\n") == 451


class SlowText:
    def __str__(self) -> str:
        time.sleep(0.01)
        return "slow"


class Listed:
    """A cursor of rows that no database has."""

    description = (("id",), ("cell",))

    def __init__(self, rows: Iterable[Any]) -> None:
        self._rows = iter(rows)

    def fetchmany(self, size: int, /) -> list[Any]:
        return list(itertools.islice(self._rows, size))

    def close(self) -> None:
        pass


def test_the_age_of_a_chunk_is_looked_at_between_slow_rows_of_a_batch() -> None:
    answer = Answer(CSVResponse(Listed((n, SlowText()) for n in range(60)), flush_seconds=0.1))
    assert max(chunk.count(b"\r\n") for chunk in answer.chunks) <= 15


class WeakRow(list[Any]):
    __slots__ = ("__weakref__",)


@pytest.mark.parametrize("broken", [True, False])
def test_a_stream_that_breaks_off_keeps_no_batch(broken: bool) -> None:
    rows = [WeakRow([n, n]) for n in range(401)]
    alive = [weakref.ref(row) for row in rows]
    if broken:
        rows[-1].append(1)
    response = CSVResponse(Listed(rows), max_bytes=None if broken else 100)
    del rows
    error = Answer(response).error
    assert error is not None
    assert sum(reference() is not None for reference in alive) < 101  # a piece, in the traceback


def test_a_lone_surrogate_in_the_first_row_is_an_error_before_the_first_byte() -> None:
    response = CSVResponse([("\ud800",)])
    with pytest.raises(ValueError, match="row 1 holds a lone surrogate"):
        response({"REQUEST_METHOD": "GET"}, pytest.fail)


def test_rows_of_a_cursor_that_become_longer(connection: sqlite3.Connection) -> None:
    cursor = connection.execute(f"select id, printf('%.*c', id * 10, 'x') as x from ({SELECT.format(3000)})")
    answer = Answer(CSVResponse(cursor))
    rows = list(csv.reader(io.StringIO(answer.body.decode(), newline="")))
    assert [len(row[1]) for row in rows[1:]] == [10 * n for n in range(1, 3001)]


class TestSQLAlchemy:
    @pytest.fixture
    def database(self) -> Iterator[Any]:
        sqlalchemy = pytest.importorskip("sqlalchemy")
        engine = sqlalchemy.create_engine("sqlite://")
        with engine.connect() as connection:
            yield lambda query: connection.execute(sqlalchemy.text(query))
        engine.dispose()

    def test_a_result(self, database: Any) -> None:
        answer = Answer(CSVResponse(database(SELECT.format(3))))
        assert answer.headers["Content-Type"] == "text/csv; charset=utf-8; header=present"
        assert answer.body == b"id,name\r\n1,row 1\r\n2,row 2\r\n3,row 3\r\n"

    def test_a_result_of_nothing(self, database: Any) -> None:
        result = database(SELECT.format(1) + " where id = 7")
        assert Answer(CSVResponse(result)).body == b"id,name\r\n"
        assert result.closed

    def test_columns_and_mappings(self, database: Any) -> None:
        assert Answer(CSVResponse(database(SELECT.format(1)), columns=["name"])).body == b"name\r\nrow 1\r\n"
        mappings = database(SELECT.format(1)).mappings()
        assert Answer(CSVResponse(mappings, columns=["name"])).body == b"name\r\nrow 1\r\n"

    def test_records(self, database: Any) -> None:
        body = Answer(NDJSONResponse(database(SELECT.format(2)).mappings())).body
        assert body == b'{"id":1,"name":"row 1"}\n{"id":2,"name":"row 2"}\n'

    def test_scalars(self, database: Any) -> None:
        """They belong to the thread that made the connection, as the rows of a result do."""
        result = database(SELECT.format(3))
        assert Answer(NDJSONResponse(result.scalars())).body == b"1\n2\n3\n"
        assert result.closed
        with pytest.raises(TypeError, match="row 1 is int; a row is a list"):
            Answer(CSVResponse(database(SELECT.format(3)).scalars()))

    def test_two_columns_of_one_name(self, database: Any) -> None:
        query = "select 1 as id, 2 as id"
        assert Answer(CSVResponse(database(query))).body == b"id,id\r\n1,2\r\n"
        for rows in (database(query).mappings(), database(query).mappings().all()):
            with pytest.raises(ValueError, match="has 2 columns of the name 'id'"):
                Answer(CSVResponse(rows))
        with pytest.raises(ValueError, match="row 1 has 2 columns of the name 'id'"):
            Answer(CSVResponse(database(query).mappings().all(), columns=["id"]))
        for rows in (database(query), database(query).mappings()):
            with pytest.raises(ValueError, match="record 1: a row has 2 columns of the name 'id'"):
                Answer(NDJSONResponse(rows))

    def test_a_result_that_has_no_rows(self, database: Any) -> None:
        with pytest.raises(Exception, match=r"does not return rows|no result set"):
            Answer(CSVResponse(database("create table t (a)")))

    def test_the_result_is_closed_when_the_client_leaves(self, database: Any) -> None:
        result = database(SELECT.format(100_000))
        dropped(CSVResponse(result))
        assert result.closed


@pytest.mark.parametrize("kind", [CSVResponse, NDJSONResponse])
@pytest.mark.parametrize(
    ("library", "name"), [("pandas", "DataFrame"), ("polars", "DataFrame"), ("pyarrow", "table")]
)
def test_a_data_frame_is_no_rows(kind: type[Any], library: str, name: str) -> None:
    """Iterated it gives its columns, which look like rows."""
    frame = getattr(pytest.importorskip(library), name)({"a": [1, 2], "b": [3, 4]})
    with pytest.raises(TypeError, match=r"cannot be a .*, which gives its columns .* frame\.itertuples"):
        kind(frame)


def test_the_rows_of_data_frames() -> None:
    columns = {"a": [1, 2], "b": ["x", "y"]}
    table = b"a,b\r\n1,x\r\n2,y\r\n"
    assert (
        Answer(CSVResponse(pytest.importorskip("pandas").DataFrame(columns).itertuples(index=False))).body
        == table
    )
    frame = pytest.importorskip("polars").DataFrame(columns)
    assert Answer(CSVResponse(frame.iter_rows(named=True))).body == table
    assert Answer(CSVResponse(frame.iter_rows(), header=frame.columns)).body == table


def test_rows_of_sqlite_as_records(connection: sqlite3.Connection) -> None:
    connection.row_factory = sqlite3.Row
    answer = Answer(NDJSONResponse(connection.execute(SELECT.format(2))))
    assert answer.body == b'{"id":1,"name":"row 1"}\n{"id":2,"name":"row 2"}\n'


def test_records_of_sqlite_with_two_columns_of_one_name(connection: sqlite3.Connection) -> None:
    connection.row_factory = sqlite3.Row
    with pytest.raises(ValueError, match="record 1: a row has 2 columns of the name 'id'"):
        Answer(NDJSONResponse(connection.execute("select 1 as id, 2 as id")))
    # By name, sqlite3.Row would give the first of these twice.
    assert Answer(NDJSONResponse(connection.execute("select 1 as id, 2 as ID"))).body == b'{"id":1,"ID":2}\n'


@pytest.mark.parametrize("kind", [NDJSONResponse, JSONSeqResponse, JSONArrayResponse])
@pytest.mark.parametrize("count", [0, 1, 3000])
def test_the_closing_record_is_evidence(kind: type[Any], count: int) -> None:
    body = Answer(kind(({"n": n} for n in range(count)), closing_record=True)).body
    *lines, last = body.splitlines(keepends=True)
    last = last.lstrip(b"[\x1e").rstrip(b"]\n")
    assert json.loads(last) == {"rows": count, "sha256": hashlib.sha256(b"".join(lines)).hexdigest()}
    if kind is JSONArrayResponse:
        assert json.loads(body)[:-1] == [{"n": n} for n in range(count)]


def test_the_closing_record_in_the_docs() -> None:
    body = Answer(NDJSONResponse([{"id": 1}, {"id": 2}], closing_record=True)).body
    assert f"```\n{body.decode()}```" in (ROOT / "docs" / "tables.md").read_text()


@pytest.mark.parametrize("kind", [NDJSONResponse, JSONSeqResponse, JSONArrayResponse])
def test_a_stream_that_breaks_off_has_no_closing_record(kind: type[Any]) -> None:
    def records() -> Iterator[int]:
        yield from range(1000)
        raise RuntimeError("the database went away")

    answer = Answer(kind(records(), closing_record=True))
    assert isinstance(answer.error, RuntimeError)
    assert b"sha256" not in answer.body
    if kind is JSONArrayResponse:
        with pytest.raises(ValueError, match=r"Expecting|delimiter"):
            json.loads(answer.body)


def test_a_closing_record_of_ones_own() -> None:
    response = NDJSONResponse([1, 2], closing_record=lambda rows, sha256: {"end": True, "rows": rows})
    assert Answer(response).body == b'1\n2\n{"end":true,"rows":2}\n'


def test_a_closing_record_that_is_none() -> None:
    with pytest.raises(TypeError, match="closing_record is str; give True, or a callable"):
        NDJSONResponse([], closing_record="end")  # type: ignore[arg-type]


@pytest.mark.parametrize("encoder", ["orjson.dumps", "msgspec.json.encode"])
@pytest.mark.parametrize("kind", [NDJSONResponse, JSONSeqResponse, JSONArrayResponse])
def test_fast_encoders(encoder: str, kind: type[Any]) -> None:
    module, _, name = encoder.rpartition(".")
    dumps = getattr(pytest.importorskip(module), name)
    records = [
        {"n": 1, "text": "NaN and\nInfinity \u2028", "none": None},
        {"n": float("nan")},
        {"I": "N"},
    ]
    body = Answer(kind(records, dumps=dumps)).body.decode()
    found = (
        json.loads(body)
        if kind is JSONArrayResponse
        else list(map(json.loads, body.split("\n")[:-1]))
        if (kind is NDJSONResponse)
        else [json.loads(text) for text in body.split("\x1e")[1:]]
    )
    assert found == [records[0], {"n": None}, {"I": "N"}]


def test_dumps_that_writes_no_json() -> None:
    answer = Answer(NDJSONResponse([1, float("nan")], dumps=json.dumps))
    assert isinstance(answer.error, ValueError)
    assert "record 2: dumps wrote NaN, which JSON does not have" in str(answer.error)
    assert Answer(NDJSONResponse(["NaN", "-Infinity"], dumps=json.dumps)).body == b'"NaN"\n"-Infinity"\n'


def test_a_late_cursor_on_a_thread_of_its_own_has_its_header() -> None:
    """The header is known when the producer is opened, and not before."""
    with closing(sqlite3.connect(":memory:", check_same_thread=False)) as connection:
        answer = Answer(CSVResponse(lambda: connection.execute(SELECT.format(2)), delivery="detached"))
        assert answer.body == b"id,name\r\n1,row 1\r\n2,row 2\r\n"


@pytest.mark.parametrize("kind", [CSVResponse, NDJSONResponse])
@pytest.mark.filterwarnings("error")
def test_an_asynchronous_cursor_is_refused_where_it_is_given(kind: type[Any]) -> None:
    class AsynchronousCursor:
        description = [("one",)]  # noqa: RUF012 - the attribute of PEP 249

        async def fetchmany(self, size: int = 1, /) -> list[tuple[int]]:
            return [(1,)] * size

        async def close(self) -> None:
            pass

    with pytest.raises(TypeError, match="asynchronous code needs an event loop"):
        kind(AsynchronousCursor())
    gc.collect()
