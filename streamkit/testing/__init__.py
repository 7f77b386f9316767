"""Tools for testing streams; made for the tests of those who use streamkit, and for any WSGI application.

Nothing here needs pytest, and importing this package imports none of its parts: a name is loaded when it is used for
the first time. Fixtures are in `streamkit.testing.pytest_plugin`. Nothing else in streamkit imports this package.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__all__ = [
    "BufferingMiddleware",
    "Client",
    "FakeClock",
    "GzipMiddleware",
    "RunningServer",
    "Taken",
    "assert_streams",
    "cuts",
    "installed_servers",
    "running",
    "take_chunks",
    "take_events",
    "take_json_lines",
]

_HOME = {
    "BufferingMiddleware": "middleware",
    "Client": "client",
    "FakeClock": "fake_clock",
    "GzipMiddleware": "middleware",
    "RunningServer": "running_server",
    "Taken": "taken",
    "assert_streams": "assertions",
    "cuts": "cuts_of",
    "installed_servers": "running_server",
    "running": "running_server",
    "take_chunks": "taken",
    "take_events": "taken",
    "take_json_lines": "taken",
}

if TYPE_CHECKING:
    from streamkit.testing.assertions import assert_streams
    from streamkit.testing.client import Client
    from streamkit.testing.cuts_of import cuts
    from streamkit.testing.fake_clock import FakeClock
    from streamkit.testing.middleware import BufferingMiddleware, GzipMiddleware
    from streamkit.testing.running_server import RunningServer, installed_servers, running
    from streamkit.testing.taken import Taken, take_chunks, take_events, take_json_lines


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'streamkit.testing' has no attribute {name!r}")
    value = getattr(import_module(f"streamkit.testing.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
