"""Events and records from the bytes of any HTTP client: `requests`, `httpx`, `urllib3`, a file, a socket.

The law: bytes in, in pieces of any size, and each event or record out as soon as its end is there. The iterable that is
given belongs to its caller: it is read to its end, and closed by whoever opened it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from streamkit.errors import DecodeError
from streamkit.formats.event_stream import ServerSentEvent
from streamkit.formats.event_stream_decoder import MAX_EVENT_BYTES, EventStreamDecoder

MAX_LINE_BYTES: Final = 16 * 1024 * 1024
"""Default limit of one record, in bytes: that of one event."""


def read_events(
    chunks: Iterable[bytes],
    *,
    max_event_bytes: int | None = MAX_EVENT_BYTES,
    last_event_id: str = "",
) -> Iterator[ServerSentEvent]:
    """Yield the events in the bytes of a `text/event-stream` body (WHATWG HTML 9.2.6).

    ```python
    response = requests.get(url, stream=True)
    read_events(response.iter_content(None))  # not iter_lines, which cuts elsewhere
    read_events(response.iter_bytes())  # httpx, inside `with httpx.stream("GET", url) as response`
    read_events(response.stream(65536))  # urllib3, with preload_content=False
    ```

    `last_event_id` is the id in force at the start, for who has reconnected; `max_event_bytes` bounds one event, None
    is without limit. An unfinished event at the end is dropped, as the standard demands.

    Raises `DecodeError` where an event exceeds the limit, after the events before it; `TypeError` for text, which
    was decoded without regard to the standard; what `chunks` raises. Status and content type are the caller's to check.
    """
    decoder = EventStreamDecoder(max_event_bytes=max_event_bytes, last_event_id=last_event_id)
    return _events(chunks, decoder)


def _events(chunks: Iterable[bytes], decoder: EventStreamDecoder) -> Iterator[ServerSentEvent]:
    for chunk in chunks:
        yield from decoder.feed(chunk)
    decoder.feed(b"")  # raises what the last chunk has left to raise


def read_json_lines(
    chunks: Iterable[bytes],
    *,
    allow_unterminated: bool = False,
    max_line_bytes: int | None = MAX_LINE_BYTES,
    loads: Callable[[bytes], Any] | None = None,
) -> Iterator[Any]:
    """Yield the records in the bytes of an NDJSON body: one JSON text a line, each line ended by LF.

    Strict, because the format cannot say that it is complete: a last line without its LF is taken for a body that was
    cut (`123` may be the beginning of `12345`), unless `allow_unterminated` is set. Blank lines, which some
    servers send as heartbeats, are skipped, and CR before LF is white space. `loads` takes the bytes of a line
    (`orjson.loads`, `msgspec.json.decode`); the default is `json.loads` without NaN and Infinity. `max_line_bytes`
    bounds one line; None is without limit.

    Raises `DecodeError`, with the number of the line, for what is no JSON in UTF-8, for a line beyond the limit and for
    a cut body, each after the records before it; `ValueError` for a limit below 1; `TypeError` for text; what
    `chunks` raises.
    """
    if max_line_bytes is not None and max_line_bytes < 1:
        raise ValueError(f"max_line_bytes must be at least 1, or None for no limit, not {max_line_bytes!r}")
    return _records(chunks, allow_unterminated, max_line_bytes, loads or _strict_loads)


def _records(
    chunks: Iterable[bytes], allow_unterminated: bool, limit: int | None, loads: Callable[[bytes], Any]
) -> Iterator[Any]:
    number = 0
    begun = bytearray()  # the unfinished line; joined once, when its end has come
    for chunk in chunks:
        if not isinstance(chunk, (bytes, bytearray, memoryview)):
            raise TypeError(f"JSON lines are read from bytes, not {type(chunk).__name__}")
        first, *others = bytes(chunk).split(b"\n")
        begun += first
        if not others:
            _check_length(begun, number + 1, limit)
            continue
        lines = [bytes(begun), *others[:-1]]
        begun = bytearray(others[-1])
        for line in lines:
            number += 1
            _check_length(line, number, limit)
            if line.strip():
                yield _record(line, number, loads)
        _check_length(begun, number + 1, limit)
    if begun.strip():
        if not allow_unterminated:
            raise DecodeError(
                f"line {number + 1} does not end in a newline: the body was cut, and {len(begun)} bytes of a "
                "record are lost; pass allow_unterminated=True where the sender leaves the last newline out"
            )
        yield _record(bytes(begun), number + 1, loads)


def _check_length(line: bytes | bytearray, number: int, limit: int | None) -> None:
    if limit is not None and len(line) > limit:
        raise DecodeError(
            f"line {number} is longer than {limit} bytes; where such records are to be expected, raise max_line_bytes"
        )


def _record(line: bytes, number: int, loads: Callable[[bytes], Any]) -> Any:
    try:
        return loads(line)
    except RecursionError:
        raise DecodeError(f"line {number} is nested too deeply") from None
    except ValueError as error:  # as all decoders' errors are, those of orjson and msgspec too
        raise DecodeError(f"line {number} is not JSON: {error}") from error


def _strict_loads(line: bytes) -> Any:
    # `json.loads` of bytes would guess UTF-16 and UTF-32; RFC 8259 section 8.1 has UTF-8 alone.
    return json.loads(line.decode("utf-8"), parse_constant=_no_constant)


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON (RFC 8259 section 6)")
