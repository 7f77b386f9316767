"""`doctor URL`: what the path between here and an application does to a stream, and which lines to change."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamkit.cli.arguments import (
    add_command,
    add_headers,
    duration,
    duration_or_none,
    header_fields,
    http_url,
    without_secrets,
)
from streamkit.cli.failures import FINE, WRONG, CommandFailed, UsageError
from streamkit.cli.output import Output, Progress, progress, safe_line

if TYPE_CHECKING:
    from streamkit.cli.path_checks import Report
    from streamkit.cli.path_findings import Finding

EXAMPLES = """\
  python -m streamkit doctor https://example.org/events
  python -m streamkit doctor https://example.org/probe --idle 2m   all that can be measured: with the probe there
  python -m streamkit doctor app:app --path /events                under every WSGI server that is installed here

the probe is a WSGI application that sends events with the time on them; serve it behind the same proxies, with
  gunicorn --threads 4 streamkit.servers.probe:app
or mount it in the application: DispatcherMiddleware(app, {"/probe": streamkit.servers.probe.app})
"""


def add_to(commands: Any) -> None:
    """Add the command to `commands`, what `ArgumentParser.add_subparsers` returned."""
    from streamkit.cli.local_servers import SERVERS

    parser = add_command(
        commands, "doctor", "find out what a path does to a stream, and who does it", EXAMPLES
    )
    parser.add_argument(
        "target", metavar="TARGET", help="the URL of a stream, or module:name of a WSGI callable"
    )
    parser.add_argument(
        "--for",
        dest="seconds",
        type=duration,
        default=5.0,
        metavar="TIME",
        help="how long to watch the stream (default 5s)",
    )
    parser.add_argument(
        "--idle",
        type=duration_or_none,
        default=20.0,
        metavar="TIME",
        help="with the probe: how long the connection has to stay open without a byte; 0 leaves it out"
        " (default 20s, more than a heartbeat; 65s finds the cut-offs of nginx and most load balancers,"
        " 125s that of Cloudflare)",
    )
    add_headers(parser)
    parser.add_argument("--path", help="of module:name: the path of the stream (default /)")
    parser.add_argument(
        "--server",
        action="append",
        choices=SERVERS,
        help="of module:name: only this server; may be given several times",
    )
    parser.add_argument("--strict", action="store_true", help="exit code 1 for risks too")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Examine the path, print what was found: 0 where nothing is wrong, else 1. Raises UsageError, CommandFailed."""
    output = Output()
    with progress(quiet=arguments.json) as shown:
        if _is_application(arguments.target):
            reports = _local_reports(arguments, shown)
            if not reports:  # its module fails, and that has been told
                return WRONG
        else:
            if arguments.path is not None or arguments.server:
                raise UsageError("--path and --server belong to module:name; a URL says its path itself")
            try:
                url = http_url(arguments.target)
            except argparse.ArgumentTypeError as error:
                raise UsageError(str(error)) from None
            reports = [("", _examine(url, arguments, shown.update))]
    wrong = False
    for name, report in reports:
        if isinstance(report, CommandFailed):
            wrong = True
            if arguments.json:
                output.json({"server": name, "error": str(report)})
            else:
                output.line(f"{output.paint(name, 'bold')}: {safe_line(str(report))}\n")
            continue
        wrong = wrong or bool(report.findings if arguments.strict else report.faults)
        _show(output, name, report, as_json=arguments.json)
    return WRONG if wrong else FINE


def _is_application(target: str) -> bool:
    """`app:app` is one, `localhost:8000` is not, nor is anything with a slash; app.py is meant to be one."""
    return re.fullmatch(r"[^\W\d][\w.]*:[^\W\d][\w.]*", target) is not None or os.path.isfile(target)


def _examine(url: str, arguments: argparse.Namespace, tell: Callable[[float, str], None]) -> Report:
    from streamkit.cli.path_checks import Examination

    return Examination(
        url,
        seconds=arguments.seconds,
        idle=arguments.idle,
        headers=header_fields(arguments.header),
        tell=tell,
    ).run()


def _local_reports(
    arguments: argparse.Namespace, shown: Progress
) -> list[tuple[str, Report | CommandFailed]]:
    """A report for each server, CommandFailed in its place where one does not start; none where the module fails."""
    from streamkit.cli.local_servers import SERVERS, installed, running
    from streamkit.cli.serve import load

    path = "/" if arguments.path is None else arguments.path
    if not path.startswith("/"):
        raise UsageError(f"--path is {path!r}; it has to begin with /")
    if load(arguments.target, Path.cwd()) is None:
        return []
    names = [name for name in SERVERS if name in (arguments.server or SERVERS) and installed(name)]
    if not names:
        raise CommandFailed(f"not installed here: {', '.join(arguments.server)}")
    reports: list[tuple[str, Report | CommandFailed]] = []
    for number, name in enumerate(names):

        def tell(fraction: float, text: str, number: int = number, name: str = name) -> None:
            shown.update((number + fraction) / len(names), f"{name}: {text}")

        try:
            with running(name, arguments.target) as url:
                reports.append((name, _examine(url + path, arguments, tell)))
        except CommandFailed as error:
            reports.append((name, error))
    return reports


def _show(output: Output, name: str, report: Report, *, as_json: bool) -> None:
    if as_json:
        from streamkit.cli.path_checks import report_as_json

        output.json({**({"server": name} if name else {}), **report_as_json(report)})
        return
    output.line(output.paint(safe_line(name or without_secrets(report.url)), "bold"))
    for line in _figures(report):
        output.line("  " + safe_line(line))
    for found in report.findings:
        _show_finding(output, found)
    for unknown in report.unknown:
        output.line(f"  {output.paint('?', 'dim')} not judged: {safe_line(unknown)}")
    faults, risks = len(report.faults), len(report.findings) - len(report.faults)
    if not report.findings:
        output.line(f"  {output.paint('fine', 'green')}: nothing on this path disturbs a stream\n")
    else:
        words = [f"{faults} wrong"] if faults else []
        words += [f"{risks} at risk"] if risks else []
        output.line(f"  {output.paint(', '.join(words), 'red' if faults else 'yellow')}\n")


def _show_finding(output: Output, found: Finding) -> None:
    mark = output.paint("risk ", "yellow") if found.is_risk else output.paint("WRONG", "red")
    output.line(f"  {mark} {found.fault}: {safe_line(found.what)}")
    if found.hop:
        output.line(
            f"        likely: {safe_line(found.hop)}; change:" if found.lines else f"        at: {found.hop}"
        )
    elif found.lines:
        output.line("        change:")
    for line in found.lines:
        output.line(f"            {output.paint(line, 'cyan')}")


def _figures(report: Report) -> list[str]:
    """The measurements, a line each."""
    main, measured = report.main, report.measured
    lines = [f"path      {' > '.join(report.hops) or 'no hop has left its name'}"]
    if main.status is None:
        return [*lines, f"answer    none within {main.end_at:.1f} s"]
    kind = main.header("Content-Type") or "no type"
    packed = f", {measured['compression']}" if measured["compression"] else ""
    lines.append(f"answer    HTTP/{main.version} {main.status}, {kind}, {measured['framing']}{packed}")
    first = "none" if main.first_byte_at is None else f"after {main.first_byte_at:.3f} s"
    lines.append(f"headers   after {main.headers_at:.3f} s; first byte {first}")
    groups = "1 burst" if measured["bursts"] == 1 else f"{measured['bursts']} bursts"
    words = f"events    {measured['events']} in {main.end_at:.1f} s, in {groups}"
    for label, key in (("sent", "gap_sent"), ("received", "gap_received")):
        if measured.get(key):
            words += (
                f"; {label} every {measured[key]['median']:.3f} s (longest {measured[key]['longest']:.3f})"
            )
    lines.append(words)
    if measured.get("held"):
        lines.append(
            f"held      {measured['held']['median']:.3f} s (longest {measured['held']['longest']:.3f})"
        )
    if measured.get("protocol_upstream"):
        lines.append(f"upstream  {measured['protocol_upstream']} at the application")
    if measured.get("offered_to_browsers"):
        lines.append(f"browsers  are offered {measured['offered_to_browsers']}")
    if measured.get("leaving_noticed_after") is not None:
        lines.append(f"leaving   noticed after {measured['leaving_noticed_after']:.2f} s")
    return lines
