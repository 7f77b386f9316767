"""pytest fixtures around `streamkit.testing`. Switch them on in a `conftest.py`:

```python
pytest_plugins = ["streamkit.testing.pytest_plugin"]
```
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from time import monotonic
from typing import Final

try:
    import pytest
except ImportError as error:
    raise ImportError(
        "streamkit.testing.pytest_plugin needs pytest (pip install pytest); the rest of streamkit.testing does not"
    ) from error

from streamkit.flow.streams import streams
from streamkit.testing.client import Client
from streamkit.testing.fake_clock import FakeClock
from streamkit.testing.in_process import WSGIApplication
from streamkit.testing.running_server import RunningServer, running

END_SECONDS: Final = 5.0  # producers end on threads of their own; on a busy machine that takes a moment
_LOOK_SECONDS: Final = 0.01

ServeApp = Callable[..., RunningServer]


@pytest.fixture
def fake_clock() -> FakeClock:
    """A clock at 0 that moves when it is told."""
    return FakeClock()


@pytest.fixture
def serve_app(request: pytest.FixtureRequest) -> Iterator[ServeApp]:
    """`serve_app(app, server="streamkit", threads=4)` starts a server, which is stopped after the test."""
    if "no_streams_left" in request.fixturenames:
        request.getfixturevalue("no_streams_left")  # set up first, so that it looks after this one has ended
    with ExitStack() as stack:

        def start(
            app: WSGIApplication | str, server: str = "streamkit", *, threads: int = 4
        ) -> RunningServer:
            return stack.enter_context(running(app, server, threads=threads))

        yield start


@pytest.fixture
def stream_client(serve_app: ServeApp) -> Iterator[Callable[..., Client]]:
    """`stream_client(url)` makes a `Client`, which leaves after the test and before its server is stopped."""
    with ExitStack() as stack:

        def connect(url: str, *, timeout: float = 10.0) -> Client:
            return stack.enter_context(Client(url, timeout=timeout))

        yield connect


@pytest.fixture
def no_streams_left() -> Iterator[None]:
    """After the test every streamkit stream that it started must have ended, within 5 s."""
    import threading

    before = set(streams)
    yield
    deadline = monotonic() + END_SECONDS
    pause = threading.Event()
    while left := [stream for stream in streams if stream not in before]:
        if monotonic() > deadline:
            pytest.fail(f"still live {END_SECONDS} s after the test: {left}")
        pause.wait(_LOOK_SECONDS)
