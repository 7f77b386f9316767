"""The bytes of `text/event-stream` to events, as they arrive (WHATWG HTML 9.2.5 and 9.2.6).

The law of what is read:

- Any bytes in, in pieces of any size; the events do not depend on where the pieces were cut.
- Invalid UTF-8 becomes U+FFFD, unknown fields are skipped, an unfinished block at the end of the stream is dropped: the
  standard knows no malformed stream. The one error is `DecodeError`, for an event that exceeds the size limit.
- An event is given back in the call that brings the end of its blank line. A CR that ends a piece ends the line now; if
  an LF follows in the next piece, it belongs to it and is skipped.
- Every byte is looked at a fixed number of times, whatever the size of an event and of the pieces.

How it is fast: CRLF and CR become LF first, which changes no line. Whole blocks are then taken apart by one regular
expression in C, for the shapes that servers really write, or from one LF to the next where lines are long; every other
line, and what is before and after the whole blocks of a piece, goes through `_line`, which follows the standard's text.
Writing is in `event_stream`.
"""

from __future__ import annotations

import re
import sys
from typing import NoReturn

from streamkit.errors import DecodeError
from streamkit.formats.event_stream import MAX_RETRY_DIGITS, ServerSentEvent

MAX_EVENT_BYTES = 16 * 1024 * 1024
"""Default limit of one event, in bytes: above the 5 to 10 MB that single events are known to reach."""

_BOM = b"\xef\xbb\xbf"

_LONG_BLOCK = 1024
"""Characters of a block from which on looking for its line ends is faster than matching it: a regular expression looks
at each character, `str.find` at many at once. Measured: below this the expression is faster, above it is not."""


def _usual_block(colon: str, id_first: bool) -> re.Pattern[str]:
    r"""Return what matches one block of the usual shape, or else one line.

    Usual is at most one `event` and one `id` line, then one to eight data lines; every colon followed by a space, or
    none (some frameworks write `data:x`); and no empty value but the data's. Groups: the two first fields, the data,
    any other line. That last alternative takes a line by itself, so no text lies between two matches. The bound of
    eight keeps the time linear: a block that fails at its end is tried again from each of its lines.
    """
    event, one_id = rf"(?:event{colon}(.+)\n)?", rf"(?:id{colon}(.+)\n)?"
    fields = one_id + event if id_first else event + one_id
    return re.compile(rf"{fields}data{colon}(.*(?:\ndata{colon}.*){{0,7}})\n\n|(.*\n)")


# By the first block of a text: is there a space after the colon, and is the id its first line.
_USUAL_BLOCK = {
    (spaced, id_first): _usual_block(": " if spaced else ":(?! )", id_first)
    for spaced in (True, False)
    for id_first in (True, False)
}
_LATER_DATA_LINE = re.compile(r"\ndata: ?")

_new_event = ServerSentEvent.__new__


class EventStreamDecoder:
    """An incremental parser of one event stream.

    `max_event_bytes` bounds what is kept of one event: the bytes of its lines without line ends, where comments and
    unknown fields count only until their line ends. None sets no limit. What exceeds it is a `DecodeError`, after which
    the rest of the stream cannot be read. `last_event_id` is the id in force when the stream begins, for a client that
    has reconnected.

    Raises `ValueError` for a limit below 1. One decoder belongs to one stream and to one thread at a time.
    """

    __slots__ = (
        "_beginning", "_between", "_data", "_failure", "_fragment", "_id", "_kept", "_limit", "_skip_line_feed",
        "_type", "last_event_id", "retry",
    )  # fmt: skip

    last_event_id: str
    """The id that a reconnection gives back: set by the blank line after it, kept until another comes."""

    retry: int | None
    """Milliseconds to wait before a reconnection, as last told by the stream; None while it has told nothing."""

    def __init__(
        self,
        *,
        max_event_bytes: int | None = MAX_EVENT_BYTES,
        last_event_id: str = "",
    ) -> None:
        if max_event_bytes is not None and max_event_bytes < 1:
            raise ValueError(
                f"max_event_bytes must be at least 1, or None for no limit, not {max_event_bytes!r}"
            )
        self.last_event_id = last_event_id
        self.retry = None
        self._limit = sys.maxsize if max_event_bytes is None else max_event_bytes
        self._beginning: bytes | None = b""  # None once it is known whether the stream begins with a BOM
        self._skip_line_feed = False  # the last byte was a CR
        self._fragment = bytearray()  # the unfinished line
        self._data: list[str] = []  # the standard's data buffer, one entry a line
        self._type = ""  # the event type buffer
        self._id = last_event_id  # the last event ID buffer
        self._kept = 0  # bytes of the finished lines of the unfinished event
        self._between = False  # nothing of any of these is pending: the stream stands between two events
        self._failure: str | None = None

    def feed(self, data: bytes) -> list[ServerSentEvent]:
        """Take the next bytes of the stream and return the events that they complete, in order.

        `data` may be of any length; `b""` is allowed and says nothing. Each event has `data`, `event` (`"message"` if
        none was sent) and `id` (the one in force) as text.

        Raises `DecodeError` where an event exceeds the limit, then and at every later call. Events that came whole
        before it in the same call are returned first, and the error is raised by the next call. `TypeError` for text.
        """
        if self._failure is not None:
            raise DecodeError(self._failure)
        if data.__class__ is not bytes:
            data = _as_bytes(data)
        events: list[ServerSentEvent] = []
        if self._between and data.endswith(b"\n\n") and b"\r" not in data and len(data) <= self._limit:
            self._whole_blocks(data.decode("utf-8", "replace"), events)
            return events
        data = self._with_line_feeds(data)
        end = data.rfind(b"\n") + 1
        try:
            if end:
                begin = 0
                fragment = self._fragment
                self._fragment = bytearray(data[end:])
                if fragment:
                    # An unfinished line is joined and copied once, when its end has come.
                    begin = data.find(b"\n") + 1
                    fragment += data[:begin]
                    self._line_by_line(bytes(fragment), events)
                self._whole_lines(data, begin, end, events)
            else:
                self._fragment += data
            if self._kept + len(self._fragment) > self._limit:
                self._fail()
            self._between = not (
                self._kept or self._fragment or self._skip_line_feed or self._beginning is not None
            )
        except DecodeError:
            if not events:
                raise
        return events

    def _with_line_feeds(self, data: bytes) -> bytes:
        """Return what is new in the stream, without a BOM at its start, and with LF as the only line end."""
        if self._beginning is not None:
            # 9.2.5: one leading BOM is ignored, and only here. It may arrive in pieces.
            data = self._beginning + data
            if len(data) < len(_BOM) and _BOM.startswith(data):
                self._beginning = data
                return b""
            self._beginning = None
            data = data.removeprefix(_BOM)
        if self._skip_line_feed and data:
            self._skip_line_feed = False
            if data.startswith(b"\n"):
                data = data[1:]
        if b"\r" in data:
            self._skip_line_feed = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n")
            if b"\r" in data:
                data = data.replace(b"\r", b"\n")
        return data

    def _whole_lines(self, data: bytes, begin: int, end: int, events: list[ServerSentEvent]) -> None:
        """Take the lines of `data` from `begin` to `end`, each with its LF."""
        # Where all of it fits into the limit, nothing in it can exceed it, and whole blocks need no closer look.
        if end - begin <= self._limit - self._kept:
            if self._kept:
                stop = _end_of_block(data, begin, end)  # the block that an earlier call began
                self._line_by_line(data[begin:stop], events)
                begin = stop
            last = data.rfind(b"\n\n", begin, end)
            if last >= 0:
                # Decoding whole blocks and decoding each of their lines is the same: no character holds an LF.
                self._whole_blocks(data[begin : last + 2].decode("utf-8", "replace"), events)
                begin = last + 2
        if begin < end:
            self._line_by_line(data[begin:end], events)

    def _whole_blocks(self, text: str, events: list[ServerSentEvent]) -> None:
        """Take blocks, each with its blank line, that begin where no event is unfinished."""
        # The next kind of event is guessed from the first: a wrong guess costs time, nothing else.
        if len(text) > _LONG_BLOCK and text.find("\n\n", 0, _LONG_BLOCK) < 0:
            self._long_blocks(text, events)
            return
        if not text.startswith("data: "):
            self._matched_blocks(text, events)
            return
        # Token streams are often nothing but single data lines, and cutting between them is faster than matching.
        current = self.last_event_id
        for part in text[6:-2].split("\n\ndata: "):
            if "\n" in part:
                self._matched_blocks(f"data: {part}\n\n", events)
                current = self.last_event_id
                continue
            event = _new_event(ServerSentEvent)
            event._data = part
            event._event = "message"
            event._id = current
            event._retry = event._comment = event._wire = None
            events.append(event)

    def _long_blocks(self, text: str, events: list[ServerSentEvent]) -> None:
        """Take blocks as `_whole_blocks` does, of any shape; fast where their data is one long line."""
        find = text.find
        begin, end = 0, len(text)
        while begin < end:
            start = begin  # of the line that is looked at
            if text.startswith("event: ", start):
                stop = find("\n", start)
                self._type = text[start + 7 : stop]
                start = stop + 1
            if text.startswith("id: ", start):
                stop = find("\n", start)
                value = text[start + 4 : stop]
                if "\0" not in value:
                    self._id = value
                start = stop + 1
            stop = find("\n", start)
            if text.startswith("data: ", start) and text.startswith("\n", stop + 1) and not self._data:
                event = _new_event(ServerSentEvent)
                event._data = text[start + 6 : stop]
                event._event = self._type or "message"
                event._id = self._id
                event._retry = event._comment = event._wire = None
                events.append(event)
                self.last_event_id = self._id
                self._type = ""
                begin = stop + 2
            else:
                self._line(text[start:stop], 0, events)
                begin = stop + 1

    def _matched_blocks(self, text: str, events: list[ServerSentEvent]) -> None:
        """Take blocks as `_whole_blocks` does, of any shape."""
        id_first = text.startswith("id:")
        pattern = _USUAL_BLOCK[_seems_spaced(text), id_first]
        current = self.last_event_id  # the last event ID buffer, while this runs
        begun = False  # lines before belong to the same block
        # The fields of an event are set here and not by a call: that call would cost as much as the rest.
        for kind, one_id, data, other in pattern.findall(text):
            if other:
                if not other.startswith(":"):
                    self._id = current
                    self._line(other[:-1], len(other), events)
                    current = self._id
                    begun = self._kept > 0
                continue
            if id_first:
                kind, one_id = one_id, kind
            if one_id and "\0" not in one_id:
                current = one_id
            if "\n" in data:
                data = _LATER_DATA_LINE.sub("\n", data)
            if begun:
                self._id = current
                self._type = kind or self._type
                self._data.append(data)
                self._dispatch(events)
                begun = False
                continue
            event = _new_event(ServerSentEvent)
            event._data = data
            event._event = kind or "message"
            event._id = current
            event._retry = event._comment = event._wire = None
            events.append(event)
        self._id = self.last_event_id = current

    def _line_by_line(self, lines: bytes, events: list[ServerSentEvent]) -> None:
        """Take lines, each with its LF, and see that none exceeds the limit."""
        for line in lines.split(b"\n")[:-1]:
            if self._kept + len(line) > self._limit:
                self._fail()
            self._line(line.decode("utf-8", "replace"), len(line), events)

    def _line(self, line: str, size: int, events: list[ServerSentEvent]) -> None:
        """Interpret one line without its end, `size` bytes long; WHATWG HTML 9.2.6, in its order."""
        # "If the line is empty (a blank line): Dispatch the event".
        if not line:
            self._dispatch(events)
            return
        # "If the line starts with a U+003A COLON character (:): Ignore the line."
        # "Collect the characters on the line before the first U+003A COLON character (:), and let field be that
        # string." Without a colon the whole line is the name, and the value is empty.
        field, _, value = line.partition(":")
        # "If value starts with a U+0020 SPACE character, remove it from value." One, and no other white space.
        value = value.removeprefix(" ")
        if field == "data":
            self._data.append(value)
        elif field == "event":
            self._type = value
        elif field == "id":
            # "If the field value does not contain U+0000 NULL, then set the last event ID buffer to the field value."
            if "\0" not in value:
                self._id = value
        else:
            # "If the field value consists of only ASCII digits, then interpret the field value as an integer in base
            # ten, and set the event stream's reconnection time to that integer." `int` alone would take `1_0`, `-3`
            # and Arabic digits. Obeyed when read: no blank line is needed.
            if field == "retry" and value.isascii() and value.isdigit():
                digits = value.lstrip("0") or "0"
                if len(digits) <= MAX_RETRY_DIGITS:
                    self.retry = int(digits)
            return  # "Otherwise: The field is ignored." Nothing of it is kept.
        self._kept += size

    def _dispatch(self, events: list[ServerSentEvent]) -> None:
        """End a block at its blank line; WHATWG HTML 9.2.6, "dispatch the event"."""
        # "Set the last event ID string of the event source to the value of the last event ID buffer." Also where
        # nothing is dispatched.
        self.last_event_id = self._id
        # "If the data buffer is an empty string, set the data buffer and the event type buffer to the empty string and
        # return." A data line leaves at least its LF in that buffer, so one empty data line is an event.
        if self._data:
            event = _new_event(ServerSentEvent)
            event._data = "\n".join(self._data)
            event._event = self._type or "message"
            event._id = self._id
            event._retry = event._comment = event._wire = None
            events.append(event)
            self._data = []
        self._type = ""
        self._kept = 0

    def _fail(self) -> NoReturn:
        """Give up the stream and release what was kept of it."""
        self._failure = (
            f"an event of the stream is longer than {self._limit} bytes; nothing after it can be read. "
            "Where such events are to be expected, give the decoder a higher max_event_bytes"
        )
        self._fragment = bytearray()
        self._data = []
        raise DecodeError(self._failure)


def _seems_spaced(text: str) -> bool:
    """Tell whether the first data line has a space after its colon. A wrong guess costs time, nothing else."""
    found = text.find("data:")
    return found < 0 or text[found + 5 : found + 6] == " "


def _end_of_block(data: bytes, begin: int, end: int) -> int:
    """Return where the block ends, its blank line included, that has the lines of `data` from `begin` on."""
    if data.startswith(b"\n", begin):
        return begin + 1
    found = data.find(b"\n\n", begin, end)
    return end if found < 0 else found + 2


def _as_bytes(data: object) -> bytes:
    if isinstance(data, (bytes, bytearray, memoryview)):
        return bytes(data)
    raise TypeError(
        f"an event stream is decoded from bytes, not {type(data).__name__}; do not decode it to text first"
    )
