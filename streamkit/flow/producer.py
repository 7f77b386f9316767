"""The one object that owns a producer: it opens it, hands out its source, and closes it once.

All methods run on one thread, the producing one (a pump's, or the request's own). That holds for `close()` too,
because a generator can only be closed by a thread that is not inside it, and because database cursors and locks
often belong to the thread that used them first.
"""

from __future__ import annotations

from streamkit.flow.sources import Source, open_source
from streamkit.flow.stream import Stream


class Producer:
    """What a response was given (an iterable, a cursor, a callable, ...), on its way to being a source."""

    def __init__(self, items: object, what: str) -> None:
        self._items: object | None = items
        self._what = what
        self._source: Source[object] | None = None

    def open(self, stream: Stream) -> Source[object]:
        """Call what is callable, check what came of it, and let `stream` cancel it. Raises what the callable raises."""
        items, self._items = self._items, None
        self._source = source = open_source(items, what=self._what)
        stream.call_on_cancel(source.cancel)
        return source

    def close(self) -> None:
        """Close the source; the second call and later ones do nothing. Raises what the producer's `close` raises."""
        source, self._source = self._source, None
        items, self._items = self._items, None
        if source is not None:
            source.close()
        elif items is not None and not callable(items):
            close = getattr(items, "close", None)  # never opened: a HEAD request, or a response nobody sent
            if close is not None:
                close()
