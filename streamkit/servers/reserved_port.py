"""A port for a server in a process of its own, which has to be told its port and takes it a moment later."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def reserved_port(address: tuple[Any, ...], family: socket.AddressFamily = socket.AF_INET) -> Iterator[int]:
    """A port of `address`, whose own is 0, that nobody uses.

    On Linux the kernel gives it to nobody else while the block lasts, neither to who listens nor to who connects; a
    server that sets SO_REUSEADDR, as all of ours do, may take it all the same (ip(7), socket(7)). Other systems would
    refuse it to that server too, so there it is only likely that nobody comes first. Raises OSError where the address
    cannot be bound.
    """
    with socket.socket(family, socket.SOCK_STREAM) as reserved:
        if sys.platform == "linux":
            reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(address)
        port = int(reserved.getsockname()[1])
        if sys.platform != "linux":
            reserved.close()
        yield port
