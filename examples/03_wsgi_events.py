"""A bare WSGI application: a response of streamkit is a WSGI callable itself.

run:  gunicorn --threads 4 --chdir examples 03_wsgi_events:app
curl: curl -N http://127.0.0.1:8000/
"""

import os
import time
from collections.abc import Callable, Iterable
from typing import Any

from streamkit import EventSourceResponse, every


def load() -> dict[str, object]:
    return {"time": time.time(), "load": os.getloadavg()}


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    response = EventSourceResponse(every(0.2, load, times=5))
    return response(environ, start_response)
