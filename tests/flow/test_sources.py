"""What may stand for a stream's items, who closes it, and what is refused with which advice."""

from __future__ import annotations

import asyncio
import enum
import functools
import inspect
import io
import multiprocessing
import queue
import sqlite3
import tempfile
import threading
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from streamkit.flow.cursor_rows import CursorRows
from streamkit.flow.flush import FLUSH
from streamkit.flow.sources import BLOCK_BYTES, FileBlocks, IterableSource, from_queue, open_source


class Closing:
    """An iterable that counts how often it was closed, as may its iterator."""

    def __init__(self, iterator: Iterable[object] = ()) -> None:
        self.closed = 0
        self._iterator = iterator

    def __iter__(self) -> Any:
        return iter(self._iterator)

    def close(self) -> None:
        self.closed += 1


class ClosingIterator(Closing):
    cancelled = 0

    def __iter__(self) -> ClosingIterator:
        return self

    def __next__(self) -> object:
        raise StopIteration


class OwnSource(ClosingIterator):
    def cancel(self) -> None:
        self.cancelled += 1


class Shade(enum.Enum):
    DARK = 1
    LIGHT = 2


def count_to_three() -> Iterator[int]:
    yield from (1, 2, 3)


def taken(items: object, what: str = "events") -> list[object]:
    source = open_source(items, what=what)
    try:
        return list(iter(source))
    finally:
        source.close()


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ([1, 2, 3], [1, 2, 3]),
        ((), []),
        (count_to_three(), [1, 2, 3]),
        (count_to_three, [1, 2, 3]),
        (functools.partial(range, 3), [0, 1, 2]),
        (lambda: ["a"], ["a"]),
        (iter("ab"), ["a", "b"]),
        (map(str, [1]), ["1"]),
        ({"a": 1}.items(), [("a", 1)]),
        (Shade, [Shade.DARK, Shade.LIGHT]),  # a class, but an iterable one
        (list, []),  # a class that makes an iterable
        (io.StringIO("a\nb"), ["a\n", "b"]),
        (io.BytesIO(b"a\nb"), [b"a\n", b"b"]),
    ],
)
def test_iterables_and_functions_that_return_them(items: object, expected: list[object]) -> None:
    assert taken(items) == expected


def test_the_raw_generator_is_iterated_so_that_an_item_costs_nothing_more() -> None:
    generator = count_to_three()
    source = open_source(generator, what="events")
    assert iter(source) is generator
    assert isinstance(source, IterableSource)
    assert source.iterator is generator
    assert next(source) == 1
    source.cancel()  # has no effect on a generator, and does not fail
    assert list(source) == [2, 3]
    source.close()


def test_a_source_is_taken_as_it_is() -> None:
    source = OwnSource()
    assert open_source(source, what="events") is source
    assert open_source(lambda: source, what="events") is source


def test_a_generator_is_closed_where_it_stands() -> None:
    ended = []

    def producer() -> Iterator[int]:
        try:
            yield 1
            yield 2
        finally:
            ended.append(True)

    source = open_source(producer, what="events")
    assert next(source) == 1
    source.close()
    assert ended == [True]
    source.close()
    assert ended == [True]


def test_a_generator_that_never_started_is_closed_too() -> None:
    generator = count_to_three()
    open_source(generator, what="events").close()
    assert list(generator) == []


def test_an_iterable_is_closed_when_its_iterator_has_no_close() -> None:
    items = Closing([1])
    assert taken(items) == [1]
    assert items.closed == 1


def test_iterator_and_iterable_are_both_closed() -> None:
    iterator = ClosingIterator()
    items = Closing(iterator)
    source = open_source(items, what="events")
    source.close()
    source.close()
    assert (iterator.closed, items.closed) == (1, 1)


def test_an_iterator_is_closed_once() -> None:
    iterator = ClosingIterator()
    open_source(iterator, what="events").close()
    assert iterator.closed == 1


def test_the_iterable_is_closed_although_its_iterator_fails_to() -> None:
    class Failing(ClosingIterator):
        def close(self) -> None:
            raise OSError("iterator")

    items = Closing(Failing())
    source = open_source(items, what="events")
    with pytest.raises(OSError, match="iterator"):
        source.close()
    assert items.closed == 1


def test_cancel_is_forwarded_to_an_iterator_that_has_one() -> None:
    iterator = OwnSource()
    items = Closing(iterator)
    source = open_source(items, what="events")
    assert source is not iterator
    source.cancel()
    assert iterator.cancelled == 1
    source.close()


def test_what_a_function_raises_is_raised() -> None:
    def no_such_user() -> list[int]:
        raise PermissionError("not yours")

    with pytest.raises(PermissionError, match="not yours"):
        open_source(no_such_user, what="events")


# -- what is refused ----------------------------------------------------------------------------------


async def asynchronous() -> AsyncIterator[int]:
    yield 1


async def coroutine() -> list[int]:
    return [1]


class HalfAnIterator:
    def __next__(self) -> int:
        return 1


@pytest.mark.parametrize(
    ("items", "told"),
    [
        ("text", "put it into a list"),
        (b"bytes", "put it into a list"),
        (bytearray(b"x"), "type bytearray"),
        (memoryview(b"x"), "type memoryview"),
        ({"a": 1}, r"value\.items\(\)"),
        (None, "events cannot be None"),
        (7, "type int"),
        (7.5, "type float"),
        (asynchronous(), "plain generator"),
        (asynchronous, "type async_generator returned by asynchronous"),
        (coroutine, "type coroutine returned by coroutine"),
        (Path("a.log"), r"tail_file\(path\)"),
        (lambda: None, "lack a yield or a return"),
        (lambda: "text", "type str returned by"),
        (lambda: lambda: [1], "only one level"),
        (object(), "type object"),
        (HalfAnIterator(), "needs __iter__ as well"),
        (asyncio.Queue, "thread-safe"),
    ],
)
def test_refused_with_advice(items: object, told: str) -> None:
    with pytest.raises(TypeError, match=told):
        open_source(items, what="events")


def test_a_coroutine_is_closed_so_that_no_warning_follows() -> None:
    awaitable = coroutine()
    with pytest.raises(TypeError, match="event loop"):
        open_source(awaitable, what="events")
    assert inspect.getcoroutinestate(awaitable) == inspect.CORO_CLOSED


def test_an_iter_that_fails_says_so_itself_and_is_closed() -> None:
    class Broken(Closing):
        def __iter__(self) -> Any:
            raise TypeError("broken inside")

    items = Broken()
    with pytest.raises(TypeError, match="broken inside"):
        open_source(items, what="events")
    assert items.closed == 1


def test_an_object_that_is_both_synchronous_and_asynchronous_is_iterated() -> None:
    class Both(list[int]):
        def __aiter__(self) -> AsyncIterator[int]:
            return asynchronous()

    assert taken(Both([1])) == [1]


# -- files --------------------------------------------------------------------------------------------


def test_a_binary_file_gives_blocks_as_chunks_and_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "data"
    data = bytes(range(256)) * 300  # 76,800: one block and a part
    path.write_bytes(data)
    file = open(path, "rb")  # noqa: SIM115
    assert taken(file, "chunks") == [data[:BLOCK_BYTES], data[BLOCK_BYTES:]]
    assert file.closed


@pytest.mark.parametrize("size", [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1])
def test_every_size_at_the_edge_of_a_block(size: int) -> None:
    assert b"".join(taken(io.BytesIO(bytes(size)), "chunks")) == bytes(size)  # type: ignore[arg-type]


def test_a_file_with_read_alone_is_enough() -> None:
    class Minimal:
        parts = (b"a", b"b", b"")

        def __init__(self) -> None:
            self._parts = iter(self.parts)

        def read(self, size: int) -> bytes:
            return next(self._parts)

    assert taken(Minimal(), "chunks") == [b"a", b"b"]


def test_temporary_files() -> None:
    with tempfile.TemporaryFile() as file:
        file.write(b"abc")
        file.seek(0)
        assert taken(file, "chunks") == [b"abc"]
    with tempfile.SpooledTemporaryFile() as spooled:
        spooled.write(b"abc")
        spooled.seek(0)
        assert isinstance(open_source(spooled, what="chunks"), FileBlocks)


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_text_file_is_refused_as_chunks_and_closed(tmp_path: Path, wrapped: bool) -> None:
    file: Any
    if wrapped:
        file = tempfile.NamedTemporaryFile("w+")  # noqa: SIM115
    else:
        (tmp_path / "text").write_text("a")
        file = open(tmp_path / "text")  # noqa: SIM115
    with pytest.raises(TypeError, match="binary mode"):
        open_source(file, what="chunks")
    assert file.closed


def test_a_path_as_chunks_is_told_how_to_be_opened() -> None:
    with pytest.raises(TypeError, match=r'open\(path, "rb"\)'):
        open_source(Path("x"), what="chunks")


# -- cursors ------------------------------------------------------------------------------------------


def test_a_cursor_becomes_rows() -> None:
    connection = sqlite3.connect(":memory:")
    source = open_source(lambda: connection.execute("select 1, 2"), what="rows")
    assert isinstance(source, CursorRows)
    assert [row for row in source if row is not FLUSH] == [(1, 2)]
    source.close()
    connection.close()


def test_a_cursor_without_a_result_set_is_refused_and_closed() -> None:
    connection = sqlite3.connect(":memory:")
    cursor = connection.cursor()
    with pytest.raises(ValueError, match="execute a SELECT"):
        open_source(cursor, what="rows")
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        cursor.execute("select 1")
    connection.close()


# -- queues -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [queue.Queue, queue.SimpleQueue, queue.LifoQueue])
def test_a_queue_ends_at_none(kind: Any) -> None:
    items = kind()
    if kind is queue.LifoQueue:
        for item in (None, "b", "a"):
            items.put(item)
    else:
        for item in ("a", "b", None, "later"):
            items.put(item)
    source = open_source(items, what="events")
    assert list(source) == ["a", "b"]
    assert next(source, "ended") == "ended"  # and stays ended
    source.close()


def test_a_queue_of_another_process() -> None:
    items: Any = multiprocessing.get_context("spawn").Queue()
    for item in ("a", "end"):
        items.put(item)  # is pickled: what arrives is a copy
    assert list(from_queue(items, end="end")) == ["a"]
    items.close()
    items.join_thread()


def test_the_end_is_known_by_identity_or_as_an_equal_of_its_type() -> None:
    class Strange:
        def __eq__(self, other: object) -> bool:
            raise AssertionError("compared with a foreign type")

        __hash__ = None  # type: ignore[assignment]

    end = object()
    items: queue.Queue[object] = queue.Queue()
    strange = Strange()
    for item in (None, 0, strange, object, end):
        items.put(item)
    source = from_queue(items, end=end)
    assert next(source) is None
    assert next(source) == 0
    assert next(source) is strange
    assert next(source) is object
    assert next(source, "ended") == "ended"

    numbers: queue.Queue[object] = queue.Queue()
    for number in (False, 0.0, 0):
        numbers.put(number)
    assert [type(item) for item in from_queue(numbers, end=0)] == [bool, float]


def test_cancel_wakes_a_blocked_get_and_leaves_the_queue_alone() -> None:
    waits = threading.Event()

    class Told(queue.Queue[object]):
        def get(self, block: bool = True, timeout: float | None = None) -> object:
            waits.set()
            return super().get(block, timeout)

    items = Told()
    source = open_source(items, what="events")
    taken: list[object] = []
    thread = threading.Thread(target=lambda: taken.extend(source))
    thread.start()
    assert waits.wait(10)
    source.cancel()
    thread.join(10)
    assert not thread.is_alive()
    assert taken == []
    source.close()
    items.put("still works")
    assert items.get() == "still works"


def test_cancelled_before_the_first_item() -> None:
    items: queue.Queue[int] = queue.Queue()
    items.put(1)
    source = from_queue(items)
    source.cancel()
    assert list(source) == []
    assert items.qsize() == 1


def test_a_queue_that_was_shut_down_ends() -> None:
    items: Any = queue.Queue()
    if not hasattr(items, "shutdown"):
        pytest.skip("Queue.shutdown came with Python 3.13")
    items.put(1)
    items.shutdown()
    assert list(from_queue(items)) == [1]


def test_an_asyncio_queue_is_refused() -> None:
    with pytest.raises(TypeError, match=r"queue\.Queue"):
        from_queue(asyncio.Queue())
