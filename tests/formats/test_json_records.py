"""NDJSON, JSON text sequences (RFC 7464) and JSON arrays (RFC 8259): bytes, endings and refusals."""

import dataclasses
import datetime
import functools
import hashlib
import json
import sqlite3
import types

import pytest

from streamkit.formats.json_array import JSONArrayEncoder
from streamkit.formats.json_lines import JSONSeqEncoder, NDJSONEncoder

ENCODERS = [NDJSONEncoder, JSONSeqEncoder, JSONArrayEncoder]
every_encoder = pytest.mark.parametrize("kind", ENCODERS)

RECORDS = [{"a": 1}, [1, 2.5], "x", 12345, -0.5, True, None, [], {}, "", "a\nb\r\x1e\u2028\xe9\U0001f600"]


def whole(encoder, records):
    frames = [encoder.head(), *(encoder.encode(record) for record in records), encoder.tail()]
    return encoder.join(frames)


def test_ndjson_bytes():
    assert whole(NDJSONEncoder(), [{"a": [1, None]}, 2]) == b'{"a":[1,null]}\n2\n'
    assert whole(NDJSONEncoder(), []) == b""


def test_json_seq_bytes():  # RFC 7464 section 2.2: RS, text, LF
    assert whole(JSONSeqEncoder(), [{"a": 1}, 12345]) == b'\x1e{"a":1}\n\x1e12345\n'
    assert whole(JSONSeqEncoder(), []) == b""


def test_json_array_bytes():
    assert whole(JSONArrayEncoder(), []) == b"[]\n"
    assert whole(JSONArrayEncoder(), [None]) == b"[null]\n"
    assert whole(JSONArrayEncoder(), [{"a": 1}, 2, "x"]) == b'[{"a":1},\n2,\n"x"]\n'


def test_content_types():
    assert [kind.content_type for kind in ENCODERS] == [
        "application/x-ndjson",
        "application/json-seq",
        "application/json",
    ]


def test_every_record_comes_back():
    lines = whole(NDJSONEncoder(), RECORDS).split(b"\n")
    assert lines.pop() == b""
    assert [json.loads(line) for line in lines] == RECORDS
    texts = whole(JSONSeqEncoder(), RECORDS).split(b"\x1e")
    assert texts.pop(0) == b""
    assert all(text.endswith(b"\n") for text in texts)
    assert [json.loads(text) for text in texts] == RECORDS
    assert json.loads(whole(JSONArrayEncoder(), RECORDS)) == RECORDS


@pytest.mark.parametrize("count", range(4))
def test_an_array_without_its_tail_is_no_json(count):
    encoder = JSONArrayEncoder()
    sent = encoder.join([encoder.head(), *(encoder.encode([n]) for n in range(count))])
    with pytest.raises(ValueError, match="Expecting"):
        json.loads(sent)


@every_encoder
def test_what_json_does_not_know_goes_through_json_default(kind):
    @dataclasses.dataclass
    class Row:
        when: datetime.date

    assert b'{"when":"2026-11-21"}' in whole(kind(), [Row(datetime.date(2026, 11, 21))])


@every_encoder
@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_json_lacks(kind, number):  # RFC 8259 section 6
    for record in (number, {"a": [number]}):
        encoder = kind()
        encoder.encode(1)
        with pytest.raises(ValueError, match="record 2"):
            encoder.encode(record)
        assert encoder.records == 1


@every_encoder
def test_a_record_that_contains_itself(kind):
    loop = []
    loop.append({"again": loop})
    with pytest.raises(ValueError, match="record 1"):
        kind().encode(loop)


@every_encoder
def test_a_record_that_is_too_deep(kind):
    deep = []
    for _ in range(200_000):
        deep = [deep]
    try:
        with pytest.raises(ValueError, match=r"record 1.*nested too deeply"):
            kind().encode(deep)
    finally:
        while deep:  # taken apart level by level, so that no interpreter recurses in freeing it
            deep = deep.pop()


@every_encoder
def test_a_type_that_json_lacks(kind):
    encoder = kind()
    encoder.encode(1)
    with pytest.raises(TypeError, match="record 2"):
        encoder.encode({"a": object()})


@every_encoder
def test_a_refused_record_leaves_the_stream_as_it_was(kind):
    encoder = kind()
    frames = [encoder.head()]
    for record in (float("nan"), 1, float("nan"), 2):
        try:
            frames.append(encoder.encode(record))
        except ValueError:
            continue
    frames.append(encoder.tail())
    assert encoder.join(frames) == whole(kind(), [1, 2])


@every_encoder
@pytest.mark.parametrize(
    "dumps",
    [
        functools.partial(json.dumps, separators=(",", ":")),
        functools.partial(json.dumps, separators=(",", ":"), ensure_ascii=False),
        lambda record: json.dumps(record, separators=(",", ":")).encode(),
    ],
    ids=["str", "str, not ASCII", "bytes"],
)
def test_dumps_may_return_str_or_bytes(kind, dumps):
    sent = whole(kind(dumps), [{"a": "\xe9"}, None])
    assert isinstance(sent, bytes)
    assert sent.decode("utf-8").replace("\xe9", "\\u00e9").encode("ascii") == whole(
        kind(), [{"a": "\xe9"}, None]
    )


@pytest.mark.parametrize("text", ["[1,\n2]", "1\n", "1\r", b"[1,\n2]", b"1\n"])
def test_ndjson_refuses_a_raw_newline(text):
    with pytest.raises(ValueError, match="record 1: dumps returned a text with a raw newline"):
        NDJSONEncoder(lambda record: text).encode({})


def test_the_others_may_indent():
    indent = functools.partial(json.dumps, indent=1)
    assert whole(JSONSeqEncoder(indent), [[1]]) == b"\x1e[\n 1\n]\n"
    assert json.loads(whole(JSONArrayEncoder(indent), [[1], [2]])) == [[1], [2]]


def test_json_seq_refuses_a_raw_separator():  # RFC 7464 section 2.1
    with pytest.raises(ValueError, match="raw RS"):
        JSONSeqEncoder(lambda record: '"\x1e"').encode("")


@every_encoder
@pytest.mark.parametrize("text", ["", b""])
def test_dumps_that_returns_nothing(kind, text):
    with pytest.raises(ValueError, match="record 1: dumps returned nothing"):
        kind(lambda record: text).encode({})


@every_encoder
def test_dumps_that_returns_something_else(kind):
    with pytest.raises(TypeError, match="record 1: dumps returned dict"):
        kind(lambda record: record).encode({})
    with pytest.raises(TypeError, match="dumps is str"):
        kind("json")


@every_encoder
def test_a_lone_surrogate_from_dumps(kind):
    with pytest.raises(ValueError, match=r"record 1 holds a lone surrogate, U\+DC80"):
        kind(functools.partial(json.dumps, ensure_ascii=False)).encode("\udc80")
    # The default escapes it, as RFC 8259 section 8.2 lets it.
    assert rb'"\udc80"' in whole(kind(), ["\udc80"])


@every_encoder
def test_errors_of_dumps_keep_their_cause(kind):
    def broken(record):
        raise KeyError("inside dumps")

    with pytest.raises(KeyError, match="inside dumps"):
        kind(broken).encode({})


@every_encoder
def test_rows_with_names_are_objects(kind):
    connection = sqlite3.connect(":memory:")
    connection.row_factory = sqlite3.Row
    row = connection.execute("select 1 as a, null as b").fetchone()
    connection.close()
    encoder = kind()
    assert b'{"a":1,"b":null}' in encoder.encode(row)
    assert b'{"a":{"b":1}}' in encoder.encode(types.MappingProxyType({"a": types.MappingProxyType({"b": 1})}))


@every_encoder
@pytest.mark.parametrize("text", ["NaN", "[Infinity]", '{"a":-Infinity}', b"NaN"])
def test_numbers_that_a_custom_dumps_writes(kind, text):  # RFC 8259 section 6
    with pytest.raises(ValueError, match=r"record 1: dumps wrote -?(NaN|Infinity), which JSON does not have"):
        kind(dumps=lambda record: text).encode(1)


@every_encoder
@pytest.mark.parametrize("text", ['"NaN"', '{"Infinity":"N"}', b'"-Infinity"', '"N"'])
def test_words_that_only_look_like_numbers(kind, text):
    expected = text if isinstance(text, bytes) else text.encode()
    assert expected in kind(dumps=lambda record: text).encode(1)


@every_encoder
def test_the_closing_record_covers_the_lines_above(kind):
    encoder = kind(dumps=lambda record: f'{{"n": {record}}}', closing_record=True)
    frames = [encoder.head(), encoder.encode(1), encoder.encode(2), encoder.tail()]
    *above, last = b"".join(frames).splitlines(keepends=True)
    found = json.loads(last.strip(b"\x1e[]\n"))
    assert found == {"rows": 2, "sha256": hashlib.sha256(b"".join(above)).hexdigest()}


def test_a_record_that_was_refused_is_not_in_the_digest():
    with_error, without = NDJSONEncoder(closing_record=True), NDJSONEncoder(closing_record=True)
    for encoder in (with_error, without):
        encoder.encode(1)
    with pytest.raises(ValueError, match="record 2"):
        with_error.encode(float("nan"))
    assert with_error.tail() == without.tail()
