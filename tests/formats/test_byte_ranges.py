"""Range and Content-Range: one row per rule of RFC 9110 section 14, the edges first."""

import pytest

from streamkit.errors import RangeNotSatisfiable
from streamkit.formats.byte_ranges import MAX_RANGES, content_range, parse_range, unsatisfied_content_range

HUGE = "9" * 5000  # more digits than int() takes

SATISFIABLE = [
    # section, header, size, (start, stop) of every range
    ("14.1.2 first byte", "bytes=0-0", 10, [(0, 1)]),
    ("14.1.2 last byte", "bytes=9-9", 10, [(9, 10)]),
    ("14.1.2 last byte, open", "bytes=9-", 10, [(9, 10)]),
    ("14.1.2 last byte, suffix", "bytes=-1", 10, [(9, 10)]),
    ("14.1.2 one byte in the middle", "bytes=4-4", 10, [(4, 5)]),
    ("14.1.2 the one byte of a file", "bytes=0-0", 1, [(0, 1)]),
    ("14.1.2 all of it", "bytes=0-9", 10, [(0, 10)]),
    ("14.1.2 all of it, open", "bytes=0-", 10, [(0, 10)]),
    ("14.1.2 last position past the end is cut", "bytes=5-10", 10, [(5, 10)]),
    ("14.1.2 suffix as long as the file", "bytes=-10", 10, [(0, 10)]),
    ("14.1.2 suffix longer than the file", "bytes=-11", 10, [(0, 10)]),
    ("14.1.1 huge last position is cut", f"bytes=5-{HUGE}", 10, [(5, 10)]),
    ("14.1.1 huge suffix is the whole file", f"bytes=-{HUGE}", 10, [(0, 10)]),
    ("14.1.1 leading zeros", "bytes=0000000000000000000000005-007", 10, [(5, 8)]),
    ("14.1 unit in capitals", "BYTES=0-4", 10, [(0, 5)]),
    ("14.1 unit in mixed case", "Bytes=0-4", 10, [(0, 5)]),
    ("5.5 whitespace around the value", " bytes=0-4\t", 10, [(0, 5)]),
    ("5.6.1 whitespace around commas", "bytes=0-0 \t, \t2-2", 10, [(0, 1), (2, 3)]),
    ("5.6.1.2 empty elements are ignored", "bytes=,0-0,,2-2,", 10, [(0, 1), (2, 3)]),
    ("14.2 several in the order asked for", "bytes=8-9,0-1", 10, [(8, 10), (0, 2)]),
    ("14.1.2 one fits, one does not", "bytes=0-1,10-", 10, [(0, 2)]),
    ("14.1.2 one fits, one zero suffix", "bytes=-0,9-", 10, [(9, 10)]),
    ("15.3.7.2 those that touch are joined", "bytes=0-4,5-9", 10, [(0, 10)]),
    ("15.3.7.2 those that overlap are joined", "bytes=2-5,4-7", 10, [(2, 8)]),
    ("15.3.7.2 one within another", "bytes=0-7,2-3", 10, [(0, 8)]),
    ("15.3.7.2 joined at the place of the first", "bytes=8-9,0-1,7-7,4-4", 10, [(7, 10), (0, 2), (4, 5)]),
    ("15.3.7.2 joined in any order", "bytes=-3,0-2,1-6", 10, [(0, 10)]),
    ("17.15 never more than the file", "bytes=0-,0-", 10, [(0, 10)]),
    (
        "17.15 as many as allowed",
        "bytes=" + ",".join(f"{2 * n}-{2 * n}" for n in range(MAX_RANGES)),
        1000,
        [(2 * n, 2 * n + 1) for n in range(MAX_RANGES)],
    ),
]


@pytest.mark.parametrize(
    ("rule", "header", "size", "ranges"), SATISFIABLE, ids=[row[0] for row in SATISFIABLE]
)
def test_ranges_that_fit(rule, header, size, ranges):
    assert parse_range(header, size) == ranges


IGNORED = [
    ("14.2 another unit", "items=0-4", 10),
    ("14.2 no unit", "0-4", 10),
    ("14.1 no equals sign", "bytes", 10),
    ("14.1.1 nothing after it", "bytes=", 10),
    ("14.1.1 only empty elements", "bytes=, ,", 10),
    ("14.1.1 a hyphen alone", "bytes=-", 10),
    ("14.1.1 no hyphen", "bytes=5", 10),
    ("14.1.1 first after last", "bytes=5-4", 10),
    ("14.1.1 first after last, both huge", f"bytes={HUGE}1-{HUGE}", 10),
    ("14.1.1 first after last in one of two", "bytes=0-1,5-4", 10),
    ("14.1.1 plus sign", "bytes=+1-2", 10),
    ("14.1.1 minus sign", "bytes=1--2", 10),
    ("14.1.1 underscore", "bytes=1_0-20", 100),
    ("14.1.1 Arabic digits", "bytes=\u0660-\u0664", 10),
    ("14.1.1 superscript digit", "bytes=0-\xb2", 10),
    ("14.1.1 whitespace inside a range", "bytes=0 - 4", 10),
    ("14.1 whitespace before the equals sign", "bytes =0-4", 10),
    ("14.1.1 whitespace that is no OWS", "bytes=0-4,\xa05-6", 10),
    ("14.1.1 letters", "bytes=a-b", 10),
    ("14.1.1 one good, one bad", "bytes=0-1,x", 10),
    ("15.5.17 empty file, first byte", "bytes=0-0", 0),
    ("15.5.17 empty file, open", "bytes=0-", 0),
    ("15.5.17 empty file, suffix", "bytes=-1", 0),
    ("17.15 too many", "bytes=" + ",".join(["0-0"] * (MAX_RANGES + 1)), 1000),
    ("17.15 ten thousand", "bytes=" + ",".join(f"{n}-{n}" for n in range(10_000)), 100_000),
]


@pytest.mark.parametrize(("rule", "header", "size"), IGNORED, ids=[row[0] for row in IGNORED])
def test_headers_that_are_ignored(rule, header, size):
    assert parse_range(header, size) is None


NOT_SATISFIABLE = [
    ("14.1.2 just past the end", "bytes=10-", 10),
    ("14.1.2 just past the end, one byte", "bytes=10-10", 10),
    ("14.1.2 far past the end", f"bytes={HUGE}-", 10),
    ("14.1.2 far past the end, closed", f"bytes={HUGE}-{HUGE}1", 10),
    ("14.1.2 zero suffix", "bytes=-0", 10),
    ("14.1.2 zero suffix, many zeros", "bytes=-000", 10),
    ("15.5.17 several, none fits", "bytes=10-11,12-", 10),
]


@pytest.mark.parametrize(("rule", "header", "size"), NOT_SATISFIABLE, ids=[row[0] for row in NOT_SATISFIABLE])
def test_ranges_of_which_none_fits(rule, header, size):
    with pytest.raises(RangeNotSatisfiable) as caught:
        parse_range(header, size)
    assert caught.value.size == size
    assert len(str(caught.value)) < 250


def test_every_range_of_a_small_file_slices_it():
    content = b"0123456"
    for start in range(len(content)):
        for last in range(start, len(content) + 2):
            ((begin, stop),) = parse_range(f"bytes={start}-{last}", len(content))
            assert content[begin:stop] == content[start : last + 1]


def test_a_negative_size_is_a_mistake():
    with pytest.raises(ValueError, match="size is -1"):
        parse_range("bytes=0-", -1)


@pytest.mark.parametrize(
    ("start", "stop", "size", "value"),
    [
        (0, 1, 1, "bytes 0-0/1"),
        (0, 500, 1234, "bytes 0-499/1234"),
        (1233, 1234, 1234, "bytes 1233-1233/1234"),
    ],
)
def test_content_range_is_inclusive_with_its_unit(start, stop, size, value):  # 14.4
    assert content_range(start, stop, size) == value


@pytest.mark.parametrize(
    ("start", "stop", "size"), [(0, 0, 0), (5, 5, 10), (6, 5, 10), (-1, 5, 10), (0, 11, 10)]
)
def test_content_range_of_nothing_is_refused(start, stop, size):
    with pytest.raises(ValueError, match="empty or not within"):
        content_range(start, stop, size)


def test_content_range_of_416():  # 14.4, 15.5.17
    assert unsatisfied_content_range(0) == "bytes */0"
    assert unsatisfied_content_range(47022) == "bytes */47022"
