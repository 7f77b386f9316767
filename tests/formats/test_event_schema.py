"""Declared events: what is sent is what is read, and what does not fit is refused on both sides."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import json
import math
import uuid
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Literal, NewType, Optional, Union

import pytest

from streamkit import EventStreamDecoder, ServerSentEvent
from streamkit.errors import StreamkitError
from streamkit.formats.event_schema import EventSchemaError, decode_event, encode_event, event, event_name
from streamkit.formats.event_stream import EventStreamEncoder
from streamkit.formats.schema_documents import declared_events, markdown_table, openapi_fragment
from streamkit.testing import cuts

UTC = datetime.timezone.utc
Cents = NewType("Cents", int)


class Side(enum.Enum):
    BUY = "buy"
    SELL = "sell"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Half(enum.Enum):
    TWO = 2.0
    YES = True


@dataclasses.dataclass
class Line:
    name: str
    count: int = 1
    parts: list[Line] = dataclasses.field(default_factory=list)


@event("price")
class Price:
    """A price has changed."""

    symbol: str
    value: Annotated[float, "in euros"]


@event("alert")
@dataclasses.dataclass(frozen=True)
class Alert:
    text: str
    level: Level = Level.LOW


@event("order")
class Order:
    """An order, with everything that a field can be.

    Only the first paragraph is a description.
    """

    number: int
    open: bool
    side: Side
    mode: Literal["market", "limit", 3, None]
    at: datetime.datetime
    day: datetime.date
    total: Decimal
    key: uuid.UUID
    lines: list[Line]
    tags: dict[str, int]
    first: Line
    cents: Cents = Cents(0)
    note: str | None = None
    amount: Union[float, int, str] = 0  # noqa: UP007 - both spellings are types
    maybe: Optional[list[int]] = None  # noqa: UP045
    extra: Any = None
    bare: dict = dataclasses.field(default_factory=dict)  # type: ignore[type-arg]
    shape: ClassVar[str] = "not a field"


ORDER = Order(
    number=7,
    open=True,
    side=Side.SELL,
    mode=3,
    at=datetime.datetime(2024, 2, 29, 12, 30, 15, 250000, UTC),
    day=datetime.date(2024, 2, 29),
    total=Decimal("12.50"),
    key=uuid.UUID("12345678-1234-5678-1234-567812345678"),
    lines=[Line("a", 2, [Line("b")]), Line("c")],
    tags={"x": 1},
    first=Line("d"),
    note="said\nso",
    amount=3,
    maybe=[1, 2],
    extra={"any": ["thing"]},
)


def received(data: object, name: str = "price") -> ServerSentEvent:
    text = data if isinstance(data, str) else json.dumps(data)
    (found,) = EventStreamDecoder().feed(ServerSentEvent(text, event=name).encode())
    return found


# -- there and back ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "kind"),
    [(Price("ACME", 12.5), Price), (Alert("fire", Level.HIGH), Alert), (ORDER, Order)],
    ids=["price", "alert", "order"],
)
def test_what_is_sent_is_what_is_read_however_it_is_cut(sent: Any, kind: type) -> None:
    wire = encode_event(sent, id=3).encode()
    for pieces in cuts(wire):
        decoder = EventStreamDecoder()
        (found,) = [found for piece in pieces for found in decoder.feed(piece)]
        assert found.id == "3"
        assert decode_event(found, kind) == sent
        assert type(decode_event(found, kind)) is kind


def test_the_bytes() -> None:
    assert (
        encode_event(Price("ACME", 12)).encode() == b'event: price\ndata: {"symbol":"ACME","value":12.0}\n\n'
    )
    assert Alert("x").to_event(id="a", retry=5, comment="c").encode() == (  # type: ignore[attr-defined]
        b': c\nevent: alert\nid: a\nretry: 5\ndata: {"text":"x","level":1}\n\n'
    )


def test_an_instance_is_an_item_of_an_event_stream() -> None:
    encoder = EventStreamEncoder(retry=2000)
    assert (
        encoder.encode(Price("A", 1.5)) == b'event: price\nretry: 2000\ndata: {"symbol":"A","value":1.5}\n\n'
    )
    assert encoder.encode(Price("B", 2.5)) == b'event: price\ndata: {"symbol":"B","value":2.5}\n\n'
    with pytest.raises(EventSchemaError, match="symbol must be str"):
        encoder.encode(Price(3, 2.5))  # type: ignore[arg-type]


def test_several_kinds_in_one_stream() -> None:
    for sent in (Price("A", 1.0), Alert("x")):
        assert decode_event(encode_event(sent), Price, Alert) == sent
    assert Price.from_event(received({"symbol": "A", "value": 1})) == Price("A", 1.0)  # type: ignore[attr-defined]


def test_the_decorator_keeps_the_class() -> None:
    assert dataclasses.is_dataclass(Price)
    assert Price.__doc__ == "A price has changed."
    assert (event_name(Price), event_name(Alert), event_name(Line)) == ("price", "alert", None)
    with pytest.raises(dataclasses.FrozenInstanceError):
        Alert("x").text = "y"  # type: ignore[misc]


def test_slots_are_fine() -> None:
    @event("slotted")
    @dataclasses.dataclass(slots=True)
    class Slotted:
        n: int

    assert decode_event(encode_event(Slotted(1)), Slotted) == Slotted(1)


def test_an_event_without_a_name_is_a_message() -> None:
    @event("message")
    class Message:
        n: int

    (found,) = EventStreamDecoder().feed(b'data: {"n": 1}\n\n')
    assert decode_event(found, Message) == Message(1)
    assert decode_event(ServerSentEvent({"n": 1}), Message) == Message(1)


def test_members_that_are_not_declared_are_ignored_and_defaults_fill_in() -> None:
    assert decode_event(received({"text": "x", "new": 1}, "alert"), Alert) == Alert("x", Level.LOW)


# -- refused when received --------------------------------------------------------------------------------------------

WIRE = json.loads(encode_event(ORDER).data or "")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"number": ...}, "number must be int, given nothing: the field is missing"),
        ({"number": "7"}, "number must be int, given '7' (str)"),
        ({"number": 7.5}, "number must be int, given 7.5 (float)"),
        ({"number": True}, "number must be int, given True (bool)"),
        ({"number": None}, "number must be int, given None (NoneType)"),
        ({"open": 1}, "open must be bool, given 1 (int)"),
        ({"side": "BUY"}, "side must be 'buy' or 'sell', given 'BUY' (str)"),
        ({"mode": True}, "mode must be 'market' or 'limit' or 3 or None, given True (bool)"),
        ({"mode": 3.5}, "mode must be 'market' or 'limit' or 3 or None, given 3.5 (float)"),
        (
            {"at": "2024-02-29T12:30:15"},
            "at must be datetime with an offset, given '2024-02-29T12:30:15' (str)",
        ),
        ({"at": "2024-02-30T12:30:15Z"}, "at must be datetime with an offset"),
        ({"at": 0}, "at must be datetime with an offset, given 0 (int)"),
        ({"at": "2024-02-29T12:30:15+00:60"}, "at must be datetime with an offset"),
        ({"at": "2024-02-29T24:00:00Z"}, "at must be datetime with an offset"),
        ({"at": "2024-02-29T23:59:60+01:00"}, "at must be datetime with an offset"),
        ({"at": "9999-12-31T23:59:60Z"}, "at must be datetime with an offset"),
        ({"day": "2024-2-9"}, "day must be date, given '2024-2-9' (str)"),
        ({"day": "20240229"}, "day must be date"),
        ({"total": 12.5}, "total must be Decimal, given 12.5 (float)"),
        ({"total": "NaN"}, "total must be Decimal, given 'NaN' (str)"),
        ({"total": "1e9999999999999999999"}, "total must be Decimal"),
        ({"key": "{12345678123456781234567812345678}"}, "key must be UUID"),
        ({"lines": {}}, "lines must be list of Line, given {} (dict)"),
        ({"lines": [{"name": "a"}, 3]}, "lines[1] must be Line, given 3 (int)"),
        ({"lines": [{"name": "a", "parts": [{}]}]}, "lines[0].parts[0].name must be str, given nothing"),
        ({"tags": {"x": "1"}}, "tags['x'] must be int, given '1' (str)"),
        ({"tags": []}, "tags must be dict of int, given [] (list)"),
        ({"first": None}, "first must be Line, given None (NoneType)"),
        ({"note": 1}, "note must be str, given 1 (int)"),
        ({"amount": None}, "amount must be float or int or str, given None (NoneType)"),
        ({"maybe": ["1"]}, "maybe[0] must be int, given '1' (str)"),
        ({"bare": []}, "bare must be dict, given [] (list)"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_field_that_does_not_fit_is_refused(change: dict[str, Any], message: str) -> None:
    data = {**WIRE, **change}
    data = {name: value for name, value in data.items() if value is not ...}
    with pytest.raises(EventSchemaError) as caught:
        decode_event(received(data, "order"), Order)
    assert f"event 'order' cannot be accepted: {message}" in str(caught.value)
    assert caught.value.event == "order"
    assert caught.value.field == message.split(" must ")[0]
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, StreamkitError)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("not json", "its data is not JSON, but 'not json'"),
        ("", "its data is not JSON, but ''"),
        ("[1]", "its data is not a JSON object, but a list"),
        ('{"symbol": "A", "value": NaN}', "NaN is not JSON"),
        ('{"symbol": "A", "value": 1e999}', "value must be float, given inf"),
        ('{"symbol": "A", "value": 1' + "0" * 400 + "}", "value must be float"),
        ("[" * 100_000, "cannot be accepted"),
    ],
    ids=range(7),
)
def test_data_that_is_no_such_object_is_refused(data: str, message: str) -> None:
    with pytest.raises(EventSchemaError, match="event 'price' cannot be accepted") as caught:
        decode_event(received(data), Price)
    assert message in str(caught.value)


def test_an_event_of_another_name_is_refused() -> None:
    with pytest.raises(EventSchemaError, match="event 'trade' is none of 'alert', 'price'"):
        decode_event(received({}, "trade"), Price, Alert)


def test_what_a_class_itself_refuses() -> None:
    @event("positive")
    class Positive:
        n: int

        def __post_init__(self) -> None:
            if self.n <= 0:
                raise ValueError("n is not positive")

    with pytest.raises(EventSchemaError, match="n is not positive"):
        decode_event(received({"n": 0}, "positive"), Positive)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2024-02-29T12:30:15Z", datetime.datetime(2024, 2, 29, 12, 30, 15, 0, UTC)),
        ("2024-02-29t12:30:15.5z", datetime.datetime(2024, 2, 29, 12, 30, 15, 500000, UTC)),
        ("2024-02-29 12:30:15.123456789+01:00", datetime.datetime(2024, 2, 29, 11, 30, 15, 123456, UTC)),
        ("0001-01-01T00:00:00+00:00", datetime.datetime(1, 1, 1, tzinfo=UTC)),
        ("2016-12-31T23:59:60.5Z", datetime.datetime(2017, 1, 1, 0, 0, 0, 500000, UTC)),
        ("2017-01-01T00:59:60+01:00", datetime.datetime(2017, 1, 1, tzinfo=UTC)),
    ],
)
def test_date_times_of_other_senders(text: str, moment: datetime.datetime) -> None:
    """RFC 3339 section 5.6 allows more than Python 3.10's own reader."""
    assert decode_event(received({**WIRE, "at": text}, "order"), Order).at == moment


@pytest.mark.parametrize(
    ("offset", "written"),
    [
        (
            datetime.timedelta(minutes=19, seconds=32),
            "1937-01-01T12:00:28+00:20",
        ),  # Amsterdam (RFC 3339 section 5.8)
        (-datetime.timedelta(seconds=20), "1937-01-01T12:00:20+00:00"),
        (datetime.timedelta(hours=1), "1937-01-01T12:00:00+01:00"),
    ],
)
def test_an_offset_with_seconds_is_written_as_the_nearest(offset: datetime.timedelta, written: str) -> None:
    moment = datetime.datetime(1937, 1, 1, 12, tzinfo=datetime.timezone(offset))
    sent = encode_event(dataclasses.replace(ORDER, at=moment))
    assert f'"at":"{written}"' in sent.data
    assert decode_event(sent, Order).at == moment


def test_an_offset_with_seconds_at_the_end_of_the_calendar_is_refused() -> None:
    zone = datetime.timezone(-datetime.timedelta(seconds=20))
    last = datetime.datetime(9999, 12, 31, 23, 59, 50, tzinfo=zone)
    with pytest.raises(EventSchemaError, match="at must be datetime with an offset"):
        encode_event(dataclasses.replace(ORDER, at=last))


def test_numbers_of_a_list_of_values() -> None:
    """JSON has one kind of number: JavaScript writes 2.0 as 2, and others 3 as 3.0."""

    @event("step")
    class Step:
        size: Half
        mode: Literal[3]

    step = decode_event(received({"size": 2, "mode": 3.0}, "step"), Step)
    assert (step.size, step.mode, type(step.mode)) == (Half.TWO, 3, int)
    assert decode_event(received({"size": True, "mode": 3}, "step"), Step).size is Half.YES
    for size in (1, 1.0, False):
        with pytest.raises(EventSchemaError, match="size must be"):
            decode_event(received({"size": size, "mode": 3}, "step"), Step)


def test_numbers_that_json_does_not_tell_apart() -> None:
    order = decode_event(received({**WIRE, "number": 7.0, "amount": 3}, "order"), Order)
    assert (order.number, type(order.number)) == (7, int)
    assert type(order.amount) is int
    assert type(decode_event(received({"symbol": "A", "value": 3}), Price).value) is float


# -- refused when sent ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"number": True}, "number must be int, given True (bool)"),
        ({"number": Level.LOW}, "number must be int"),
        ({"open": 1}, "open must be bool"),
        ({"side": "buy"}, "side must be 'buy' or 'sell', given 'buy' (str)"),
        ({"mode": 3.0}, "mode must be"),
        (
            {"at": datetime.datetime(2024, 1, 1)},
            "at must be datetime with an offset, given datetime.datetime(",
        ),
        ({"day": datetime.datetime(2024, 1, 1, tzinfo=UTC)}, "day must be date"),
        ({"total": Decimal("Infinity")}, "total must be Decimal, given Decimal('Infinity')"),
        ({"key": "12345678-1234-5678-1234-567812345678"}, "key must be UUID"),
        ({"lines": [Line("a", "2")]}, "lines[0].count must be int, given '2' (str)"),  # type: ignore[arg-type]
        ({"lines": ({},)}, "lines must be list of Line"),
        ({"tags": {1: 1}}, "a key of tags must be str, given 1 (int)"),
        ({"amount": math.nan}, "amount must be float or int or str, given nan (float)"),
        ({"note": b"x"}, "note must be str, given b'x' (bytes)"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_an_instance_that_does_not_fit_is_not_sent(change: dict[str, Any], message: str) -> None:
    with pytest.raises(EventSchemaError) as caught:
        encode_event(dataclasses.replace(ORDER, **change))
    assert f"event 'order' cannot be sent: {message}" in str(caught.value)


def test_a_field_that_was_taken_away_is_not_sent() -> None:
    price = Price("A", 1.0)
    del price.symbol
    with pytest.raises(EventSchemaError, match="symbol must be str, given nothing: the field is missing"):
        encode_event(price)


def test_what_contains_itself_is_not_sent() -> None:
    line = Line("a")
    line.parts.append(line)
    with pytest.raises(EventSchemaError, match="contains itself"):
        encode_event(dataclasses.replace(ORDER, first=line))


# -- declarations that make no sense ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "error"), [("", ValueError), ("a\nb", ValueError), (3, TypeError), (Price, TypeError)]
)
def test_a_name_that_cannot_be_sent(name: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        event(name)


def test_a_decorator_on_what_is_no_class() -> None:
    with pytest.raises(TypeError, match=r"@event\('x'\) is for a class"):
        event("x")(len)  # type: ignore[arg-type]


def test_a_field_that_would_hide_a_method() -> None:
    with pytest.raises(TypeError, match="has a field 'to_event'"):

        @event("x")
        class Hides:
            to_event: int


@pytest.mark.parametrize(
    ("hint", "message"),
    [
        (bytes, "Odd.field is bytes, which an event cannot have; declare str"),
        (dict[int, str], r"the keys of a JSON object are str"),
        (set[int], "which an event cannot have"),
        (Literal[b"x"], "in its Literal"),
        ("Nowhere", "the annotation 'Nowhere' cannot be resolved"),
    ],
)
def test_a_type_that_an_event_cannot_have(hint: Any, message: str) -> None:
    class Odd:
        __annotations__ = {"field": hint}

    Odd.__module__ = __name__
    declared = event("odd")(Odd)
    with pytest.raises(TypeError, match=message):
        decode_event(received({"field": 1}, "odd"), declared)
    with pytest.raises(TypeError, match=message):
        openapi_fragment(declared)


def test_wrong_uses() -> None:
    with pytest.raises(TypeError, match="Line is no declared event"):
        encode_event(Line("a"))
    with pytest.raises(TypeError, match="is no declared event"):
        decode_event(received({}), Line)
    with pytest.raises(TypeError, match="needs the classes"):
        decode_event(received({}))

    @event("price")
    class Other:
        n: int

    with pytest.raises(ValueError, match="Price and Other both declare event 'price'"):
        decode_event(received({}), Price, Other)


# -- documents --------------------------------------------------------------------------------------------------------


def test_the_fragment_of_openapi() -> None:
    fragment = openapi_fragment(Price, Alert)
    media_type = fragment["content"]["text/event-stream"]
    assert media_type == {
        "itemSchema": {
            "type": "object",
            "required": ["data"],
            "properties": {
                "event": {"type": "string"},
                "data": {"type": "string"},
                "id": {"type": "string"},
                "retry": {"type": "integer", "minimum": 0},
            },
            "oneOf": [
                {
                    "required": ["event"],
                    "properties": {
                        "event": {"const": name},
                        "data": {
                            "contentMediaType": "application/json",
                            "contentSchema": {"$ref": f"#/components/schemas/{title}"},
                        },
                    },
                }
                for name, title in (("price", "Price"), ("alert", "Alert"))
            ],
        }
    }
    assert fragment["components"]["schemas"] == {
        "Price": {
            "description": "A price has changed.",
            "type": "object",
            "properties": {
                "symbol": {"type": "string"},
                "value": {"type": "number", "description": "in euros"},
            },
            "required": ["symbol", "value"],
        },
        "Alert": {
            "type": "object",
            "properties": {"text": {"type": "string"}, "level": {"enum": [1, 2]}},
            "required": ["text"],
        },
    }


def test_every_type_has_a_schema() -> None:
    schemas = openapi_fragment(Order)["components"]["schemas"]
    assert list(schemas) == ["Order", "Line"]
    assert schemas["Order"]["description"] == "An order, with everything that a field can be."
    line = {"$ref": "#/components/schemas/Line"}
    assert schemas["Order"]["properties"] == {
        "number": {"type": "integer"},
        "open": {"type": "boolean"},
        "side": {"enum": ["buy", "sell"]},
        "mode": {"enum": ["market", "limit", 3, None]},
        "at": {"type": "string", "format": "date-time"},
        "day": {"type": "string", "format": "date"},
        "total": {"type": "string", "format": "decimal"},
        "key": {"type": "string", "format": "uuid"},
        "lines": {"type": "array", "items": line},
        "tags": {"type": "object", "additionalProperties": {"type": "integer"}},
        "first": line,
        "cents": {"type": "integer"},
        "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "amount": {"anyOf": [{"type": "integer"}, {"type": "string"}, {"type": "number"}]},
        "maybe": {"anyOf": [{"type": "array", "items": {"type": "integer"}}, {"type": "null"}]},
        "extra": {},
        "bare": {"type": "object"},
    }
    assert schemas["Line"]["properties"]["parts"] == {"type": "array", "items": line}
    assert schemas["Line"]["required"] == ["name"]


def test_the_event_without_a_name_needs_none() -> None:
    @event("message")
    class Message:
        n: int

    (alternative,) = openapi_fragment(Message)["content"]["text/event-stream"]["itemSchema"]["oneOf"]
    assert "required" not in alternative
    assert alternative["properties"]["event"] == {"const": "message"}


JSON_TYPES = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}


def fits(value: Any, schema: dict[str, Any], schemas: dict[str, Any]) -> bool:
    """JSON Schema 2020-12, as much of it as is written here; formats and descriptions assert nothing."""
    checks = {
        "$ref": lambda name: fits(value, schemas[name.rpartition("/")[2]], schemas),
        "type": lambda name: is_a(value, name),
        "enum": lambda values: any(type(value) is type(one) and value == one for one in values),
        "anyOf": lambda options: any(fits(value, option, schemas) for option in options),
        "items": lambda item: all(fits(one, item, schemas) for one in value),
        "additionalProperties": lambda item: all(fits(one, item, schemas) for one in value.values()),
        "properties": lambda known: all(
            fits(value[k], known[k], schemas) for k in known.keys() & value.keys()
        ),
        "required": lambda names: set(names) <= value.keys(),
        "format": lambda _: True,
        "description": lambda _: True,
    }
    return all(checks[keyword](argument) for keyword, argument in schema.items())


def is_a(value: Any, name: str) -> bool:
    if name in ("integer", "number"):
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return number and (name == "number" or value == int(value))
    return isinstance(value, JSON_TYPES[name])


@pytest.mark.parametrize(
    ("change", "right"),
    [({}, True), ({"number": 7.0}, True), ({"note": None, "more": 1}, True)]
    + [({"number": wrong}, False) for wrong in ("7", 7.5, True, None)]
    + [({"open": 1}, False), ({"side": "BUY"}, False), ({"mode": True}, False), ({"at": 0}, False)]
    + [
        ({"lines": [{"name": "a", "parts": [{}]}]}, False),
        ({"tags": {"x": "1"}}, False),
        ({"first": None}, False),
    ]
    + [({"amount": None}, False), ({"maybe": ["1"]}, False), ({"bare": []}, False), ({"key": ...}, False)],
    ids=str,
)
def test_who_checks_by_the_schema_and_who_decodes_agree(change: dict[str, Any], right: bool) -> None:
    schemas = openapi_fragment(Order)["components"]["schemas"]
    data = {name: value for name, value in {**WIRE, **change}.items() if value is not ...}
    assert fits(data, schemas["Order"], schemas) is right
    if right:
        decode_event(received(data, "order"), Order)
    else:
        with pytest.raises(EventSchemaError):
            decode_event(received(data, "order"), Order)


def test_two_classes_of_one_name_cannot_both_be_described() -> None:
    def other() -> type:
        @event("other")
        class Price:
            n: int

        return Price

    with pytest.raises(ValueError, match="two classes are called 'Price'"):
        openapi_fragment(Price, other())


def test_the_markdown_table() -> None:
    assert markdown_table(Price, Alert) == (
        "| event | field | type | required | meaning |\n"
        "|---|---|---|---|---|\n"
        "| `price` | | | | A price has changed. |\n"
        "|  | `symbol` | str | yes |  |\n"
        "|  | `value` | float | yes | in euros |\n"
        "| `alert` | `text` | str | yes |  |\n"
        "|  | `level` | 1 or 2 | no |  |\n"
    )
    table = markdown_table(Order)
    assert "\n| object | field | type | required | meaning |\n" in table
    assert "| Line | `name` | str | yes |  |\n|  | `count` | int | no |  |\n" in table
    assert table.count("| Line | `name`") == 1


def test_cells_are_escaped() -> None:
    @event("a|b")
    class Piped:
        kind: Literal["x|y"]

    table = markdown_table(Piped)
    assert "| `a\\|b` | `kind` | 'x\\|y' | yes |  |" in table


def test_the_events_of_a_module() -> None:
    import sys
    from types import ModuleType

    assert declared_events(sys.modules[__name__]) == [Price, Alert, Order]
    module = ModuleType("two")
    module.one, module.same, module.line = Price, Price, Line  # type: ignore[attr-defined]
    assert declared_events(module) == [Price]

    @event("price")
    class Again:
        n: int

    module.again = Again  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="both declare event 'price'"):
        declared_events(module)
