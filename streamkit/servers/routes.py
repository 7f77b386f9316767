"""A dict of paths as a WSGI application, for scripts that need no framework.

```python
serve(
    {
        "/": lambda environ: "<h1>hello</h1>",
        "/numbers": lambda environ: EventSourceResponse(count()),
        "/files/*": lambda environ: FileResponse(...),
    }
)
```
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

Route = Callable[[dict[str, Any]], Any]
"""Takes the environ; returns a WSGI response object, str, bytes, dict or list."""

_HTML = "text/html; charset=utf-8"
_PLAIN = "text/plain; charset=utf-8"


def routes_app(
    routes: Mapping[str, Route],
) -> Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]:
    """A WSGI application that calls the route whose path equals the request's, and sends what it returns.

    Keys are paths as a user reads them ("/", "/ü"), without query. One that ends in "/*" takes every path that
    begins with what stands before the star; an exact path goes first, then the longest such beginning. Any method
    is passed on. No match is a 404 in plain text.

    A route returns: anything callable with `(environ, start_response)`, for example a streamkit or Werkzeug
    response; `str` for HTML in UTF-8; `bytes` for an octet stream; `dict` or `list` for JSON. What it raises goes
    to the server, which answers 500. The mapping is copied.

    Raises TypeError or ValueError for a path that does not begin with "/" and a route that is not callable; the
    application raises TypeError where a route returns something else.
    """
    exact: dict[str, Route] = {}
    prefixes: list[tuple[str, Route]] = []
    for path, route in routes.items():
        if not isinstance(path, str) or not path.startswith("/"):
            raise ValueError(f'the path {path!r} must be a str that begins with "/"')
        if not callable(route):
            raise TypeError(f"the route of {path!r} is {route!r}; it must be callable with the environ")
        if path.endswith("/*"):
            prefixes.append((path[:-1], route))
        else:
            exact[path] = route
    prefixes.sort(key=lambda item: len(item[0]), reverse=True)

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "").encode("latin-1").decode("utf-8", "replace") or "/"
        route = exact.get(path)
        if route is None:
            route = next((found for prefix, found in prefixes if path.startswith(prefix)), None)
        if route is None:
            return _send(environ, start_response, "404 Not Found", _PLAIN, b"404 Not Found\n")
        answer = route(environ)
        if callable(answer):
            iterable: Iterable[bytes] = answer(environ, start_response)
            return iterable
        mimetype, data = _as_body(path, answer)
        return _send(environ, start_response, "200 OK", mimetype, data)

    return application


def _as_body(path: str, answer: object) -> tuple[str, bytes]:
    if isinstance(answer, str):
        return _HTML, answer.encode("utf-8")
    if isinstance(answer, bytes):
        return "application/octet-stream", answer
    if isinstance(answer, (dict, list)):
        text = json.dumps(answer, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return "application/json", text.encode("utf-8")
    raise TypeError(
        f"the route {path!r} returned {type(answer).__name__}; it must return a response object, str, bytes, dict "
        "or list. Put a generator into StreamingResponse or EventSourceResponse"
    )


def _send(
    environ: dict[str, Any], start_response: Callable[..., Any], status: str, mimetype: str, data: bytes
) -> Iterable[bytes]:
    headers = [("Content-Type", mimetype), ("Content-Length", str(len(data)))]
    if mimetype == "application/octet-stream":
        headers.append(("X-Content-Type-Options", "nosniff"))
    start_response(status, headers)
    return [] if environ.get("REQUEST_METHOD") == "HEAD" else [data]
