"""Long lines are taken apart in another way than short ones; what comes out must not differ."""

from __future__ import annotations

import random

import pytest

from streamkit import EventStreamDecoder, ServerSentEvent
from streamkit.errors import DecodeError

from .event_stream_vectors import VECTORS, Vector

LONG = "x" * 5000
FIRST = f"id: first\ndata: {LONG}\n\n".encode()
NO_BOM = [vector for vector in VECTORS if len(vector.wire) < 10_000 and not vector.wire.startswith(b"\xef")]

LINES = ["data: short", f"data: {LONG}", "data:x", "data", "data: ", "id: 7", "id:8", "id", "id: a\0b", "event: tick",
         "event:", "event: ", ": comment", "retry: 250", "unknown: x", f"data: é{LONG}", "", "", ""]  # fmt: skip


def decoded(pieces: list[bytes]) -> tuple[list[ServerSentEvent], str, int | None]:
    decoder = EventStreamDecoder()
    events = [event for piece in pieces for event in decoder.feed(piece)]
    return events, decoder.last_event_id, decoder.retry


@pytest.mark.parametrize("vector", NO_BOM, ids=str)
def test_every_vector_after_a_long_event(vector: Vector) -> None:
    wire = FIRST + vector.wire
    assert decoded([wire]) == decoded([wire[n : n + 1] for n in range(len(wire))])
    # In one piece that ends with a blank line, between two events, nothing is copied.
    assert decoded([FIRST, wire + b"\n\n"]) == decoded([FIRST, *[bytes([byte]) for byte in wire + b"\n\n"]])


@pytest.mark.parametrize("seed", range(40))
def test_any_lines_after_a_long_event(seed: int) -> None:
    chance = random.Random(seed)
    lines = [chance.choice(LINES) for _ in range(60)]
    wire = FIRST + "".join(f"{line}\n" for line in lines).encode() + b"\n"
    whole = decoded([wire])
    assert whole == decoded([wire[n : n + 7] for n in range(0, len(wire), 7)])
    for _ in range(20):
        cut = chance.randrange(len(wire))
        assert decoded([wire[:cut], wire[cut:]]) == whole


def test_the_limit_holds_for_long_lines() -> None:
    decoder = EventStreamDecoder(max_event_bytes=6000)
    assert len(decoder.feed(FIRST + FIRST)) == 2
    assert len(decoder.feed(FIRST + b"data: " + b"x" * 7000 + b"\n\n")) == 1
    with pytest.raises(DecodeError, match="longer than 6000"):
        decoder.feed(b"")
