"""What is written is read back, for values that nobody thought of."""

import csv
import datetime
import io
import json
import re

import pytest

pytest.importorskip("hypothesis")

from hypothesis import given, settings
from hypothesis import strategies as st

from streamkit.errors import RangeNotSatisfiable
from streamkit.formats.byte_ranges import parse_range
from streamkit.formats.conditional import evaluate_preconditions, if_range_matches, parse_etags, weak_match
from streamkit.formats.content_disposition import content_disposition
from streamkit.formats.csv_rows import CSVEncoder
from streamkit.formats.header_fields import check_header, http_date, parse_http_date
from streamkit.formats.json_array import JSONArrayEncoder
from streamkit.formats.json_lines import JSONSeqEncoder, NDJSONEncoder
from tests.formats.test_csv_rows import by_the_batch

bounded = settings(deadline=None, max_examples=150)

# csv.reader of Python 3.10 refuses NUL.
cell = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
tables = st.integers(1, 5).flatmap(lambda width: st.lists(st.lists(cell, min_size=width, max_size=width)))
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


def whole(encoder, items):
    return encoder.join([encoder.head(), *(encoder.encode(item) for item in items), encoder.tail()])


@bounded
@given(tables, st.sampled_from(["excel", "excel-tab", "unix"]))
def test_csv(rows, dialect):
    text = whole(CSVEncoder(dialect=dialect), rows).decode("utf-8")
    assert list(csv.reader(io.StringIO(text, newline=""), dialect, strict=True)) == rows


@bounded
@given(st.lists(st.fixed_dictionaries({"a": cell, "b": cell, "c": cell}), min_size=1))
def test_csv_of_mappings(rows):
    text = whole(CSVEncoder(), rows).decode("utf-8")
    assert list(csv.DictReader(io.StringIO(text, newline=""), strict=True)) == rows


def refusal(encode):
    """What `encode` raises for a row that cannot be sent, or None."""
    try:
        encode()
    except (TypeError, ValueError) as error:
        return repr(error)
    return None


awkward = st.sampled_from([None, 1, 2.5, True, b"x", bytearray(b"y"), "b'z'", "it's <mem", "\ud800", "=1"])
rows_of_one_kind = st.lists(st.tuples(cell | awkward, cell))
rows_of_all_kinds = st.lists(st.one_of(st.tuples(cell, cell), st.lists(cell), st.just({"a": 1}), awkward))


@bounded
@given(
    rows_of_one_kind | rows_of_all_kinds, st.integers(1, 9), st.sampled_from(["excel", "unix"]), st.booleans()
)
def test_csv_by_the_batch_is_csv_row_by_row(rows, size, dialect, guard):
    one, many = (CSVEncoder(dialect=dialect, guard_formulas=guard) for _ in range(2))
    expected, lines = [], []
    refused = refusal(lambda: expected.extend(map(one.encode, rows)))
    assert refusal(lambda: by_the_batch(many, rows, lines, size)) == refused
    assert lines == expected
    assert many.rows == one.rows


@bounded
@given(st.lists(values))
def test_ndjson(records):
    lines = whole(NDJSONEncoder(), records).split(b"\n")
    assert lines.pop() == b""
    assert [json.loads(line) for line in lines] == records


@bounded
@given(st.lists(values))
def test_json_seq(records):
    texts = whole(JSONSeqEncoder(), records).split(b"\x1e")[1:]
    assert [json.loads(text) for text in texts] == records


@bounded
@given(st.lists(values))
def test_json_array(records):
    sent = whole(JSONArrayEncoder(), records)
    assert json.loads(sent) == records
    with pytest.raises(ValueError, match=r"."):
        json.loads(sent[:-2])


names = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/\\"), min_size=1)


@bounded
@given(names.filter(lambda name: name.strip() not in {"", ".", ".."}))
def test_content_disposition(name):
    http = pytest.importorskip("werkzeug.http")
    value = content_disposition(name)
    check_header("Content-Disposition", value)
    assert value.isascii()
    assert http.parse_options_header(value) == ("attachment", {"filename": name})
    fallback = re.match(r'attachment; filename="([^"]*)"', value).group(1)
    assert not set(fallback) & set('/\\%"')


@bounded
@given(st.integers(-62135596800, 253402300799))
def test_dates(moment):
    assert parse_http_date(http_date(moment)) == moment


@bounded
@given(st.datetimes(datetime.datetime(1969, 1, 1), datetime.datetime(2068, 12, 31)))
def test_dates_of_two_digit_years(moment):
    moment = moment.replace(microsecond=0, tzinfo=datetime.timezone.utc)
    months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
    text = f"Monday, {moment.day:02}-{months[moment.month - 1]}-{moment.year % 100:02} {moment:%H:%M:%S} GMT"
    assert parse_http_date(text) == int(moment.timestamp())


headers = st.text(st.characters(max_codepoint=255)) | st.text('*"W/, a')


@bounded
@given(headers, headers)
def test_no_header_breaks_the_preconditions(one, other):
    tags = {"If-Match": one, "If-None-Match": other, "If-Modified-Since": one, "If-Unmodified-Since": other}
    for method in ("GET", "PUT"):
        assert evaluate_preconditions(method, tags, '"a"', 0) in {200, 304, 412}
    assert if_range_matches(one, '"a"', 0) in {True, False}


@bounded
@given(
    st.lists(st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters='"')), min_size=1)
)
def test_tags_in_a_list(opaque):
    tags = tuple(f'"{text}"' for text in opaque)
    assert parse_etags(" , ".join(tags)) == tags
    assert all(weak_match(f"W/{tag}", tag) for tag in tags)


@bounded
@given(
    st.text("bytes=0123456789-, +\u0660") | st.text("0123456789-, ").map("bytes={}".format),
    st.integers(0, 1000),
)
def test_no_range_leaves_the_file(header, size):
    try:
        ranges = parse_range(header, size)
    except RangeNotSatisfiable:
        return
    for start, stop in ranges or ():
        assert 0 <= start < stop <= size


@bounded
@given(st.integers(0, 50), st.integers(0, 60), st.integers(1, 50))
def test_a_range_is_what_a_slice_is(first, last, size):
    content = bytes(range(size))
    if first > last:
        assert parse_range(f"bytes={first}-{last}", size) is None
    elif first < size:
        ((start, stop),) = parse_range(f"bytes={first}-{last}", size)
        assert content[start:stop] == content[first : last + 1]
