"""The application of `hub_restart`: a stream from the hub whose URL is in the environment."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

from streamkit import EventSourceResponse
from streamkit.hub.hub import Hub

hub = Hub(os.environ["HUB_URL"])


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """/events: the stream. /pid: which worker answers."""
    if environ["PATH_INFO"] == "/events":
        return EventSourceResponse(hub.subscribe("bench"), retry=100)(environ, start_response)
    body = str(os.getpid()).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
