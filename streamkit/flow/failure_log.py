"""The failures that end nothing: logged by threads that serve on, and by functions that never raise."""

from __future__ import annotations

import logging
import traceback
from typing import Final

log: Final = logging.getLogger("streamkit")


def log_failure(message: str, *arguments: object) -> None:
    """Log the exception that is handled now. Never raises, as `log.exception` does where a handler or a filter of the
    application's raises; then both are printed.
    """
    try:
        log.exception(message, *arguments)  # noqa: LOG004 - called by handlers alone
    except BaseException:
        try:
            traceback.print_exc()
        except BaseException:  # a daemon may have closed its stderr
            pass
