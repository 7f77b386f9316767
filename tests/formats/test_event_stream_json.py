"""Values to JSON text."""

import dataclasses
import datetime
import decimal
import enum
import json
import uuid
from typing import Any

import pytest

from streamkit.formats.json_values import compact_json


@dataclasses.dataclass(frozen=True)
class Point:
    x: float
    inner: object = None


class Colour(enum.Enum):
    RED = "red"
    BOX = Point(1.0)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": [1, 2.5, None, True]}, '{"a":[1,2.5,null,true]}'),
        ("\u2028é\n\ud800", '"\\u2028\\u00e9\\n\\ud800"'),
        (Point(1.5, Point(2.0)), '{"x":1.5,"inner":{"x":2.0,"inner":null}}'),
        ([Colour.RED, Colour.BOX], '["red",{"x":1.0,"inner":null}]'),
        (datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc), '"2026-01-02T03:04:05+00:00"'),
        (datetime.date(2026, 1, 2), '"2026-01-02"'),
        (datetime.time(3, 4), '"03:04:00"'),
        (decimal.Decimal("0.10"), '"0.10"'),
        (uuid.UUID(int=1), '"00000000-0000-0000-0000-000000000001"'),
        ((), "[]"),
    ],
    ids=repr,
)
def test_values(value: object, text: str) -> None:
    assert compact_json(value) == text
    assert text.isascii()
    json.loads(text)


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (float("nan"), "value is nan"),
        ({"a": [1, float("inf")]}, r"value\['a'\]\[1\] is inf"),
        ([Point(float("-inf"))], r"value\[0\]\['x'\] is -inf"),
        ({float("nan"): 1}, "a key of value is nan"),
        ([decimal.Decimal("NaN")], r"Decimal\('NaN'\)"),
    ],
    ids=repr,
)
def test_nan_is_named(value: object, named: str) -> None:
    with pytest.raises(ValueError, match=named) as caught:
        compact_json(value)
    assert "JSON has no NaN" in str(caught.value)


def test_circles_and_depth() -> None:
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises(ValueError, match="contains itself"):
        compact_json(circle)
    deep: list[Any] = []
    for _ in range(200_000):
        deep = [deep]
    with pytest.raises(ValueError, match="nested too deeply"):
        compact_json(deep)
    while deep:  # a list that deep cannot be freed by every interpreter in one go
        deep = deep.pop()


@pytest.mark.parametrize("value", [object(), {1, 2}, b"x", {"a": Point}, {"a": dict}, 1j])
def test_other_types_say_what_is_allowed(value: object) -> None:
    with pytest.raises(TypeError, match=r"cannot be sent as JSON: .*turn it into a str"):
        compact_json(value)


def test_keys_must_be_json_keys() -> None:
    with pytest.raises(TypeError, match="keys must be"):
        compact_json({(1, 2): 3})
