"""What a command tells its user instead of a traceback, and the exit code of each."""

from __future__ import annotations

FINE = 0
"""Everything was as asked."""

WRONG = 1
"""Something was found wrong, or could not be done."""

USAGE = 2
"""The command line makes no sense; argparse has the same code."""

INTERRUPTED = 130
"""Ctrl-C: what a shell reports for a program that SIGINT ended."""


class UsageError(Exception):
    """The command line asks for what is not there, or makes no sense. Exit code 2."""


class CommandFailed(Exception):
    """What was asked for makes sense and cannot be done; the message says why. Exit code 1."""


class ReaderLeft(Exception):
    """Who reads the standard output has closed it (`| head -1`): it has enough, so this is no failure."""
