"""The questions that `doctor` asks of a path, in their order, and what each look has shown.

With the probe application at the end of the path (`streamkit.servers.probe`) all of it can be measured; with any other
stream what one watched connection tells.
"""

from __future__ import annotations

import itertools
import secrets
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urldefrag, urlencode

from streamkit.cli import path_findings as findings_of
from streamkit.cli.arguments import without_secrets
from streamkit.cli.path_findings import Finding
from streamkit.cli.path_look import Look, look, offered_protocol
from streamkit.cli.path_remedies import hops
from streamkit.servers.probe import MARK

LEAVING_SECONDS: Final = 3.0
"""How long the application may take to notice that its reader has left: streamkit needs one."""

_SHORT_SECONDS: Final = 10.0
_LONG_PAUSE: Final = 30.0  # of the stream that is left: longer than anybody waits for it to be noticed


@dataclass
class Report:
    """What `examine` found out about one URL."""

    url: str
    is_probe: bool
    hops: list[str]
    main: Look
    findings: list[Finding] = field(default_factory=list)
    measured: dict[str, Any] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)
    """What could not be judged, and why."""

    @property
    def faults(self) -> list[Finding]:
        """What is wrong now, without what is only a risk."""
        return [found for found in self.findings if not found.is_risk]


class Examination:
    """One path under examination. `tell(fraction, text)` is called before each step."""

    def __init__(
        self,
        url: str,
        *,
        seconds: float,
        idle: float | None,
        headers: Mapping[str, str],
        tell: Callable[[float, str], None],
    ) -> None:
        self.url = urldefrag(url).url  # a query behind the fragment would not be sent
        self.seconds = seconds
        self.idle = idle
        self.headers = headers
        self.tell = tell
        self.done = 0.0
        self.whole = seconds + (idle or 0.0) + 2 * LEAVING_SECONDS

    def run(self) -> Report:
        """Ask everything that can be asked. Raises CommandFailed where the server cannot be reached."""
        self._step(0, "watching the stream")
        main = look(self.url, self.seconds, self.headers)
        is_probe = bool(main.header(MARK))
        if self._shows_nothing(main) and (is_probe or self._is_silent_probe()):
            # An endless stream that is held back shows nothing; one that ends shows how it was held.
            is_probe = True
            count = max(3, int(self.seconds / 0.2))
            main = self._ask(self.seconds + _SHORT_SECONDS, count=count)
        elif is_probe and findings_of.of_delay(main, []):
            # What holds events back does so each time; a pause of this machine or of the network does not.
            self.whole += self.seconds
            self._step(self.seconds, "watching the stream once more, since events came late")
            again = look(self.url, self.seconds, self.headers)
            main = main if findings_of.of_delay(again, []) else again
        seen = (
            findings_of.facts(main.events[0].event.data).get("seen", {}) if is_probe and main.events else {}
        )
        seen = seen if isinstance(seen, dict) else {}
        headers = seen.get("headers")
        traces = {**headers, "server": seen.get("server", "")} if isinstance(headers, dict) else {}
        traces = {name: str(value) for name, value in traces.items()}
        found = hops(main.headers, traces)
        report = Report(self.url, is_probe, found, main)
        report.measured = {**_measured(main), "offered_to_browsers": offered_protocol(self.url) or None}
        self._judge_main(report)
        if main.status == 200 and is_probe:
            self._judge_probe(report, seen)
        elif main.status == 200:
            report.unknown.append(
                "idle cut-offs, hidden failures and whether leaving is noticed: serve streamkit.servers.probe:app"
                " behind the same path and give its URL"
            )
        self.tell(1.0, "done")
        return report

    def _step(self, seconds: float, text: str) -> None:
        self.tell(self.done / self.whole, text)
        self.done += seconds

    def _ask(self, wait: float, enough: Callable[[Look], bool] | None = None, **query: object) -> Look:
        return look(self._url(**query), wait, self.headers, enough)

    def _url(self, **query: object) -> str:
        return f"{self.url}{'&' if '?' in self.url else '?'}{urlencode(query)}"

    def _shows_nothing(self, main: Look) -> bool:
        return main.status in (None, 200) and main.end == "open" and len(main.events) < 2

    def _is_silent_probe(self) -> bool:
        return bool(look(self._url(ask="live"), 2.0, self.headers).header(MARK))

    def _judge_main(self, report: Report) -> None:
        main, found, is_probe = report.main, report.hops, report.is_probe
        report.findings += findings_of.of_status(main, found)
        if main.status is None or main.status == 200:
            report.findings += findings_of.of_silence(main, found)
        if main.status != 200:
            return
        held = findings_of.of_delay(main, found)
        squeezed = findings_of.of_compression(main, found, is_probe=is_probe, is_held=bool(held))
        report.findings += findings_of.of_headers(main, found, is_probe=is_probe)
        report.findings += squeezed + held + findings_of.of_end(main, found)

    def _judge_probe(self, report: Report, seen: dict[str, Any]) -> None:
        found = report.hops
        self._step(self.seconds, "asking for a stream that ends, and one that breaks")
        protocol = str(seen.get("protocol", ""))
        report.measured["protocol_upstream"] = protocol
        whole = self._ask(_SHORT_SECONDS, count=3, interval=0.02)
        broken = self._ask(_SHORT_SECONDS, count=3, interval=0.02, end="broken")
        report.findings += findings_of.of_endings(whole, broken, protocol, found)
        if self.idle is not None:
            self._step(LEAVING_SECONDS, f"waiting through {self.idle:g} s of silence")
            quiet = self._ask(self.idle + 5.0, quiet=self.idle)
            report.findings += findings_of.of_idling(quiet, self.idle, found)
        self._step(self.idle or 0.0, "leaving, and asking whether that was noticed")
        if any(one.fault == "buffered" for one in report.findings):
            report.unknown.append(
                "whether leaving is noticed: while events are held back, nothing shows that a stream began"
            )
        else:
            self._judge_leaving(report)

    def _judge_leaving(self, report: Report) -> None:
        token = secrets.token_hex(8)
        left = self._ask(LEAVING_SECONDS, lambda seen: bool(seen.events), quiet=_LONG_PAUSE, token=token)
        if not left.events:
            report.unknown.append("whether leaving is noticed: the first event did not come through")
            return
        seen = findings_of.facts(left.events[0].event.data).get("seen")
        process = seen.get("process") if isinstance(seen, dict) else None
        start = time.monotonic()
        answered = False
        noticed: float | None = None
        while noticed is None and time.monotonic() < start + LEAVING_SECONDS:
            answer = _live(look(self._url(ask="live"), 1.0, self.headers))
            tokens = answer.get("tokens") if answer is not None else None
            # Another worker knows nothing of this stream.
            if answer is not None and isinstance(tokens, list) and answer.get("process") == process:
                answered = True
                if token not in tokens:
                    noticed = time.monotonic() - start
                    break
            time.sleep(0.05)
        if noticed is None and not answered:
            report.unknown.append(
                "whether leaving is noticed: the process of the stream did not answer again"
            )
            return
        report.measured["leaving_noticed_after"] = noticed
        report.findings += findings_of.of_leaving(noticed, LEAVING_SECONDS, report.hops)


def _live(seen: Look) -> dict[str, Any] | None:
    """What the probe says about its live streams, from a look at that answer."""
    return findings_of.facts(seen.body) if seen.status == 200 and seen.body else None


def _measured(main: Look) -> dict[str, Any]:
    """The figures of the watched stream; seconds, None where there is none."""
    pairs = findings_of.stamps(main)
    groups = findings_of.bursts(main)
    times = [arrival.at for arrival in main.events]
    figures: dict[str, Any] = {
        "status": main.status,
        "http_version": main.version or None,
        "framing": "chunked" if main.chunked else "length" if main.header("Content-Length") else "close",
        "compression": main.header("Content-Encoding") or None,
        "headers_at": main.headers_at,
        "first_byte_at": main.first_byte_at,
        "bytes": sum(size for _, size in main.reads),
        "events": len(main.events),
        "bursts": len(groups),
        "watched": main.end_at,
        "end": main.end,
        "gap_received": _spread([after - before for before, after in itertools.pairwise(times)]),
    }
    if len(pairs) >= 2:
        sent = [when for when, _ in pairs]
        figures["gap_sent"] = _spread([after - before for before, after in itertools.pairwise(sent)])
        figures["held"] = _spread(findings_of.lateness(pairs))
    return figures


def _spread(values: list[float]) -> dict[str, float] | None:
    if not values:
        return None
    return {"median": statistics.median(values), "longest": max(values)}


def report_as_json(report: Report) -> dict[str, Any]:
    """A report for programs."""
    return {
        "url": without_secrets(report.url),
        "probe": report.is_probe,
        "hops": report.hops,
        "measured": report.measured,
        "findings": [found.as_json() for found in report.findings],
        "unknown": report.unknown,
    }
