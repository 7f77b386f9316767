"""The status as a page: one table for each part of the figures. Every value is escaped."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any, Final

_HEAD: Final = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>streams</title>
<style>
body { font: 14px/1.4 system-ui, sans-serif; margin: 1.5em }
table { border-collapse: collapse; margin: .5em 0 1.5em; font-variant-numeric: tabular-nums }
caption { text-align: left; font-weight: bold; padding: .2em 0 }
th, td { border-bottom: 1px solid #ccc; padding: .2em .8em .2em 0; text-align: left; vertical-align: top }
</style>
"""


def as_page(figures: Mapping[str, Any]) -> str:
    """`figures` as an HTML document: single values in a first table, each group or list of records in its own."""
    single: dict[str, Any] = {}
    tables: list[str] = []
    for name, value in figures.items():
        if isinstance(value, Mapping):
            if value:
                tables.append(_table(name, _rows(value)))
        elif isinstance(value, Sequence) and not isinstance(value, str):
            tables.append(_table(name, value))
        elif name != "about":
            single[name] = value
    about = f"<p>These are {_text(figures['about'])}.</p>\n"
    return _HEAD + about + _table("process", [single]) + "".join(tables) + "</html>\n"


def _rows(group: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """A group of figures is one row; a group of groups has one for each, with its name first."""
    if all(isinstance(value, Mapping) for value in group.values()):
        return [{"name": name, **value} for name, value in group.items()]
    return [group]


def _table(caption: str, rows: Sequence[Mapping[str, Any]]) -> str:
    title = _text(caption.replace("_", " "))
    if not rows:
        return f"<table><caption>{title}</caption><tr><td>none</table>\n"
    head = "".join(f"<th>{_text(name.replace('_', ' '))}" for name in rows[0])
    body = "".join("<tr>" + "".join(f"<td>{_text(value)}" for value in row.values()) + "\n" for row in rows)
    return f"<table><caption>{title}</caption>\n<tr>{head}\n{body}</table>\n"


def _text(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6f}".rstrip("0").rstrip(".")  # 0.00003 s, not 3e-05
    # Escaped twice over: for the reader what cannot be seen or turns the line around, for HTML its own characters.
    return html.escape("".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(value)))
