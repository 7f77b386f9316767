"""`tail URL`: the events of a stream as they come, with their times and the gaps between them."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from streamkit.cli.arguments import (
    add_command,
    add_headers,
    count,
    duration,
    duration_or_none,
    header_fields,
    http_url,
    method,
)
from streamkit.cli.failures import FINE, WRONG, CommandFailed, UsageError
from streamkit.cli.output import Output, complain, safe, safe_line
from streamkit.errors import ConnectionLost, StreamkitError
from streamkit.formats.event_stream import ServerSentEvent

EXAMPLES = """\
  python -m streamkit tail http://127.0.0.1:8000/events
  python -m streamkit tail localhost:8000/events --event price --since 42 -n 10
  python -m streamkit tail https://api.example.com/chat --data '{"prompt": "hi"}' -H 'Authorization: Bearer ...'
  python -m streamkit tail localhost:8000/events --raw --for 1m > events.txt
"""

MAX_DEPTH: Final = 32
"""Objects and lists within each other that are still shown as JSON; who writes for readers has fewer. Deeper ones could
be more than the recursion of `json` takes (about 1,000), and are printed as they came."""

MAX_INDENTED: Final = 4096
"""Characters of JSON that are laid out over several lines, which multiplies them by up to `MAX_DEPTH`."""

_SILENT = logging.NullHandler()


def add_to(commands: Any) -> None:
    """Add the command to `commands`, what `ArgumentParser.add_subparsers` returned."""
    parser = add_command(commands, "tail", "print the events of a stream as they come", EXAMPLES)
    parser.add_argument("url", metavar="URL", type=http_url, help="of the stream; http:// may be left out")
    parser.add_argument(
        "--event",
        metavar="NAME",
        action="append",
        help="only events of this name; may be given several times",
    )
    parser.add_argument("--since", metavar="ID", help="resume after the event with this id (Last-Event-ID)")
    parser.add_argument(
        "--method", type=method, help="the request's method (default GET, or POST with --data)"
    )
    parser.add_argument(
        "--data", metavar="BODY", help="the request's body; @FILE takes it from a file, @- from stdin"
    )
    add_headers(parser)
    parser.add_argument(
        "-n", "--count", type=count, help="leave after this many events; with fewer the exit code is 1"
    )
    parser.add_argument("--for", dest="seconds", metavar="TIME", type=duration, help="leave after this time")
    parser.add_argument(
        "--timeout",
        type=duration_or_none,
        default=60.0,
        metavar="TIME",
        help="without a byte until the connection counts as lost; 0 waits for ever (default 60s)",
    )
    parser.add_argument(
        "--no-reconnect",
        action="store_true",
        help="read one connection to its end (default but for a GET without --data)",
    )
    parser.add_argument("--raw", action="store_true", help="print the data alone, as it came")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print events until the end that was asked for. Raises UsageError and CommandFailed."""
    from streamkit.client.event_source import EventSource

    if arguments.json and arguments.raw:
        raise UsageError("--json and --raw exclude each other; give one of them")
    body = _body(arguments.data)
    verb = arguments.method or ("GET" if body is None else "POST")
    # A reconnection repeats the request, which may be paid for twice.
    once = arguments.no_reconnect or body is not None or verb != "GET"
    try:
        source = EventSource(
            arguments.url,
            method=verb,
            headers=_headers(arguments.header, body),
            body=body,
            last_event_id=arguments.since,
            timeout=arguments.timeout,
            max_retries=0 if once else None,
            on_retry=lambda retry: complain(f"{_what_ended(retry.error)}; again in {retry.delay:.1f} s"),
        )
    except (ValueError, TypeError) as error:
        raise UsageError(str(error)) from None
    logging.getLogger("streamkit").addHandler(_SILENT)  # what it logs about retries is what on_retry says
    seen = 0
    show = _shower(arguments, Output())
    # The timer only calls close(), which any thread may; it is joined before this returns.
    timer = threading.Timer(arguments.seconds, source.close) if arguments.seconds else None
    try:
        with source:
            if timer is not None:
                timer.start()
            for event in source:
                if arguments.event and event.event not in arguments.event:
                    continue
                show(event)
                seen += 1
                if seen == arguments.count:
                    return FINE
    except ConnectionLost as error:
        raise CommandFailed(_what_ended(error.__cause__)) from None
    except (StreamkitError, OSError) as error:
        raise CommandFailed(str(error)) from None
    except ValueError as error:  # a method or a header that cannot be sent shows only then
        raise UsageError(str(error)) from None
    finally:
        if timer is not None:
            timer.cancel()
            if timer.ident is not None:
                timer.join()
    if arguments.count is not None:
        complain(f"only {seen} of {arguments.count} events came")
        return WRONG
    return FINE


def _what_ended(error: BaseException | None) -> str:
    if error is None:
        return "the stream has ended"
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return f"the connection was lost ({reason})"


def _headers(given: list[tuple[str, str]], body: bytes | None) -> dict[str, str]:
    headers = header_fields(given)
    if body is not None and not any(name.lower() == "content-type" for name in headers):
        try:
            json.loads(body)
            headers["Content-Type"] = "application/json"
        except ValueError:
            headers["Content-Type"] = "text/plain; charset=utf-8"
    return headers


def _body(data: str | None) -> bytes | None:
    """The bytes that --data means, as curl reads it. Raises UsageError."""
    if data is None or not data.startswith("@"):
        return None if data is None else data.encode("utf-8", "surrogateescape")
    if data == "@-":
        return sys.stdin.buffer.read()
    try:
        return Path(data[1:]).read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {data[1:]!r}: {error.strerror}") from None


def _shower(arguments: argparse.Namespace, output: Output) -> Callable[[ServerSentEvent], None]:
    """Return what prints one event, in the form that was asked for."""
    before: float | None = None

    def gap() -> float | None:
        nonlocal before
        now = time.monotonic()
        passed = None if before is None else now - before
        before = now
        return passed

    def as_raw(event: ServerSentEvent) -> None:
        data = event.data or ""
        output.line(safe(data) if output.stream.isatty() else data)

    def as_json(event: ServerSentEvent) -> None:
        passed = gap()
        words: dict[str, Any] = {"time": round(time.time(), 6), "gap": passed and round(passed, 6)}
        words.update(event=event.event, id=event.id, data=_value(event.data))
        output.json(words)

    def as_text(event: ServerSentEvent) -> None:
        passed = gap()
        clock = time.time()
        moment = time.strftime("%H:%M:%S", time.localtime(clock)) + f".{int(clock * 1000) % 1000:03d}"
        name = event.event or "message"
        colour = {"error": "red", "gap": "yellow"}.get(name, "cyan")
        head = [output.paint(moment, "dim"), output.paint("" if passed is None else f"+{passed:.3f}s", "dim")]
        head += [output.paint(safe_line(name), colour)]
        head += [output.paint(f"id={safe_line(event.id)}", "dim")] if event.id else []
        text = _pretty(event.data or "", output)
        joint = "\n" if "\n" in text else " "
        output.line(" ".join(filter(None, head)) + joint + text)

    if arguments.json:
        return as_json
    return as_raw if arguments.raw else as_text


def _value(data: str | None) -> Any:
    """The data as JSON where it is JSON that can be written again, and as text where it is not."""
    if data is None:
        return None
    try:
        value = json.loads(data, parse_constant=_refuse)
        if not _is_within(value, MAX_DEPTH):
            return data
        json.dumps(value, allow_nan=False)  # 1e999 is read as infinity
    except (ValueError, RecursionError):
        return data
    return value


def _is_within(value: Any, depth: int) -> bool:
    """Whether objects and lists are nested at most `depth` deep in a value of JSON."""
    if not isinstance(value, (dict, list)):
        return True
    inner = value.values() if isinstance(value, dict) else value
    return depth > 0 and all(_is_within(one, depth - 1) for one in inner)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _pretty(data: str, output: Output) -> str:
    """JSON objects and lists on one line where they are short, indented where not; other text as it is."""
    if not data.startswith(("{", "[")) or len(data) > MAX_INDENTED:
        return safe(data)
    value = _value(data)
    if isinstance(value, str):
        return safe(data)
    line = json.dumps(value, ensure_ascii=False)
    if len(line) > 100:
        line = json.dumps(value, ensure_ascii=False, indent=2)
    return output.paint(safe(line), "green")
