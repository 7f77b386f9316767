"""What the tests of `streamkit.testing` share."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from streamkit.testing.in_process import Exchange


@pytest.fixture
def time_from_the_first_item(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time that an exchange has begins when its first item has come, however long a busy machine takes to it."""
    start = Exchange.start

    def start_and_wait(exchange: Exchange, enough: Callable[[bytes], bool]) -> None:
        come = threading.Event()

        def told(chunk: bytes) -> bool:
            over = enough(chunk)
            if chunk.strip(b":\n"):  # more than the comment that an event stream begins with
                come.set()
            return over

        start(exchange, told)
        assert come.wait(20)

    monkeypatch.setattr(Exchange, "start", start_and_wait)
