"""A WSGI application that serves the directory of the environment variable FILES, for clients that want ranges."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from typing import Any

from streamkit import FileResponse, streams

outcomes: list[str] = []
requests: list[dict[str, str]] = []  # what clients really ask


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    path = environ["PATH_INFO"]
    if path == "/state":
        state = {
            "outcomes": outcomes,
            "requests": requests,
            "live": len(streams),
            "open": open_files(),
        }
        start_response("200 OK", [("Content-Type", "application/json")])
        return [json.dumps(state).encode()]
    request = {"method": environ["REQUEST_METHOD"], "path": path, "status": ""}
    request |= {name: environ[name] for name in ("HTTP_RANGE", "HTTP_IF_RANGE") if name in environ}
    requests.append(request)
    # PEP 3333 decodes paths as Latin-1.
    name = path.encode("latin-1").decode("utf-8", "surrogateescape").removeprefix("/")
    if path == "/growing":
        response = FileResponse(
            os.path.join(os.environ["FILES"], "growing.log"),
            follow=lambda: not os.path.exists(os.path.join(os.environ["FILES"], "done")),
            on_close=ended,
        )
    else:
        response = FileResponse(
            name, directory=os.environ["FILES"], precompressed=True, repr_digest=True, on_close=ended
        )
    answer = response(environ, start_response)
    request["status"] = response.status
    return answer


def open_files() -> list[str]:
    """The files of the directory that this process holds open, its own log aside."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{number}")
        except OSError:
            continue  # closed meanwhile
        if target.startswith(os.environ["FILES"]) and ".log" not in target:
            found.append(target)
    return found


def ended(stream: Any) -> None:
    outcomes.append(f"{stream.kind}:{stream.outcome}:{stream.bytes}")
