"""Events to the bytes of `text/event-stream` (WHATWG HTML 9.2.5).

The law of what is written:

- UTF-8 without a byte order mark. Lines end in LF: CRLF is legal, but readers that cut the text at LF LF never find
  the end of an event then.
- One space after every colon. The reader removes exactly one, so a value that begins with a space keeps it.
- Data is cut into lines at CRLF, LF and CR and at nothing else: U+2028, U+0085, VT and FF are ordinary characters here,
  and `str.splitlines` would cut at them.
- A value that would end its own line early (CR or LF in `event` or `id`), or that clients ignore (NUL in `id`), is
  refused when the event is built. Nothing is cleaned in silence, so the encoder has nothing left to check.
- Comments come before an event, never inside it.

Reading is in `event_stream_decoder`. No sockets, clocks or threads: bytes in, bytes out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from streamkit.formats.json_values import compact_json

HEARTBEAT = b":\n"
"""The bytes to send where nothing happens: an empty comment line, with a single LF.

A comment *block* (`: text` and a blank line) is what most servers send, and it is legal; but the blank line makes
several widespread clients hand an empty message to the application at each beat. A comment is just a line, so the blank
line is not needed, and at the border between two events no known client stumbles on this form."""

OPENING = b":\n"
"""The first bytes of a stream. They make the server send its headers before the first event exists, and they protect an
event that begins with U+FEFF: at the very start of a stream that character would be taken for a byte order mark."""

MAX_RETRY_DIGITS = 15
"""Longest `retry` value in digits, sent or obeyed: below 2**53, so that every client can hold it as a number."""

_BLANK_LINE = (b"\n\n", b"\r\r", b"\r\n\r\n")

# A block of bytes that has a data line, and so will be dispatched. A line begins at the start or after CR or LF.
_HAS_DATA = re.compile(rb"(?:\A|[\r\n])data[:\r\n]")


class ServerSentEvent:
    """One event, as it is sent and as it is received. Immutable, hashable, safe to share between threads.

    - `data`: text as it is; `None` for no data line (clients do not dispatch such a block, but its `id` and `retry`
      count); any other value becomes compact JSON (see `compact_json`). `bytes` raise `TypeError`.
    - `event`: the type that a client listens for; `None` or `""` means `message`.
    - `id`: what the client gives back as `Last-Event-ID`; an `int` becomes text. `""` clears the client's cursor.
    - `retry`: milliseconds that the client waits before it reconnects; 0 is legal.
    - `comment`: lines that clients ignore, written before the event.

    Raises `ValueError` for what cannot be sent: CR, LF or NUL in `id`; CR or LF in `event`; a `retry` that is negative,
    not an integer or longer than 15 digits; a lone surrogate anywhere; NaN in JSON; no field at all. `TypeError`
    for a value of the wrong type.

    `.data` gives back **the text that a client receives**: JSON where JSON was made, and LF where the value had CRLF
    or CR, because the format cannot carry a CR. So `sent.data == received.data` always holds. A received event
    always has text in all three places: `data`, `event` (`"message"` where none was sent) and `id` (the one in
    force, `""` where none is), and compares equal to an event built with those. Equality is by all five fields.

    WHATWG HTML 9.2.5 and 9.2.6.
    """

    __slots__ = ("_comment", "_data", "_event", "_id", "_retry", "_wire")

    _data: str | None
    _event: str | None
    _id: str | None
    _retry: int | None
    _comment: str | None
    _wire: bytes | None

    def __init__(
        self,
        data: object = None,
        *,
        event: str | None = None,
        id: str | int | None = None,  # the standard's own name, though it hides a builtin
        retry: int | None = None,  # milliseconds
        comment: str | None = None,
    ) -> None:
        # Encoding is also the check: what cannot be sent must fail here, in the code that made it.
        text = data if data.__class__ is str and "\r" not in data else _data_text(data)
        if id.__class__ is int:
            id = str(id)
        # The plain event of most streams is written out. `isprintable` is one pass in C that is false for CR, LF, NUL
        # and lone surrogates alike (and for some harmless characters, which take the careful way). So do subclasses of
        # `str`: what an f-string makes of a `class Kind(str, Enum)` differs between Python 3.11 and 3.12.
        if (
            retry is None
            and comment is None
            and text.__class__ is str
            and "\n" not in text
            and text.isascii()
            and (event is None or (event.__class__ is str and event.isprintable()))
            and (id is None or (id.__class__ is str and id.isprintable()))
        ):
            if event is None:
                wire = f"data: {text}\n\n" if id is None else f"id: {id}\ndata: {text}\n\n"
            elif id is None:
                wire = f"event: {event}\ndata: {text}\n\n"
            else:
                wire = f"event: {event}\nid: {id}\ndata: {text}\n\n"
            self._wire = wire.encode()
            self._data = text
            self._event = event
            self._id = id
            self._retry = None
            self._comment = None
            return
        self._wire = _encode_carefully(text, event, id, retry, comment)
        self._data = text
        self._event = event if event is None or event.__class__ is str else str.__str__(event)
        self._id = id if id is None or id.__class__ is str else _checked_id(id)
        self._retry = None if retry is None else int(retry)
        self._comment = None if comment is None else str.__str__(comment)

    def encode(self) -> bytes:
        r"""Return the bytes of this event.

        The order is comment lines, `event`, `id`, `retry`, `data`, then the blank line that dispatches it. An event
        with nothing but a comment or a `retry` gets no blank line: there is nothing to dispatch, and a block without
        data is an empty message for several clients.
        """
        wire = self._wire
        if wire is None:  # a received event; encoding it twice at once gives the same bytes twice
            wire = self._wire = _encode_carefully(self._data, self._event, self._id, None, None)
        return wire

    @property
    def data(self) -> str | None:
        """The text that a client receives; None where there is no data line."""
        return self._data

    @property
    def event(self) -> str | None:
        """The type of the event; a received event has `"message"` where none was sent."""
        return self._event

    @property
    def id(self) -> str | None:
        """The id of the event; in a received event the one in force, `""` where none is."""
        return self._id

    @property
    def retry(self) -> int | None:
        """Milliseconds to wait before a reconnection; always None in a received event (see the decoder's)."""
        return self._retry

    @property
    def comment(self) -> str | None:
        """The comment sent before the event; always None in a received event."""
        return self._comment

    def json(self) -> Any:
        """Return the data parsed as JSON. Raises `ValueError` (`json.JSONDecodeError`) where it is not JSON."""
        if self._data is None:
            raise ValueError("an event without data holds no JSON")
        return json.loads(self._data)

    def _fields(self) -> tuple[object, ...]:
        return self._data, self._event, self._id, self._retry, self._comment

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ServerSentEvent):
            return NotImplemented
        return self._fields() == other._fields()

    def __hash__(self) -> int:
        return hash(self._fields())

    def __repr__(self) -> str:
        named = (("event", self._event), ("id", self._id), ("retry", self._retry), ("comment", self._comment))
        shown = [] if self._data is None else [repr(self._data)]
        shown += [f"{name}={value!r}" for name, value in named if value is not None]
        return f"ServerSentEvent({', '.join(shown)})"


def retry_line(milliseconds: int) -> bytes:
    r"""Return `b"retry: n\n"`, to be sent at the end of a stream that is ended on purpose.

    One line with a single LF, not a block: a client obeys `retry` when it has read the line (WHATWG HTML 9.2.6),
    and a block without data is an empty message for several clients. Raises `ValueError` as `ServerSentEvent`.
    """
    return b"retry: %d\n" % _checked_retry(milliseconds)


def encode_item(item: object) -> bytes:
    """Return the bytes of one item of a producer, never empty.

    `ServerSentEvent`; `str` is data; `bytes` are a block (or several) encoded already, which must end with a
    blank line (LF LF, CR CR or CRLF CRLF); anything else is JSON data.

    Raises `ValueError` for bytes that are not a whole block and for data that cannot be sent; `TypeError` for
    None and for a type that JSON does not know.
    """
    if item.__class__ is str and "\n" not in item and "\r" not in item:
        try:
            return f"data: {item}\n\n".encode()
        except UnicodeEncodeError:
            pass  # what follows raises too, and says where the lone surrogate is
    if isinstance(item, ServerSentEvent):
        return item.encode()
    if isinstance(item, bytes):
        return _checked_block(item)
    _refuse_none(item)
    if isinstance(item, (str, bytearray, memoryview)):
        return ServerSentEvent(item).encode()
    item = declared_event(item)
    if isinstance(item, ServerSentEvent):
        return item.encode()
    return f"data: {compact_json(item)}\n\n".encode()  # one line of ASCII


class EventStreamEncoder:
    """Turns the items that a producer yields into the bytes of one event stream.

    - `retry`: milliseconds; written **inside the block of the first event** that has data, never in a block of
      its own (which is an empty message for several clients). An event with its own `retry` keeps that one.
      None sends none.
    - `done`: the text of a last event that carries nothing else, such as `"[DONE]"`; None sends none. It never
      carries `retry`, since its readers expect the bare line.

    Raises `ValueError` for a `retry` or a `done` that cannot be sent, `TypeError` for a `done` that is not text.
    One encoder belongs to one stream. `encode` keeps state and is not for two threads at once.
    """

    __slots__ = ("_retry", "_tail", "encode")

    encode: Callable[[object], bytes]
    """The bytes of one item: `encode_item`, where no `retry` waits for an event that can carry it.

    An attribute, because a method that only calls that function costs a third more for each of thousands of items."""

    def __init__(self, *, done: str | None = None, retry: int | None = None) -> None:
        self._retry = None if retry is None else _checked_retry(retry)
        self._tail = b"" if done is None else ServerSentEvent(_checked_text("done", done)).encode()
        self.encode = encode_item if retry is None else self._encode_with_retry

    def head(self) -> bytes:
        """Return the first bytes of the stream, an empty comment: see `OPENING`."""
        return OPENING

    def tail(self) -> bytes:
        """Return the bytes that end the stream: the `done` block, or nothing."""
        return self._tail

    def join(self, frames: Sequence[bytes]) -> bytes:
        """Return what `encode` gave, put together as one chunk."""
        return b"".join(frames)

    def _encode_with_retry(self, item: object) -> bytes:
        """Encode an item while `retry` waits for an event that can carry it, and after that for who still calls it."""
        retry = self._retry
        if retry is None:
            return encode_item(item)
        item = declared_event(item)
        if isinstance(item, bytes):
            block = _checked_block(item)
            if not _HAS_DATA.search(block):
                return block
            frame = b"retry: %d\n%b" % (retry, block)
        elif not isinstance(item, ServerSentEvent):
            _refuse_none(item)
            frame = ServerSentEvent(item, retry=retry).encode()
        elif item.retry is not None:
            frame = item.encode()
        elif item.data is not None:
            frame = ServerSentEvent(
                item.data, event=item.event, id=item.id, retry=retry, comment=item.comment
            ).encode()
        else:
            return item.encode()
        self._retry = None  # only now: an item that cannot be sent does not use it up
        self.encode = encode_item
        return frame


def _encode_carefully(text: object, event: object, id: object, retry: object, comment: object) -> bytes:
    """Check every field and encode them in the order of the standard's examples."""
    lines: list[str] = []
    if comment is not None:
        # Each line of a comment needs its own colon, or its second line would be a field.
        comment_lines = _with_line_feeds(_checked_text("comment", comment)).split("\n")
        lines += [f": {line}" if line else ":" for line in comment_lines]
    if event is not None:
        lines.append(f"event: {_checked_event(event)}")
    if id is not None:
        lines.append(f"id: {_checked_id(id)}")
    if retry is not None:
        lines.append(f"retry: {_checked_retry(retry)}")
    if text is not None:
        # Data "" still needs one line: without a data line nothing is dispatched.
        lines.append("data: " + _checked_text("data", text).replace("\n", "\ndata: "))
    if not lines:
        raise ValueError(
            "an event without data, event, id, retry and comment has nothing to send; "
            'give data="" for an event with empty data'
        )
    if text is not None or event is not None or id is not None:
        lines.append("")
    return ("\n".join(lines) + "\n").encode()


def declared_event(item: object) -> object:
    """The event that an instance of a declared event stands for (see `event_schema`); other items as they are."""
    convert = getattr(type(item), "__server_sent_event__", None)
    return item if convert is None else convert(item)


def _with_line_feeds(text: str) -> str:
    """Return `text` with LF for CRLF and CR: three ways to end a line, of which a reader gives back LF."""
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def _data_text(data: object) -> str | None:
    """Return the text that a client receives for `data`."""
    if data is None:
        return None
    if isinstance(data, str):
        return _with_line_feeds(str.__str__(data))
    if isinstance(data, (bytes, bytearray, memoryview)):
        raise TypeError(
            f"event data cannot be {type(data).__name__}: an event stream is text; decode it first, or send it as "
            "base64 (bytes that a producer yields by themselves are a block that is encoded already)"
        )
    return compact_json(data)


def _refuse_none(item: object) -> None:
    if item is None:
        raise TypeError(
            "None is not an event; yield ServerSentEvent(id=...) for a block without data, "
            'the text "null" for JSON null, or nothing at all'
        )


def _checked_block(block: bytes) -> bytes:
    if not block.endswith(_BLANK_LINE):
        raise ValueError(
            f"{bytes(block[-40:])!r} does not end a block of events: bytes must end with a blank line "
            r"(b'\n\n', b'\r\r' or b'\r\n\r\n'); yield str for data that is not encoded yet"
        )
    return block


def _checked_text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be str or None, not {type(value).__name__}")
    text = str.__str__(value)  # of a subclass the text itself, not what its __str__ shows
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{name} has the lone surrogate {text[error.start]!r} at index {error.start}, which UTF-8 cannot "
            "hold; replace it, or decode its source with errors='replace'"
        ) from None
    return text


def _checked_event(value: object) -> str:
    text = _checked_text("event", value)
    if "\n" in text or "\r" in text:
        raise ValueError(f"event {text!r} has a line break, which would end its line early; use one line")
    return text


def _checked_id(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(int(value))
    if not isinstance(value, str):
        raise TypeError(f"id must be str, int or None, not {type(value).__name__}")
    text = _checked_text("id", value)
    if "\n" in text or "\r" in text:
        raise ValueError(f"id {text!r} has a line break, which would end its line early; use one line")
    if "\0" in text:
        raise ValueError(f"id {text!r} has a NUL, and clients ignore such an id; leave it out")
    return text


def _checked_retry(value: object) -> int:
    limit = 10**MAX_RETRY_DIGITS
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < limit:
        return int(value)
    # Python refuses to print an integer of thousands of digits.
    shown = "an integer that long" if isinstance(value, int) and abs(value) >= limit else repr(value)
    raise ValueError(
        f"retry cannot be {shown}: it is in milliseconds, an int from 0 to {limit - 1}, or None to send none"
    )
