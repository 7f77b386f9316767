"""The chunked coding against RFC 9112 section 7.1: one table, both directions, every cut."""

from __future__ import annotations

import pytest

from streamkit.errors import DecodeError
from streamkit.formats.chunked import (
    LAST_CHUNK,
    MAX_SIZE_LINE,
    MAX_TRAILER_BYTES,
    ChunkedDecoder,
    encode_chunk,
)

# (pieces, wire): encode(pieces) == wire, and wire decodes to the joined pieces.
CASES: list[tuple[list[bytes], bytes]] = [
    ([], b"0\r\n\r\n"),
    ([b"a"], b"1\r\na\r\n0\r\n\r\n"),
    ([b"hello", b" ", b"world"], b"5\r\nhello\r\n1\r\n \r\n5\r\nworld\r\n0\r\n\r\n"),
    ([b"x" * 16], b"10\r\n" + b"x" * 16 + b"\r\n0\r\n\r\n"),
    ([b"y" * 171], b"ab\r\n" + b"y" * 171 + b"\r\n0\r\n\r\n"),
    # data that looks like framing
    ([b"\r\n", b"0\r\n\r\n", b"\n"], b"2\r\n\r\n\r\n5\r\n0\r\n\r\n\r\n1\r\n\n\r\n0\r\n\r\n"),
    ([b"a", b"", b"b"], b"1\r\na\r\n1\r\nb\r\n0\r\n\r\n"),
]

# (wire, body): allowed by the grammar, never written by the encoder.
DECODE_ONLY: list[tuple[bytes, bytes]] = [
    (b"0A\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
    (b"00001\r\na\r\n000\r\n\r\n", b"a"),
    (b'1;name=value;q="a;b"\r\na\r\n0;end\r\n\r\n', b"a"),
    (b"1 ; name\r\na\r\n0\r\n\r\n", b"a"),
    (b"1\r\na\r\n0\r\nDigest: x\r\nEmpty:\r\n\r\n", b"a"),
]

REFUSED = [
    b"\r\n",
    b"x\r\n",
    b"-1\r\n",
    b"+1\r\na\r\n",
    b"0x1\r\na\r\n",
    b"1_0\r\n",
    b" 1\r\na\r\n",
    b"1 \r\na\r\n",
    b"1\na\r\n",
    b"1\r\nab\r\n",
    b"1\r\na\n0\r\n\r\n",
    b"1\r\na\rX",
    b"1\r\na0\r\n\r\n",
    b"1;a\rb\r\n",
    b"1;\x00\r\n",
    b"1" * 16 + b"\r\n",
    "٣\r\n".encode(),
    b"0\r\nno colon\r\n\r\n",
    b"0\r\n folded: x\r\n\r\n",
    b"0\r\nA : x\r\n\r\n",
    b"0\r\nA: x\n\r\n",
    b"0\r\n\n",
    b"1;" + b"e" * MAX_SIZE_LINE,
    b"0\r\nA: " + b"t" * MAX_TRAILER_BYTES,
    b"0\r\n" + b"A: b\r\n" * MAX_TRAILER_BYTES,
]


def feed_bytewise(wire: bytes) -> None:
    decoder = ChunkedDecoder()
    for index in range(len(wire)):
        decoder.feed(wire[index : index + 1])


@pytest.mark.parametrize(("pieces", "wire"), CASES)
def test_encoding(pieces: list[bytes], wire: bytes) -> None:
    assert b"".join(encode_chunk(piece) for piece in pieces) + LAST_CHUNK == wire


@pytest.mark.parametrize(("wire", "body"), [(w, b"".join(p)) for p, w in CASES] + DECODE_ONLY)
def test_decoding_whole_cut_everywhere_and_byte_by_byte(wire: bytes, body: bytes) -> None:
    for cut in range(len(wire) + 1):
        decoder = ChunkedDecoder()
        assert decoder.feed(wire[:cut]) + decoder.feed(wire[cut:]) == body
        assert decoder.finished
        assert decoder.unused == b""
        decoder.end()
    decoder = ChunkedDecoder()
    assert b"".join(decoder.feed(wire[i : i + 1]) for i in range(len(wire))) == body
    assert decoder.finished


@pytest.mark.parametrize(("wire", "body"), [(w, b"".join(p)) for p, w in CASES] + DECODE_ONLY)
def test_every_beginning_is_incomplete(wire: bytes, body: bytes) -> None:
    for cut in range(len(wire)):
        decoder = ChunkedDecoder()
        assert body.startswith(decoder.feed(wire[:cut]))
        assert not decoder.finished
        with pytest.raises(DecodeError, match="incomplete"):
            decoder.end()


@pytest.mark.parametrize("wire", REFUSED)
def test_what_the_grammar_does_not_allow_is_refused_however_it_is_cut(wire: bytes) -> None:
    with pytest.raises(DecodeError):
        ChunkedDecoder().feed(wire)
    with pytest.raises(DecodeError):
        feed_bytewise(wire)


def test_the_next_message_is_left_alone() -> None:
    decoder = ChunkedDecoder()
    assert decoder.feed(b"1\r\na\r\n0\r\n\r\nGET / ") == b"a"
    assert decoder.unused == b"GET / "
    assert decoder.feed(b"HTTP/1.1") == b""
    assert decoder.unused == b"GET / HTTP/1.1"


def test_nothing_but_decode_error_escapes() -> None:
    hypothesis = pytest.importorskip("hypothesis")
    strategies = hypothesis.strategies
    pieces = strategies.sampled_from(
        [b"1", b"a", b"\r\n", b"\n", b"0", b";", b":", b" ", b"\xff", b"\x00", b"f" * 20]
    )

    @hypothesis.given(strategies.lists(pieces, max_size=30))
    def check(parts: list[bytes]) -> None:
        decoder = ChunkedDecoder()
        try:
            for part in parts:
                decoder.feed(part)
            decoder.end()
        except DecodeError:
            pass

    check()
