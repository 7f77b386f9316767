"""The standard output and error of a command: colour, escapes, progress, and what becomes of a write that fails.

The law: nothing that came over the network reaches a terminal raw (a control character could rewrite what the user has
read), colour goes to terminals only and never where `NO_COLOR` is set (https://no-color.org), and each line is flushed,
since these commands show what happens while it happens. One thread, the main one, writes.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, TextIO

from streamkit.cli.failures import CommandFailed, ReaderLeft

_CODES: Final = {
    "bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "blue": "34", "cyan": "36",
}  # fmt: skip

# C0 but tab and line feed, DEL, C1, and what turns the direction of text around (Unicode Bidi controls).
_UNSAFE: Final = {
    code: f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
    for code in (
        *(code for code in range(32) if chr(code) not in "\t\n"),
        *range(127, 160),
        *range(0x202A, 0x202F),
        *range(0x2066, 0x206A),
    )
}


def safe(text: str) -> str:
    """`text` with control characters but tab and line feed written as escapes, such as `\\x1b`."""
    return text.translate(_UNSAFE)


def safe_line(text: str) -> str:
    """The same on one line: a line feed is escaped too."""
    return safe(text).replace("\n", "\\n")


def wants_colour(stream: TextIO) -> bool:
    """Whether `stream` is a terminal that takes colour: `NO_COLOR` unset or empty, and `TERM` not "dumb"."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb" and stream.isatty()


class Output:
    """The standard output. `colour` says whether `paint` paints; as_json: whether lines are for programs.

    Every method that writes raises ReaderLeft where the reader has gone, and CommandFailed where the output cannot be
    written (a full disk).
    """

    def __init__(self) -> None:
        self.stream = sys.stdout
        self.colour = wants_colour(self.stream)

    def line(self, text: str = "") -> None:
        """Write one line, or several, at once. What the encoding of the output lacks is escaped."""
        encoding = getattr(self.stream, "encoding", None) or "utf-8"
        whole = f"{text}\n".encode(encoding, "backslashreplace").decode(encoding)
        try:
            self.stream.write(whole)
            self.stream.flush()
        except BrokenPipeError:
            _discard(self.stream)
            raise ReaderLeft from None
        except (OSError, ValueError) as error:
            _discard(self.stream)
            reason = error.strerror if isinstance(error, OSError) else error
            raise CommandFailed(f"cannot write to the standard output: {reason or error}") from None

    def json(self, value: Any) -> None:
        """Write `value` as one line of JSON, in ASCII, so that any output takes it."""
        self.line(json.dumps(value, separators=(", ", ": "), allow_nan=False))

    def paint(self, text: str, colour: str) -> str:
        """`text` in a colour, "bold" or "dim"; as it is where the output takes no colour."""
        return f"\x1b[{_CODES[colour]}m{text}\x1b[0m" if self.colour and text else text


def open_closed_streams() -> None:
    """Give the process /dev/null for each standard stream that it was started without, which Python shows as None.

    The descriptors are those of the closed streams, the lowest that are free; else the next socket would get one, and
    hear what somebody writes to the standard error.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            nothing = os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, os.fdopen(nothing, mode, encoding="utf-8", closefd=False))


def complain(text: str) -> None:
    """Write one line to the standard error; where that is closed there is nobody to tell."""
    try:
        print(safe_line(text), file=sys.stderr, flush=True)
    except (OSError, ValueError):
        pass


def finish() -> None:
    """Write what the standard output still holds; where that fails at the very end (`--help | head -1`), drop it."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        _discard(sys.stdout)


def _discard(stream: TextIO) -> None:
    """Point the descriptor at nothing, so that the flush at exit does not fail a second time, with a traceback."""
    try:
        nothing = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nothing, stream.fileno())
        finally:
            os.close(nothing)
    except (OSError, ValueError):  # a stream without a descriptor, such as one of a test
        pass


class Progress:
    """What a long command is doing: `update(fraction, text)`. A line on the standard error, only on a terminal."""

    def update(self, fraction: float, text: str) -> None:
        """Show `text`, and how much is done, 0 to 1."""


class _PlainProgress(Progress):
    def __init__(self) -> None:
        self._shown = ""

    def update(self, fraction: float, text: str) -> None:
        line = f"{min(max(fraction, 0), 1):4.0%} {text}"
        if line != self._shown:
            self._shown = line
            sys.stderr.write(f"\r\x1b[K{line}")
            sys.stderr.flush()


class _RichProgress(Progress):
    def __init__(self, bars: Any) -> None:
        self._bars = bars
        self._task = bars.add_task("", total=1.0)

    def update(self, fraction: float, text: str) -> None:
        self._bars.update(self._task, completed=min(max(fraction, 0), 1), description=text)


@contextmanager
def progress(*, quiet: bool = False) -> Iterator[Progress]:
    """A progress bar that is wiped at the end: by rich where it is installed, else in plain text.

    quiet, or a standard error that is no terminal: nothing is shown.
    """
    if quiet or not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield Progress()
        return
    try:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bars
    except ImportError:
        try:
            yield _PlainProgress()
        finally:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
        return
    columns = (BarColumn(), TextColumn("{task.percentage:>3.0f}% {task.description}", markup=False))
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        yield _RichProgress(bars)
