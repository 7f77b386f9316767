"""Logging for threads that serve on, and for functions that never raise: what a handler raises ends nothing."""

from __future__ import annotations

import logging
import sys
import traceback
from typing import Final

log: Final = logging.getLogger("streamkit")


def log_failure(message: str, *arguments: object) -> None:
    """Log the exception that is handled now, at ERROR with its traceback. Never raises."""
    log_surely(logging.ERROR, message, *arguments, error=sys.exc_info()[1])


def log_surely(level: int, message: str, *arguments: object, error: BaseException | None = None) -> None:
    """Log at `level`, with the traceback of `error` if there is one. Never raises, as `logging` does where a handler or
    a filter of the application's raises; that is printed.
    """
    try:
        log.log(level, message, *arguments, exc_info=error)
    except BaseException:
        try:
            traceback.print_exc()
        except BaseException:  # a daemon may have closed its stderr
            pass
