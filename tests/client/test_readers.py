"""`read_events` and `read_json_lines` over the bytes of any client."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator

import pytest

from streamkit.client.readers import read_events, read_json_lines
from streamkit.errors import DecodeError


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_events_do_not_depend_on_the_cuts(size: int) -> None:
    wire = "\ufeffid: 1\r\ndata: é\r\n\r\n: hb\nevent: x\ndata: a\ndata: b\n\ndata: cut".encode()
    events = list(read_events(cut(wire, size)))
    assert [(event.id, event.event, event.data) for event in events] == [
        ("1", "message", "é"),
        ("1", "x", "a\nb"),
    ]


def test_an_event_comes_before_the_next_chunk_is_asked_for() -> None:
    asked = []

    def chunks() -> Iterator[bytes]:
        for number in range(3):
            asked.append(number)
            yield b"data: x\n\n"

    events = read_events(chunks())
    assert asked == []
    next(events)
    assert asked == [0]


def test_what_comes_before_an_event_that_is_too_large_is_given() -> None:
    for chunks in ([b"data: a\n\ndata: " + b"x" * 99], [b"data: a\n\n", b"data: " + b"x" * 99]):
        events = read_events(chunks, max_event_bytes=20)
        assert next(events).data == "a"
        with pytest.raises(DecodeError, match="longer than 20"):
            next(events)


def test_the_id_in_force_goes_on() -> None:
    assert [event.id for event in read_events([b"data: x\n\n"], last_event_id="7")] == ["7"]


def test_text_and_limits_are_refused() -> None:
    with pytest.raises(TypeError, match="bytes, not str"):
        list(read_events(["data: x\n\n"]))  # type: ignore[list-item]
    with pytest.raises(TypeError, match="bytes, not str"):
        list(read_json_lines(["1\n"]))  # type: ignore[list-item]
    with pytest.raises(ValueError, match="at least 1"):
        read_events([], max_event_bytes=0)
    with pytest.raises(ValueError, match="at least 1"):
        read_json_lines([], max_line_bytes=0)


@pytest.mark.parametrize("size", [1, 2, 5, 1000])
def test_records_do_not_depend_on_the_cuts(size: int) -> None:
    wire = b'{"a": "\xc3\xa9"}\r\n\n  \n[1]\nnull\n"\xe2\x80\xa8"\n'
    assert list(read_json_lines(cut(wire, size))) == [{"a": "é"}, [1], None, "\u2028"]


@pytest.mark.parametrize(
    ("wire", "message"),
    [
        (b"1\n2", "line 2 does not end in a newline"),
        (b'1\n{"a":\n', "line 2 is not JSON"),
        (b"1\nNaN\n", "line 2 is not JSON: NaN"),
        (b'1\n"\xff"\n', "line 2 is not JSON"),
        (b'1\n"\x00"\n', "line 2 is not JSON"),
        (b"1\n2 3\n", "line 2 is not JSON"),
        (b"1\n" + b"[" * 200_000 + b"\n", "line 2 is nested too deeply"),
    ],
)
def test_what_is_no_record(wire: bytes, message: str) -> None:
    records = read_json_lines([wire])
    assert next(records) == 1
    with pytest.raises(DecodeError, match=message):
        next(records)


def test_a_last_line_without_its_newline_where_it_is_allowed() -> None:
    assert list(read_json_lines([b"1\n2"], allow_unterminated=True)) == [1, 2]
    assert list(read_json_lines([b"1\n  "])) == [1]
    assert list(read_json_lines([])) == []
    with pytest.raises(DecodeError, match="line 1 is not JSON"):
        list(read_json_lines([b'{"cut'], allow_unterminated=True))


@pytest.mark.parametrize(
    "chunks", [[b"1\n" + b"2" * 11 + b"\n"], [b"1\n", b"2" * 6, b"2" * 5], [b"1\n2", b"2" * 10]]
)
def test_a_line_that_is_too_long(chunks: Iterable[bytes]) -> None:
    records = read_json_lines(chunks, max_line_bytes=10)
    assert next(records) == 1
    with pytest.raises(DecodeError, match="line 2 is longer than 10 bytes"):
        next(records)


def test_another_parser() -> None:
    assert list(read_json_lines([b'{"a": 1}\n'], loads=lambda line: len(line))) == [8]


def test_a_long_line_in_small_pieces_is_linear() -> None:
    record = json.dumps("x" * 4_000_000).encode() + b"\n"

    def seconds(data: bytes) -> float:
        start = time.process_time()
        assert len(list(read_json_lines(cut(data, 4096)))) == 1
        return time.process_time() - start

    # Ten times as much; a hundred times where each piece is copied again. 40 leaves room for a bad moment.
    small = min(seconds(json.dumps("x" * 400_000).encode() + b"\n") for _ in range(5))
    assert seconds(record) < 40 * max(small, 0.001)
