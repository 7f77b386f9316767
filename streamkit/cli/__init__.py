"""The command line: `python -m streamkit COMMAND`. One file a command; each has `add_to` and `run`.

Exit codes: 0 fine, 1 something was found wrong, 2 the command line makes no sense, 130 Ctrl-C. What a user can get
wrong is told in one line, never as a traceback.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any

import streamkit
from streamkit.cli.failures import FINE, INTERRUPTED, USAGE, WRONG, CommandFailed, ReaderLeft, UsageError
from streamkit.cli.output import complain, finish, open_closed_streams

COMMANDS = ("serve", "tail", "doctor", "bench", "publish", "config", "schema")
"""Each is the module of that name in this folder: `add_to(commands)` declares it, `run(arguments)` does it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. argv: the arguments without the program's name; None takes those of the process.

    Returns the exit code. Never raises SystemExit; exceptions of the user's own code come through. A standard stream
    that is closed (`>&-`) is opened as /dev/null first, as `sys.stdin`, `sys.stdout` or `sys.stderr` of the process.
    """
    open_closed_streams()
    try:
        return _run(argv)
    except KeyboardInterrupt:
        return INTERRUPTED
    finally:
        finish()


def _run(argv: Sequence[str] | None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m streamkit", description="Streaming HTTP responses for synchronous Python."
    )
    parser.add_argument("--version", action="version", version=f"streamkit {streamkit.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in _commands():
        command.add_to(commands)
    try:
        arguments = parser.parse_args(argv)
    except SystemExit as stop:  # argparse has printed the help, or what is wrong
        return stop.code if isinstance(stop.code, int) else USAGE
    except OSError:  # nobody reads the help; argparse of Python 3.11 swallows this itself
        return FINE
    try:
        code: int = arguments.run(arguments)
    except UsageError as error:
        complain(f"error: {error}")
        return USAGE
    except CommandFailed as error:
        complain(f"error: {error}")
        return WRONG
    except ReaderLeft:
        return FINE
    return code


def _commands() -> Iterator[Any]:
    for name in COMMANDS:
        module = f"streamkit.cli.{name}"
        try:
            yield import_module(module)
        except ModuleNotFoundError as error:
            if error.name != module:  # a command that was left out of a copy of the package is no error
                raise
