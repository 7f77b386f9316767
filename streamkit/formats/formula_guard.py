"""Cells that a spreadsheet would calculate, made harmless (OWASP, "CSV Injection").

The law of this file: a guard changes data, and no reader can tell it from data. So it is asked for, never applied by
itself, and it leaves alone what is a number: `-5` with a quote before it would be no number any more.
"""

from __future__ import annotations

import datetime
import decimal
import re
from collections.abc import Sequence

__all__ = ["guard_formula", "guarded"]

FORMULA_STARTS = frozenset("=+-@\t\r\n")
"""First characters that make a spreadsheet calculate a cell."""

_HARMLESS = frozenset(
    {type(None), bool, int, float, decimal.Decimal, datetime.date, datetime.time, datetime.datetime}
)
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")


def guard_formula(cell: object) -> object:
    """The cell with `'` before it if a spreadsheet would take it for a formula, else the cell itself.

    That is: its text begins with `=`, `+`, `-`, `@`, TAB, CR or LF and it is no number. Numbers and dates pass, and so
    does a text that is a plain numeric literal, such as `-5` or `+1.5e3`. The change cannot be undone by a reader, who
    cannot tell it from a text that began with `'`.
    """
    kind = type(cell)
    if kind in _HARMLESS:
        return cell
    # csv.writer takes a str subclass (an Enum, say) by its value and everything else by str().
    text = str.__str__(cell) if isinstance(cell, str) else str(cell)
    if text[:1] in FORMULA_STARTS and not _NUMBER.fullmatch(text):
        return f"'{text}"
    return cell


def guarded(cells: Sequence[object]) -> Sequence[object]:
    """The cells of a row, each guarded."""
    # Most rows need no guard: a look at first characters is cheaper than a call for every cell.
    for cell in cells:
        if type(cell) is str:
            if cell[:1] in FORMULA_STARTS:
                break
        elif type(cell) not in _HARMLESS:
            break
    else:
        return cells
    return [guard_formula(cell) for cell in cells]
