"""What a field's annotation means: the type of `field_types` that writes, reads and describes its values."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import types
import typing
import uuid
from functools import partial
from typing import Any, Final

from streamkit.formats import text_forms
from streamkit.formats.field_types import (
    Anything,
    FieldType,
    Integer,
    Items,
    Members,
    Number,
    OneOf,
    Plain,
    Record,
    RecordField,
    TextFor,
    Union,
)


def record_of(kind: type) -> Record:
    """The `Record` of a dataclass, the same one each time."""
    record: Record | None = kind.__dict__.get("__streamkit_record__")
    if record is None:
        record = Record(kind, partial(_record_fields, kind))
        # Two threads may make two; they are equal, and the later one stays.
        type.__setattr__(kind, "__streamkit_record__", record)
    return record


def _record_fields(kind: type) -> list[RecordField]:
    try:
        hints = typing.get_type_hints(kind, include_extras=True)
    except NameError as error:
        raise TypeError(
            f"{kind.__qualname__}: the annotation {error.name!r} cannot be resolved; what a field's type names must "
            "be at the top level of the module"
        ) from None
    found = []
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        notes = hint.__metadata__ if typing.get_origin(hint) is typing.Annotated else ()
        no_default = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        found.append(
            RecordField(
                field.name,
                field_type(hint, f"{kind.__qualname__}.{field.name}"),
                required=no_default,
                settable=field.init,
                description=" ".join(note for note in notes if isinstance(note, str)),
            )
        )
    return found


def field_type(hint: Any, where: str) -> FieldType:
    """The `FieldType` of an annotation. Raises TypeError for one that events cannot have; `where` names the field."""
    hint = getattr(hint, "__supertype__", hint)  # typing.NewType
    if hint in (Any, object):
        return Anything()
    if hint is None:
        hint = type(None)
    if isinstance(hint, type) and hint in _SIMPLE:
        return _SIMPLE[hint]
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return field_type(arguments[0], where)
    if origin in (typing.Union, types.UnionType):
        return Union([field_type(argument, where) for argument in arguments])
    if origin is typing.Literal:
        return _literal(arguments, where)
    if hint is list or origin is list:
        return Items(field_type(arguments[0] if arguments else Any, where))
    if hint is dict or origin is dict:
        if arguments and arguments[0] is not str:
            raise TypeError(f"{where} is {hint}: the keys of a JSON object are str; declare dict[str, ...]")
        return Members(field_type(arguments[1] if arguments else Any, where))
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return _enum(hint, where)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return record_of(hint)
    raise TypeError(
        f"{where} is {getattr(hint, '__qualname__', hint)}, which an event cannot have; declare str, int, float, bool, "
        "None, a union of types, list, dict[str, ...], Literal, an Enum, datetime, date, Decimal, UUID, a dataclass or "
        "Any"
    )


def _literal(values: tuple[Any, ...], where: str) -> FieldType:
    for value in values:
        if isinstance(value, enum.Enum) or not isinstance(value, (str, int, bool, type(None))):
            raise TypeError(f"{where} has {value!r} in its Literal; JSON has str, int, bool and None")
    return OneOf([(value, value) for value in values], " or ".join(map(repr, values)))


def _enum(kind: type[enum.Enum], where: str) -> FieldType:
    pairs = []
    for member in kind:
        value: Any = member.value
        if not isinstance(value, (str, int, float, bool, type(None))):
            raise TypeError(
                f"{where}: the value of {member} is {value!r}; JSON has str, int, float, bool and None"
            )
        pairs.append((member, value))
    return OneOf(pairs, " or ".join(repr(value) for _, value in pairs))


# -- types without arguments --------------------------------------------------------------------------------------

_SIMPLE: Final[dict[type, FieldType]] = {
    str: Plain(str, "str", "string"),
    bool: Plain(bool, "bool", "boolean"),
    type(None): Plain(type(None), "None", "null"),
    int: Integer(),
    float: Number(),
    datetime.datetime: TextFor(
        datetime.datetime,
        "datetime with an offset",
        "date-time",
        text_forms.date_time_text,
        text_forms.read_date_time,
    ),
    datetime.date: TextFor(datetime.date, "date", "date", datetime.date.isoformat, text_forms.read_date),
    decimal.Decimal: TextFor(
        decimal.Decimal, "Decimal", "decimal", text_forms.decimal_text, text_forms.read_decimal
    ),
    uuid.UUID: TextFor(uuid.UUID, "UUID", "uuid", str, text_forms.read_uuid),
}
