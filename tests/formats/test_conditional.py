"""Entity tags, preconditions and If-Range: one row per rule of RFC 9110 sections 8.8 and 13."""

import os
import types

import pytest

from streamkit.formats.conditional import (
    evaluate_preconditions,
    file_validators,
    if_range_matches,
    is_strong_date,
    parse_etag,
    parse_etags,
    strong_match,
    weak_match,
)
from streamkit.formats.header_fields import http_date

MODIFIED = 784111777  # Sun, 06 Nov 1994 08:49:37 GMT
AT, BEFORE, AFTER = http_date(MODIFIED), http_date(MODIFIED - 1), http_date(MODIFIED + 1)

# 8.8.3.2, the table of the RFC
COMPARISONS = [
    ('W/"1"', 'W/"1"', False, True),
    ('W/"1"', 'W/"2"', False, False),
    ('W/"1"', '"1"', False, True),
    ('"1"', '"1"', True, True),
    ('"1"', '"2"', False, False),
    ('"W/1"', '"W/1"', True, True),
]


@pytest.mark.parametrize(("one", "other", "strong", "weak"), COMPARISONS)
def test_comparison(one, other, strong, weak):
    assert (strong_match(one, other), strong_match(other, one)) == (strong, strong)
    assert (weak_match(one, other), weak_match(other, one)) == (weak, weak)


LISTS = [
    ("one", '"a"', ('"a"',)),
    ("weak", 'W/"a"', ('W/"a"',)),
    ("empty tag", '""', ('""',)),
    ("several", '"a", W/"b","c"', ('"a"', 'W/"b"', '"c"')),
    ("comma inside a tag", '"a,b", "c"', ('"a,b"', '"c"')),
    ("backslash is no escape", '"a\\", "b"', ('"a\\"', '"b"')),
    ("obs-text", '"\xe9"', ('"\xe9"',)),
    ("empty elements", ' , "a",, "b" ,', ('"a"', '"b"')),
    ("asterisk", " * ", ("*",)),
    ("asterisk in a list", '*, "a"', ()),
    ("asterisk as a tag", '"*"', ('"*"',)),
    ("unquoted", "abc", ()),
    ("lower-case w", 'w/"a"', ()),
    ("space inside a tag", '"a b"', ()),
    ("not closed", '"a', ()),
    ("no comma", '"a" "b"', ()),
    ("one bad element", '"a", b', ()),
    ("nothing", "", ()),
]


@pytest.mark.parametrize(("rule", "text", "tags"), LISTS, ids=[row[0] for row in LISTS])
def test_lists_of_tags(rule, text, tags):  # 8.8.3, 13.1.1, 5.6.1.2
    assert parse_etags(text) == tags


def test_a_long_hostile_list_is_read_in_linear_time():
    assert parse_etags(" ," * 200_000) == ()
    assert parse_etags('"' * 200_001) == ()


def test_one_tag():
    assert parse_etag(' "a"\t') == '"a"'
    assert parse_etag('"a", "b"') is None
    assert parse_etag(AT) is None


# section, method, headers, etag, result; the resource was modified at MODIFIED
PRECONDITIONS = [
    ("13 none", "GET", {}, '"a"', 200),
    # 13.1.1 If-Match: strong comparison, list, asterisk; failure 412
    ("13.1.1 match", "PUT", {"If-Match": '"a"'}, '"a"', 200),
    ("13.1.1 match in list", "PUT", {"If-Match": '"x", "a"'}, '"a"', 200),
    ("13.1.1 no match", "PUT", {"If-Match": '"x"'}, '"a"', 412),
    ("13.1.1 no match on GET", "GET", {"If-Match": '"x"'}, '"a"', 412),
    ("13.1.1 weak in header", "PUT", {"If-Match": 'W/"a"'}, '"a"', 412),
    ("13.1.1 weak both", "PUT", {"If-Match": 'W/"a"'}, 'W/"a"', 412),
    ("13.1.1 asterisk", "PUT", {"If-Match": "*"}, '"a"', 200),
    ("13.1.1 asterisk, no tag", "PUT", {"If-Match": "*"}, None, 200),
    ("13.1.1 no tag", "PUT", {"If-Match": '"a"'}, None, 412),
    ("13.1.1 unreadable", "PUT", {"If-Match": "a"}, '"a"', 412),
    # 13.1.2 If-None-Match: weak comparison, list, asterisk; 304 for GET and HEAD, 412 else
    ("13.1.2 GET", "GET", {"If-None-Match": '"a"'}, '"a"', 304),
    ("13.1.2 HEAD", "HEAD", {"If-None-Match": '"a"'}, '"a"', 304),
    ("13.1.2 PUT", "PUT", {"If-None-Match": '"a"'}, '"a"', 412),
    ("13.1.2 weak in header", "GET", {"If-None-Match": 'W/"a"'}, '"a"', 304),
    ("13.1.2 weak tag", "GET", {"If-None-Match": '"a"'}, 'W/"a"', 304),
    ("13.1.2 list", "GET", {"If-None-Match": '"x", W/"a"'}, '"a"', 304),
    ("13.1.2 no match", "GET", {"If-None-Match": '"x"'}, '"a"', 200),
    ("13.1.2 asterisk GET", "GET", {"If-None-Match": "*"}, '"a"', 304),
    ("13.1.2 asterisk PUT", "PUT", {"If-None-Match": "*"}, '"a"', 412),
    ("13.1.2 asterisk, no tag", "GET", {"If-None-Match": "*"}, None, 304),
    ("13.1.2 unreadable", "GET", {"If-None-Match": "a"}, '"a"', 200),
    # 13.1.3 If-Modified-Since
    ("13.1.3 same second", "GET", {"If-Modified-Since": AT}, '"a"', 304),
    ("13.1.3 later", "HEAD", {"If-Modified-Since": AFTER}, '"a"', 304),
    ("13.1.3 earlier", "GET", {"If-Modified-Since": BEFORE}, '"a"', 200),
    ("13.1.3 other method", "POST", {"If-Modified-Since": AFTER}, '"a"', 200),
    ("13.1.3 invalid date", "GET", {"If-Modified-Since": "yesterday"}, '"a"', 200),
    ("13.1.3 beside If-None-Match", "GET", {"If-None-Match": '"x"', "If-Modified-Since": AFTER}, '"a"', 200),
    ("13.1.3 beside a bad one", "GET", {"If-None-Match": "x", "If-Modified-Since": AFTER}, '"a"', 200),
    ("13.1.3 beside a match", "GET", {"If-None-Match": '"a"', "If-Modified-Since": BEFORE}, '"a"', 304),
    # 13.1.4 If-Unmodified-Since
    ("13.1.4 same second", "PUT", {"If-Unmodified-Since": AT}, '"a"', 200),
    ("13.1.4 later", "PUT", {"If-Unmodified-Since": AFTER}, '"a"', 200),
    ("13.1.4 earlier", "PUT", {"If-Unmodified-Since": BEFORE}, '"a"', 412),
    ("13.1.4 earlier on GET", "GET", {"If-Unmodified-Since": BEFORE}, '"a"', 412),
    ("13.1.4 invalid date", "PUT", {"If-Unmodified-Since": "0"}, '"a"', 200),
    ("13.1.4 beside If-Match", "PUT", {"If-Match": '"a"', "If-Unmodified-Since": BEFORE}, '"a"', 200),
    # 13.2.2 order
    ("13.2.2 step 1 before 3", "GET", {"If-Match": '"x"', "If-None-Match": '"a"'}, '"a"', 412),
    ("13.2.2 step 1 true, then 3", "GET", {"If-Match": '"a"', "If-None-Match": '"a"'}, '"a"', 304),
    ("13.2.2 step 2 before 4", "GET", {"If-Unmodified-Since": BEFORE, "If-Modified-Since": AT}, '"a"', 412),
    ("13.2.2 step 2 true, then 4", "GET", {"If-Unmodified-Since": AT, "If-Modified-Since": AT}, '"a"', 304),
    # 13.2.1 methods that select nothing
    ("13.2.1 OPTIONS", "OPTIONS", {"If-Match": '"x"', "If-None-Match": "*"}, '"a"', 200),
]


@pytest.mark.parametrize(
    ("rule", "method", "headers", "etag", "status"), PRECONDITIONS, ids=[row[0] for row in PRECONDITIONS]
)
def test_preconditions(rule, method, headers, etag, status):
    assert evaluate_preconditions(method, headers, etag, MODIFIED) == status


@pytest.mark.parametrize("header", ["If-Modified-Since", "If-Unmodified-Since"])
def test_dates_are_ignored_without_a_modification_date(header):  # 13.1.3, 13.1.4
    assert evaluate_preconditions("GET", {header: AT}, '"a"', None) == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [({"If-Match": "*"}, 412), ({"If-Match": '"a"'}, 412), ({"If-None-Match": "*"}, 200), ({}, 200)],
)
def test_nothing_exists_yet(headers, status):  # 13.1.1, 13.1.2
    assert evaluate_preconditions("PUT", headers, None, None, exists=False) == status


IF_RANGE = [
    ("strong tag", '"a"', '"a"', MODIFIED, True),
    ("another tag", '"b"', '"a"', MODIFIED, False),
    ("weak tag in the header", 'W/"a"', '"a"', MODIFIED, False),
    ("weak tag of the file", '"a"', 'W/"a"', MODIFIED, False),
    ("weak tags", 'W/"a"', 'W/"a"', MODIFIED, False),
    ("tag without quotes", "a", '"a"', MODIFIED, False),
    ("list of tags", '"a", "b"', '"a"', MODIFIED, False),
    ("asterisk", "*", '"a"', MODIFIED, False),
    ("tag, file has none", '"a"', None, MODIFIED, False),
    ("date equal", AT, '"a"', MODIFIED, True),
    ("date equal, no tag", AT, None, MODIFIED, True),
    ("date later", AFTER, '"a"', MODIFIED, False),
    ("date earlier", BEFORE, '"a"', MODIFIED, False),
    ("date equal, but the file is young", AT, 'W/"a"', MODIFIED, False),
    ("date, file has none", AT, '"a"', None, False),
    ("unreadable, file has no date", "soon", None, None, False),
    ("empty", "", '"a"', MODIFIED, False),
]


@pytest.mark.parametrize(
    ("rule", "value", "etag", "modified", "matches"), IF_RANGE, ids=[row[0] for row in IF_RANGE]
)
def test_if_range(rule, value, etag, modified, matches):  # 13.1.5, 8.8.2.2
    assert if_range_matches(value, etag, modified) is matches


def stat(nanoseconds, size=10, inode=7):
    return types.SimpleNamespace(st_mtime_ns=nanoseconds, st_size=size, st_ino=inode)


SECOND = 1_000_000_000


def test_a_file_that_lay_still_has_a_strong_tag():  # 8.8.1
    etag, modified = file_validators(stat(MODIFIED * SECOND), MODIFIED + 2)
    assert parse_etag(etag) == etag
    assert not etag.startswith("W/")
    assert modified == MODIFIED


@pytest.mark.parametrize("age", [1.9, 0, -5])
def test_a_young_file_has_the_same_tag_but_weak(age):  # 8.8.1
    strong, _ = file_validators(stat(MODIFIED * SECOND), MODIFIED + 1000)
    weak, _ = file_validators(stat(MODIFIED * SECOND), MODIFIED + age)
    assert weak == f"W/{strong}"


@pytest.mark.parametrize(
    "changed", [stat(MODIFIED * SECOND + 1), stat(MODIFIED * SECOND, 11), stat(MODIFIED * SECOND, 10, 8)]
)
def test_every_change_makes_another_tag(changed):
    assert (
        file_validators(changed, MODIFIED + 9)[0] != file_validators(stat(MODIFIED * SECOND), MODIFIED + 9)[0]
    )


def test_last_modified_is_whole_seconds_and_never_in_the_future():  # 8.8.2.1
    assert file_validators(stat(MODIFIED * SECOND + SECOND - 1), MODIFIED + 9)[1] == MODIFIED
    assert file_validators(stat((MODIFIED + 60) * SECOND), MODIFIED + 0.5)[1] == MODIFIED


@pytest.mark.parametrize(("age", "strong"), [(-5, False), (0, False), (2.9, False), (3, True), (1e6, True)])
def test_a_date_is_strong_once_its_second_is_over(age, strong):  # 8.8.2.2
    assert is_strong_date(MODIFIED, MODIFIED + age) is strong


def test_validators_of_a_real_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"x")
    os.utime(path, (MODIFIED, MODIFIED))
    with path.open("rb") as file:
        etag, modified = file_validators(os.fstat(file.fileno()), MODIFIED + 3600)
    assert modified == MODIFIED
    assert evaluate_preconditions("GET", {"If-None-Match": etag}, etag, modified) == 304
