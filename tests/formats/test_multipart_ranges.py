"""Several ranges in one body: RFC 9110 section 14.6, RFC 2046 section 5.1."""

from __future__ import annotations

import pytest

from streamkit.formats.multipart_ranges import MultipartRanges


def body(parts: MultipartRanges, content: bytes) -> bytes:
    return b"".join(
        piece if isinstance(piece, bytes) else content[piece[0] : piece[1]] for piece in parts.pieces
    )


def test_the_bytes_of_the_standards_own_example() -> None:
    # 14.6: "Content-Range: bytes 500-999/8000" and "7000-7999/8000" of a PDF
    content = bytes(range(250)) * 32
    parts = MultipartRanges([(500, 1000), (7000, 8000)], 8000, "application/pdf", "THIS_STRING_SEPARATES")
    assert parts.content_type == "multipart/byteranges; boundary=THIS_STRING_SEPARATES"
    assert body(parts, content) == (
        b"--THIS_STRING_SEPARATES\r\n"
        b"Content-Type: application/pdf\r\n"
        b"Content-Range: bytes 500-999/8000\r\n"
        b"\r\n" + content[500:1000] + b"\r\n"
        b"--THIS_STRING_SEPARATES\r\n"
        b"Content-Type: application/pdf\r\n"
        b"Content-Range: bytes 7000-7999/8000\r\n"
        b"\r\n" + content[7000:] + b"\r\n"
        b"--THIS_STRING_SEPARATES--\r\n"
    )


def test_the_length_is_that_of_the_body() -> None:
    for count in (1, 2, 100):
        parts = MultipartRanges([(n, n + 3) for n in range(count)], 1000, "text/plain")
        assert parts.length == len(body(parts, bytes(1000)))


def test_boundaries_cannot_be_guessed() -> None:
    kinds = {MultipartRanges([(0, 1)], 1, "text/plain").content_type for _ in range(10)}
    assert len(kinds) == 10
    assert all(len(kind) < 120 for kind in kinds)


def test_a_range_outside_the_file_is_refused() -> None:
    with pytest.raises(ValueError, match="not within"):
        MultipartRanges([(0, 11)], 10, "text/plain")
