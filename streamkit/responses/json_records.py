"""JSON values one after another: NDJSON, a JSON text sequence (RFC 7464), one JSON array (RFC 8259)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from streamkit.flow.cursor_rows import is_cursor
from streamkit.flow.framing import AbortedWhenBroken
from streamkit.flow.sources import Items
from streamkit.formats.json_array import JSONArrayEncoder
from streamkit.formats.json_lines import ClosingRecord, JSONSeqEncoder, NDJSONEncoder
from streamkit.responses.options import StreamOptions
from streamkit.responses.streamed import FLUSH_BYTES, FLUSH_SECONDS, StreamedResponse
from streamkit.responses.streaming import generated_headers

if TYPE_CHECKING:
    from typing_extensions import Unpack

Dumps = Callable[[Any], "str | bytes"]


class _NDJSONFraming(NDJSONEncoder, AbortedWhenBroken):
    pass


class _JSONSeqFraming(JSONSeqEncoder, AbortedWhenBroken):
    pass


class _JSONArrayFraming(JSONArrayEncoder, AbortedWhenBroken):
    pass


_PARAMETERS = """\
items: an iterable, generator, callable or cursor (DB-API, SQLAlchemy) of JSON values; dataclasses, dates, decimals,
    UUIDs and rows with names are encoded too; NaN is refused. What is raised before the first item is a real HTTP
    error; later the connection is aborted, never ended cleanly.
dumps: encodes one value, to `str` or `bytes` (`orjson.dumps`, `msgspec.json.encode`). Default: compact JSON.
closing_record: True ends a complete stream with `{"rows": n, "sha256": "..."}`: how many items, and the digest of
    all bytes before that line. A function from these two makes a record of your own.
flush_bytes, flush_seconds: a chunk goes out at about this size (64 KiB) or age (0.5 s); the first item at once.
options: see StreamOptions.
delivery: "threaded" takes the items on the request's own thread.
"""


class _JSONResponse(StreamedResponse):
    """The parameters that the three share."""

    _kind: str
    _mimetype: str
    _framing: Callable[..., Any]

    def __init__(
        self,
        items: Items,
        *,
        dumps: Dumps | None = None,
        closing_record: ClosingRecord = False,
        flush_bytes: int = FLUSH_BYTES,
        flush_seconds: float | None = FLUSH_SECONDS,
        **options: Unpack[StreamOptions],
    ) -> None:
        super().__init__(
            self._kind,
            type(self)._framing(dumps=dumps, closing_record=closing_record),
            items,
            "items",
            content_type=self._mimetype,
            thread="request" if is_cursor(items) else "own",  # a cursor may belong to the thread that made it
            wait_first=float("inf"),
            flush_bytes=flush_bytes,
            flush_seconds=flush_seconds,
            options=options,
        )
        generated_headers(self)


class NDJSONResponse(_JSONResponse):
    __doc__ = f"JSON lines: each value on a line of its own, `application/x-ndjson`.\n\n{_PARAMETERS}"
    _kind = "ndjson"
    _mimetype = "application/x-ndjson"
    _framing = _NDJSONFraming


class JSONSeqResponse(_JSONResponse):
    __doc__ = f"A JSON text sequence (RFC 7464): RS, value, LF; `application/json-seq`.\n\n{_PARAMETERS}"
    _kind = "json-seq"
    _mimetype = "application/json-seq"
    _framing = _JSONSeqFraming


class JSONArrayResponse(_JSONResponse):
    __doc__ = (
        "One JSON array, item by item; its bracket is closed only when it is complete, so a broken one never"
        f" parses.\n\n{_PARAMETERS}"
    )
    _kind = "json-array"
    _mimetype = "application/json"
    _framing = _JSONArrayFraming
