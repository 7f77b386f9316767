"""The command line: `python -m streamkit COMMAND`. One file a command; each has `add_to` and `run`.

Exit codes: 0 fine, 1 something was found wrong, 2 the command line makes no sense. What a user can get wrong is told
in one line, never as a traceback.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import streamkit
from streamkit.cli import serve

COMMANDS = (serve,)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. argv: the arguments without the program's name; None takes those of the process.

    Returns the exit code. Never raises SystemExit; exceptions of the user's own code come through.
    """
    parser = argparse.ArgumentParser(
        prog="python -m streamkit", description="Streaming HTTP responses for synchronous Python."
    )
    parser.add_argument("--version", action="version", version=f"streamkit {streamkit.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_to(commands)
    try:
        arguments = parser.parse_args(argv)
    except SystemExit as stop:  # argparse has printed the help, or what is wrong
        return stop.code if isinstance(stop.code, int) else 2
    try:
        code: int = arguments.run(arguments)
    except serve.UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return code
