"""The decoder's own promises: limits, errors, pieces, large events."""

import pytest

from streamkit import EventStreamDecoder, ServerSentEvent
from streamkit.errors import DecodeError


def pieces(wire: bytes, size: int) -> list[bytes]:
    return [wire[begin : begin + size] for begin in range(0, len(wire), size)]


def feed_all(decoder: EventStreamDecoder, fed: list[bytes]) -> list[ServerSentEvent]:
    return [event for piece in fed for event in decoder.feed(piece)]


def test_a_cr_at_the_end_of_a_piece_ends_the_line_now() -> None:
    decoder = EventStreamDecoder()
    assert decoder.feed(b"data:1\r\r") == [ServerSentEvent("1", event="message", id="")]
    assert decoder.feed(b"\ndata:2\r\n\r") == [ServerSentEvent("2", event="message", id="")]
    assert decoder.feed(b"\n") == []


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_bytes(kind: type) -> None:
    decoder = EventStreamDecoder()
    assert decoder.feed(kind(b"data: x\n")) == []
    assert [event.data for event in decoder.feed(kind(b"\ndata: y\n\n"))] == ["x", "y"]


@pytest.mark.parametrize("data", ["data: x\n\n", 5, None])
def test_only_bytes(data: object) -> None:
    with pytest.raises(TypeError, match="decoded from bytes"):
        EventStreamDecoder().feed(data)  # type: ignore[arg-type]


def test_the_id_of_an_earlier_connection_stays_in_force() -> None:
    decoder = EventStreamDecoder(last_event_id="7")
    assert [event.id for event in decoder.feed(b"data: x\n\ndata: y\nid: 8\n\ndata: z\nid\n\n")] == [
        "7",
        "8",
        "",
    ]


@pytest.mark.parametrize("size", [1, 7, 65536, 20_000_000])
def test_many_lines_of_one_event(size: int) -> None:
    lines = 1_000_000 if size > 1000 else 50_000
    decoder = EventStreamDecoder()
    events = [event for piece in pieces(b"data: x\n" * lines + b"\n", size) for event in decoder.feed(piece)]
    assert [event.data for event in events] == ["\n".join("x" * lines)]


@pytest.mark.parametrize("size", [1, 65536, 20_000_000])
def test_one_long_line(size: int) -> None:
    text = "x" * (10_000_000 if size > 1000 else 500_000)
    decoder = EventStreamDecoder()
    events = [
        event for piece in pieces(b"data: " + text.encode() + b"\n\n", size) for event in decoder.feed(piece)
    ]
    assert [event.data for event in events] == [text]


def test_blocks_that_begin_as_usual_and_end_otherwise() -> None:
    wire = (
        b"data: x\n" * 200_000
        + b"other\n\n"
        + b"id: 1\n" * 200_000
        + b"event: a\n" * 200_000
        + b"data: y\n\n"
    )
    events = EventStreamDecoder().feed(wire)
    assert [(event.event, event.id, len(event.data or "")) for event in events] == [
        ("message", "", 399_999),
        ("a", "1", 1),
    ]


@pytest.mark.parametrize("size", [1, 5, 1000])
def test_the_limit_is_the_bytes_of_the_lines_of_an_event(size: int) -> None:
    exactly = b"event: a\nid: 1\ndata: x\ndata: y\n\n"  # 8 + 5 + 7 + 7
    decoder = EventStreamDecoder(max_event_bytes=27)
    for _ in range(3):
        assert [event.data for piece in pieces(exactly, size) for event in decoder.feed(piece)] == ["x\ny"]
    with pytest.raises(DecodeError, match=r"longer than 27 bytes.*max_event_bytes"):
        feed_all(decoder, pieces(exactly.replace(b"x", b"xx"), size))
    for data in (b"", b"\n\n", b"data: x\n\n"):
        with pytest.raises(DecodeError, match="27"):
            decoder.feed(data)
    assert decoder.last_event_id == "1"


def test_events_before_the_one_that_is_too_long_are_not_lost() -> None:
    decoder = EventStreamDecoder(max_event_bytes=20)
    events = decoder.feed(b"id: 1\ndata: x\n\nid: 2\ndata: " + b"y" * 50)
    assert [event.data for event in events] == ["x"]
    with pytest.raises(DecodeError):
        decoder.feed(b"")


def test_what_is_not_kept_does_not_count() -> None:
    decoder = EventStreamDecoder(max_event_bytes=20)
    for _ in range(100):
        assert decoder.feed(b": heartbeat\nunknown: field\nretry: 5\n") == []
    assert [event.data for event in decoder.feed(b"data: x\n\n")] == ["x"]


@pytest.mark.parametrize("line", [b":", b"x", b"data:", b""])
def test_an_endless_line_is_bounded(line: bytes) -> None:
    decoder = EventStreamDecoder(max_event_bytes=1000)
    with pytest.raises(DecodeError):
        feed_all(decoder, [line, *[b"y" * 100] * 20])


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_that_makes_no_sense(limit: int) -> None:
    with pytest.raises(ValueError, match="None for no limit"):
        EventStreamDecoder(max_event_bytes=limit)


def test_no_limit() -> None:
    text = "x" * (17 * 1024 * 1024)
    wire = f"data: {text}\n\n".encode()
    with pytest.raises(DecodeError):
        EventStreamDecoder().feed(wire)
    assert [event.data for event in EventStreamDecoder(max_event_bytes=None).feed(wire)] == [text]
