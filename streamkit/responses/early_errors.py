"""What the client is answered when a stream fails before its first byte: a real status, not a broken 200."""

from __future__ import annotations

import inspect
import logging
import random
import sys
from collections.abc import Iterable
from typing import Any, Final, Protocol

from streamkit.errors import TooManyStreams
from streamkit.formats.event_stream import retry_line
from streamkit.responses.plain import PlainResponse

log: Final = logging.getLogger("streamkit")

_READABLE_BY: Final = ("access-control-", "cross-origin-")


class Answer(Protocol):
    """A response of Werkzeug, Flask, or the plain one."""

    def get_wsgi_response(
        self, environ: dict[str, Any], /
    ) -> tuple[Iterable[bytes], str, list[tuple[str, str]]]:
        """Body, status line and headers."""
        ...


def early_answer(
    error: BaseException, environ: dict[str, Any], headers: Iterable[tuple[str, str]] = ()
) -> Answer:
    """The response for `error`. Raises it where the server or a middleware has to make it a 500.

    headers: of the response that failed.

    Inside Flask the application's own error handlers decide, as they do for an error in the view. Elsewhere
    Werkzeug's HTTP exceptions (`abort(404)`) are responses themselves, and TooManyStreams says when to come back.
    """
    if isinstance(error, TooManyStreams):
        return _refusal(error, environ, headers)
    if not isinstance(error, Exception):
        raise error
    flask = sys.modules.get("flask")  # never imported from here: only an application that uses Flask has it
    if flask is not None and flask.has_request_context():
        application = flask.current_app
        # From Flask 3.2 on these methods are given the context.
        takes_context = "ctx" in inspect.signature(flask.Flask.finalize_request).parameters
        context = [flask.globals.app_ctx._get_current_object()] if takes_context else []
        try:
            answer = application.handle_user_exception(*context, error)
        except Exception as unhandled:
            answer = application.handle_exception(*context, unhandled)
        finished: Answer = application.finalize_request(*context, answer, from_error_handler=True)
        return finished
    exceptions = sys.modules.get("werkzeug.exceptions")
    if exceptions is not None and isinstance(error, exceptions.HTTPException):
        given = error.get_response(environ)  # not always a response: `abort` takes any WSGI application
        response: Answer = sys.modules["werkzeug.wrappers"].Response.force_type(given, environ)
        return response
    if _leaves_unanswered(error, environ):
        log.error(
            "a stream at %s failed before it began", ascii(environ.get("PATH_INFO", "")), exc_info=error
        )
        return PlainResponse(
            [b"Internal Server Error\n"], status=500, content_type="text/plain; charset=utf-8"
        )
    raise error


def _leaves_unanswered(error: BaseException, environ: dict[str, Any]) -> bool:
    """Whether the server closes the connection without an answer when an application raises `error`.

    uWSGI does so for any error. gunicorn and Werkzeug's server take these for those of the client's connection, though
    a database or another service may have raised them.
    """
    if "gunicorn.socket" in environ:
        return isinstance(error, OSError)
    if "werkzeug.socket" in environ:
        return isinstance(error, (ConnectionError, TimeoutError))
    return "uwsgi.version" in environ


def _refusal(
    error: TooManyStreams, environ: dict[str, Any], headers: Iterable[tuple[str, str]]
) -> PlainResponse:
    # Of an answer that a page of another origin may not read, it learns nothing: its EventSource would not come back.
    kept = [(name, value) for name, value in headers if name.lower().startswith(_READABLE_BY)]
    if error.event_streams == "retry" and "text/event-stream" in environ.get("HTTP_ACCEPT", ""):
        # Spread over twice the time, so that those who were refused together do not come back together.
        milliseconds = round(1000 * error.retry_after * random.uniform(1.0, 2.0))
        return PlainResponse(
            [b":\n" + retry_line(milliseconds)],
            headers=[*kept, ("Cache-Control", "no-store")],
            content_type="text/event-stream; charset=utf-8",
        )
    return PlainResponse(
        [b"Too many streams are open. Try again soon.\n"],
        status=error.status,
        headers=[*kept, ("Retry-After", str(error.retry_after)), ("Cache-Control", "no-store")],
        content_type="text/plain; charset=utf-8",
    )
