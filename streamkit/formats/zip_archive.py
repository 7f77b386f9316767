"""A zip archive written from front to back (PKWARE APPNOTE 6.3.10), without ever going back.

The law of this file:

- A reader trusts the directory at the end, so that is the proof that an archive is complete. `tail` writes it and
  nothing else does: an archive that broke off is refused by every reader. (`zipfile.ZipFile` used as a context manager
  writes its directory after an error too.)
- APPNOTE 4.4.4 bit 3: where size and CRC are not known before the data, they follow it in a data descriptor. Where
  they are known they stand before it, because some readers that cannot seek refuse stored data with a descriptor.
- 4.4.4 bit 11: names are UTF-8. 4.4.17.1: relative, with `/`. What could lead out of the place where an archive is
  unpacked is refused, and so is a name that was there already, and one that would be a file and a folder.
- 4.5.3: sizes and places from 4 GiB on need zip64, which some old readers do not know; so it is used only where a
  number is too large, or where a size is not known before.
- Times: MS-DOS fields in local time and steps of two seconds (4.4.6), and the extended timestamp (Info-ZIP, 0x5455) in
  UTC and seconds, which readers prefer.

Memory: a record of some 80 bytes and the name of each entry, and some 250 bytes for each folder, until the directory is
written. Nothing of the data.
"""

from __future__ import annotations

import re
import struct
import time
import zlib
from typing import Final, NamedTuple

__all__ = ["ZipEncoder", "archive_length", "check_entry_name"]

LIMIT_32: Final = 0xFFFFFFFF
LIMIT_16: Final = 0xFFFF
STORED: Final = 0
DEFLATED: Final = 8
# Version 2.0 for directories and deflate, 4.5 for zip64 (4.4.3.2).
VERSION_DEFLATE: Final = 20
VERSION_ZIP64: Final = 45
MADE_ON_UNIX: Final = 3 << 8  # 4.4.2: the upper half of the external attributes is a Unix mode
DESCRIPTOR_FOLLOWS: Final = 0x0008
NAMES_ARE_UTF8: Final = 0x0800
FILE_MODE: Final = 0o100644 << 16
DIRECTORY_MODE: Final = 0o040755 << 16 | 0x10  # with the MS-DOS bit that means the same
# As `zipfile`: faster levels save little time, better ones little space.
DEFLATE_LEVEL: Final = 6

LOCAL_HEADER: Final = struct.Struct("<4s5H3L2H")
CENTRAL_HEADER: Final = struct.Struct("<4s6H3L5H2L")
DESCRIPTOR: Final = struct.Struct("<4s3L")
DESCRIPTOR_64: Final = struct.Struct("<4sL2Q")
END: Final = struct.Struct("<4s4H2LH")
END_64: Final = struct.Struct("<4sQ2H2L4Q")
LOCATOR_64: Final = struct.Struct("<4sLQL")

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_DRIVE = re.compile(r"[A-Za-z]:")


class _Entry(NamedTuple):
    name: bytes
    modified: float
    flags: int
    method: int
    zip64: bool
    offset: int
    size: int | None
    crc: int | None


_Folder = dict[bytes, "_Folder | None"]
"""The names of a folder: of files, None; of folders, what is in them."""


class ZipEncoder:
    """Writes one archive: for each entry `begin`, `data` any number of times, `end`; then `tail`, once.

    `begin(name, modified, deflate=..., size=..., crc=...)` with what is known. Frames come in the order of the archive.
    `offset` is the number of bytes so far, `entries` that of the entries that are complete. For one thread.
    """

    def __init__(self) -> None:
        self.offset = 0
        self.entries = 0
        self._directory: list[bytes] = []
        self._tree: _Folder = {}
        self._entry: _Entry | None = None
        self._deflater: zlib._Compress | None = None
        self._crc = self._size = self._coded_size = 0

    def begin(
        self,
        name: str,
        modified: float,
        *,
        deflate: bool = False,
        size: int | None = None,
        crc: int | None = None,
    ) -> bytes:
        """The local header of an entry.

        modified: seconds since the epoch. size: bytes, None where it is not known. crc: of the data, None where it is
        not known; then a descriptor follows the data. A name that ends in `/` is a directory and has no data.

        Raises ValueError for a name that `check_entry_name` refuses, that was there already, or that would be a file
        and a folder; and for an entry begun inside another.
        """
        if self._entry is not None:
            raise ValueError(f"{name!r} begins inside {self._entry.name.decode()!r}; call end() first")
        coded = check_entry_name(name)
        self._take_name(coded)
        known = crc is not None and size is not None and not deflate
        # Deflate makes what cannot be compressed longer, by 5 bytes in 16 KiB.
        zip64 = size is None or size + (size >> 8 if deflate else 0) >= LIMIT_32
        self._entry = entry = _Entry(
            coded,
            modified,
            NAMES_ARE_UTF8 | (0 if known else DESCRIPTOR_FOLLOWS),
            DEFLATED if deflate else STORED,
            zip64,
            self.offset,
            size,
            crc,
        )
        self._crc = self._size = self._coded_size = 0
        if deflate:
            self._deflater = zlib.compressobj(DEFLATE_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
        shown = (crc or 0, size or 0) if known else (0, 0)
        extra = _timestamp(modified)
        if zip64:
            extra = struct.pack("<2H2Q", 1, 16, shown[1], shown[1]) + extra
        in_32 = LIMIT_32 if zip64 else shown[1]
        return self._written(
            LOCAL_HEADER.pack(
                b"PK\3\4",
                VERSION_ZIP64 if zip64 else VERSION_DEFLATE,
                entry.flags,
                entry.method,
                *_dos_time(modified),
                shown[0],
                in_32,
                in_32,
                len(coded),
                len(extra),
            )
            + coded
            + extra
        )

    def _take_name(self, coded: bytes) -> None:
        """Raise ValueError where an unpacker would have no place left for an entry of this name."""
        *folders, last = coded.split(b"/")  # of a folder the last part is empty
        place = self._tree
        for depth, folder in enumerate(folders, 1):
            inner = place.setdefault(folder, {})
            if inner is None:
                raise _file_and_folder(b"/".join(folders[:depth]))
            place = inner
        if last not in place:
            place[last] = None
        elif place[last] is None:
            raise ValueError(f"the archive has an entry {coded.decode()!r} already; give each its own name")
        else:
            raise _file_and_folder(coded)

    def data(self, block: bytes) -> bytes:
        """More data of the entry, stored or deflated; may return nothing for now. Raises ValueError beyond its size."""
        entry = self._current()
        self._size += len(block)
        if entry.size is not None and self._size > entry.size:
            raise ValueError(
                f"{entry.name.decode()!r} has {self._size} bytes or more, but {entry.size} were announced"
            )
        self._crc = zlib.crc32(block, self._crc)
        coded = block if self._deflater is None else self._deflater.compress(block)
        self._coded_size += len(coded)
        return self._written(coded)

    def end(self) -> bytes:
        """What follows the data of the entry. Raises ValueError where it is not what was announced."""
        entry = self._current()
        rest = b""
        if self._deflater is not None:
            rest = self._deflater.flush()
            self._coded_size += len(rest)
            self._deflater = None
        if entry.size not in (None, self._size):
            raise ValueError(
                f"{entry.name.decode()!r} has {self._size} bytes, but {entry.size} were announced"
            )
        if entry.crc not in (None, self._crc):
            raise ValueError(f"{entry.name.decode()!r} is not the data that its CRC was made of")
        return self._written(rest + self._end(entry, self._crc, self._size, self._coded_size))

    def skip(self, size: int) -> int:
        """Take `size` stored bytes of the entry as written, and end it: for lengths. The bytes that this stands for."""
        entry = self._current()
        before = self.offset
        self.offset += size
        self._written(self._end(entry, entry.crc or 0, size, size))
        return self.offset - before

    def _end(self, entry: _Entry, crc: int, size: int, coded_size: int) -> bytes:
        self._entry = None
        self.entries += 1
        self._directory.append(_central_record(entry, crc, size, coded_size))
        if not entry.flags & DESCRIPTOR_FOLLOWS:
            return b""
        descriptor = DESCRIPTOR_64 if entry.zip64 else DESCRIPTOR
        return descriptor.pack(b"PK\7\x08", crc, coded_size, size)

    def tail(self) -> bytes:
        """The directory (4.3.12 to 4.3.16): only for an archive that is complete. Raises ValueError inside an entry."""
        if self._entry is not None:
            raise ValueError(f"{self._entry.name.decode()!r} has no end; call end() first")
        directory = b"".join(self._directory)
        count, size, offset = self.entries, len(directory), self.offset
        end_64 = b""
        if count >= LIMIT_16 or size >= LIMIT_32 or offset >= LIMIT_32:
            rest = END_64.size - 12  # not counting its first two fields (4.3.14.1)
            version = VERSION_ZIP64
            made_by = MADE_ON_UNIX | version
            end_64 = END_64.pack(
                b"PK\6\6", rest, made_by, version, 0, 0, count, count, size, offset
            ) + LOCATOR_64.pack(b"PK\6\7", 0, offset + size, 1)
        shown = min(count, LIMIT_16)
        end = END.pack(b"PK\5\6", 0, 0, shown, shown, min(size, LIMIT_32), min(offset, LIMIT_32), 0)
        return self._written(directory + end_64 + end)

    def _current(self) -> _Entry:
        if self._entry is None:
            raise ValueError("there is no entry to write to; call begin() first")
        return self._entry

    def _written(self, data: bytes) -> bytes:
        self.offset += len(data)
        return data


def archive_length(entries: list[tuple[str, float, int, bool]]) -> int:
    """The exact length of an archive of stored entries: (name, modified, size, whether the CRC is known before).

    Raises what `ZipEncoder.begin` raises for their names.
    """
    encoder = ZipEncoder()
    for name, modified, size, crc_known in entries:
        encoder.begin(name, modified, size=size, crc=0 if crc_known else None)
        encoder.skip(size)
    encoder.tail()
    return encoder.offset


def _file_and_folder(name: bytes) -> ValueError:
    return ValueError(f"the archive would have a file and a folder {name.decode()!r}; rename one")


def check_entry_name(name: str) -> bytes:
    """The name of an entry as UTF-8. A name that ends in `/` is that of a directory.

    Raises TypeError unless it is str; ValueError if it is empty, absolute, has a drive letter, a backslash, a control
    character, a lone surrogate or a part that is empty, `.` or `..`, or is longer than 65,535 bytes.
    """
    if not isinstance(name, str):
        raise TypeError(f"the name of an entry is {type(name).__name__}; give str, such as 'folder/file.txt'")
    parts = name.removesuffix("/").split("/")
    if not name or name.startswith("/") or _DRIVE.match(name) or ".." in parts:
        raise ValueError(
            f"the entry name {name!r} leads out of the folder where the archive is unpacked; give a relative name "
            "such as 'folder/file.txt'"
        )
    if "\\" in name or _CONTROL.search(name) or "" in parts or "." in parts:
        raise ValueError(
            f"the entry name {name!r} has a backslash, a control character, or a part that is empty or '.'; unpackers "
            "disagree on what that is: clean it first"
        )
    try:
        coded = name.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError(
            f"the entry name {name!r} holds a lone surrogate, which UTF-8 cannot encode; decode it with the encoding "
            "it was written in"
        ) from None
    if len(coded) > LIMIT_16:
        raise ValueError(f"an entry name has {len(coded)} bytes; {LIMIT_16} are allowed")
    return coded


def _central_record(entry: _Entry, crc: int, size: int, coded_size: int) -> bytes:
    """4.3.12. The zip64 field holds only the numbers that do not fit, in this order (4.5.3)."""
    large = [number for number in (size, coded_size, entry.offset) if number >= LIMIT_32]
    extra = _timestamp(entry.modified)
    if large:
        extra = struct.pack(f"<2H{len(large)}Q", 1, 8 * len(large), *large) + extra
    version = VERSION_ZIP64 if large or entry.zip64 else VERSION_DEFLATE
    return (
        CENTRAL_HEADER.pack(
            b"PK\1\2",
            MADE_ON_UNIX | version,
            version,
            entry.flags,
            entry.method,
            *_dos_time(entry.modified),
            crc,
            min(coded_size, LIMIT_32),
            min(size, LIMIT_32),
            len(entry.name),
            len(extra),
            0,
            0,
            0,
            DIRECTORY_MODE if entry.name.endswith(b"/") else FILE_MODE,
            min(entry.offset, LIMIT_32),
        )
        + entry.name
        + extra
    )


def _dos_time(modified: float) -> tuple[int, int]:
    """Time and date in 16 bits each (4.4.6): 1980 to 2107, in the local time of this process."""
    moment = time.localtime(modified)
    if moment.tm_year < 1980:
        return 0, 1 << 5 | 1
    if moment.tm_year > 2107:
        return 23 << 11 | 59 << 5 | 29, 127 << 9 | 12 << 5 | 31
    seconds = min(moment.tm_sec, 59) // 2  # a leap second has no place
    return (
        moment.tm_hour << 11 | moment.tm_min << 5 | seconds,
        (moment.tm_year - 1980) << 9 | moment.tm_mon << 5 | moment.tm_mday,
    )


def _timestamp(modified: float) -> bytes:
    """The extended timestamp with the time of modification; nothing for times that it cannot hold."""
    whole = int(modified)
    return struct.pack("<2HBl", 0x5455, 5, 1, whole) if 0 <= whole < 1 << 31 else b""
