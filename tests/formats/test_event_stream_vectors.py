"""Every vector through the encoder and through the decoder, whole and cut at every index."""

import pytest

from streamkit import EventStreamDecoder, ServerSentEvent
from streamkit.formats.event_stream import EventStreamEncoder

from .event_stream_vectors import VECTORS, Vector

SMALL = [vector for vector in VECTORS if len(vector.wire) < 10_000]


def decoded(*pieces: bytes) -> tuple[list[ServerSentEvent], str, int | None]:
    decoder = EventStreamDecoder()
    events = [event for piece in pieces for event in decoder.feed(piece)]
    return events, decoder.last_event_id, decoder.retry


@pytest.mark.parametrize("vector", [vector for vector in VECTORS if vector.sent is not None], ids=str)
def test_the_encoder_writes_the_wire(vector: Vector) -> None:
    assert vector.sent is not None
    assert b"".join(event.encode() for event in vector.sent) == vector.wire
    encoder = EventStreamEncoder()
    assert encoder.join([encoder.encode(event) for event in vector.sent]) == vector.wire


@pytest.mark.parametrize("vector", VECTORS, ids=str)
def test_the_decoder_reads_the_wire(vector: Vector) -> None:
    assert decoded(vector.wire) == (vector.events, vector.last_event_id, vector.retry)


@pytest.mark.parametrize("vector", SMALL, ids=str)
def test_cut_at_every_index(vector: Vector) -> None:
    expected = (vector.events, vector.last_event_id, vector.retry)
    wire = vector.wire
    for index in range(min(len(wire), 600) + 1):
        assert decoded(wire[:index], wire[index:]) == expected, index
        assert decoded(wire[:index], b"", wire[index : index + 1], wire[index + 1 :]) == expected, index


@pytest.mark.parametrize("vector", SMALL, ids=str)
def test_byte_by_byte(vector: Vector) -> None:
    wire = vector.wire
    expected = (vector.events, vector.last_event_id, vector.retry)
    assert decoded(*(wire[index : index + 1] for index in range(len(wire)))) == expected


@pytest.mark.parametrize("vector", [vector for vector in SMALL if vector.wire[:1] != b"\xef"], ids=str)
def test_after_other_events(vector: Vector) -> None:
    """What came before changes nothing, except that a BOM is only one at the very start."""
    before = b"event: a\nid: \ndata: before\n\n" * 2
    events, last_event_id, retry = decoded(before + vector.wire)
    assert events[2:] == vector.events
    assert (last_event_id, retry) == (vector.last_event_id, vector.retry)


@pytest.mark.parametrize("vector", [vector for vector in SMALL if b"\r" not in vector.wire], ids=str)
def test_other_line_ends(vector: Vector) -> None:
    expected = (vector.events, vector.last_event_id, vector.retry)
    for line_end in (b"\r\n", b"\r"):
        wire = vector.wire.replace(b"\n", line_end)
        assert decoded(wire) == expected
        assert decoded(*(wire[index : index + 1] for index in range(len(wire)))) == expected


@pytest.mark.parametrize("vector", VECTORS, ids=str)
def test_a_received_event_can_be_sent_on(vector: Vector) -> None:
    assert decoded(b"".join(event.encode() for event in vector.events))[0] == vector.events
