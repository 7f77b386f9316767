"""Sending without a pause for other threads: `send` on a non-blocking socket, called without giving up the GIL.

`socket.send` releases the interpreter lock for the call. With a thread at work beside it, each of a thousand sends then
waits for that thread's turn to end (`sys.getswitchinterval()`, 5 ms), though the call itself takes a few microseconds
and never blocks. `ctypes.PyDLL` calls the same function with the lock held; the interpreter still gives other threads
their turn between two bytecodes, so nobody starves.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Final

_FLAGS: Final[int] = getattr(socket, "MSG_DONTWAIT", 0) | getattr(socket, "MSG_NOSIGNAL", 0)

Send = Callable[[int, bytes, int, int], int]


def _send_function() -> Send | None:
    if not hasattr(socket, "MSG_DONTWAIT"):
        return None
    try:
        import ctypes

        function = ctypes.PyDLL(None).send
    except (ImportError, OSError, AttributeError):  # built without ctypes, or a system without `send`
        return None
    function.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int]
    function.restype = ctypes.c_ssize_t
    return function


send_at_once: Final = _send_function()
"""`send_at_once(descriptor, data, len(data), SEND_FLAGS)`: bytes taken, or -1 for any error; None where missing."""
SEND_FLAGS: Final = _FLAGS
