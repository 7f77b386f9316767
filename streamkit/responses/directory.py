"""Files by the names that clients give: a lookup that finds the file, or the 404 or 403 to answer instead."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from streamkit.flow.byte_sources import ByteSource, OpenFile
from streamkit.flow.open_file import open_beneath, open_path
from streamkit.formats.accept_encoding import choose_coding
from streamkit.responses.early_errors import Answer, early_answer
from streamkit.responses.plain import PlainResponse

SUFFIXES: Final = {"br": ".br", "zstd": ".zst", "gzip": ".gz"}
"""Content codings and the names of files in them, usually smallest first."""


class PathPlace:
    """A path of the program's own, where a file and its precompressed variants are opened."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.name = os.path.basename(path)

    def open(self, suffix: str = "") -> OpenFile:
        """Open the file, or its neighbour whose name has `suffix` added. Raises as `open_path` does."""
        return open_path(self._path + suffix)


class DirectoryPlace:
    """A name from a client, beneath a directory (see `open_beneath`)."""

    def __init__(self, directory: str, name: str, *, follow_symlinks: bool, dotfiles: bool) -> None:
        self._directory = directory
        self._path = name
        self._follow_symlinks = follow_symlinks
        self._dotfiles = dotfiles
        self.name = name.rpartition("/")[2]

    def open(self, suffix: str = "") -> OpenFile:
        """Open the file, or its neighbour whose name has `suffix` added. Raises as `open_beneath` does."""
        return open_beneath(
            self._directory,
            self._path + suffix,
            follow_symlinks=self._follow_symlinks,
            dotfiles=self._dotfiles,
        )


FilePlace = PathPlace | DirectoryPlace


def place_of(
    path_or_file: object, directory: str | os.PathLike[str] | None, follow_symlinks: bool, dotfiles: bool
) -> FilePlace | None:
    """Where `path_or_file` is to be opened; None for what is open already. Raises TypeError, ValueError."""
    if directory is not None:
        name = os.fspath(path_or_file) if isinstance(path_or_file, os.PathLike) else path_or_file
        if not isinstance(name, str):
            raise TypeError(f"with directory= give the name as text, not {type(path_or_file).__name__}")
        return DirectoryPlace(os.fspath(directory), name, follow_symlinks=follow_symlinks, dotfiles=dotfiles)
    if follow_symlinks or dotfiles:
        raise ValueError("follow_symlinks and dotfiles go with directory=; a path alone is opened as it is")
    return PathPlace(os.fspath(path_or_file)) if isinstance(path_or_file, (str, os.PathLike)) else None


def open_variant(
    place: FilePlace, original: ByteSource, accept_encoding: str | None
) -> tuple[OpenFile, str] | None:
    """The precompressed neighbour that the client likes best, and its content coding; None where there is none.

    One that is older than the original is stale, one that is empty was never finished; both count as missing.
    """
    assert original.facts is not None
    available = list(SUFFIXES)
    while (coding := choose_coding(accept_encoding, available)) is not None:
        available.remove(coding)
        try:
            variant = place.open(SUFFIXES[coding])
        except (OSError, ValueError):
            continue
        assert variant.facts is not None
        if variant.facts.st_mtime_ns >= original.facts.st_mtime_ns and (variant.size or not original.size):
            return variant, coding
        variant.close()
    return None


@dataclass(frozen=True)
class Refusal:
    """Nothing to send: 404, or 403 for a file that this process may not read."""

    status: HTTPStatus

    @property
    def body(self) -> bytes:
        """The text of the plain answer."""
        return f"{self.status.phrase}\n".encode()

    def answer(self, environ: dict[str, Any]) -> Answer:
        """The response: the error page of the Flask application, where there is one; Werkzeug's; else plain text."""
        exceptions = sys.modules.get("werkzeug.exceptions")  # never imported from here
        if exceptions is not None:
            return early_answer(exceptions.default_exceptions[self.status.value](), environ)
        return PlainResponse([self.body], self.status.value, content_type="text/plain; charset=utf-8")
