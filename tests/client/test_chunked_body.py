"""The chunks of an answer: the same for every cut, and nothing lost before a fault."""

from __future__ import annotations

import pytest

from streamkit.client.chunked_body import MAX_TRAILER_BYTES, ChunkedBody
from streamkit.errors import DecodeError

WIRE = b"5\r\nhello\r\n1;a=b\r\n \r\n00c ; x\r\nworld\r\n\r\nend\r\n0\r\nA: b\r\n\r\n"


@pytest.mark.parametrize("cut", range(len(WIRE) + 1))
def test_every_cut(cut: int) -> None:
    body = ChunkedBody()
    found = body.feed(WIRE[:cut])
    assert body.finished is (cut == len(WIRE))
    assert found + body.feed(WIRE[cut:] + b"more") == b"hello world\r\n\r\nend"
    assert body.finished


def test_one_byte_at_a_time() -> None:
    body = ChunkedBody()
    assert b"".join(body.feed(WIRE[i : i + 1]) for i in range(len(WIRE))) == b"hello world\r\n\r\nend"
    assert body.finished


def test_the_beginning_of_a_chunk_does_not_wait_for_its_end() -> None:
    body = ChunkedBody()
    assert body.feed(b"ff\r\nhel") == b"hel"
    assert body.feed(b"lo") == b"lo"


@pytest.mark.parametrize(
    "fault",
    [b"zz\r\n", b"-1\r\n", b"0x5\r\n", b"5_0\r\n", b" 5\r\n", b"5\nhello\n", b"\r\n", b"5\r\nhelloo\r\n", b"5;\x00\r\n",
     b"1" * 16 + b"\r\n", b"1" * 2000, b"0\r\n" + b"a" * (MAX_TRAILER_BYTES + 1)],
)  # fmt: skip
@pytest.mark.parametrize("size", [1, 10_000])
def test_faults_come_after_what_was_right(fault: bytes, size: int) -> None:
    wire = b"2\r\nok\r\n" + fault + b"\r\n" * 3
    body = ChunkedBody()
    found = b""

    def feed() -> None:
        nonlocal found
        for start in range(0, len(wire), size):
            found += body.feed(wire[start : start + size])
        found += body.feed(b"")

    with pytest.raises(DecodeError):
        feed()
    assert found.startswith(b"ok")
    with pytest.raises(DecodeError):
        body.feed(b"5\r\nhello\r\n")
