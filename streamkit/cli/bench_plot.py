"""The plot of `bench`: events a second, and their delay, over the time of the run. SVG, written by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from html import escape
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from streamkit.cli.stream_crowd import Second

_WIDTH: Final = 800
_LEFT: Final = 70
_RIGHT: Final = 780
_PANELS: Final = ((60, 210), (270, 420))  # top and bottom of each, in pixels
_STYLE: Final = (
    "text{font:12px sans-serif;fill:#333}.title{font-size:15px}.axis{stroke:#999}.grid{stroke:#e5e5e5}"
    "polyline{fill:none;stroke-width:2}"
)
_BLUE, _ORANGE = "#1f6fb2", "#d9822b"


def draw(seconds: Mapping[int, Second], title: str) -> str:
    """An SVG document. seconds: by the second of the run; one without an entry had no event."""
    last = max(seconds, default=0)
    counts = [(at, float(seconds[at].events) if at in seconds else 0.0) for at in range(last + 1)]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} 460" width="{_WIDTH}" height="460" role="img">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style>",
        f'<rect width="{_WIDTH}" height="460" fill="white"/>',
        f'<text class="title" x="{_LEFT}" y="25">{escape(title)}</text>',
    ]
    parts += _panel(0, "events a second", [("", _BLUE, counts)], last, "{:,.0f}".format)
    lines = [
        (f"p{percent}", colour, _delays(seconds, percent)) for percent, colour in ((50, _BLUE), (99, _ORANGE))
    ]
    parts += _panel(1, "delay, milliseconds", lines, last, "{:,.1f}".format)
    parts.append(f'<text x="{(_LEFT + _RIGHT) // 2}" y="452" text-anchor="middle">seconds</text></svg>')
    return "\n".join(parts) + "\n"


def _delays(seconds: Mapping[int, Second], percent: int) -> list[tuple[int, float]]:
    points = []
    for at in sorted(seconds):
        delay = seconds[at].delays.percentile(percent)
        if delay is not None:
            points.append((at, delay * 1000))
    return points


def _panel(
    number: int,
    label: str,
    lines: list[tuple[str, str, list[tuple[int, float]]]],
    last: int,
    write: Callable[[float], str],
) -> list[str]:
    top, bottom = _PANELS[number]
    highest = max((value for _, _, points in lines for _, value in points), default=0.0) or 1.0
    parts = [f'<text x="{_LEFT}" y="{top - 8}">{label}</text>']
    for step in range(5):
        y = bottom - (bottom - top) * step / 4
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(
            f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{write(highest * step / 4)}</text>'
        )
    for step in range(5):
        x = _LEFT + (_RIGHT - _LEFT) * step / 4
        parts.append(f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{last * step / 4:g}</text>')
    for at, (name, colour, points) in enumerate(lines):
        placed = " ".join(
            f"{_LEFT + (_RIGHT - _LEFT) * x / max(last, 1):.1f},{bottom - (bottom - top) * y / highest:.1f}"
            for x, y in points
        )
        parts.append(f'<polyline points="{placed}" stroke="{colour}"/>')
        if name:
            parts.append(
                f'<text x="{_RIGHT - 90 + 45 * at}" y="{top - 8}" style="fill:{colour}">{name}</text>'
            )
    parts.append(f'<line class="axis" x1="{_LEFT}" x2="{_RIGHT}" y1="{bottom}" y2="{bottom}"/>')
    return parts
