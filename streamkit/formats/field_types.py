"""Types of event fields: values to JSON and back, checked on both sides, and described as JSON Schema.

The law:

- A type annotation becomes a `FieldType` once. What it writes, reads and describes is the same thing: a reader that
  checks by the schema and one that decodes here agree on every text.
- Nothing is turned into something else to make it fit: `"3"` is no int, `True` is no int, 3.5 is no int. Only
  what JSON itself does not tell apart is accepted: 3 where a float is declared, and 3.0 where an int is, or the number
  3 of a Literal or an Enum (JSON Schema 2020-12, section 4.2.2).
- Where JSON has no type of its own, a text in the format that JSON Schema names stands for it (`date-time`, `date`,
  `uuid`). A `date-time` is RFC 3339, so it has an offset: a naive datetime is refused, because every reader
  would take it for its own local time.

Values and JSON only; no clocks, sockets or threads.
"""

from __future__ import annotations

import dataclasses
import datetime
import enum
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from typing import Any

JSONSchema = dict[str, Any]
Describe = Callable[[type], JSONSchema]
"""How a nested dataclass is described: given the class, its schema, such as a `$ref`."""


class Mismatch(Exception):
    """A value that is not of its type: where (`.items[2].price`), what is expected, what was given."""

    def __init__(self, path: str, expected: str, given: str) -> None:
        super().__init__(path, expected, given)
        self.path = path
        self.expected = expected
        self.given = given


class FieldType(ABC):
    """One type. `words` say what it is, for people."""

    words = "anything"

    @abstractmethod
    def write(self, value: object, path: str) -> object:
        """A Python value as what `json` writes. Raises Mismatch."""

    @abstractmethod
    def read(self, value: object, path: str) -> object:
        """What `json` gave as the Python value. Raises Mismatch."""

    @abstractmethod
    def schema(self, describe: Describe) -> JSONSchema:
        """JSON Schema 2020-12 of what is written."""

    def mismatch(self, value: object, path: str) -> Mismatch:
        """The error for `value`."""
        text = repr(value)
        shown = text if len(text) <= 60 else text[:57] + "..."
        return Mismatch(path, self.words, f"{shown} ({type(value).__name__})")


class Anything(FieldType):
    """`Any` and `object`: whatever JSON can hold; written as `compact_json` writes it."""

    def write(self, value: object, path: str) -> object:
        return value

    read = write

    def schema(self, describe: Describe) -> JSONSchema:
        return {}


class Plain(FieldType):
    """What JSON has itself: str, bool and None."""

    def __init__(self, kind: type, words: str, name: str) -> None:
        self._kind = kind
        self.words = words
        self._name = name

    def write(self, value: object, path: str) -> object:
        # `str` of an Enum is a str too, but a different one in 3.11 and 3.12: what is written is the plain text.
        if not isinstance(value, self._kind) or isinstance(value, enum.Enum):
            raise self.mismatch(value, path)
        return value

    read = write

    def schema(self, describe: Describe) -> JSONSchema:
        return {"type": self._name}


class Integer(FieldType):
    """`int`, which True and False are not."""

    words = "int"

    def write(self, value: object, path: str) -> object:
        if not isinstance(value, int) or isinstance(value, (bool, enum.Enum)):
            raise self.mismatch(value, path)
        return value

    def read(self, value: object, path: str) -> object:
        if isinstance(value, float) and value.is_integer():
            return int(value)
        return self.write(value, path)

    def schema(self, describe: Describe) -> JSONSchema:
        return {"type": "integer"}


class Number(FieldType):
    """`float`; an int is one too (PEP 484). NaN and the infinities are not JSON (RFC 8259 section 6)."""

    words = "float"

    def write(self, value: object, path: str) -> object:
        if isinstance(value, (bool, enum.Enum)) or not isinstance(value, (int, float)):
            raise self.mismatch(value, path)
        try:
            number = float(value)
        except OverflowError:
            raise self.mismatch(value, path) from None
        if not isfinite(number):
            raise self.mismatch(value, path)
        return number

    read = write

    def schema(self, describe: Describe) -> JSONSchema:
        return {"type": "number"}


class TextFor(FieldType):
    """A type that JSON has not, as text in a format: both functions may refuse with ValueError or OverflowError."""

    def __init__(
        self,
        kind: type,
        words: str,
        format_name: str,
        to_text: Callable[[Any], str],
        from_text: Callable[[str], object],
    ) -> None:
        self._kind = kind
        self.words = words
        self._format = format_name
        self._to_text = to_text
        self._from_text = from_text

    def write(self, value: object, path: str) -> object:
        # A datetime is a date for Python, but not for a reader: the class must be the very one, or a subclass of it.
        wrong_date = self._kind is datetime.date and isinstance(value, datetime.datetime)
        if not isinstance(value, self._kind) or wrong_date:
            raise self.mismatch(value, path)
        try:
            return self._to_text(value)
        except (ValueError, OverflowError):
            raise self.mismatch(value, path) from None

    def read(self, value: object, path: str) -> object:
        if not isinstance(value, str):
            raise self.mismatch(value, path)
        try:
            return self._from_text(value)
        except (ValueError, OverflowError):
            raise self.mismatch(value, path) from None

    def schema(self, describe: Describe) -> JSONSchema:
        return {"type": "string", "format": self._format}


class OneOf(FieldType):
    """An Enum, by its values, or a Literal: a list of values. True is none of the numbers; 1.0 is read as 1."""

    def __init__(self, pairs: Sequence[tuple[object, object]], words: str) -> None:
        self._pairs = pairs  # Python value, JSON value
        self.words = words

    def write(self, value: object, path: str) -> object:
        for member, written in self._pairs:
            if type(member) is type(value) and member == value:
                return written
        raise self.mismatch(value, path)

    def read(self, value: object, path: str) -> object:
        for member, written in self._pairs:
            numbers = type(written) in (int, float) and type(value) in (int, float)
            if (numbers or type(written) is type(value)) and written == value:
                return member
        raise self.mismatch(value, path)

    def schema(self, describe: Describe) -> JSONSchema:
        values = [written for _, written in self._pairs]
        return {"const": values[0]} if len(values) == 1 else {"enum": values}


class Items(FieldType):
    """`list`."""

    def __init__(self, item: FieldType) -> None:
        self.item = item
        self.words = "list" if type(item) is Anything else f"list of {item.words}"

    def write(self, value: object, path: str) -> object:
        if not isinstance(value, list):
            raise self.mismatch(value, path)
        return [self.item.write(item, f"{path}[{index}]") for index, item in enumerate(value)]

    def read(self, value: object, path: str) -> object:
        if not isinstance(value, list):
            raise self.mismatch(value, path)
        return [self.item.read(item, f"{path}[{index}]") for index, item in enumerate(value)]

    def schema(self, describe: Describe) -> JSONSchema:
        items = self.item.schema(describe)
        return {"type": "array", "items": items} if items else {"type": "array"}


class Members(FieldType):
    """`dict`, whose keys are texts."""

    def __init__(self, item: FieldType) -> None:
        self.item = item
        self.words = "dict" if type(item) is Anything else f"dict of {item.words}"

    def _checked(self, value: object, path: str) -> Mapping[str, object]:
        if not isinstance(value, dict):
            raise self.mismatch(value, path)
        for key in value:
            if not isinstance(key, str):
                raise Mismatch(f"a key of {path}", "str", f"{key!r} ({type(key).__name__})")
        return value

    def write(self, value: object, path: str) -> object:
        members = self._checked(value, path)
        return {key: self.item.write(item, f"{path}[{key!r}]") for key, item in members.items()}

    def read(self, value: object, path: str) -> object:
        members = self._checked(value, path)
        return {key: self.item.read(item, f"{path}[{key!r}]") for key, item in members.items()}

    def schema(self, describe: Describe) -> JSONSchema:
        items = self.item.schema(describe)
        return {"type": "object", "additionalProperties": items} if items else {"type": "object"}


class Union(FieldType):
    """`A | B`: the first one that fits, in the order of the declaration (int before float, though)."""

    def __init__(self, options: Sequence[FieldType]) -> None:
        # 3 would be read as 3.0 where the float comes first.
        self.options = sorted(options, key=lambda option: isinstance(option, Number))
        self.words = " or ".join(option.words for option in options)
        others = [option for option in options if option.words != "None"]
        # `Order | None`: what is wrong inside of an order is worth more than "neither an Order nor None".
        self._only = others[0] if len(others) == 1 else None

    def _try(self, method: str, value: object, path: str) -> object:
        if self._only is not None and value is not None:
            return getattr(self._only, method)(value, path)
        for option in self.options:
            try:
                return getattr(option, method)(value, path)
            except Mismatch:
                continue
        raise self.mismatch(value, path)

    def write(self, value: object, path: str) -> object:
        return self._try("write", value, path)

    def read(self, value: object, path: str) -> object:
        return self._try("read", value, path)

    def schema(self, describe: Describe) -> JSONSchema:
        return {"anyOf": [option.schema(describe) for option in self.options]}


@dataclasses.dataclass(frozen=True)
class RecordField:
    """One field of a dataclass. `description` is the text of its `Annotated`; `required`: it has no default."""

    name: str
    type: FieldType
    required: bool
    settable: bool
    description: str


class Record(FieldType):
    """A dataclass: an object with its fields. What it does not know is ignored when read, so fields may be added.

    The fields are looked at when they are needed for the first time, so classes may name each other, or themselves.
    """

    def __init__(self, kind: type, find_fields: Callable[[], list[RecordField]]) -> None:
        self._kind = kind
        self._find_fields = find_fields
        self._fields: list[RecordField] | None = None
        self.words = kind.__name__

    @property
    def fields(self) -> list[RecordField]:
        """In the order of the declaration. Raises TypeError for a type that events cannot have."""
        if self._fields is None:
            self._fields = self._find_fields()
        return self._fields

    def write(self, value: object, path: str) -> object:
        if not isinstance(value, self._kind):
            raise self.mismatch(value, path)
        return self.write_fields(value, f"{path}.")

    def write_fields(self, value: object, prefix: str) -> dict[str, object]:
        """The fields of an instance as a JSON object."""
        written = {}
        for field in self.fields:
            name = field.name
            try:
                item = getattr(value, name)
            except AttributeError:
                raise Mismatch(prefix + name, field.type.words, "nothing: the field is missing") from None
            written[name] = field.type.write(item, prefix + name)
        return written

    def read(self, value: object, path: str) -> object:
        if not isinstance(value, dict):
            raise self.mismatch(value, path)
        return self.read_fields(value, f"{path}.")

    def read_fields(self, value: Mapping[str, object], prefix: str) -> object:
        """An instance from a JSON object. What `__post_init__` refuses with ValueError or TypeError is a Mismatch."""
        arguments = {}
        for field in self.fields:
            name = field.name
            if not field.settable:
                continue
            if name in value:
                arguments[name] = field.type.read(value[name], prefix + name)
            elif field.required:
                raise Mismatch(prefix + name, field.type.words, "nothing: the field is missing")
        try:
            return self._kind(**arguments)
        except (ValueError, TypeError) as error:
            raise Mismatch(prefix.rstrip(".") or self.words, f"a valid {self.words}", str(error)) from error

    def schema(self, describe: Describe) -> JSONSchema:
        return describe(self._kind)

    def object_schema(self, describe: Describe) -> JSONSchema:
        """The schema of the object itself."""
        properties = {}
        for field in self.fields:
            properties[field.name] = field.type.schema(describe)
            if field.description:
                properties[field.name] = {**properties[field.name], "description": field.description}
        required = [field.name for field in self.fields if field.required]
        schema: JSONSchema = {"type": "object", "properties": properties}
        return {**schema, "required": required} if required else schema
