"""Decoding event streams that arrive in pieces of 64 KiB: against the parsers of httpx-sse and sseclient-py.

Each is fed as it is in use: httpx-sse with text that an incremental UTF-8 decoder made of the pieces (what
`httpx.Response.iter_text` does), sseclient-py with an iterable of the pieces. All sides read the data of every event.
In processor time. Events of 4 KiB are mostly copied, which costs all sides the same, so less is wanted there.
"""

from __future__ import annotations

import codecs
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType

import sseclient

from benchmarks.measure import Figure, cpu, medians, must_agree
from streamkit import EventStreamDecoder

PIECE = 64 * 1024
WANTED = 3.0
WANTED_LARGE = 1.5
STREAM_BYTES = 2 * 1024 * 1024
ROUNDS = 15


def _httpx_sse_decoders() -> ModuleType:
    """The parser of httpx-sse, also where httpx, which only its package's front door imports, is not installed."""
    if find_spec("httpx") is None and "httpx_sse" not in sys.modules:
        spec = find_spec("httpx_sse")
        if spec is None:
            raise ModuleNotFoundError("No module named 'httpx_sse'", name="httpx_sse")
        package = ModuleType("httpx_sse")
        package.__path__ = list(spec.submodule_search_locations or ())
        package.__spec__ = ModuleSpec("httpx_sse", None, is_package=True)
        sys.modules["httpx_sse"] = package
    import httpx_sse._decoders

    decoders: ModuleType = httpx_sse._decoders
    return decoders


decoders = _httpx_sse_decoders()


def streamkit_decode(pieces: Iterable[bytes]) -> tuple[int, int]:
    """The number of events in `pieces` and of the characters of their data."""
    decoder = EventStreamDecoder()
    events = characters = 0
    for piece in pieces:
        for event in decoder.feed(piece):
            events += 1
            characters += len(event.data or "")
    return events, characters


def httpx_sse_lines(pieces: Iterable[bytes]) -> Iterator[str]:
    """As `httpx_sse._api._iter_sse_lines` over `httpx.Response.iter_text`."""
    to_text = codecs.getincrementaldecoder("utf-8")("replace")
    decoder = decoders.SSELineDecoder()
    for piece in pieces:
        yield from decoder.decode(to_text.decode(piece))
    yield from decoder.flush()


def httpx_sse_decode(pieces: Iterable[bytes]) -> tuple[int, int]:
    """The same with httpx-sse, as `httpx_sse.EventSource.iter_sse`."""
    decode = decoders.SSEDecoder().decode
    events = characters = 0
    for line in httpx_sse_lines(pieces):
        event = decode(line.rstrip("\n"))
        if event is not None:
            events += 1
            characters += len(event.data)
    return events, characters


def sseclient_decode(pieces: Iterable[bytes]) -> tuple[int, int]:
    """The same with sseclient-py."""
    events = characters = 0
    for event in sseclient.SSEClient(iter(pieces)).events():
        events += 1
        characters += len(event.data)
    return events, characters


def _chat_chunk(n: int) -> bytes:
    """An event as chat APIs of the OpenAI kind send them: one token in about 230 bytes, nothing but data."""
    delta = {"index": 0, "delta": {"content": f" word{n % 97}"}, "logprobs": None, "finish_reason": None}
    chunk = {
        "id": "chatcmpl-BmT1ZkQyZ0vYwJ6x0aXbEoN7",
        "object": "chat.completion.chunk",
        "created": 1_763_700_000,
        "model": "large-2026-01",
        "choices": [delta],
    }
    return b"data: " + json.dumps(chunk, separators=(",", ":")).encode() + b"\n\n"


def _named_delta(n: int) -> bytes:
    """An event as chat APIs of the Anthropic kind send them: a name and about 100 bytes of data."""
    delta = {
        "type": "content_block_delta",
        "index": 0,
        "delta": {"type": "text_delta", "text": f" word{n % 97}"},
    }
    return b"event: content_block_delta\ndata: " + json.dumps(delta).encode() + b"\n\n"


def _numbered(n: int) -> bytes:
    """A resumable event of a progress or chat page: name, id and a short text."""
    return b"event: progress\nid: %d\ndata: %d of 100000 rows imported\n\n" % (n, n)


def _large(n: int) -> bytes:
    """One event of 4 KiB on one line."""
    return (
        b"id: %d\ndata: " % n
        + json.dumps({"rows": [f"cell {n} é {m}" for m in range(200)]}).encode()
        + b"\n\n"
    )


STREAMS: dict[str, Callable[[int], bytes]] = {
    "tokens, data only, 230 B": _chat_chunk,
    "tokens, event and data, 140 B": _named_delta,
    "event, id, data, 60 B": _numbered,
    "large events, 4 KiB": _large,
}


def stream_in_pieces(make: Callable[[int], bytes]) -> list[bytes]:
    """About `STREAM_BYTES` of events, cut every 64 KiB wherever that falls."""
    stream = bytearray()
    count = 0
    while len(stream) < STREAM_BYTES:
        stream += make(count)
        count += 1
    return [bytes(stream[start : start + PIECE]) for start in range(0, len(stream), PIECE)]


def figures() -> Iterator[Figure]:
    """Two figures for each kind of stream."""
    for what, make in STREAMS.items():
        pieces = stream_in_pieces(make)
        size = sum(map(len, pieces))
        sides = {
            "streamkit": partial(streamkit_decode, pieces),
            "httpx-sse": partial(httpx_sse_decode, pieces),
            "sseclient-py": partial(sseclient_decode, pieces),
        }
        must_agree(what, {name: side() for name, side in sides.items()})
        taken = medians(sides, rounds=ROUNDS, clock=cpu)
        speed = {name: size / seconds / 1e6 for name, seconds in taken.items()}
        for peer in ("httpx-sse", "sseclient-py"):
            yield Figure(
                f"{what}: streamkit / {peer}",
                speed["streamkit"] / speed[peer],
                WANTED_LARGE if make is _large else WANTED,
                True,
                f"{speed['streamkit']:.0f} / {speed[peer]:.0f} MB/s",
            )
