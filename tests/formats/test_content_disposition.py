"""Names of downloads, against RFC 6266 sections 4.1 to 4.3, appendix D, and RFC 8187 section 3.2."""

import email.message
import email.policy
import re
from urllib.parse import unquote

import pytest

from streamkit.formats.content_disposition import content_disposition, presentable_filename
from streamkit.formats.header_fields import check_header

NAMES = [
    # rule, name, value after the disposition
    ("D plain", "report.csv", 'filename="report.csv"'),
    ("4.1 always quoted", "a", 'filename="a"'),
    ("D spaces", "my report.csv", 'filename="my report.csv"'),
    ("D separators", "a;b=c,d.txt", 'filename="a;b=c,d.txt"'),
    ("D accent", "caf\xe9.csv", "filename=\"cafe.csv\"; filename*=UTF-8''caf%C3%A9.csv"),
    ("D combining accent", "cafe\u0301.csv", "filename=\"cafe.csv\"; filename*=UTF-8''cafe%CC%81.csv"),
    ("4.3 RFC example", "\u20ac rates", "filename=\"_ rates\"; filename*=UTF-8''%E2%82%AC%20rates"),
    ("D CJK", "\u6587\u66f8.csv", "filename=\"__.csv\"; filename*=UTF-8''%E6%96%87%E6%9B%B8.csv"),
    ("D beyond the BMP", "\U0001f600", "filename=\"_\"; filename*=UTF-8''%F0%9F%98%80"),
    ("D quote", 'a"b.txt', "filename=\"a_b.txt\"; filename*=UTF-8''a%22b.txt"),
    ("D percent", "50%20.txt", "filename=\"50_20.txt\"; filename*=UTF-8''50%2520.txt"),
    ("3.2.1 not attr-char", "\xe9'()*;=", "filename=\"e'()*;=\"; filename*=UTF-8''%C3%A9%27%28%29%2A%3B%3D"),
    (
        "3.2.1 attr-char",
        "\xe9!#$&+-.^_`|~",
        "filename=\"e!#$&+-.^_`|~\"; filename*=UTF-8''%C3%A9!#$&+-.^_`|~",
    ),
    (
        "4.3 a slash that only a fallback has",
        "\u2100.txt",
        "filename=\"a_c.txt\"; filename*=UTF-8''%E2%84%80.txt",
    ),
    ("4.3 dots that only a fallback has", "\u2025", "filename=\"_\"; filename*=UTF-8''%E2%80%A5"),
    ("4.3 more dots that only a fallback has", "\u2026", "filename=\"_\"; filename*=UTF-8''%E2%80%A6"),
    ("4.3 nothing that only a fallback has", "\u0301", "filename=\"_\"; filename*=UTF-8''%CC%81"),
]


@pytest.mark.parametrize(("rule", "name", "value"), NAMES, ids=[row[0] for row in NAMES])
def test_names(rule, name, value):
    assert content_disposition(name) == f"attachment; {value}"
    assert content_disposition(name, attachment=False) == f"inline; {value}"
    check_header("Content-Disposition", content_disposition(name))
    assert content_disposition(name).isascii()


def read_as_8187(value):
    """The name as RFC 6266 section 4.3 and RFC 8187 section 3.2 tell recipients to read it."""
    match = re.fullmatch(
        r'(?:attachment|inline); filename="([^"\\%]*)"(?:; filename\*=UTF-8\'\'(.+))?', value
    )
    plain, extended = match.groups()
    if extended is None:
        return plain
    assert re.fullmatch(r"(?:[A-Za-z0-9!#$&+\-.^_`|~]|%[0-9A-F]{2})+", extended)
    return unquote(extended, encoding="utf-8", errors="strict")


@pytest.mark.parametrize("name", [row[1] for row in NAMES])
def test_a_recipient_reads_the_name_back(name):  # 4.3: filename* goes first if there are both
    assert read_as_8187(content_disposition(name)) == name


@pytest.mark.parametrize(("name", "fallback"), [("report.csv", "report.csv"), ("caf\xe9.csv", "cafe.csv")])
def test_an_old_recipient_reads_the_fallback(name, fallback):
    message = email.message.EmailMessage(policy=email.policy.HTTP)
    message["Content-Disposition"] = content_disposition(name)
    assert message["Content-Disposition"].params["filename"] == fallback


REFUSED = [
    ("empty", "", "names no file"),
    ("blank", "  ", "names no file"),
    ("4.3 this directory", ".", "names no file"),
    ("4.3 parent", "..", "names no file"),
    ("4.3 path", "/etc/passwd", "has a path"),
    ("4.3 relative path", "../x", "has a path"),
    ("4.3 Windows path", "C:\\x.txt", "has a path"),
    ("CR", "a\rb", "U\\+000D"),
    ("LF", "a\nSet-Cookie: x", "U\\+000A"),
    ("NUL", "a\0.txt", "U\\+0000"),
    ("TAB", "a\tb", "U\\+0009"),
    ("DEL", "a\x7f", "U\\+007F"),
    ("C1 control", "a\x85", "U\\+0085"),
    ("lone surrogate", "a\udc80", "lone surrogate"),
]


@pytest.mark.parametrize(("rule", "name", "reason"), REFUSED, ids=[row[0] for row in REFUSED])
def test_names_that_are_refused(rule, name, reason):
    with pytest.raises(ValueError, match=reason):
        content_disposition(name)


@pytest.mark.parametrize("name", [None, b"a.txt", 1])
def test_a_name_is_text(name):
    with pytest.raises(TypeError, match="give the name as str"):
        content_disposition(name)


@pytest.mark.parametrize(
    ("found", "presentable"),
    [
        ("report.csv", "report.csv"),
        ("/srv/files/report.csv", "report.csv"),
        ("..\\..\\report.csv", "report.csv"),
        ("two\r\nlines.txt", "two__lines.txt"),
        ("caf\udce9.txt", "caf_.txt"),  # a name on disk that is no UTF-8
        ("harmless\u202efdp.exe", "harmless_fdp.exe"),  # shown as harmlessexe.pdf
        ("..", "download"),
        ("", "download"),
        ("a/", "download"),
    ],
)
def test_names_that_were_found(found, presentable):
    assert presentable_filename(found) == presentable
    assert content_disposition(presentable_filename(found)).startswith("attachment; filename=")
