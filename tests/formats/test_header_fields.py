"""Header fields and HTTP dates, against RFC 9110 sections 5.5, 5.6.2, 5.6.7 and PEP 3333."""

import calendar
import time

import pytest

from streamkit.formats.header_fields import HOP_BY_HOP, check_header, http_date, parse_http_date

MOMENT = 784111777


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-Accel-Buffering", "no"),
        ("x", ""),
        ("!#$%&'*+-.^_`|~09azAZ", "every character of a token"),
        ("X-Latin", "caf\xe9 \x80"),
        ("X-Tab", "a\tb"),
        ("Content-Length", "0"),
    ],
)
def test_fields_that_may_be_sent(name, value):
    check_header(name, value)


REFUSED = [
    ("5.6.2 empty name", "", "x", "not a token"),
    ("5.6.2 colon", "X:", "x", "not a token"),
    ("5.6.2 space", "X Y", "x", "not a token"),
    ("5.6.2 newline at the end", "X\n", "x", "not a token"),
    ("5.6.2 not ASCII", "X-\xe9", "x", "not a token"),
    ("5.5 LF", "X", "a\nSet-Cookie: b", "control character"),
    ("5.5 CR", "X", "a\rb", "control character"),
    ("5.5 LF at the end", "X", "a\n", "control character"),
    ("5.5 NUL", "X", "a\0b", "control character"),
    ("5.5 DEL", "X", "a\x7fb", "control character"),
    ("5.5 space before", "X", " a", "whitespace around"),
    ("5.5 tab after", "X", "a\t", "whitespace around"),
    ("PEP 3333 not Latin-1", "X", "\u20ac", "Latin-1"),
    ("PEP 3333 hop-by-hop", "Connection", "close", "hop-by-hop"),
    ("PEP 3333 hop-by-hop in any case", "tRANSFER-eNCODING", "chunked", "hop-by-hop"),
]


@pytest.mark.parametrize(("rule", "name", "value", "reason"), REFUSED, ids=[row[0] for row in REFUSED])
def test_fields_that_are_refused(rule, name, value, reason):
    with pytest.raises(ValueError, match=reason):
        check_header(name, value)


@pytest.mark.parametrize(("name", "value"), [("X", 1), ("X", b"x"), (b"X", "x"), ("X", None)])
def test_native_strings_only(name, value):  # PEP 3333
    with pytest.raises(TypeError, match="PEP 3333"):
        check_header(name, value)


def test_hop_by_hop_covers_what_wsgiref_refuses():
    from wsgiref.util import is_hop_by_hop

    for name in ["connection", "keep-alive", "te", "trailers", "transfer-encoding", "upgrade"]:
        assert is_hop_by_hop(name)
        assert name in HOP_BY_HOP
    assert all(name == name.lower() for name in HOP_BY_HOP)


@pytest.mark.parametrize(
    "text",
    ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"],
)
def test_the_three_forms(text):  # 5.6.7, the examples of the RFC
    assert parse_http_date(text) == MOMENT
    assert parse_http_date(f" {text}\t") == MOMENT


def test_the_form_that_is_written():  # 5.6.7
    assert http_date(MOMENT) == "Sun, 06 Nov 1994 08:49:37 GMT"
    assert http_date(MOMENT + 0.999) == "Sun, 06 Nov 1994 08:49:37 GMT"
    assert http_date(0) == "Thu, 01 Jan 1970 00:00:00 GMT"


@pytest.mark.parametrize("moment", [-1, 0, 1, 951782400, 1709164800, 4102444799, 253402300799])
def test_what_is_written_is_read(moment):
    assert parse_http_date(http_date(moment)) == moment


@pytest.mark.parametrize("month", range(1, 13))
def test_every_month_and_the_asctime_of_c(month):
    moment = calendar.timegm((2026, month, 9, 1, 2, 3))
    assert parse_http_date(http_date(moment)) == moment
    assert parse_http_date(time.asctime(time.gmtime(moment))) == moment


@pytest.mark.parametrize(
    ("text", "year"), [("Friday, 01-Jan-68 00:00:00 GMT", 2068), ("Friday, 01-Jan-69 00:00:00 GMT", 1969)]
)
def test_years_of_two_digits(text, year):
    assert parse_http_date(text) == calendar.timegm((year, 1, 1, 0, 0, 0))


def test_leap_second():  # 5.6.7 allows 60
    assert parse_http_date("Sat, 31 Dec 2016 23:59:60 GMT") == calendar.timegm((2017, 1, 1, 0, 0, 0))


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "0",
        "784111777",
        "yesterday",
        "Sun, 06 Nov 1994 08:49:37",
        "Sun, 06 Nov 1994 08:49:37 UTC",
        "Sun, 06 Nov 1994 08:49:37 +0100",
        "Sun, 6 Nov 1994 08:49:37 GMT",
        "sun, 06 nov 1994 08:49:37 gmt",
        "Sun, 06 Nov 94 08:49:37 GMT",
        "Sun, 31 Feb 1994 08:49:37 GMT",
        "Sun, 00 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 0000 08:49:37 GMT",
        "Sun, 06 Nov 1994 24:00:00 GMT",
        "Sun, 06 Nov 1994 08:60:00 GMT",
        "Sun, 06 Nov 1994 08:49:61 GMT",
        "Sun, \u0660\u0666 Nov 1994 08:49:37 GMT",
        "1994-11-06T08:49:37Z",
        "Sun, 06 Nov 1994 08:49:37 GMT; length=1234",
        "Sun, 06 Nov 1994 08:49:37 GMT\n",
        "9" * 100_000,
    ],
)
def test_what_is_no_date_is_none(text):
    assert parse_http_date(text) is None


@pytest.mark.parametrize("timestamp", [float("nan"), float("inf"), 1e18, -1e12])
def test_times_that_are_no_date(timestamp):
    with pytest.raises(ValueError, match="seconds since 1970"):
        http_date(timestamp)
