"""Encoding one event: against an f-string written by hand, which checks nothing, and against sse-starlette.

Values are mappings that become a JSON text of about 70 bytes, or that text. Sides are loops over the same 5,000, in
processor time. What a stream encodes is an item: a `str`, a mapping, or an event built around one. A `ServerSentEvent`
of text that is ready to be sent is the one case where building the object is nearly all there is to do: an `__init__`
that only keeps three values already costs three f-strings. `BUILT` bounds that, so that it grows no further.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

from sse_starlette.event import ServerSentEvent as StarletteEvent

from benchmarks.measure import Figure, cpu, medians, must_agree
from streamkit import ServerSentEvent
from streamkit.formats.event_stream import EventStreamEncoder

EVENTS = 5_000
ROUNDS = 25
BUILT = 9.0
VALUES = [{"step": n, "message": f"row {n} of the import is done", "left": EVENTS - n} for n in range(EVENTS)]
DATA = [json.dumps(value, separators=(",", ":")) for value in VALUES]
IDS = [str(n) for n in range(EVENTS)]
PAIRS = list(zip(DATA, IDS, strict=True))


def by_hand_full() -> None:
    event = "progress"
    for data, id in PAIRS:
        f"event: {event}\nid: {id}\ndata: {data}\n\n".encode()


def streamkit_full() -> None:
    for data, id in PAIRS:
        ServerSentEvent(data, event="progress", id=id).encode()


def starlette_full() -> None:
    for data, id in PAIRS:
        StarletteEvent(data, event="progress", id=id).encode()


def by_hand_value() -> None:
    event = "progress"
    for id, value in enumerate(VALUES):
        f"event: {event}\nid: {id}\ndata: {json.dumps(value)}\n\n".encode()


def streamkit_value() -> None:
    for id, value in enumerate(VALUES):
        ServerSentEvent(value, event="progress", id=id).encode()


def by_hand_data() -> None:
    for data in DATA:
        f"data: {data}\n\n".encode()


def streamkit_data() -> None:
    for data in DATA:
        ServerSentEvent(data).encode()


def starlette_data() -> None:
    for data in DATA:
        StarletteEvent(data).encode()


def streamkit_item() -> None:
    encode = EventStreamEncoder().encode  # what EventSourceResponse calls for every item
    for data in DATA:
        encode(data)


def figures() -> Iterator[Figure]:
    """Six figures."""
    check()
    taken = medians({"by hand": by_hand_data, "streamkit": streamkit_item}, rounds=ROUNDS, clock=cpu)
    yield _against_f_string("a `str` item of EventSourceResponse", taken, 2.0)
    taken = medians({"by hand": by_hand_value, "streamkit": streamkit_value}, rounds=ROUNDS, clock=cpu)
    yield _against_f_string("an event with name, id and a mapping as data", taken, 2.0)
    yield from _figures("an event with name, id and text", by_hand_full, streamkit_full, starlette_full)
    yield from _figures("an event with text", by_hand_data, streamkit_data, starlette_data)


def check() -> None:
    """The sides say the same, apart from the order of fields and the line ends that each has chosen."""
    data, id = PAIRS[7]
    full = f"event: progress\nid: {id}\ndata: {data}\n\n".encode()
    must_agree(
        "an event",
        {
            "by hand": sorted(full.split(b"\n")),
            "streamkit": sorted(ServerSentEvent(data, event="progress", id=id).encode().split(b"\n")),
            "sse-starlette": sorted(StarletteEvent(data, event="progress", id=id).encode().split(b"\r\n")),
        },
    )


def _figures(
    what: str, by_hand: Callable[[], None], ours: Callable[[], None], starlette: Callable[[], None]
) -> Iterator[Figure]:
    sides = {"by hand": by_hand, "streamkit": ours, "sse-starlette": starlette}
    taken = medians(sides, rounds=ROUNDS, clock=cpu)
    hand, own, peer = (taken[side] for side in sides)
    yield _against_f_string(f"{what}, object and all", {"by hand": hand, "streamkit": own}, BUILT)
    yield Figure(f"{what}: sse-starlette / streamkit", peer / own, 3.0, True, f"{_each(peer)} / {_each(own)}")


def _against_f_string(what: str, taken: dict[str, float], wanted: float) -> Figure:
    own, hand = taken["streamkit"], taken["by hand"]
    return Figure(f"{what}: streamkit / f-string", own / hand, wanted, False, f"{_each(own)} / {_each(hand)}")


def _each(seconds: float) -> str:
    return f"{seconds / EVENTS * 1e9:.0f} ns"
