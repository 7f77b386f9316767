"""Values that JSON has no type for, as texts: to them and back, each in the one format that JSON Schema names for it.

The law: strict in both directions. What is read is what the named standard allows, no more; Python's own constructors
accept much besides (`uuid.UUID("{1234...}")`, `Decimal("sNaN")`, `date.fromisoformat("20240229")`).
"""

from __future__ import annotations

import datetime
import decimal
import re
import uuid
from typing import Final

# RFC 3339 section 5.6: full-date, "T", partial-time, time-offset; section 5.6 allows a space and small letters.
_DATE_TIME: Final = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ]((?:[01]\d|2[0-3]):[0-5]\d:(?:[0-5]\d|60))(?:\.(\d+))?"
    r"([Zz]|[+-](?:[01]\d|2[0-3]):[0-5]\d)",
    re.ASCII,
)
_MINUTE: Final = datetime.timedelta(minutes=1)
_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")  # RFC 9562 section 4
_DECIMAL: Final = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def date_time_text(value: datetime.datetime) -> str:
    """RFC 3339 text. Raises ValueError for a naive datetime: every reader would take it for its own local time.

    An offset with seconds, such as Amsterdam had until 1937, has no place there: the same instant is written in the
    nearest offset of whole minutes (RFC 3339 section 5.8). Raises OverflowError where that is beyond the calendar.
    """
    offset = value.utcoffset()
    if offset is None:
        raise ValueError("naive")
    minutes = round(offset / _MINUTE)
    if offset != minutes * _MINUTE:
        value = value.astimezone(datetime.timezone(minutes * _MINUTE))
    return value.isoformat()


def read_date_time(text: str) -> datetime.datetime:
    """What RFC 3339 allows, as a datetime with an offset; cut to microseconds. Raises ValueError, OverflowError.

    A leap second, 23:59:60 in UTC (section 5.7), which Python has no form for, is read as the second after it.
    """
    found = _DATE_TIME.fullmatch(text)
    if found is None:
        raise ValueError(text)
    date, time, fraction, offset = found.groups()
    # Python's resolution is a microsecond; before 3.11 its own reader wants three digits or six, and no "Z".
    digits = f".{fraction[:6]:0<6}" if fraction else ""
    zone = "+00:00" if offset in "Zz" else offset
    if not time.endswith(":60"):
        return datetime.datetime.fromisoformat(f"{date}T{time}{digits}{zone}")
    before = datetime.datetime.fromisoformat(f"{date}T{time[:-2]}59{digits}{zone}")
    in_utc = before.astimezone(datetime.timezone.utc)
    if (in_utc.hour, in_utc.minute) != (23, 59):
        raise ValueError(text)
    return before + datetime.timedelta(seconds=1)


def read_date(text: str) -> datetime.date:
    """A `full-date` of RFC 3339, and no other form of ISO 8601. Raises ValueError."""
    if not _DATE.fullmatch(text):
        raise ValueError(text)
    return datetime.date.fromisoformat(text)


def read_uuid(text: str) -> uuid.UUID:
    """The text form of RFC 9562, in small letters or large, without braces. Raises ValueError."""
    if not _UUID.fullmatch(text):
        raise ValueError(text)
    return uuid.UUID(text)


def decimal_text(value: decimal.Decimal) -> str:
    """The digits as they are. Raises ValueError for NaN and the infinities."""
    if not value.is_finite():
        raise ValueError("not finite")
    return str(value)


def read_decimal(text: str) -> decimal.Decimal:
    """Digits with a point and an exponent, if any; no NaN. Raises ValueError."""
    if not _DECIMAL.fullmatch(text):
        raise ValueError(text)
    try:
        return decimal.Decimal(text)
    except decimal.InvalidOperation:  # an exponent of more than 18 digits
        raise ValueError(text) from None
