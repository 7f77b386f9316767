"""Opening files to send: regular files only, opened once and looked at by their descriptor, never out of a directory.

Law of this file
- Open first, `fstat` the descriptor then: size, kind and times are those of the bytes that are sent (RFC 9110 17.3).
- A name under a directory comes from a client. It is taken apart, each part is checked and opened by itself beneath the
  one before (`openat` with O_NOFOLLOW), so that no `..`, no link and no rename in between leads outside.
- What the client may not have does not exist: NotServed, whatever the reason. A file that is there and that
  this process may not read is the operator's mistake: PermissionError.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from typing import Final

from streamkit.flow.byte_sources import OpenFile

# O_NONBLOCK: opening a FIFO would otherwise wait for a writer; it means nothing for a regular file.
_READ: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | getattr(os, "O_NOCTTY", 0)
# O_PATH: to go through a directory takes the right to search it, not to list it.
_PASS_THROUGH: Final = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC
_DRIVE: Final = re.compile(r"[A-Za-z]:")

# What `open` says to a name that leads to no file: no such name, a file where a directory should be, a link where none
# is followed (ELOOP; EMLINK on FreeBSD), too long, a socket or a device without a driver.
_NOT_THERE: Final = frozenset(
    {
        errno.ENOENT,
        errno.ENOTDIR,
        errno.ELOOP,
        errno.EMLINK,
        errno.ENAMETOOLONG,
        errno.ENXIO,
        errno.ENODEV,
        errno.EINVAL,
    }
)


class NotServed(FileNotFoundError):
    """What a client asked for is nothing that is served."""


def open_path(path: str) -> OpenFile:
    """Open a path of the program's own; links are followed.

    Raises what `os.open` raises, IsADirectoryError, and ValueError for a NUL character or for what is no regular file.
    """
    if "\0" in path:
        raise ValueError(f"a path cannot hold a NUL character: {path!r}")
    try:
        descriptor = os.open(path, _READ)
    except OSError as error:
        if error.errno == errno.ENXIO:  # a socket cannot be opened at all
            raise _not_regular(path) from error
        raise
    try:
        facts = os.fstat(descriptor)
        if stat.S_ISDIR(facts.st_mode):
            raise IsADirectoryError(f"{path!r} is a directory; FileResponse sends one regular file")
        if not stat.S_ISREG(facts.st_mode):
            raise _not_regular(path)
    except BaseException:
        os.close(descriptor)
        raise
    return OpenFile(descriptor, facts)


def open_beneath(
    directory: str, name: str, *, follow_symlinks: bool = False, dotfiles: bool = False
) -> OpenFile:
    """Open the file that a client calls `name` beneath `directory`.

    name: parts joined by "/", decoded. An empty name or part, `.`, `..`, a leading "/", a drive letter, a backslash
        and a NUL are refused; so are parts that begin with a dot, unless `dotfiles`.
    follow_symlinks: whether links beneath the directory are followed, wherever they lead. The directory itself may be
        one.

    Raises NotServed for every name that is refused or leads to no regular file, PermissionError for a file that this
    process may not read, and what `os.open` raises (FileNotFoundError) for a directory that is not there.
    """
    parts = _checked_parts(name, dotfiles)
    folder = os.open(directory, _PASS_THROUGH)
    try:
        if parts is None:
            raise _missing(name)
        no_link = 0 if follow_symlinks else os.O_NOFOLLOW
        try:
            for part in parts[:-1]:
                inner = os.open(part, _PASS_THROUGH | no_link, dir_fd=folder)
                os.close(folder)
                folder = inner
            descriptor = os.open(parts[-1], _READ | no_link, dir_fd=folder)
        except UnicodeEncodeError as error:  # a lone surrogate, or a file system that is not in UTF-8
            raise _missing(name) from error
        except OSError as error:
            if error.errno in _NOT_THERE:
                raise _missing(name) from error
            raise
    finally:
        os.close(folder)
    try:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            raise _missing(name)
    except BaseException:
        os.close(descriptor)
        raise
    return OpenFile(descriptor, facts)


def _checked_parts(name: str, dotfiles: bool) -> list[str] | None:
    if "\0" in name or "\\" in name or _DRIVE.match(name):
        return None
    parts = name.split("/")
    for part in parts:
        if part in {"", ".", ".."} or (part.startswith(".") and not dotfiles):
            return None
    return parts


def _missing(name: str) -> NotServed:
    return NotServed(errno.ENOENT, "no such file is served", name)


def _not_regular(path: str) -> ValueError:
    return ValueError(
        f"{path!r} is not a regular file (a device, socket or FIFO); use StreamingResponse for those"
    )
