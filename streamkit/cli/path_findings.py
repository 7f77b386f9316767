"""From what was measured to what is wrong: one function a question, each from looks to findings.

Nothing here waits or asks; what is true of a look can be tested without a network.
"""

from __future__ import annotations

import itertools
import json
import statistics
from dataclasses import dataclass, field
from typing import Any, Final

from streamkit.cli.path_look import Look
from streamkit.cli.path_remedies import NGINX, SERVERS, remedy

HELD_SECONDS: Final = 0.5
"""An event this much later than the promptest one was held: far above the jitter of a network; a human sees it."""

BURST_SECONDS: Final = 0.05
"""Reads this close together were sent together: far below the 200 ms between two events of the probe."""

_ROWS: Final = frozenset(
    {"text/csv", "application/x-ndjson", "application/ndjson", "application/jsonl", "application/json-seq",
     "application/json", "application/octet-stream", "application/zip"}
)  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or that will be some day.

    fault: a stable word for programs. is_risk: it works now, and depends on nobody's changing anything.
    """

    fault: str
    what: str
    hop: str = ""
    lines: list[str] = field(default_factory=list)
    is_risk: bool = False

    def as_json(self) -> dict[str, object]:
        """The same for programs."""
        return {
            "fault": self.fault, "risk": self.is_risk, "what": self.what, "hop": self.hop, "change": self.lines,
        }  # fmt: skip


def finding(fault: str, what: str, found: list[str], *, is_risk: bool = False) -> Finding:
    """A finding with its likely cause and cure, for a path with these hops."""
    hop, lines = remedy(fault, found)
    return Finding(fault, what, hop, lines, is_risk)


def stamps(seen: Look) -> list[tuple[float, float]]:
    """When each stamped event was sent and when it arrived, Unix seconds; of events without a stamp nothing."""
    pairs = []
    for arrival in seen.events:
        sent = facts(arrival.event.data).get("sent")
        if isinstance(sent, (int, float)):
            pairs.append((float(sent), arrival.clock))
    return pairs


def facts(data: str | None) -> dict[str, Any]:
    """The JSON object that an event carries, or an empty one."""
    try:
        value = json.loads(data or "")
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def bursts(seen: Look) -> list[list[float]]:
    """The times of the events, grouped by arrival: those that came together are one burst."""
    groups: list[list[float]] = []
    for arrival in seen.events:
        if groups and arrival.at - groups[-1][-1] < BURST_SECONDS:
            groups[-1].append(arrival.at)
        else:
            groups.append([arrival.at])
    return groups


def of_status(seen: Look, found: list[str]) -> list[Finding]:
    """Is there a stream at all?"""
    if seen.status is None and seen.trouble:
        return [finding("status", f"no answer of HTTP came ({seen.trouble})", found)]
    if seen.status is None or seen.status == 200:
        return []
    place = seen.header("Location")
    more = f", to {place}; ask for that" if place else ""
    return [
        finding(
            "status",
            f"the answer is {seen.status} {seen.reason}{more}, where a stream begins with 200",
            found,
        )
    ]


def of_headers(seen: Look, found: list[str], *, is_probe: bool) -> list[Finding]:
    """What do the headers allow others to do to the stream?"""
    findings = []
    kind = seen.header("Content-Type").partition(";")[0].strip().lower()
    is_events = kind not in _ROWS
    if is_events and not seen.is_event_stream:
        findings.append(
            finding(
                "content-type",
                f"the type is {_shown(kind)}, and browsers take nothing but text/event-stream",
                found,
            )
        )
    if seen.version == "1.0":
        findings.append(
            finding("http10", "the answer is HTTP/1.0, whose end cannot be told from a cut", found)
        )
    if is_events and seen.header("Content-Length"):
        length = seen.header("Content-Length")
        findings.append(
            finding(
                "content-length",
                f"Content-Length is {length}: somebody has collected the whole stream",
                found,
            )
        )
    if seen.header("Age") not in ("", "0") or "hit" in seen.header("X-Cache").lower():
        findings.append(finding("cached", "the answer comes from a cache", found))
    control = seen.header("Cache-Control").lower()
    if is_events and not ("no-transform" in control and ("no-store" in control or "no-cache" in control)):
        findings.append(
            finding(
                "cache-control",
                f"Cache-Control is {_shown(control)}: any hop may store or compress the stream",
                found,
                is_risk=True,
            )
        )
    # nginx takes this header out of what it passes on, so behind it nobody can tell.
    if is_events and NGINX not in found and not is_probe and seen.header("X-Accel-Buffering").lower() != "no":
        findings.append(
            finding(
                "accel-buffering",
                "without X-Accel-Buffering: no, nginx would buffer the stream",
                found,
                is_risk=True,
            )
        )
    return findings


def of_compression(seen: Look, found: list[str], *, is_probe: bool, is_held: bool) -> list[Finding]:
    """Was it compressed on the way, and did that hold it back?"""
    encoding = seen.header("Content-Encoding").strip().lower()
    if encoding in ("", "identity") or seen.end == "unreadable":
        return []
    if is_held:
        what = f"the stream is compressed ({encoding}), which holds events back until a block is full"
    elif is_probe:
        what = f"a hop compresses the stream ({encoding}), although Cache-Control says no-transform"
    else:
        what = (
            f"the stream is compressed ({encoding}); it is punctual now, but only while each event is flushed"
        )
    return [finding("compressed", what, found, is_risk=not is_probe and not is_held)]


def of_delay(seen: Look, found: list[str]) -> list[Finding]:
    """Did the events come when they were sent? By their stamps, else by how they came together."""
    pairs = stamps(seen)
    if len(pairs) >= 2:
        late = lateness(pairs)
        if max(late) <= HELD_SECONDS:
            return []
        groups = bursts(seen)
        words = f"{len(pairs)} events, sent over {pairs[-1][0] - pairs[0][0]:.1f} s, came in {_times(len(groups))}"
        return [finding("buffered", f"{words}; the longest was held for {max(late):.2f} s", found)]
    return _burstiness(seen, found)


def lateness(pairs: list[tuple[float, float]]) -> list[float]:
    """How much later than the promptest event each one came, seconds; so the two clocks need not agree."""
    delays = [received - sent for sent, received in pairs]
    return [delay - min(delays) for delay in delays]


def _burstiness(seen: Look, found: list[str]) -> list[Finding]:
    groups = bursts(seen)
    count = len(seen.events)
    if count >= 3 and len(groups) == 1 and groups[0][0] > HELD_SECONDS:
        what = f"all {count} events came at once, {groups[0][0]:.1f} s after the request"
        return [finding("buffered", what, found)]
    waits = [after[0] - before[-1] for before, after in itertools.pairwise(groups)]
    if len(groups) >= 2 and count >= 3 * len(groups) and statistics.median(waits) > HELD_SECONDS:
        full = [size for _, size in seen.reads if size % 4096 == 0]
        if len(full) * 2 >= len(groups):
            what = f"{count} events came in {_times(len(groups))}, in blocks of {full[0]} bytes: a buffer that fills up"
            return [finding("buffered", what, found)]
        what = f"{count} events came in {_times(len(groups))}: if the application does not send them so, a hop buffers"
        return [finding("buffered", what, found, is_risk=True)]
    if seen.headers_at is not None and seen.headers_at > HELD_SECONDS and count < 3:
        what = f"the headers came after {seen.headers_at:.1f} s, with the first event: until then nobody sees a stream"
        return [finding("late-headers", what, found)]
    return []


def of_silence(seen: Look, found: list[str]) -> list[Finding]:
    """Did anything come at all?"""
    if seen.end == "open" and seen.first_byte_at is None and seen.status in (None, 200):
        what = "no byte" if seen.status is None else "headers, and then no byte,"
        return [finding("silent", f"{what} came within {seen.end_at:.1f} s", found)]
    return []


def of_end(seen: Look, found: list[str]) -> list[Finding]:
    """Did a stream that was only watched end as it should?"""
    if seen.end == "unreadable":
        # None of the usual causes, so without their cures.
        return [Finding("truncated", f"the body is not what its headers say: {seen.trouble}")]
    if seen.end not in ("broken", "reset") or seen.status is None:
        return []
    last = seen.reads[-1][0] if seen.reads else 0.0
    if seen.end_at - last > 1.0:
        what = f"the connection was cut after {seen.end_at - last:.1f} s without a byte"
        return [finding("idle-cut", what, found)]
    return [
        finding("truncated", f"the stream broke off after {seen.end_at:.1f} s, without its proper end", found)
    ]


def of_endings(whole: Look, broken: Look, protocol: str, found: list[str]) -> list[Finding]:
    """Can a reader tell a stream that has finished from one that has failed? From the probe's two endings."""
    findings = []
    if whole.end in ("broken", "reset"):
        findings.append(finding("truncated", "a stream that ended properly arrived cut off", found))
    hidden = broken.end == "whole"
    if protocol == "HTTP/1.0":
        result = "a stream that failed arrived as if it were complete" if hidden else "no end can be trusted"
        what = f"a hop speaks HTTP/1.0 to the application: {result}"
        findings.append(finding("http10-upstream", what, found))
    elif hidden:
        findings.append(finding("end-hidden", "a stream that failed arrived as if it were complete", found))
    return findings


def of_idling(seen: Look, seconds: float, found: list[str]) -> list[Finding]:
    """Did the connection live through `seconds` of silence? From the probe's quiet stream, which has two events."""
    if len(seen.events) >= 2 or seen.end == "open":
        return []
    if seen.status is not None and seen.status != 200:
        what = f"an idle stream was answered {seen.status} {seen.reason} after {seen.end_at:.1f} s"
    else:
        what = (
            f"an idle stream was cut after {seen.end_at:.1f} s, where {seconds:g} s of silence were asked for"
        )
    return [finding("idle-cut", what, found)]


def of_leaving(seconds: float | None, waited: float, found: list[str]) -> list[Finding]:
    """Was it noticed that the reader left? seconds: until the probe knew; None: not within `waited`."""
    if seconds is not None:
        return []
    what = f"{waited:g} s after the reader had left, the application still had its stream"
    return [finding("leaving-unseen", what, found)]


def _shown(value: str) -> str:
    return repr(value) if value else "missing"


def _times(count: int) -> str:
    return "one burst" if count == 1 else f"{count} bursts"


def is_server(hop: str) -> bool:
    """Whether a hop is what runs the application, and no proxy."""
    return hop in SERVERS
