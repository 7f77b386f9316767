"""Header names, header values and HTTP dates (RFC 9110 sections 5 and 5.6.7).

The law of this file:

- RFC 9110 section 5.6.2: a name is a token. Section 5.5: a value has no CR, LF or NUL (nor any other control here, TAB
  excepted) and no whitespace around it. PEP 3333: both are `str` that fit Latin-1.
- PEP 3333: an application never sends hop-by-hop fields. Some servers answer 500, others frame the body twice.
- RFC 9110 section 5.6.7: dates are written in one form and read in three. A date that cannot be read is no date:
  the sections on conditional requests ask to ignore it, so reading one never raises.
"""

import calendar
import datetime
import math
import re
from email.utils import formatdate

__all__ = ["HOP_BY_HOP", "check_header", "http_date", "parse_http_date"]

HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "trailers",
        "transfer-encoding",
        "upgrade",
    }
)
"""Lower-case names of fields between one hop and the next (RFC 2616 section 13.5.1, which PEP 3333 refers to,
with the spelling `Trailers` that wsgiref knows and the widespread `Proxy-Connection`, RFC 9112 appendix C.2.2)."""

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_NOT_IN_VALUES = re.compile(r"[^\t\x20-\x7e\x80-\xff]")

_DAY = r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
_LONG_DAY = r"(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day"
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MONTH = f"(?P<month>{'|'.join(_MONTHS)})"
_TIME = r"(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})"
_DATE_FORMS = (
    # IMF-fixdate: Sun, 06 Nov 1994 08:49:37 GMT
    re.compile(rf"{_DAY}, (?P<day>[0-9]{{2}}) {_MONTH} (?P<year>[0-9]{{4}}) {_TIME} GMT"),
    # rfc850-date: Sunday, 06-Nov-94 08:49:37 GMT
    re.compile(rf"{_LONG_DAY}, (?P<day>[0-9]{{2}})-{_MONTH}-(?P<year>[0-9]{{2}}) {_TIME} GMT"),
    # asctime-date: Sun Nov  6 08:49:37 1994
    re.compile(rf"{_DAY} {_MONTH} (?P<day>[0-9]{{2}}| [0-9]) {_TIME} (?P<year>[0-9]{{4}})"),
)
_LONGEST_DATE = len("Wednesday, 06-Nov-94 08:49:37 GMT")


def check_header(name: str, value: str) -> None:
    """Raise unless an application may send this header field.

    TypeError where one is no `str`; ValueError for a name that is no token (RFC 9110 section 5.6.2) or is in
    `HOP_BY_HOP` (in any case), and for a value outside Latin-1, with a control character other than TAB, or
    with whitespace around it (RFC 9110 section 5.5). An empty value is fine.
    """
    for part in (name, value):
        if not isinstance(part, str):
            raise TypeError(
                f"header {name!r} is of type {type(part).__name__}; names and values are str (PEP 3333)"
            )
    if not _TOKEN.fullmatch(name):
        raise ValueError(
            f"header name {name!r} is not a token (RFC 9110 section 5.6.2); use letters, digits and hyphens, "
            "without a colon or a space"
        )
    if name.lower() in HOP_BY_HOP:
        raise ValueError(
            f"header {name!r} is hop-by-hop: it belongs to the server, and PEP 3333 forbids applications to send "
            "it; leave it out"
        )
    wrong_place = _NOT_IN_VALUES.search(value)
    if wrong_place:
        character = wrong_place.group()
        if character > "\xff":
            raise ValueError(
                f"header {name!r} holds {character!r}, which Latin-1 cannot encode (PEP 3333); percent-encode it, "
                "or leave it out"
            )
        raise ValueError(
            f"header {name!r} holds the control character {character!r} (RFC 9110 section 5.5); remove it, it "
            "could begin another header"
        )
    if value != value.strip(" \t"):
        raise ValueError(
            f"header {name!r} has whitespace around its value {value!r} (RFC 9110 section 5.5); strip it"
        )


def http_date(timestamp: float) -> str:
    """Seconds since the epoch as an IMF-fixdate, `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110 section 5.6.7).

    Fractions are cut towards the past, so that the date of a file is never later than the file. Raises ValueError
    for a time that is no number or outside the years 1 to 9999.
    """
    try:
        return formatdate(math.floor(timestamp), usegmt=True)
    except (ValueError, OverflowError, OSError) as error:
        raise ValueError(
            f"timestamp {timestamp!r} is no date; give seconds since 1970 within the years 1 to 9999"
        ) from error


def parse_http_date(text: str | None) -> int | None:
    """Seconds since the epoch from any of the three forms of RFC 9110 section 5.6.7; None for anything else.

    Never raises, and reads exactly these forms: GMT only, names in their one spelling, no comment after it. The
    two-digit year of the second form is one of 1969 to 2068, as POSIX has it. The name of the day is not compared
    with the date. The leap second 60 is the second after 59.
    """
    if not isinstance(text, str) or len(text) > _LONGEST_DATE + 2:
        return None
    text = text.strip(" \t")
    for form in _DATE_FORMS:
        match = form.fullmatch(text)
        if match:
            break
    else:
        return None
    year = int(match["year"])
    if len(match["year"]) == 2:
        year += 1900 if year >= 69 else 2000
    second = int(match["second"])
    try:
        moment = datetime.datetime(
            year,
            _MONTHS.index(match["month"]) + 1,
            int(match["day"]),
            int(match["hour"]),
            int(match["minute"]),
            59 if second == 60 else second,
        )
    except ValueError:
        return None
    return calendar.timegm(moment.timetuple()) + (second == 60)
