"""Sending without a pause for other threads: `send` on a non-blocking socket, called without giving up the GIL.

`socket.send` releases the interpreter lock for the call. With a thread at work beside it, each of a thousand sends then
waits for that thread's turn to end (`sys.getswitchinterval()`, 5 ms), though the call itself takes a few microseconds
and never blocks. `ctypes.PyDLL` calls the same function with the lock held; the interpreter still gives other threads
their turn between two bytecodes, so nobody starves.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, Final

_FLAGS: Final[int] = getattr(socket, "MSG_DONTWAIT", 0) | getattr(socket, "MSG_NOSIGNAL", 0)

Send = Callable[[int, bytes, Any, int], int]
SizeArgument = Callable[[int], Any]


def _send_function() -> tuple[Send | None, SizeArgument]:
    if not hasattr(socket, "MSG_DONTWAIT"):
        return None, int
    try:
        import ctypes

        function = ctypes.PyDLL(None).send
    except (ImportError, OSError, AttributeError):  # built without ctypes, or a system without `send`
        return None, int
    # No `argtypes`: converting by them costs 0.4 us a call. A descriptor and flags are C ints as they are, bytes become
    # a pointer, and a size is given as what `size_argument` makes of it.
    function.restype = ctypes.c_int
    return function, ctypes.c_size_t


send_at_once, size_argument = _send_function()
"""`send_at_once(descriptor, data, size_argument(len(data)), SEND_FLAGS)`: bytes taken, or -1 for any error. It is None
where it cannot be had; `socket.send` does then. `data` is bytes, nothing else."""
SEND_FLAGS: Final = _FLAGS
