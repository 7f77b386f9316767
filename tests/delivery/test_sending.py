"""The one call that sends to thousands: what it takes, and that no other thread runs meanwhile."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from time import monotonic

import pytest

from streamkit.delivery.sending import SEND_FLAGS, send_at_once, size_argument

if send_at_once is None:
    pytest.skip("built without ctypes", allow_module_level=True)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_it_sends_what_there_is_room_for_and_never_waits(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    assert send_at_once is not None
    assert send_at_once(ours.fileno(), b"first", size_argument(5), SEND_FLAGS) == 5
    assert theirs.recv(100) == b"first"
    block = bytes(100_000)
    taken = [send_at_once(ours.fileno(), block, size_argument(len(block)), SEND_FLAGS) for _ in range(100)]
    assert taken[-1] == -1  # full, on a socket that blocks
    theirs.close()
    assert send_at_once(ours.fileno(), b"late", size_argument(4), SEND_FLAGS) == -1  # and no SIGPIPE


def test_no_other_thread_has_its_turn_while_it_sends(pair: tuple[socket.socket, socket.socket]) -> None:
    """One that computes would keep the interpreter's lock for a switch interval each time that a send gave it away.

    A send that waits in the kernel, as none does otherwise, shows whether it has the lock.
    """
    assert send_at_once is not None
    ours, _ = pair
    one = size_argument(1)
    while send_at_once(ours.fileno(), b"x", one, SEND_FLAGS) == 1:
        pass
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, 300_000))
    looked, done = threading.Event(), threading.Event()
    longest = 0.0

    def compute() -> None:
        nonlocal longest
        last = monotonic()
        while not done.is_set():
            now = monotonic()
            longest = max(longest, now - last)
            last = now
            looked.set()

    thread = threading.Thread(target=compute)
    thread.start()
    try:
        looked.wait(10)
        assert send_at_once(ours.fileno(), b"x", one, 0) == -1
        for _ in range(2):  # one look may have been under way; the pause is in the next one
            looked.clear()
            looked.wait(10)
    finally:
        done.set()
        thread.join()
    assert longest > 0.25
