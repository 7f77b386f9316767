"""What a stream pulls its items from, and how anything a user may hand over becomes that.

Law of this file
- A stream owns its source from `open_source` on: what `open_source` refuses is closed, if it has a `close`.
- The stream iterates `iter(source)`, once (or what a `BatchedSource` has instead); `close` and `cancel` go to the
  source itself. So a plain generator costs nothing per item: `IterableSource.__iter__` hands out the raw iterator.
- One thread opens, iterates and closes. `cancel` is the only method for other threads, and it never blocks.
"""

from __future__ import annotations

import inspect
import io
import os
import queue
import threading
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Iterator, Mapping
from functools import partial
from types import GeneratorType
from typing import Any, Final, Protocol, TypeVar

from streamkit.flow.cursor_rows import cursor_rows, is_cursor

T_co = TypeVar("T_co", covariant=True)


class Fetches(Protocol):
    """A DB-API cursor (PEP 249), also one that cannot be iterated."""

    def fetchmany(self, size: int = ..., /) -> Any:
        """Up to `size` rows."""
        ...


class Gets(Protocol):
    """A queue: `queue.Queue`, `SimpleQueue`, that of multiprocessing."""

    def get(self, block: bool = ..., timeout: float | None = ..., /) -> Any:
        """The next item."""
        ...

    def get_nowait(self) -> Any:
        """The next item, or queue.Empty."""
        ...


Items = Iterable[object] | Callable[[], object] | Fetches | Gets
"""What a response may be given: see `open_source`. Some of it (text, mappings) is refused all the same."""

# 64 KiB: the default of flush_bytes, so that one block is one chunk; also what a Linux pipe holds.
BLOCK_BYTES: Final = 64 * 1024

# Seconds. `queue.Queue` offers no way to wake one waiting `get` except to put something in, and a user's
# queue must not be altered: others may read from it too. Two looks a second cost nothing and end a cancelled
# stream soon enough.
QUEUE_POLL_SECONDS: Final = 0.5

_SHUT_DOWN: Final[type[Exception] | None] = getattr(queue, "ShutDown", None)  # since Python 3.13


class Source(Protocol[T_co]):
    """An iterator with an end that can be asked for. Write one to stream from something of your own.

    Every stream calls `iter(source)` once and takes its items from what that returns (the source itself, or
    an iterator that is faster), all on one thread; then, whatever happened, `close()` on that same thread.
    """

    def __iter__(self) -> Iterator[T_co]:
        """The iterator that the stream takes its items from."""
        ...

    def __next__(self) -> T_co:
        """The next item; may block. Raises StopIteration at the end and after `cancel()`."""
        ...

    def close(self) -> None:
        """Release everything: files, cursors, processes, locks.

        Called exactly once by a stream, on the thread that called `next()`, also when nothing was ever taken.
        It may block for a bounded time. A second call must do nothing.
        """
        ...

    def cancel(self) -> None:
        """Wake a blocked `next()` as soon as possible; it then raises StopIteration.

        May be called from any thread, at any moment (before the first `next()`, beside `close()`, after it),
        any number of times. Must not block. Items that were ready before the call may still be delivered.
        """
        ...


class IterableSource:
    """A plain iterable, iterator or generator as a source.

    `iter(source)` is the raw iterator: looping over it costs what looping over the iterable costs.

    A Python generator that is blocked (in a `recv`, a `sleep`, a query) cannot be interrupted by another
    thread: `cancel` has no effect on it, and it ends at its next `yield`. An iterator that has a `cancel`
    method of its own (the call object of a gRPC stream) has it called.
    """

    __slots__ = ("_items", "iterator")

    def __init__(self, items: Iterable[Any]) -> None:
        self._items: object | None = items
        self.iterator: Iterator[Any] = iter(items)

    def __iter__(self) -> Iterator[Any]:
        return self.iterator

    def __next__(self) -> Any:
        return next(self.iterator)

    def close(self) -> None:
        """Close the iterator, then the iterable it came from, each if it has a `close` (as PEP 3333 demands).

        Both are closed, then the first error is raised. The second call does nothing.
        """
        items, self._items = self._items, None
        if items is None:
            return
        try:
            if self.iterator is not items:
                _close(self.iterator)
        finally:
            _close(items)

    def cancel(self) -> None:
        """Forward to the iterator if it has a `cancel`; see the class."""
        cancel = getattr(self.iterator, "cancel", None)
        if callable(cancel):
            cancel()


class FileBlocks(IterableSource):
    """A binary file object as blocks of at most 64 KiB; `close()` closes the file.

    `read1` is preferred to `read`: on a pipe or a socket it returns what is there instead of waiting for a
    full block.
    """

    __slots__ = ()

    def __init__(self, file: Any) -> None:
        read: Callable[[int], bytes] = getattr(file, "read1", None) or file.read
        self._items = file
        self.iterator = iter(partial(read, BLOCK_BYTES), b"")


class QueueSource:
    """The items of a queue; see `from_queue`."""

    __slots__ = ("_cancelled", "_end", "_queue")

    def __init__(self, items: Any, end: object) -> None:
        self._queue = items
        self._end = end
        self._cancelled = threading.Event()

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        end = self._end
        while not self._cancelled.is_set():
            try:
                item = self._queue.get(timeout=QUEUE_POLL_SECONDS)
            except queue.Empty:
                continue
            except Exception as error:
                if _SHUT_DOWN is not None and isinstance(error, _SHUT_DOWN):
                    break
                raise
            # Types first: `==` on a foreign type may answer with anything (a NumPy array answers with an
            # array).
            if item is end or (type(item) is type(end) and item == end):
                break
            return item
        self._cancelled.set()  # an iterator that has ended stays ended
        raise StopIteration

    def close(self) -> None:
        """The queue belongs to its owner: nothing is taken from it and nothing is closed."""
        self._cancelled.set()

    def cancel(self) -> None:
        """End the iteration; a blocked `next()` notices within 0.5 s."""
        self._cancelled.set()


def from_queue(items: Any, *, end: object = None) -> Source[Any]:
    """The items of a queue, until `end` comes.

    items: `queue.Queue`, `queue.SimpleQueue`, `multiprocessing.Queue`, a manager's queue: anything whose
    `get(timeout=seconds)` raises `queue.Empty`. end: the item that ends the stream, None by default. It is
    recognised by identity, or by equality with an item of the same type (a sentinel that went through a pipe
    to another process is a copy: use a string or a number there, not `object()`). `Queue.shutdown()` (Python
    3.13) ends the stream too.

    A blocked `next()` wakes within 0.5 s of `cancel()`. Several streams may share one queue; each item
    reaches one of them, and one `end` ends one of them. Raises TypeError for an `asyncio.Queue`, which no
    thread may wait on.
    """
    if inspect.iscoroutinefunction(getattr(items, "get", None)):
        raise TypeError(
            f"cannot read from {_name(type(items))}: its get() is a coroutine and not thread-safe;"
            " put the items into a queue.Queue"
        )
    return QueueSource(items, end)


def open_source(items: object, *, what: str) -> Source[Any]:
    """Make a source of anything that may stand for a stream's items. Call it on the thread that will iterate.

    items: a `Source`; a DB-API cursor with a result set; a queue; any iterable, iterator or generator; a
    function without parameters that returns one of those (it is called here, and what it raises is raised). A
    file object gives its lines; but where `what` is "chunks" a binary one gives blocks of up to 64 KiB, and a
    text one is refused.
    what: the noun for messages: "events", "rows", "chunks".

    Raises TypeError for what cannot be a stream, or would be one by mistake (text, bytes, a mapping), and ValueError
    for a cursor without a result set and for a generator that has ended, whose stream would look like a success.
    Whatever is refused is closed.
    """
    called = ""
    if _is_function(items):
        called = f" returned by {_name(items)}"
        items = items()  # type: ignore[operator]
    try:
        return _source_of(items, what, called)
    except BaseException:
        close_quietly(items)  # a coroutine too: or Python warns that it was never awaited
        raise


def check_items(items: object, what: str) -> None:
    """Raise what `open_source` would raise for something of this kind, without calling, opening or closing anything."""
    if inspect.iscoroutinefunction(items) or inspect.isasyncgenfunction(items):
        raise TypeError(_refusal(items, what, ""))
    if not _is_function(items):
        _check_kind(items, what, "")


def _check_kind(items: object, what: str, called: str) -> None:
    if isinstance(items, (str, bytes, bytearray, memoryview, Mapping)) or _is_asynchronous(items):
        raise TypeError(_refusal(items, what, called))
    if is_cursor(items) or _is_queue(items):
        return
    if what == "chunks" and _is_file(items):
        if _is_text_file(items):
            raise TypeError(
                f"chunks are bytes, and {_name(type(items))}{called} is a text file: open it in binary mode,"
                ' open(path, "rb"), or give its .buffer'
            )
        return
    kind = type(items)
    if not (hasattr(kind, "__iter__") or hasattr(kind, "__getitem__")):
        raise TypeError(_refusal(items, what, called))
    if isinstance(items, GeneratorType) and items.gi_frame is None:
        raise ValueError(
            f"the generator {items.__qualname__!r} has ended already; make a new one for each request: call its"
            " function in the view"
        )


def close_quietly(items: object) -> None:
    """Close what is refused, if it has a `close`; what that raises is dropped: the first error is the one to show."""
    try:
        _close(items)
    except Exception:
        pass


def _is_function(items: object) -> bool:
    kind = type(items)
    if hasattr(kind, "__iter__") or hasattr(kind, "__next__"):
        return False  # an iterable that happens to be callable is an iterable
    return callable(items) and not (is_cursor(items) or _is_queue(items) or _is_file(items))


def _is_asynchronous(items: object) -> bool:
    if isinstance(items, Awaitable):
        return True
    if inspect.iscoroutinefunction(getattr(items, "fetchmany", None)):
        return True
    return isinstance(items, AsyncIterable) and not isinstance(items, Iterable)  # some offer both


def _is_queue(items: object) -> bool:
    return (
        not isinstance(items, type)
        and hasattr(items, "get_nowait")
        and hasattr(items, "get")
        and hasattr(items, "put")
        and not hasattr(type(items), "__iter__")
    )


def _is_file(items: object) -> bool:
    return not isinstance(items, type) and callable(getattr(items, "read", None))


def _is_text_file(items: object) -> bool:
    # The wrappers of tempfile and codecs are no TextIOBase, but have an `encoding`; binary files have none.
    return isinstance(items, io.TextIOBase) or hasattr(items, "encoding")


def _source_of(items: Any, what: str, called: str) -> Source[Any]:
    _check_kind(items, what, called)
    if is_cursor(items):  # before the next line: a pyodbc cursor has next, close and cancel as well
        return cursor_rows(items)
    if hasattr(type(items), "__next__") and hasattr(items, "close") and hasattr(items, "cancel"):
        source: Source[Any] = items
        return source
    if _is_queue(items):
        return from_queue(items)
    if what == "chunks" and _is_file(items):
        return FileBlocks(items)
    return IterableSource(items)


def _refusal(items: object, what: str, called: str) -> str:
    given = "None" if items is None else f"a value of type {_name(type(items))}"
    return (
        f"{what} cannot be {given}{called}: give an iterable, a generator, a function that returns one,"
        f" a queue, a database cursor, or a source; {_advice(items, what, called)}"
    )


def _advice(items: object, what: str, called: str) -> str:
    if isinstance(items, (str, bytes, bytearray, memoryview)):
        return "to send this one value, put it into a list: [value]"
    if isinstance(items, Mapping):
        return "to send it as one item, put it into a list: [value]; for its pairs give value.items()"
    if _is_asynchronous(items) or inspect.iscoroutinefunction(items) or inspect.isasyncgenfunction(items):
        return (
            "asynchronous code needs an event loop: write a plain generator, or run the loop in a thread and"
            " put the items into a queue.Queue"
        )
    if items is None:
        return "does the function lack a yield or a return?" if called else "for an empty stream give ()"
    if isinstance(items, os.PathLike):
        return 'open it first: open(path, "rb")' if what == "chunks" else "for its lines give tail_file(path)"
    if hasattr(type(items), "__next__"):
        return "an iterator needs __iter__ as well, which returns self"
    if hasattr(items, "subscribe"):
        return "for the events of a hub give hub.subscribe(topic)"
    if callable(items):
        return "call it yourself: only one level of functions is called"
    return "to send this one value, put it into a list: [value]"


def _name(thing: object) -> str:
    name = getattr(thing, "__qualname__", None)
    return name if isinstance(name, str) else type(thing).__qualname__


def _close(thing: object) -> None:
    close = getattr(thing, "close", None)
    if callable(close) and not isinstance(thing, type) and not inspect.iscoroutinefunction(close):
        close()
