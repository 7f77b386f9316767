"""What an event refuses, what it looks like, and the encoder of one stream."""

import copy
import enum
import pickle

import pytest

from streamkit import EventStreamDecoder, ServerSentEvent
from streamkit.formats.event_stream import HEARTBEAT, EventStreamEncoder, retry_line


class Kind(str, enum.Enum):
    TICK = "tick"


class Loud(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "LOUD"


@pytest.mark.parametrize(
    "fields",
    [
        *({"id": text} for text in ("a\nb", "a\rb", "\n", "a\r\n", "a\0", "\0", "\ud800")),
        *({"event": text} for text in ("a\nb", "a\r", "\r\n", "x\ndata: INJECTED", "\udfff")),
        *({"retry": value} for value in (-1, 1.5, "100", True, False, 10**15, 10**6000, float("nan"))),
        {"comment": "\ud800"},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_what_cannot_be_sent_is_refused_at_construction(fields: dict[str, object]) -> None:
    name = next(iter(fields))
    with pytest.raises(ValueError, match=f"^{name} "):
        ServerSentEvent("x", **fields)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=f"^{name} "):
        ServerSentEvent(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("data", ["\ud800", "a\n\udc80", float("nan"), {"a": [float("-inf")]}])
def test_data_that_cannot_be_sent(data: object) -> None:
    for make in (ServerSentEvent, EventStreamEncoder().encode):
        with pytest.raises(ValueError):  # noqa: PT011 - the texts are looked at elsewhere
            make(data)


@pytest.mark.parametrize("field", ["event", "id", "comment"])
@pytest.mark.parametrize("value", [b"x", 1.5, ["x"], True])
def test_fields_are_text(field: str, value: object) -> None:
    kinds = "str, int or None" if field == "id" else "str or None"
    with pytest.raises(TypeError, match=f"{field} must be {kinds}, not {type(value).__name__}"):
        ServerSentEvent("x", **{field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("data", [b"x", bytearray(b"x"), memoryview(b"x")])
def test_bytes_are_not_data(data: object) -> None:
    with pytest.raises(TypeError, match="decode it first"):
        ServerSentEvent(data)


def test_an_event_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match='give data=""'):
        ServerSentEvent()


def test_a_subclass_of_str_is_sent_as_its_text() -> None:
    event = ServerSentEvent(Loud("x"), event=Kind.TICK, id=Loud("1"), comment=Loud("c"))
    assert event.encode() == b": c\nevent: tick\nid: 1\ndata: x\n\n"
    assert [type(value) for value in (event.data, event.event, event.id, event.comment)] == [str] * 4
    assert EventStreamEncoder().encode(Loud("x")) == b"data: x\n\n"


def test_the_data_is_what_a_client_receives() -> None:
    for value in ("a\r\nb\rc\n", {"a": "\u2028"}, [1, 2.5, None, True], "", 0, "\0"):
        sent = ServerSentEvent(value, event="message", id="")
        assert EventStreamDecoder().feed(sent.encode()) == [sent]


def test_json_of_an_event() -> None:
    assert ServerSentEvent({"a": 1}).json() == {"a": 1}
    with pytest.raises(ValueError, match="without data"):
        ServerSentEvent(id="1").json()


def test_an_event_does_not_change() -> None:
    event = ServerSentEvent("x", event="e", id=5, retry=6, comment="c")
    assert (event.data, event.event, event.id, event.retry, event.comment) == ("x", "e", "5", 6, "c")
    for name in ("data", "event", "id", "retry", "comment", "other"):
        with pytest.raises(AttributeError):
            setattr(event, name, "y")
    assert not hasattr(event, "__dict__")


def test_equality_hash_repr_and_copies() -> None:
    event = ServerSentEvent("x", event="e", id="5", retry=6, comment="c")
    assert event == ServerSentEvent("x", event="e", id=5, retry=6, comment="c")
    assert hash(event) == hash(ServerSentEvent("x", event="e", id=5, retry=6, comment="c"))
    for other in (ServerSentEvent("x"), ServerSentEvent("x", event="e", id="5", retry=6), "x", None):
        assert event != other
    assert repr(event) == "ServerSentEvent('x', event='e', id='5', retry=6, comment='c')"
    assert repr(ServerSentEvent(id="")) == "ServerSentEvent(id='')"
    received = EventStreamDecoder().feed(b"data: x\n\n")[0]
    for one in (event, received):
        assert copy.deepcopy(one) == copy.copy(one) == pickle.loads(pickle.dumps(one)) == one
        assert pickle.loads(pickle.dumps(one)).encode() == one.encode()


def test_the_heartbeat_is_one_line_between_events() -> None:
    decoder = EventStreamDecoder()
    one = b"event: a\nid: 1\ndata: x\n\n"
    events = decoder.feed(HEARTBEAT + one + HEARTBEAT * 3 + one + HEARTBEAT)
    assert events == [ServerSentEvent("x", event="a", id="1")] * 2
    assert HEARTBEAT.count(b"\n") == 1


def test_the_retry_line() -> None:
    decoder = EventStreamDecoder()
    assert decoder.feed(b"data: x\n\n" + retry_line(1500)) == decoder.feed(b"data: x\n\n")
    assert decoder.retry == 1500
    assert retry_line(0) == b"retry: 0\n"
    with pytest.raises(ValueError, match="milliseconds"):
        retry_line(-1)


def test_the_items_of_a_stream() -> None:
    encoder = EventStreamEncoder()
    assert encoder.head() == b":\n"
    assert encoder.encode("a\nb") == b"data: a\ndata: b\n\n"
    assert encoder.encode(ServerSentEvent("x", id="1")) == b"id: 1\ndata: x\n\n"
    assert encoder.encode({"a": None}) == b'data: {"a":null}\n\n'
    assert encoder.encode(False) == b"data: false\n\n"
    assert encoder.encode(0) == b"data: 0\n\n"
    for block in (b"data: x\n\n", b"data: x\r\r", b"data: x\r\n\r\n", b"\n\n"):
        assert encoder.encode(block) == block
    assert encoder.join([b"a", b"b"]) == b"ab"
    assert encoder.tail() == b""


@pytest.mark.parametrize("block", [b"", b"\n", b"data: x", b"data: x\n", b"data: x\r\n", b"data: x\n\nd"])
@pytest.mark.parametrize("retry", [None, 5])
def test_bytes_that_are_no_block(block: bytes, retry: int | None) -> None:
    with pytest.raises(ValueError, match="blank line"):
        EventStreamEncoder(retry=retry).encode(block)


@pytest.mark.parametrize("retry", [None, 5])
def test_none_is_not_an_item(retry: int | None) -> None:
    with pytest.raises(TypeError, match=r"ServerSentEvent\(id=\.\.\.\)"):
        EventStreamEncoder(retry=retry).encode(None)


def test_the_last_line() -> None:
    encoder = EventStreamEncoder(done="[DONE]", retry=5)
    assert encoder.tail() == b"data: [DONE]\n\n"
    with pytest.raises(TypeError, match="done must be str"):
        EventStreamEncoder(done=b"[DONE]")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("item", "wire"),
    [
        ("x", b"retry: 9\ndata: x\n\n"),
        ({"a": 1}, b'retry: 9\ndata: {"a":1}\n\n'),
        (b"id: 1\r\ndata: x\r\n\r\n", b"retry: 9\nid: 1\r\ndata: x\r\n\r\n"),
        (b"data\n\n", b"retry: 9\ndata\n\n"),
        (ServerSentEvent("x", event="e", id="1"), b"event: e\nid: 1\nretry: 9\ndata: x\n\n"),
        (ServerSentEvent("x", comment="c"), b": c\nretry: 9\ndata: x\n\n"),
        (ServerSentEvent("x", retry=4), b"retry: 4\ndata: x\n\n"),
    ],
    ids=repr,
)
def test_retry_goes_into_the_first_event(item: object, wire: bytes) -> None:
    encoder = EventStreamEncoder(retry=9)
    for early in (ServerSentEvent(comment="c"), ServerSentEvent(id="1"), b": hb\n\n", b"id: data:\n\n"):
        assert b"retry" not in encoder.encode(early)
    with pytest.raises(ValueError, match="surrogate"):
        encoder.encode("\ud800")
    assert encoder.encode(item) == wire
    assert encoder.encode("y") == b"data: y\n\n"


def test_retry_of_a_stream_is_checked_at_once() -> None:
    with pytest.raises(ValueError, match="retry cannot be -5"):
        EventStreamEncoder(retry=-5)
