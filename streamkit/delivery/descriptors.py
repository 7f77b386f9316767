"""Descriptors of detached connections: kept apart from the server's, and never the last ones.

A process that has run out of descriptors cannot accept, and several servers die of it (gunicorn's threaded worker
raises EMFILE out of its loop). So detached sockets live in the upper part of the table and the server keeps the lower
one: when the upper part is full, the next stream is refused, and pages go on. The lower part also suits `select()`,
which cannot take a number above 1023 (select(2)).
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import resource
from typing import Final

from streamkit.errors import TooManyStreams
from streamkit.flow.stream_threads import stream_threads

SERVER_DESCRIPTORS: Final = 1024  # what `select()` can take, and more than any server's threads have in hand
SPARE: Final = 8  # what a server needs to accept, watch and answer a few requests while the event loop starts
FEW_STREAMS: Final = 1000  # a process that can hold fewer says so as a warning

log: Final = logging.getLogger("streamkit")


def duplicate(descriptor: int) -> int:
    """A duplicate of `descriptor` in the upper part, closed on exec. Raises TooManyStreams when that is full."""
    try:
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _floor())
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.EINVAL):
            raise TooManyStreams(
                f"this process may have {_limit()} descriptors, and all of those for streams are taken;"
                " raise the limit (ulimit -n, LimitNOFILE=)"
            ) from error
        raise


def insist_on_spare(descriptor: int) -> None:
    """Raises OSError (EMFILE) unless `SPARE` more descriptors can be had; `descriptor` is any that is open."""
    spare: list[int] = []
    try:
        for _ in range(SPARE):
            spare.append(os.dup(descriptor))  # noqa: PERF401 - those before a failure are closed
    finally:
        for duplicated in spare:
            os.close(duplicated)


def prepare() -> None:
    """Raise the soft limit to the hard one, as far as the system lets us, and log what this process can hold."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (ValueError, OSError):  # macOS: more than the kernel's own limit
            pass
    streams = max(0, _limit() - _floor())
    log.log(
        logging.WARNING if streams < FEW_STREAMS else logging.INFO,
        "process %d can hold %d detached streams (of %d descriptors), %d of them from generators (stream threads)",
        os.getpid(),
        streams,
        _limit(),
        min(streams, stream_threads.maximum),
    )


def _limit() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def _floor() -> int:
    return min(SERVER_DESCRIPTORS, _limit() // 2)
