"""`bench URL`: hold many streams of one server, and measure what comes through them."""

from __future__ import annotations

import argparse
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from streamkit.cli.arguments import (
    add_command,
    add_headers,
    count,
    duration,
    header_fields,
    http_url,
    is_loopback,
    without_secrets,
)
from streamkit.cli.failures import FINE, INTERRUPTED, WRONG, CommandFailed, UsageError
from streamkit.cli.output import Output, complain, progress, safe_line

if TYPE_CHECKING:
    from streamkit.cli.stream_crowd import Crowd

EXAMPLES = """\
  python -m streamkit serve streamkit.servers.probe:app --port 8001     in one terminal: stamped events
  python -m streamkit bench 'localhost:8001/?interval=1' -n 500 --for 30s
  python -m streamkit bench localhost:8000/events -n 1000 --plot streams.svg

delays need events whose data has {"sent": UNIX_SECONDS}, losses need ids that are consecutive numbers
"""

_SPARE_DESCRIPTORS = 64


def add_to(commands: Any) -> None:
    """Add the command to `commands`, what `ArgumentParser.add_subparsers` returned."""
    parser = add_command(commands, "bench", "hold many streams of a server and measure them", EXAMPLES)
    parser.add_argument("url", metavar="URL", type=http_url, help="of the stream; http:// may be left out")
    parser.add_argument(
        "-n",
        "--streams",
        type=count,
        default=1000,
        metavar="N",
        help="how many streams (default %(default)s)",
    )
    parser.add_argument(
        "--for",
        dest="seconds",
        type=duration,
        default=30.0,
        metavar="TIME",
        help="how long to hold the streams once all are open (default 30s)",
    )
    add_headers(parser)
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write events and delays over time as SVG")
    parser.add_argument(
        "--i-own-this-server",
        action="store_true",
        help="allow a server that is not this machine; without it only loopback addresses are taken, since"
        " a thousand streams are an attack on anybody else's",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Hold the streams and report: 1 where one did not open, ended early or lost an event. Raises both errors."""
    from streamkit.cli.bench_plot import draw
    from streamkit.cli.stream_crowd import Crowd

    family, address, request = _target(arguments)
    _raise_descriptor_limit(arguments.streams + _SPARE_DESCRIPTORS)
    if arguments.plot is not None:
        _write(arguments.plot, "")  # to learn now, not after the run, that it cannot be written
    crowd = Crowd(family, address, request, arguments.streams)
    try:
        figures, interrupted = _hold(crowd, arguments)
    finally:
        crowd.close()
    if not crowd.opened and not interrupted:
        raise CommandFailed(f"no stream could be opened: {_reasons(crowd.failed)}")
    output = Output()
    if arguments.json:
        output.json({"url": without_secrets(arguments.url), **figures})
    else:
        _show(output, crowd, figures)
    if arguments.plot is not None:
        _write(
            arguments.plot, draw(crowd.seconds, f"{crowd.opened} streams of {without_secrets(arguments.url)}")
        )
        complain(f"plot: {arguments.plot}")
    if interrupted:
        return INTERRUPTED
    return WRONG if crowd.failed or crowd.ended or crowd.lost else FINE


def _hold(crowd: Crowd, arguments: argparse.Namespace) -> tuple[dict[str, Any], bool]:
    """Open the streams, then hold them for the time that was asked for. The figures, and whether Ctrl-C came first."""
    settled: _Settled | None = None
    try:
        with progress(quiet=arguments.json) as shown:
            looked = 0.0
            while not crowd.settled:
                crowd.turn(0.2)
                if time.monotonic() - looked > 0.1:
                    looked = time.monotonic()
                    shown.update(crowd.opened / crowd.wanted, f"opening: {crowd.opened} of {crowd.wanted}")
            settled = _Settled(time.monotonic(), crowd.events, time.process_time())
            end = settled.at + arguments.seconds
            while crowd.open and time.monotonic() < end:
                crowd.turn(min(0.2, max(0.0, end - time.monotonic())))
                if time.monotonic() - looked > 0.1:
                    looked = time.monotonic()
                    shown.update(
                        1 - (end - looked) / arguments.seconds, f"holding {crowd.open}: {crowd.events} events"
                    )
    except KeyboardInterrupt:
        return _figures(crowd, settled), True
    return _figures(crowd, settled), False


class _Settled(NamedTuple):
    """When all streams were open or had failed, and the events and the processor time of this process by then."""

    at: float
    events: int
    cpu: float


def _figures(crowd: Crowd, settled: _Settled | None) -> dict[str, Any]:
    now = time.monotonic()
    opening = (now if settled is None else settled.at) - crowd.start
    figures: dict[str, Any] = {
        "streams": crowd.wanted,
        "opened": crowd.opened,
        "failed": dict(crowd.failed),
        "ended_early": dict(crowd.ended),
        "opening_seconds": opening,
        "opened_per_second": crowd.opened / opening if opening else None,
        "opening": _percentiles(crowd.opening),
        "events": crowd.events,
        "bytes": crowd.received,
        "delay": _percentiles(crowd.delays),
        "lost": crowd.lost if crowd.numbered else None,
        "repeated": crowd.repeated if crowd.numbered else None,
    }
    if settled is not None and now > settled.at:
        held = now - settled.at
        figures["held_seconds"] = held
        figures["events_per_second"] = (crowd.events - settled.events) / held
        figures["own_cpu"] = (time.process_time() - settled.cpu) / held
    return figures


def _percentiles(times: Any) -> dict[str, float] | None:
    if not times.count:
        return None
    return {
        "p50": times.percentile(50),
        "p90": times.percentile(90),
        "p99": times.percentile(99),
        "longest": times.longest,
    }


def _show(output: Output, crowd: Crowd, figures: dict[str, Any]) -> None:
    rate = figures["opened_per_second"] or 0.0
    output.line(
        f"streams   {crowd.opened} of {crowd.wanted} open, in {figures['opening_seconds']:.2f} s ({rate:,.0f}/s)"
    )
    for label, reasons in (("failed", crowd.failed), ("ended", crowd.ended)):
        if reasons:
            output.line(f"{label:<9} {output.paint(safe_line(_reasons(reasons)), 'red')}")
    _show_times(output, "opening", figures["opening"])
    if "held_seconds" in figures:
        output.line(
            f"events    {crowd.events:,}, {figures['events_per_second']:,.0f}/s in {figures['held_seconds']:.1f} s,"
            f" {crowd.received / 1e6:,.1f} MB; own CPU {figures['own_cpu']:.0%}"
        )
    if figures["delay"]:
        _show_times(output, "delay", figures["delay"])
    else:
        output.line("delay     unknown: the events carry no time")
    if figures["lost"] is None:
        output.line("lost      unknown: the events have no consecutive ids")
    else:
        words = f"lost      {crowd.lost:,}" + (f", {crowd.repeated:,} came again" if crowd.repeated else "")
        output.line(output.paint(words, "red") if crowd.lost or crowd.repeated else words)


def _show_times(output: Output, label: str, times: dict[str, float] | None) -> None:
    if times is not None:
        words = ", ".join(f"{name} {seconds * 1000:,.1f} ms" for name, seconds in times.items())
        output.line(f"{label:<9} {words}")


def _reasons(reasons: dict[str, int]) -> str:
    return ", ".join(f"{number}x {why}" for why, number in sorted(reasons.items()))


def _target(arguments: argparse.Namespace) -> tuple[int, object, bytes]:
    """The address to connect to, after the check that it may be, and the request. Raises both errors."""
    from streamkit.client.http_request import in_place_of, new_request

    try:
        request = new_request(arguments.url, headers=header_fields(arguments.header))
    except ValueError as error:
        raise UsageError(str(error)) from None
    if request.url.scheme != "http":
        raise UsageError(
            "bench speaks plain HTTP; give the address of the server behind the proxy that ends TLS"
        )
    host = request.host
    try:
        found = socket.getaddrinfo(host, request.port, type=socket.SOCK_STREAM)
    except OSError:
        raise CommandFailed(f"there is no host {host!r}") from None
    address = found[0][4]
    # The address that is connected to decides, not the name: a name can mean anything.
    if not is_loopback(str(address[0])) and not arguments.i_own_this_server:
        raise UsageError(
            f"{host} is {address[0]}, which is not this machine; where the server is yours and may be loaded like this,"
            " add --i-own-this-server"
        )
    if len(found) > 1 and host == "localhost":
        found = [_listening(found)]
    family, _, _, _, address = found[0]
    own = {
        "Host": urlsplit(request.absolute_target).netloc,
        "Accept": "text/event-stream",
        "Cache-Control": "no-cache",
    }
    fields = in_place_of(own, request.headers)
    lines = [f"GET {request.target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    return family, address, "\r\n".join([*lines, "", ""]).encode("latin-1")


def _listening(found: list[Any]) -> Any:
    """Of the addresses of localhost the first that something listens on."""
    for one in found:
        with socket.socket(one[0], one[1]) as asked:
            asked.settimeout(2)
            if asked.connect_ex(one[4]) == 0:
                return one
    return found[0]


def _raise_descriptor_limit(wanted: int) -> None:
    """Let this process open `wanted` files. Raises CommandFailed where the hard limit is below."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise CommandFailed(
            f"{wanted} descriptors are needed and the hard limit is {hard}; raise it (ulimit -Hn, or"
            " /etc/security/limits.conf), or ask for fewer streams"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CommandFailed(f"cannot write {str(path)!r}: {error.strerror}") from None
