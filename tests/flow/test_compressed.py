"""Formats in a content coding: every chunk can be decoded when it arrives, and only a complete stream has an end."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import pytest

from streamkit.flow.compressed import CompressedFraming
from streamkit.formats import content_codings
from streamkit.formats.content_codings import available_codings, compressor
from streamkit.formats.csv_rows import CSVEncoder


class Framing(CSVEncoder):
    """A table with last words, to see what becomes of them."""

    heartbeat = b"beat"
    resets = True
    head_first = True

    def finish(self) -> bytes:
        return b""

    def failed(self, error: BaseException) -> bytes:
        return b"failed\r\n"

    def paused(self) -> bytes | None:
        return b"paused\r\n"


class Silent(Framing):
    def paused(self) -> bytes | None:
        return None


class Decoder:
    """An independent decoder of each coding that tells what it has so far, and whether it saw the end."""

    def __init__(self, coding: str) -> None:
        self.coding = coding
        self.ended = False
        if coding == "gzip":
            self._decoder: Any = zlib.decompressobj(31)
        elif coding == "br":
            self._decoder = import_module("brotli").Decompressor()
        else:
            self._decoder = import_module("zstandard").ZstdDecompressor().decompressobj()

    def feed(self, data: bytes) -> bytes:
        decoded: bytes = (
            self._decoder.process(data) if self.coding == "br" else self._decoder.decompress(data)
        )
        self.ended = self._decoder.is_finished() if self.coding == "br" else self._decoder.eof
        return decoded


CODINGS = available_codings()


@pytest.fixture(params=["gzip", "br", "zstd"])
def coding(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if name == "br":
        pytest.importorskip("brotli")
    elif name == "zstd":
        pytest.importorskip("zstandard")
    return name


def frames_of(framing: CompressedFraming[str], rows: Sequence[object]) -> list[str]:
    return [framing.encode(row) for row in rows]


def test_every_chunk_is_decoded_when_it_arrives(coding: str) -> None:
    framing = CompressedFraming(Framing(header=["n", "text"]), coding)
    decoder = Decoder(coding)
    assert decoder.feed(framing.join([framing.head(), framing.encode((0, "a"))])) == b"n,text\r\n0,a\r\n"
    for n in range(1, 50):
        assert decoder.feed(framing.join([framing.encode((n, "a"))])) == b"%d,a\r\n" % n
    assert not decoder.ended
    assert decoder.feed(framing.finish()) == b""
    assert decoder.ended


def test_an_empty_chunk_stays_none(coding: str) -> None:
    # Delivery takes an empty chunk for "nothing is due", and a server for the end of the body.
    framing = CompressedFraming(Framing(), coding)
    assert framing.join([]) == b""
    assert framing.join(["", ""]) == b""


def test_an_empty_body_is_a_whole_one(coding: str) -> None:
    decoder = Decoder(coding)
    assert decoder.feed(CompressedFraming(Framing(), coding).finish()) == b""
    assert decoder.ended


@pytest.mark.parametrize("words", ["failed", "paused"])
def test_last_words_are_readable_and_leave_the_coding_without_its_end(coding: str, words: str) -> None:
    framing = CompressedFraming(Framing(), coding)
    decoder = Decoder(coding)
    decoder.feed(framing.join([framing.encode((1, 2))]))
    last = framing.failed(ValueError()) if words == "failed" else framing.paused()
    assert decoder.feed(last or b"") == words.encode() + b"\r\n"
    assert not decoder.ended


def test_what_the_format_does_not_say_is_not_said(coding: str) -> None:
    framing = CompressedFraming(Silent(), coding)
    assert framing.paused() is None
    assert framing.heartbeat is None
    assert framing.resets is True


def test_compression_pays_and_flushes_cost_little(coding: str) -> None:
    rows = [f"{n},customer {n % 50},{n * 7 % 1000}\r\n" for n in range(50_000)]
    chunks = ["".join(rows[start : start + 2000]).encode() for start in range(0, len(rows), 2000)]
    coder, whole = compressor(coding), compressor(coding)
    flushed = sum(len(coder.compress(chunk)) for chunk in chunks) + len(coder.finish())
    at_once = len(whole.compress(b"".join(chunks))) + len(whole.finish())
    assert flushed < 0.4 * sum(map(len, chunks))
    assert flushed < 1.1 * at_once


def test_incompressible_data_comes_back(coding: str) -> None:
    data = random.Random(1).randbytes(300_000)
    coder, decoder = compressor(coding), Decoder(coding)
    assert decoder.feed(coder.compress(data)) == data
    decoder.feed(coder.finish())
    assert decoder.ended


def test_gzip_has_no_time_and_no_name() -> None:  # RFC 1952 section 2.3: the same table gives the same bytes
    coder = compressor("gzip")
    head = (coder.compress(b"x") + coder.finish())[:10]
    assert head[:3] == b"\x1f\x8b\x08"
    assert head[3] == 0  # no name, no comment, no extra field
    assert head[4:8] == b"\0\0\0\0"  # no time


def test_zstd_keeps_its_window_small() -> None:  # RFC 9659: 8 MiB at most
    zstandard = pytest.importorskip("zstandard")
    coder = compressor("zstd")
    head = coder.compress(random.Random(1).randbytes(1_000_000))
    assert zstandard.get_frame_parameters(head).window_size <= 1 << 18


def test_gzip_is_always_there_and_last() -> None:
    assert CODINGS[-1] == "gzip"


def test_what_is_not_installed_is_not_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    def without(name: str) -> Any:
        if name != "zlib":
            raise ImportError(name)
        return zlib

    monkeypatch.setattr(content_codings, "import_module", without)
    content_codings._installed.cache_clear()
    try:
        assert available_codings() == ("gzip",)
        with pytest.raises(ValueError, match="'br'; available here are gzip"):
            compressor("br")
    finally:
        monkeypatch.undo()
        content_codings._installed.cache_clear()


@pytest.mark.parametrize("coding", ["", "deflate", "GZIP", "identity"])
def test_unknown_codings(coding: str) -> None:
    make: Callable[[], object] = lambda: CompressedFraming(Framing(), coding)  # noqa: E731
    with pytest.raises(ValueError, match="available here are"):
        make()
