"""Content codings written piece by piece: gzip (RFC 1952), brotli (RFC 7932), zstd (RFC 8878).

The law of this file:

- Whatever was given to `compress` can be decoded from what it returned: every piece ends in a flush. A flush costs a
  few bytes, so pieces should be some KiB (64 KiB by default in a stream); a row at a time doubles the size.
- `finish` writes the end that a decoder looks for, and it alone: a body that broke off has none.
- The bytes depend on the input alone. zlib writes a gzip header without a name and without a time.
- RFC 9659: a zstd window of 8 MiB at most. All windows here are far smaller, because every live stream holds one.

Settings, measured on CSV rows in flushed pieces of 64 KiB (CPython 3.11, one slow core; memory is what a process
grows by for one more compressor, 64 KiB of output buffer included):

==========  =======================  ==========  =========  ========
coding      setting                  memory      size       MB/s
==========  =======================  ==========  =========  ========
gzip        level 4, 16 KiB window   226 KiB     12.0 %     275
gzip        level 6, the default     326 KiB     11.2 %     130
br          quality 4, 64 KiB        880 KiB     5.7 %      240
br          quality 4, 4 MiB         2,300 KiB   7.7 %      120
zstd        level 1, 128 KiB         460 KiB     7.0 %      1,280
zstd        level 3, the default     2,500 KiB   5.8 %      340
==========  =======================  ==========  =========  ========

The first row of each pair is used.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from typing import Any, Protocol

__all__ = ["Compressor", "available_codings", "compressor"]

GZIP_LEVEL = 4
GZIP_WINDOW_BITS = 14
GZIP_FORMAT = 16  # added to the window bits it asks zlib for a gzip header and trailer
GZIP_MEMORY_LEVEL = 7
BROTLI_QUALITY = 4
BROTLI_WINDOW_BITS = 16
ZSTD_LEVEL = 1
ZSTD_WINDOW_BITS = 17


class Compressor(Protocol):
    """One body on its way into a coding. For one thread at a time."""

    def compress(self, data: bytes) -> bytes:
        """The coded bytes of `data`, flushed: a decoder that has them has all of `data`."""
        ...

    def finish(self) -> bytes:
        """The last bytes of a body that is complete; once, and nothing after it."""
        ...


class _Gzip:
    def __init__(self) -> None:
        self._coder = zlib.compressobj(
            GZIP_LEVEL, zlib.DEFLATED, GZIP_FORMAT + GZIP_WINDOW_BITS, GZIP_MEMORY_LEVEL
        )

    def compress(self, data: bytes) -> bytes:
        return self._coder.compress(data) + self._coder.flush(zlib.Z_SYNC_FLUSH)

    def finish(self) -> bytes:
        return self._coder.flush(zlib.Z_FINISH)


class _Brotli:
    def __init__(self) -> None:
        brotli = import_module("brotli")
        self._coder: Any = brotli.Compressor(quality=BROTLI_QUALITY, lgwin=BROTLI_WINDOW_BITS)

    def compress(self, data: bytes) -> bytes:
        coded: bytes = self._coder.process(data) + self._coder.flush()
        return coded

    def finish(self) -> bytes:
        coded: bytes = self._coder.finish()
        return coded


class _StandardZstd:
    """With the module of Python 3.14."""

    def __init__(self) -> None:
        zstd = import_module("compression.zstd")
        parameter = zstd.CompressionParameter
        self._coder: Any = zstd.ZstdCompressor(
            options={
                parameter.compression_level: ZSTD_LEVEL,
                parameter.window_log: ZSTD_WINDOW_BITS,
                parameter.checksum_flag: 1,
            }
        )

    def compress(self, data: bytes) -> bytes:
        coded: bytes = self._coder.compress(data, self._coder.FLUSH_BLOCK)
        return coded

    def finish(self) -> bytes:
        coded: bytes = self._coder.flush(self._coder.FLUSH_FRAME)
        return coded


class _Zstd:
    """With the package zstandard."""

    def __init__(self) -> None:
        zstandard = import_module("zstandard")
        parameters = zstandard.ZstdCompressionParameters.from_level(
            ZSTD_LEVEL, window_log=ZSTD_WINDOW_BITS, write_checksum=1
        )
        self._coder: Any = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
        self._flush_block = zstandard.COMPRESSOBJ_FLUSH_BLOCK
        self._flush_finish = zstandard.COMPRESSOBJ_FLUSH_FINISH

    def compress(self, data: bytes) -> bytes:
        coded: bytes = self._coder.compress(data) + self._coder.flush(self._flush_block)
        return coded

    def finish(self) -> bytes:
        coded: bytes = self._coder.flush(self._flush_finish)
        return coded


# In the order of preference: what costs least for its size first. Clients that know zstd know the others too.
_CODERS: tuple[tuple[str, str, Callable[[], Compressor]], ...] = (
    ("zstd", "compression.zstd", _StandardZstd),
    ("zstd", "zstandard", _Zstd),
    ("br", "brotli", _Brotli),
    ("gzip", "zlib", _Gzip),
)


@lru_cache(maxsize=1)
def _installed() -> dict[str, Callable[[], Compressor]]:
    found: dict[str, Callable[[], Compressor]] = {}
    for coding, module, coder in _CODERS:
        if coding not in found:
            try:
                import_module(module)
                coder()  # a foreign or broken package of this name is as good as none
            except Exception:
                continue
            found[coding] = coder
    return found


def available_codings() -> tuple[str, ...]:
    """The codings that can be written here, best first: of "zstd", "br" and "gzip", the last one always.

    zstd needs Python 3.14 or the package zstandard, br the package brotli. Looked up once. Safe from any thread.
    """
    return tuple(_installed())


def compressor(coding: str) -> Compressor:
    """A new compressor. Raises ValueError for a coding that is not among `available_codings()`."""
    make = _installed().get(coding)
    if make is None:
        raise ValueError(f"coding is {coding!r}; available here are {', '.join(available_codings())}")
    return make()
