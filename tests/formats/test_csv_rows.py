"""CSV against RFC 4180 and RFC 7111: what is written, what is refused, and what the header becomes."""

import csv
import dataclasses
import datetime
import decimal
import enum
import io
import types
import uuid
from collections import OrderedDict, defaultdict, namedtuple

import pytest

from streamkit.formats.csv_rows import CSVEncoder
from streamkit.formats.formula_guard import guard_formula

Point = namedtuple("Point", "x y")


@dataclasses.dataclass
class Place:
    name: str
    size: int


@dataclasses.dataclass
class Single:
    value: object


@dataclasses.dataclass
class LabelledPlace(Place):
    @property
    def label(self):
        return self.name + "!"


class Twice(tuple):
    """A row of a join: two columns of one name."""

    _fields = ("a", "a")

    def __new__(cls):
        return super().__new__(cls, (1, 2))


def table(rows, **options):
    """All of a complete table, as the text that is sent."""
    encoder = CSVEncoder(**options)
    frames = [encoder.head(), *(encoder.encode(row) for row in rows), encoder.tail()]
    return encoder.join(frames).decode("utf-8")


def by_the_batch(encoder, rows, lines, size=100):
    """All rows, `size` at a time or as many as the encoder takes."""
    while rows:
        before = len(lines)
        assert encoder.encode_batch(rows[:size], lines) == sum(map(len, lines[before:]))
        assert len(lines) > before
        rows = rows[len(lines) - before :]


CELLS = [
    ("2.1 CRLF", ["a", "b"], "a,b\r\n"),
    ("2.4 spaces are kept", [" a ", ""], " a ,\r\n"),
    ("2.6 comma", ["a,b"], '"a,b"\r\n'),
    ("2.6 LF", ["a\nb"], '"a\nb"\r\n'),
    ("2.6 CR alone", ["a\rb"], '"a\rb"\r\n'),
    ("2.6 CRLF", ["a\r\nb"], '"a\r\nb"\r\n'),
    ("2.7 quote", ['a"b'], '"a""b"\r\n'),
    ("2.7 only a quote", ['"'], '""""\r\n'),
    ("None", [None, 1, None], ",1,\r\n"),
    ("None alone is no empty line", [None], '""\r\n'),
    ("bool", [True, False], "True,False\r\n"),
    ("float", [0.1, 1e300, float("nan"), float("-inf")], "0.1,1e+300,nan,-inf\r\n"),
    ("int and Decimal", [10**30, decimal.Decimal("1.50")], f"{10**30},1.50\r\n"),
    ("date", [datetime.date(2026, 11, 21), datetime.time(8, 30)], "2026-11-21,08:30:00\r\n"),
    (
        "datetime",
        [datetime.datetime(2026, 11, 21, 8, 30, tzinfo=datetime.timezone.utc)],
        "2026-11-21 08:30:00+00:00\r\n",
    ),
    ("str() of the rest", [uuid.UUID(int=1)], "00000000-0000-0000-0000-000000000001\r\n"),
    ("not ASCII", ["caf\xe9", "\u2028", "\U0001f600"], "caf\xe9,\u2028,\U0001f600\r\n"),
    ("apostrophes are no bytes", ["b'x'", 'b"x"', "<memory"], 'b\'x\',"b""x""",<memory\r\n'),
]


@pytest.mark.parametrize(("rule", "row", "text"), CELLS, ids=[row[0] for row in CELLS])
@pytest.mark.parametrize("kind", [list, tuple])
def test_cells(rule, row, text, kind):
    # The first row is checked more closely than the rest, so it is not the only one.
    assert table([kind(row), kind(row), list(row)]) == text * 3


def test_bom_header_rows_and_end_row_come_in_this_order():
    text = table([(1, 2)], header=["a", "b"], bom=True, end_row=["total", 1, "x"])
    assert text == "\ufeffa,b\r\n1,2\r\ntotal,1,x\r\n"


def test_a_derived_header_comes_after_the_byte_order_mark():
    assert table([{"a": 1}], bom=True) == "\ufeffa\r\n1\r\n"


HEADERS = [
    ("sequence, none", [(1, 2)], None, "1,2\r\n", False),
    ("sequence, given", [(1, 2)], ["a", "b"], "a,b\r\n1,2\r\n", True),
    ("sequence, off", [(1, 2)], False, "1,2\r\n", False),
    ("mapping, derived", [{"b": 1, "a": 2}, {"a": 4, "b": 3}], None, "b,a\r\n1,2\r\n3,4\r\n", True),
    ("mapping, given in another order", [{"b": 1, "a": 2}], ["a", "b"], "a,b\r\n2,1\r\n", True),
    ("mapping, off", [{"b": 1, "a": 2}, {"a": 4, "b": 3}], False, "1,2\r\n3,4\r\n", False),
    ("mapping with one key", [{"a": 1}, {"a": 2}], None, "a\r\n1\r\n2\r\n", True),
    ("other mappings", [OrderedDict(a=1), types.MappingProxyType({"a": 2})], None, "a\r\n1\r\n2\r\n", True),
    ("keys that are no str", [{1: "x", None: "y"}], None, "1,\r\nx,y\r\n", True),
    ("dataclass, derived", [Place("x", 1), Place("y", 2)], None, "name,size\r\nx,1\r\ny,2\r\n", True),
    ("dataclass, given in another order", [Place("x", 1)], ["size", "name"], "size,name\r\n1,x\r\n", True),
    ("dataclass, off", [Place("x", 1)], False, "x,1\r\n", False),
    ("dataclass with one field", [Single(1), Single(2)], None, "value\r\n1\r\n2\r\n", True),
    ("named tuple, derived", [Point(1, 2), Point(3, 4)], None, "x,y\r\n1,2\r\n3,4\r\n", True),
    ("named tuple, given as labels", [Point(1, 2)], ["a", "b"], "a,b\r\n1,2\r\n", True),
    ("named tuple, off", [Point(1, 2)], False, "1,2\r\n", False),
    (
        "mixed kinds under one header",
        [(1, 2), {"y": 4, "x": 3}, [5, 6]],
        ["x", "y"],
        "x,y\r\n1,2\r\n3,4\r\n5,6\r\n",
        True,
    ),
    ("names are quoted too", [{"a,b": 1}], None, '"a,b"\r\n1\r\n', True),
    ("no rows, given", [], ["a", "b"], "a,b\r\n", True),
    ("no rows", [], None, "", None),
]


@pytest.mark.parametrize(
    ("rule", "rows", "header", "text", "present"), HEADERS, ids=[row[0] for row in HEADERS]
)
def test_headers(rule, rows, header, text, present):
    assert table(rows, header=header) == text
    encoder = CSVEncoder(header=header)
    for row in rows:
        encoder.encode(row)
    assert encoder.has_header is present


def test_rows_of_sqlite_have_names():
    sqlite3 = pytest.importorskip("sqlite3")
    connection = sqlite3.connect(":memory:")
    connection.row_factory = sqlite3.Row
    rows = connection.execute("select 1 as a, 'x' as b union all select 2, 'y'").fetchall()
    connection.close()
    assert table(rows) == "a,b\r\n1,x\r\n2,y\r\n"
    assert table(rows, header=False) == "1,x\r\n2,y\r\n"


def test_content_type_says_what_is_known():  # RFC 4180 section 3, RFC 7111
    assert CSVEncoder(header=["a"]).content_type == "text/csv; charset=utf-8; header=present"
    assert CSVEncoder(header=False).content_type == "text/csv; charset=utf-8; header=absent"
    encoder = CSVEncoder()
    assert encoder.content_type == "text/csv; charset=utf-8"
    encoder.encode({"a": 1})
    assert encoder.content_type == "text/csv; charset=utf-8; header=present"


WRONG_ROWS = [
    ("too few", [(1, 2), (1,)], None, ValueError, "row 2 has 1 cell, but row 1 has 2"),
    ("too many", [(1, 2), (1, 2, 3)], None, ValueError, "row 2 has 3 cells, but "),
    (
        "too many, list after tuples",
        [(1, 2), [1, 2, 3]],
        None,
        ValueError,
        "row 2 has 3 cells, but ",
    ),
    (
        "not as wide as the header",
        [(1,)],
        ["a", "b"],
        ValueError,
        "row 1 has 1 cell, but the header has 2",
    ),
    ("no cells", [()], None, ValueError, "row 1 has no cells"),
    ("no keys", [{}], None, ValueError, "row 1 has no cells"),
    ("missing key", [{"a": 1, "b": 2}, {"a": 1}], None, ValueError, "row 2 has no 'b'"),
    ("unknown key", [{"a": 1}, {"a": 1, "z": 2}], None, ValueError, "row 2 has 'z', which is no column"),
    ("another key", [{"a": 1}, {"z": 2}], None, ValueError, "row 2 has no 'a'"),
    ("missing from the header", [{"a": 1, "b": 2}], ["a"], ValueError, "row 1 has 'b', which is no column"),
    ("missing in the row", [{"a": 1}], ["a", "b"], ValueError, "row 1 has no 'b'"),
    ("a defaultdict invents nothing", [{"a": 1}, defaultdict(int, b=2)], None, ValueError, "row 2"),
    ("a name twice", [{"a": 1}], ["a", "a"], ValueError, "the header has 2 columns of the name 'a'"),
    (
        "as many names as cells",
        [{"a": 1, "b": 2}],
        ["a", "a"],
        ValueError,
        "the header has 2 columns of the name 'a'",
    ),
    ("field that is no column", [Place("x", 1)], ["name"], ValueError, "row 1 has 'size'"),
    ("another dataclass", [Place("x", 1), Single(1)], None, ValueError, "row 2 has no 'name'"),
    ("mapping after sequences", [(1,), {"a": 1}], None, TypeError, "row 2 is dict but the rows before it"),
    ("str", ["abc"], None, TypeError, "row 1 is str; a row is"),
    ("str after rows", [("a",), "b"], None, TypeError, "row 2 is str"),
    ("bytes", [b"abc"], None, TypeError, "row 1 is bytes"),
    ("int", [5], None, TypeError, "row 1 is int"),
    ("None", [(1,), None], None, TypeError, "row 2 is NoneType"),
    ("set", [{1, 2}], None, TypeError, "row 1 is set"),
    ("generator", [(x for x in "ab")], None, TypeError, "row 1 is generator"),
    ("a class", [Place], None, TypeError, "row 1 is type"),
    ("bytes in a cell", [("a", b"x")], None, TypeError, "row 1 has bytes in cell 2"),
    ("bytes in a later row", [("a", "x"), ("a", b"it's")], None, TypeError, "row 2 has bytes in cell 2"),
    ("bytearray", [("a",), (bytearray(b"x"),)], None, TypeError, "row 2 has bytearray in cell 1"),
    ("memoryview", [("a",), (memoryview(b"x"),)], None, TypeError, "row 2 has memoryview in cell 1"),
    ("bytes in a mapping", [{"a": b"x"}], None, TypeError, "row 1 has bytes in cell 1"),
]


@pytest.mark.parametrize(
    ("rule", "rows", "header", "error", "message"), WRONG_ROWS, ids=[r[0] for r in WRONG_ROWS]
)
def test_rows_that_are_refused(rule, rows, header, error, message):
    encoder = CSVEncoder(header=header)
    for row in rows[:-1]:
        encoder.encode(row)
    with pytest.raises(error, match=message):
        encoder.encode(rows[-1])
    assert encoder.rows == len(rows) - 1


SELECTIONS = [
    ("mapping", [{"a": 1, "b": 2, "c": 3}, {"c": 6, "b": 5, "a": 4}], ["c", "a"], "c,a\r\n3,1\r\n6,4\r\n"),
    ("mapping, one column", [{"a": 1, "b": 2}, {"a": 3, "b": 4}], ["b"], "b\r\n2\r\n4\r\n"),
    ("mappings that differ in the rest", [{"a": 1}, {"a": 2, "z": 3}], ["a"], "a\r\n1\r\n2\r\n"),
    ("names and labels", [{"a": 1, "b": 2}], {"b": "B!", "a": "A, a"}, 'B!,"A, a"\r\n2,1\r\n'),
    ("dataclass", [Place("x", 1), Place("y", 2)], ["size"], "size\r\n1\r\n2\r\n"),
    ("dataclass, property", [LabelledPlace("x", 1)], ["label", "size"], "label,size\r\nx!,1\r\n"),
    ("named tuple", [Point(1, 2), Point(3, 4)], ["y"], "y\r\n2\r\n4\r\n"),
    ("a column twice", [Point(1, 2)], ["y", "x", "y"], "y,x,y\r\n2,1,2\r\n"),
    ("positions", [(1, 2, 3), [4, 5, 6]], [2, 0], "3,1\r\n6,4\r\n"),
    ("positions in rows with names", [Point(1, 2)], [1], "y\r\n2\r\n"),
    ("positions, one", [("ab", "cd")], [1], "cd\r\n"),
    ("no rows", [], ["a"], "a\r\n"),
    ("no rows, positions", [], [0], ""),
    ("mixed kinds", [{"x": 1, "y": 2, "z": 3}, Point(4, 5)], ["y", "x"], "y,x\r\n2,1\r\n5,4\r\n"),
]


@pytest.mark.parametrize(("rule", "rows", "columns", "text"), SELECTIONS, ids=[row[0] for row in SELECTIONS])
def test_columns(rule, rows, columns, text):
    assert table(rows, columns=columns) == text
    body = text.partition("\r\n")[2] if text[:1].isalpha() else text
    if rule != "names and labels" and not rule.startswith("positions, one"):
        assert table(rows, columns=columns, header=False) == body


def test_a_header_may_rename_what_columns_selects():
    assert table([{"a": 1, "b": 2}], columns=["b", "a"], header=["B", "A"]) == "B,A\r\n2,1\r\n"
    assert table([(1, 2, 3)], columns=[2], header=["third"]) == "third\r\n3\r\n"


def test_columns_by_the_names_of_a_cursor():
    encoder = CSVEncoder(columns=["c", "a"])
    encoder.name_columns(["a", "b", "c"])
    assert encoder.head() + encoder.encode((1, 2, 3)) + encoder.encode((4, 5, 6)) == "c,a\r\n3,1\r\n6,4\r\n"
    with pytest.raises(ValueError, match="row 3 has 2 cells, but "):
        encoder.encode((1, 2))


def test_a_row_of_many_columns_is_not_compared_name_by_name():
    compared = []

    class Name(str):
        __hash__ = str.__hash__

        def __eq__(self, other):
            compared.append(self)
            return str.__eq__(self, other)

    row = {Name(f"column {number}"): number for number in range(1000)}
    encoder = CSVEncoder()
    encoder.encode(row)
    encoder.encode(row)
    assert len(compared) < 20_000


def test_the_names_of_a_cursor_make_the_header():
    encoder = CSVEncoder()
    encoder.name_columns(["a", "b"])
    assert encoder.head() == "a,b\r\n"
    assert encoder.has_header
    assert encoder.encode((1, 2)) == "1,2\r\n"
    with pytest.raises(ValueError, match="row 2 has 1 cell, but the cursor has 2"):
        encoder.encode((1,))
    named = CSVEncoder(header=["A", "B"])
    named.name_columns(["a", "b"])
    assert named.head() == "A,B\r\n"
    without = CSVEncoder(header=False)
    without.name_columns(["a", "b"])
    assert without.head() == ""


WRONG_COLUMNS = [
    ("missing", [{"a": 1}], ["a", "b"], ValueError, "row 1 has no 'b'; every row needs the columns"),
    ("missing later", [{"a": 1}, {"b": 1}], ["a"], ValueError, "row 2 has no 'a'"),
    ("invented", [{"a": 1}, defaultdict(int)], ["a"], ValueError, "row 2 lacks columns"),
    ("dataclass", [Place("x", 1)], ["colour"], ValueError, "row 1 has no 'colour'"),
    ("named tuple", [Point(1, 2)], ["z"], ValueError, "columns has 'z', but there is no column of this name"),
    ("twice in the row", [Twice()], ["a"], ValueError, "columns has 'a', but there are 2 columns"),
    ("no names", [(1, 2)], ["a"], ValueError, "the cells of row 1 have no names; give positions"),
    ("too far", [(1, 2)], [2], ValueError, "columns has position 2, but row 1 has 2 cells"),
    ("too narrow later", [(1, 2), (1,)], [0], ValueError, "row 2 has 1 cell, but "),
    ("positions in a mapping", [{"a": 1}], [0], TypeError, "row 1 is dict, whose cells have names"),
]


@pytest.mark.parametrize(
    ("rule", "rows", "columns", "error", "message"), WRONG_COLUMNS, ids=[row[0] for row in WRONG_COLUMNS]
)
def test_rows_without_the_columns(rule, rows, columns, error, message):
    encoder = CSVEncoder(columns=columns)
    for row in rows[:-1]:
        encoder.encode(row)
    with pytest.raises(error, match=message):
        encoder.encode(rows[-1])


@pytest.mark.parametrize(
    ("columns", "error", "message"),
    [
        ([], ValueError, "columns is empty"),
        ("ab", TypeError, "columns is 'ab'; give a list"),
        (5, TypeError, "columns is 5"),
        ([None], TypeError, "columns has None, which is NoneType"),
        ([True], TypeError, "columns has True"),
        ([-1], ValueError, "columns has -1; positions count from 0"),
        ([0, "a"], TypeError, "mixes names and positions"),
        ({"a": 5}, TypeError, "header has 5"),
    ],
)
def test_columns_that_are_none(columns, error, message):
    with pytest.raises(error, match=message):
        CSVEncoder(columns=columns)


def test_header_and_columns_of_one_length():
    with pytest.raises(ValueError, match="header has 1 names and columns 2"):
        CSVEncoder(columns=["a", "b"], header=["a"])
    with pytest.raises(ValueError, match="without header"):
        CSVEncoder(columns={"a": "A"}, header=["a"])


def test_a_lone_surrogate_is_named_with_its_row():
    encoder = CSVEncoder(header=["a"], bom=True)
    assert encoder.join([encoder.head(), encoder.encode(["x"])])
    frames = [encoder.encode(["y"]), encoder.encode(["z\udc80"])]
    with pytest.raises(ValueError, match=r"row 3 holds a lone surrogate, U\+DC80"):
        encoder.join(frames)


@pytest.mark.parametrize(
    ("options", "row", "where"),
    [
        ({"header": ["\ud800"]}, ["x"], "the header"),
        ({}, ["\ud800"], "row 1"),
        ({"end_row": ["\ud800"]}, ["x"], "the end row"),
    ],
)
def test_a_lone_surrogate_elsewhere(options, row, where):
    with pytest.raises(ValueError, match=f"^{where} holds a lone surrogate"):
        table([row], **options)


class NoText:
    def __str__(self):
        raise RuntimeError("not yet")


REFUSED_IN_A_BATCH = {
    "another width": ((1, 2, 3), "row 4 has 3 cells, but row 1 has 2"),
    "another kind": ("ab", "row 4 is str; a row is"),
    "bytes": ((1, b"x"), "row 4 has bytes in cell 2"),
    "a view": ((1, memoryview(b"x")), "row 4 has memoryview in cell 2"),
    "a number that is too long": ((1, 10**5000), "row 4 has a cell whose text cannot be made: ValueError"),
    "no text": ((1, NoText()), "row 4 has a cell whose text cannot be made: RuntimeError: not yet"),
}


@pytest.mark.parametrize(("row", "message"), REFUSED_IN_A_BATCH.values(), ids=REFUSED_IN_A_BATCH)
def test_a_batch_that_breaks_off_has_the_rows_before(row, message):
    encoder, lines = CSVEncoder(), []
    with pytest.raises((TypeError, ValueError), match=message):
        by_the_batch(encoder, [(1, 1), (2, 2), (3, 3), row, (5, 5)], lines)
    assert lines == ["1,1\r\n", "2,2\r\n", "3,3\r\n"]
    assert encoder.rows == 3


def test_bytes_in_a_batch_before_a_row_that_is_refused():
    encoder, lines = CSVEncoder(), []
    with pytest.raises(TypeError, match="row 3 has bytes in cell 1"):
        by_the_batch(encoder, [(1, 1), (2, "b'x'"), (b"x", 3), (4, NoText())], lines)
    assert lines == ["1,1\r\n", "2,b'x'\r\n"]


def test_a_batch_is_left_after_a_long_line():
    rows = [(n, "x" * (5000 if n > 3 else 1)) for n in range(8)]
    for options in {}, {"guard_formulas": True}:
        encoder, lines = CSVEncoder(**options), []
        encoder.encode_batch(rows[:1], lines)
        encoder.encode_batch(rows[1:], lines)
        assert len(lines) == 5
        encoder.encode_batch(rows[5:], lines)
        assert len(lines) == 6


class Unmeasurable(list):
    def __len__(self):
        raise StopIteration


def test_a_row_of_a_batch_that_has_no_length():
    rows = [Unmeasurable([n, n]) for n in range(4)]
    encoder, lines = CSVEncoder(header=["a", "b"]), []
    with pytest.raises(StopIteration):
        by_the_batch(encoder, rows, lines)
    assert lines == []


def test_a_lone_surrogate_of_a_batch_is_named_with_its_row():
    encoder = CSVEncoder(bom=True)
    lines = [encoder.head()]
    by_the_batch(encoder, [("a",)], lines)
    encoder.join(lines)
    lines = []
    by_the_batch(encoder, [("b",), ("c",), ("\ud800",)], lines)
    with pytest.raises(ValueError, match=r"^row 4 holds a lone surrogate"):
        encoder.join(lines)


def test_end_rows():
    assert table([(1,), (2,)], end_row=lambda rows: ["end", rows]) == "1\r\n2\r\nend,2\r\n"
    assert table([], end_row=lambda rows: ("end", rows)) == "end,0\r\n"
    assert table([(1,)], end_row=lambda rows: None) == "1\r\n"
    with pytest.raises(TypeError, match="end_row returned int"):
        table([], end_row=lambda rows: rows)
    with pytest.raises(TypeError, match="end_row is str"):
        CSVEncoder(end_row="end")


def test_dialects():
    assert table([("a\tb", 1)], dialect="excel-tab") == '"a\tb"\t1\r\n'
    assert (
        table([("a", 1), {"h": 2, "i": 3}], dialect="unix", header=["h", "i"])
        == '"h","i"\n"a","1"\n"2","3"\n'
    )
    with pytest.raises(ValueError, match="no-such"):
        CSVEncoder(dialect="no-such")


def test_a_lone_cr_is_quoted_whatever_the_line_end():  # Python before 3.13 writes it bare
    class Lines(csv.excel):
        lineterminator = "\n"

    assert table([("a\rb", "c\nd"), ("e", "f\r")], dialect=Lines) == '"a\rb","c\nd"\ne,"f\r"\n'


def test_a_dialect_that_cannot_write_a_cell_names_the_row():
    class Bare(csv.excel):
        quoting = csv.QUOTE_NONE

    encoder = CSVEncoder(dialect=Bare)
    encoder.encode(["a"])
    with pytest.raises(ValueError, match="row 2 cannot be written in the CSV dialect"):
        encoder.encode(["a,b"])


class Untold:
    def __str__(self):
        raise LookupError("no session")


@pytest.mark.parametrize(
    ("cell", "message"),
    [(Untold(), "LookupError: no session"), (10**5000, "ValueError: .*4300")],
    ids=["object", "int"],
)
@pytest.mark.parametrize("guard_formulas", [False, True])
def test_a_cell_that_cannot_be_made_a_text_names_the_row(cell, message, guard_formulas):
    encoder = CSVEncoder(guard_formulas=guard_formulas)
    encoder.encode(["a"])
    for _ in range(2):
        with pytest.raises(ValueError, match=f"row 2 has a cell whose text cannot be made: {message}"):
            encoder.encode([cell])


@pytest.mark.parametrize("end", ["||", "", "\x1e", "\r\n;", "\n\r", "\r\n\n"])
def test_a_dialect_whose_lines_end_in_something_else_is_refused(end):
    """csv.writer before Python 3.13 would write a CR and a LF in its cells bare."""

    class Strange(csv.excel):
        lineterminator = end

    with pytest.raises(ValueError, match=r"whose lines end in .*; give one with CRLF, LF or CR"):
        CSVEncoder(dialect=Strange)


def test_bytes_are_refused_where_the_dialect_escapes_quotes():
    class Escaping(csv.excel):
        doublequote = False
        escapechar = "\\"
        quotechar = "'"

    encoder = CSVEncoder(dialect=Escaping)
    encoder.encode(["a"])
    with pytest.raises(TypeError, match="row 2 has bytes"):
        encoder.encode([b"x"])


@pytest.mark.parametrize("header", ["abc", b"abc", True, 5, {"a"}, {"a": 1}, [1], ["a", None]])
def test_headers_that_are_no_names(header):
    with pytest.raises(TypeError, match="header"):
        CSVEncoder(header=header)


def test_an_empty_header_is_a_mistake():
    with pytest.raises(ValueError, match="header is empty"):
        CSVEncoder(header=[])


class Formula:
    def __str__(self):
        return "=1+1"


class Name(str):
    __slots__ = ()


GUARDED = [
    "=1+1",
    "+1+1",
    "-1+1",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\n=1",
    "-",
    "=",
    "--5",
    "-5%",
    "+49 30 1",
    "-1,5",
    Name("=1"),
]
UNGUARDED = [
    "",
    "a=1",
    " ",
    "5",
    "-5",
    "+5",
    "-5.",
    "-.5",
    "+1.5e-3",
    "'=1",
    5,
    -5,
    -0.5,
    None,
    True,
    decimal.Decimal(-1),
]


@pytest.mark.parametrize("cell", GUARDED)
def test_formulas_are_guarded(cell):
    assert guard_formula(cell) == f"'{cell}"


@pytest.mark.parametrize("cell", UNGUARDED)
def test_numbers_and_plain_text_are_not_guarded(cell):
    assert guard_formula(cell) is cell


class Operator(str, enum.Enum):
    EQUAL = "=1+1"
    MINUS = "-5"


def test_the_member_of_an_enum_of_texts_keeps_its_value():
    rows = [(Operator.EQUAL, Operator.MINUS)]
    assert table(rows) == "=1+1,-5\r\n"
    assert table(rows, guard_formulas=True) == "'=1+1,-5\r\n"


def test_an_object_that_prints_as_a_formula_is_guarded():
    assert guard_formula(Formula()) == "'=1+1"


def test_the_guard_comes_before_the_quotes_and_covers_header_and_end_row():
    text = table([{'=a"': "=1,2"}, {'=a"': "x"}], guard_formulas=True, end_row=["@end"])
    assert text == '"\'=a"""\r\n"\'=1,2"\r\nx\r\n\'@end\r\n'
    assert table([["=1"], ["-5"]], guard_formulas=False) == "=1\r\n-5\r\n"


def test_the_standard_reader_reads_it_back():
    rows = [["a", 'b"', "c\r", "d\n", "e,", " f "], ["", "=", "\r\n", '""', "\u2028", "'"]]
    assert list(csv.reader(io.StringIO(table(rows), newline=""), strict=True)) == rows
