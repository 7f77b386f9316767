"""Laws of the event stream over values that nobody thought of."""

from itertools import pairwise

import pytest

pytest.importorskip("hypothesis")

from hypothesis import example, given
from hypothesis import strategies as st

from streamkit import EventStreamDecoder, ServerSentEvent, last_event_id
from streamkit.errors import DecodeError
from streamkit.formats.event_stream import EventStreamEncoder, _encode_carefully

texts = st.text(st.characters(exclude_categories=["Cs"]))
names = texts.filter(lambda text: "\n" not in text and "\r" not in text)
ids = names.filter(lambda text: "\0" not in text)
retries = st.integers(0, 10**15 - 1)
events = st.builds(
    ServerSentEvent,
    texts,
    event=st.none() | names,
    id=st.none() | ids,
    retry=st.none() | retries,
    comment=st.none() | texts,
)

# Bytes in which fields, line ends and broken characters meet far more often than in random ones.
words = [
    "data",
    "event",
    "id",
    "retry",
    ":",
    ": ",
    " ",
    "\n",
    "\n\n",
    "\r",
    "\r\n",
    "x",
    "data: x\n\n",
    "1",
    "\0",
    "é",
]
pieces = [word.encode() for word in words] + [
    b"\xef\xbb\xbf",
    b"\xef",
    b"\xff",
    b"\xf0\x9f\x98",
    b"event: a\nid: 2\n",
]
wires = st.lists(st.sampled_from(pieces), max_size=40).map(b"".join) | st.binary(max_size=60)
cuts = st.lists(st.integers(0, 200), max_size=8)


def cut(wire: bytes, places: list[int]) -> list[bytes]:
    borders = [0, *sorted(min(place, len(wire)) for place in places), len(wire)]
    return [wire[begin:end] for begin, end in pairwise(borders)]


def outcome(decoder: EventStreamDecoder, fed: list[bytes]) -> tuple[object, ...]:
    """Return all that a stream led to: its events, its cursor and retry, and whether it failed."""
    seen: list[ServerSentEvent] = []
    try:
        for piece in fed:
            seen += decoder.feed(piece)
        decoder.feed(b"")
    except DecodeError:
        return seen, decoder.last_event_id, decoder.retry, "failed"
    return seen, decoder.last_event_id, decoder.retry, "read"


def reference(wire: bytes) -> tuple[list[tuple[str, str, str]], str, int | None]:
    """The standard's algorithm written down as plainly as possible: the whole stream as text, line by line."""
    text = wire.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace")
    *lines, _unfinished = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    found: list[tuple[str, str, str]] = []
    data = kind = id_buffer = last = ""
    retry: int | None = None
    for line in lines:
        if line == "":
            last = id_buffer
            if data:
                found.append((data[:-1], kind or "message", last))
            data = kind = ""
            continue
        name, _, value = line.partition(":")
        value = value[1:] if value[:1] == " " else value
        if name == "data":
            data += value + "\n"
        elif name == "event":
            kind = value
        elif name == "id" and "\0" not in value:
            id_buffer = value
        elif name == "retry" and value and all(character in "0123456789" for character in value):
            retry = int(value)
    return found, last, retry


@given(st.lists(events, max_size=6))
def test_what_is_sent_is_received(sent: list[ServerSentEvent]) -> None:
    decoder = EventStreamDecoder()
    received = decoder.feed(b":\n" + b"".join(event.encode() for event in sent))
    in_force = ""
    assert len(received) == len(sent)
    for out, back in zip(sent, received, strict=True):
        in_force = in_force if out.id is None else out.id
        assert (back.data, back.event, back.id) == (out.data, out.event or "message", in_force)
    assert decoder.last_event_id == in_force
    assert decoder.retry == next((event.retry for event in reversed(sent) if event.retry is not None), None)


@given(texts, st.none() | names, st.none() | ids, st.none() | retries)
def test_both_ways_to_encode_are_one(data: str, event: str | None, id: str | None, retry: int | None) -> None:
    whole = ServerSentEvent(data, event=event, id=id, retry=retry)
    assert _encode_carefully(whole.data, event, id, retry, None) == whole.encode()
    assert EventStreamEncoder().encode(data) == ServerSentEvent(data).encode()
    assert (
        ServerSentEvent(data, event=event, id=id, retry=retry, comment="c").encode()
        == b": c\n" + whole.encode()
    )


@given(wires)
@example(b"event: a\ndata: 1\n\nevent:\ndata: x\n\n")
@example(b"data: a\ndata:b\n\ndata:c\n\n")
def test_the_decoder_does_what_the_standard_says(wire: bytes) -> None:
    decoder = EventStreamDecoder()
    seen = [(event.data, event.event, event.id) for event in decoder.feed(wire)]
    assert (seen, decoder.last_event_id, decoder.retry) == reference(wire)


@given(wires, cuts)
def test_cuts_change_nothing(wire: bytes, places: list[int]) -> None:
    assert outcome(EventStreamDecoder(), cut(wire, places)) == outcome(EventStreamDecoder(), [wire])


@given(wires, cuts, st.integers(1, 24))
def test_cuts_change_nothing_under_a_limit(wire: bytes, places: list[int], limit: int) -> None:
    whole = outcome(EventStreamDecoder(max_event_bytes=limit), [wire])
    assert outcome(EventStreamDecoder(max_event_bytes=limit), cut(wire, places)) == whole


@given(st.text() | st.text(st.characters(max_codepoint=255)), st.text())
def test_no_request_makes_the_cursor_raise(header: str, query: str) -> None:
    for environ in (
        {"HTTP_LAST_EVENT_ID": header},
        {"QUERY_STRING": f"lastEventId={query}"},
        {"QUERY_STRING": query},
    ):
        found = last_event_id(environ)
        assert found is None or (found and not set(found) & {"\r", "\n", "\0"})


@given(ids)
def test_an_id_comes_back_through_the_header(id: str) -> None:
    found = last_event_id({"HTTP_LAST_EVENT_ID": id.encode().decode("latin-1")})
    assert found == (id.strip(" \t") or None)
