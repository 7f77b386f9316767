"""Ports for servers that must be told theirs."""

from __future__ import annotations

import itertools
import random
import socket

# Below those that the kernel gives out by itself (ip(7), ip_local_port_range: from 32768): a connection or a listener
# that asks for any port cannot get this one in the moment before the server takes it.
_FIRST, _LAST = 10_000, 32_000
_numbers = itertools.cycle(range(_FIRST, _LAST))
next(
    itertools.islice(_numbers, random.randrange(_LAST - _FIRST), None)
)  # suites that run side by side stand apart


def free_port() -> int:
    """A port of 127.0.0.1 that nobody uses; each call gives another."""
    return next(port for port in _numbers if _is_free(port))


def free_ports_in_a_row(count: int) -> int:
    """The first of `count` ports of 127.0.0.1 that nobody uses."""
    while True:
        first = free_port()
        if all(free_port() == first + more for more in range(1, count)):
            return first


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
