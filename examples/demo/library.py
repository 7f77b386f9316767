"""The source files of the running Python, read into an SQLite database: real rows for the exports.

Two tables: `files` (path, size, lines, definitions) and `definitions` (path, line, kind, name), one row for each
`def` and `class`. The database is built once, beside the log, in about five seconds: under another name, then
renamed, so that nobody ever opens half of it; a lock file keeps a second process from doing the same work.
"""

from __future__ import annotations

import ast
import fcntl
import os
import sqlite3
import sysconfig
import threading
import warnings
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

MAX_FILES = int(
    os.environ.get("STREAMKIT_DEMO_FILES", "3000")
)  # a CPython with its test suite has about 1,900
MAX_FILE_BYTES = 2_000_000  # what is larger is data written as Python

_SCHEMA = """
create table files (path text primary key, size integer, lines integer, definitions integer);
create table definitions (path text, line integer, kind text, name text);
"""
EXPORTED = """
select path, size, lines, line, kind, name from definitions join files using (path) order by definitions.rowid
"""
_KINDS = {ast.FunctionDef: "def", ast.AsyncFunctionDef: "async def", ast.ClassDef: "class"}


def installation() -> Path:
    """The folder of the running Python's own library."""
    return Path(sysconfig.get_path("stdlib"))


def installed_files(suffix: str = "") -> Iterator[Path]:
    """The files of the library that end in `suffix`, in a fixed order, without installed packages and caches."""
    for folder, folders, names in os.walk(installation()):
        folders[:] = sorted(
            name for name in folders if name not in ("site-packages", "dist-packages", "__pycache__")
        )
        yield from (Path(folder, name) for name in sorted(names) if name.endswith(suffix))


def source_files() -> Iterator[tuple[str, Path]]:
    """(name, path) of each source file, as entries of an archive."""
    for path in installed_files(".py"):
        if path.is_file():
            yield f"python/{path.relative_to(installation())}", path


class Library:
    """The database at `path`, and how far its building is. Thread-safe."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()  # owned while deciding who starts the builder
        self._builder: threading.Thread | None = None
        self._progress: dict[str, Any] = {}

    def state(self) -> dict[str, Any]:
        """`ready`, and then `rows`; before that `files` of `total` read, or the `error` that stopped the building.

        The first call starts a thread that builds the database if there is none.
        """
        if not self._progress.get("ready"):
            with self._lock:
                if self._builder is None or not (self._builder.is_alive() or self._progress.get("ready")):
                    self._builder = threading.Thread(target=self._build_or_tell, name="library", daemon=True)
                    self._builder.start()
        return dict(self._progress)

    def connect(self) -> sqlite3.Connection:
        """A connection of the calling thread, read-only."""
        return sqlite3.connect(f"{self.path.as_uri()}?mode=ro", uri=True)

    def _build_or_tell(self) -> None:
        try:
            with self.path.with_suffix(".lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)  # another worker builds it: wait, then find it finished
                if not self.path.exists():
                    self._build()
            with closing(self.connect()) as connection:
                (rows,) = connection.execute("select count(*) from definitions").fetchone()
                (files,) = connection.execute("select count(*) from files").fetchone()
            self._progress = {"ready": True, "rows": rows, "files": files, "bytes": self.path.stat().st_size}
        except Exception as error:
            self._progress = {"ready": False, "error": f"{type(error).__name__}: {error}"}
            raise

    def _build(self) -> None:
        paths = [path for path in installed_files(".py") if path.stat().st_size <= MAX_FILE_BYTES][:MAX_FILES]
        unfinished = self.path.with_suffix(".building")
        unfinished.unlink(missing_ok=True)
        with closing(sqlite3.connect(unfinished)) as connection:
            connection.executescript(_SCHEMA)
            for number, path in enumerate(paths):
                self._progress = {"ready": False, "files": number, "total": len(paths)}
                name, source = str(path.relative_to(installation())), path.read_bytes()
                rows = [(name, *definition) for definition in definitions(source)]
                connection.execute(
                    "insert into files values (?, ?, ?, ?)",
                    (name, len(source), source.count(b"\n"), len(rows)),
                )
                connection.executemany("insert into definitions values (?, ?, ?, ?)", rows)
            connection.commit()
        unfinished.replace(self.path)


def definitions(source: bytes) -> list[tuple[int, str, str]]:
    """(line, kind, name) of every function and class; none for a file that this Python cannot parse."""
    try:
        with warnings.catch_warnings():  # old test files have escapes that Python warns about
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return []
    found = [
        (node.lineno, _KINDS[type(node)], node.name)
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
    ]
    return sorted(found)


def search(text: str, *, limit: int = 500) -> Iterator[dict[str, Any]]:
    """The lines of the library that contain `text`, as they are found; last a summary with `files` and `hits`."""
    hits = files = 0
    for path in installed_files(".py"):
        files += 1
        name = str(path.relative_to(installation()))
        with path.open(encoding="utf-8", errors="replace") as lines:
            for number, line in enumerate(lines, 1):
                if text in line:
                    hits += 1
                    yield {"path": name, "line": number, "text": line.strip()[:200]}
                    if hits == limit:
                        yield {"end": True, "files": files, "hits": hits, "limited": True}
                        return
    yield {"end": True, "files": files, "hits": hits, "limited": False}
