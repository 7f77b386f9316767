"""The log of this server in a file, whatever server it is, so that the page can follow it."""

from __future__ import annotations

import logging
import logging.handlers
import re
from pathlib import Path

# gunicorn keeps its loggers apart from the root logger; access lines are there when its --access-logfile is given.
LOGGERS = ("streamkit", "streamkit.server", "streamkit.server.access", "gunicorn.error", "gunicorn.access")
# Pings and the crowd write hundreds of lines that say nothing, and would push out the others.
UNTOLD = ("/crowd/stream", "/ping")
_REPEATED = re.compile(r' - - \[[^]]*\](?= ")| "[^"]*" "[^"]*"$')
MAX_BYTES = 1_000_000  # then the file is renamed away and begun anew; `tail_file` follows


def keep_server_log(path: Path) -> None:
    """Append what the server and streamkit log to the file at `path`. Called once, when the application is loaded."""
    handler = logging.handlers.RotatingFileHandler(path, maxBytes=MAX_BYTES, backupCount=1, encoding="utf-8")
    handler.addFilter(_is_told)
    handler.setFormatter(_Line("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S"))
    for name in LOGGERS:
        logger = logging.getLogger(name)
        if not _reaches(logger, handler):
            logger.addHandler(handler)
    streamkit = logging.getLogger("streamkit")
    if streamkit.getEffectiveLevel() > logging.INFO:
        streamkit.setLevel(logging.INFO)
    if not logging.getLogger().handlers:
        # Under gunicorn nothing prints what other loggers say: warnings and errors belong on the terminal too.
        terminal = logging.StreamHandler()
        terminal.setLevel(logging.WARNING)
        streamkit.addHandler(terminal)


class _Line(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:
        """Access lines without the time, which is there already, and without what the browser calls itself."""
        return _REPEATED.sub("", super().formatMessage(record))


def _is_told(record: logging.LogRecord) -> bool:
    if record.levelno > logging.INFO:
        return True
    line = record.getMessage()
    return not any(path in line for path in UNTOLD)


def _reaches(logger: logging.Logger | None, handler: logging.Handler) -> bool:
    """Whether a line of `logger` comes to `handler` already, by one of the loggers above it."""
    while logger is not None:
        if handler in logger.handlers:
            return True
        logger = logger.parent if logger.propagate else None
    return False
