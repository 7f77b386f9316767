"""Events declared as dataclasses: one declaration for who writes them, who reads them, and who documents them.

```python
@event("price")
class Price:
    symbol: str
    value: float


yield Price("ACME", 12.5)  # in a producer
price = decode_event(received, Price)  # in a client
```

The law: the data of such an event is a JSON object with one member for each field, and nothing is sent or accepted that
does not fit the declaration (see `field_types`). A member that the declaration does not know is ignored, so a sender
may add fields before its readers know of them.

How a declared event is encoded: the class gets a method `__server_sent_event__`, which every encoder of event streams
asks for.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
from typing import Any, Final, NoReturn, TypeVar, overload

from streamkit.errors import StreamkitError
from streamkit.formats.event_stream import ServerSentEvent
from streamkit.formats.field_annotations import record_of
from streamkit.formats.field_types import Mismatch

if sys.version_info >= (3, 11):
    from typing import dataclass_transform
else:

    def dataclass_transform() -> Callable[[Any], Any]:
        """Stand in for what tells type checkers that a decorator makes dataclasses; it does nothing."""
        return lambda decorator: decorator


T = TypeVar("T")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")

_NAME: Final = "__event_name__"
_TAKEN: Final = ("from_event", "to_event")


class EventSchemaError(StreamkitError, ValueError):
    """An event that does not fit its declaration, on its way out or in.

    `event` is its name; `field` says where (`items[2].price`), or is `""` where the event as a whole is wrong.
    """

    code = "event_schema_error"

    def __init__(self, message: str, event: str, field: str = "") -> None:
        super().__init__(message)
        self.event = event
        self.field = field


@dataclass_transform()
def event(name: str) -> Callable[[type[T]], type[T]]:
    """Declare a class as the event `name`; a class decorator that makes a dataclass of it, unless it is one.

    Fields may be str, int, float, bool, None, unions, list, dict with str keys, Literal, Enum, datetime (with an
    offset), date, Decimal, UUID, other dataclasses and Any. The text in `Annotated[float, "in euros"]` describes a
    field, the docstring the event. For options of dataclasses, such as `frozen`, put `@dataclass(frozen=True)` below
    this.

    The class gets `.to_event(id=None, retry=None, comment=None)`, as `encode_event`, and `.from_event(received)`,
    as `decode_event`; a type checker knows those two functions better. `"message"` is the name that a browser gives
    to events without one.

    Raises ValueError for a name that cannot be sent, TypeError for what is no class or has a field of one of those
    two names. A field's type is checked when the first event is encoded, decoded or described, since classes may be
    declared in any order: TypeError then.
    """
    if not isinstance(name, str):
        raise TypeError(f'event is given {name!r}; give the name of the event: @event("price")')
    if not name:
        raise ValueError('the name of an event cannot be empty; "message" is that of events without one')
    ServerSentEvent("", event=name)  # raises for a name that cannot be sent

    def declare(kind: type[T]) -> type[T]:
        if not isinstance(kind, type):
            raise TypeError(f"@event({name!r}) is for a class, not for {kind!r}")
        declared: Any = kind
        if "__dataclass_fields__" not in kind.__dict__:
            # The docstring that dataclasses invents (a signature) describes nothing.
            documented = kind.__doc__
            declared = dataclasses.dataclass(kind)
            declared.__doc__ = documented
        for field in dataclasses.fields(declared):
            if field.name in _TAKEN:
                raise TypeError(
                    f"{kind.__qualname__} has a field {field.name!r}, a method of every declared event"
                )
        setattr(declared, _NAME, name)
        declared.to_event = encode_event
        declared.from_event = classmethod(_from_event)
        declared.__server_sent_event__ = encode_event
        result: type[T] = declared
        return result

    return declare


def event_name(kind: type) -> str | None:
    """The name that `@event` gave to a class; None where it is not a declared event."""
    name: str | None = getattr(kind, _NAME, None)
    return name


def encode_event(
    instance: object, *, id: str | int | None = None, retry: int | None = None, comment: str | None = None
) -> ServerSentEvent:
    """An instance of a declared event as the event that is sent; `id`, `retry`, `comment` as in `ServerSentEvent`.

    Raises EventSchemaError where a field is missing or not of its type, TypeError for another class's instance.
    """
    name = event_name(type(instance))
    if name is None:
        raise TypeError(
            f'{type(instance).__qualname__} is no declared event; decorate it with @event("name")'
        )
    try:
        data = record_of(type(instance)).write_fields(instance, "")
        return ServerSentEvent(data, event=name, id=id, retry=retry, comment=comment)
    except Mismatch as mismatch:
        _refuse(name, "sent", mismatch)
    except RecursionError:
        raise EventSchemaError(
            f"event {name!r} cannot be sent: it contains itself, or is nested too deeply", name
        ) from None


@overload
def decode_event(received: ServerSentEvent, first: type[A], /) -> A: ...
@overload
def decode_event(received: ServerSentEvent, first: type[A], second: type[B], /) -> A | B: ...
@overload
def decode_event(
    received: ServerSentEvent, first: type[A], second: type[B], third: type[C], /
) -> A | B | C: ...
@overload
def decode_event(received: ServerSentEvent, /, *kinds: type) -> Any: ...
def decode_event(received: ServerSentEvent, /, *kinds: type) -> Any:
    """What was received, as an instance of that class among `kinds` which declares its name.

    Raises EventSchemaError for an event of another name, for data that is not a JSON object, and where a field is
    missing or not of its type. TypeError for a class that is no declared event, ValueError for two of one name.
    """
    by_name: dict[str, type] = {}
    for kind in kinds:
        declared = event_name(kind) if isinstance(kind, type) else None
        if declared is None:
            raise TypeError(f'{kind!r} is no declared event; decorate the class with @event("name")')
        if declared in by_name:
            raise ValueError(
                f"{by_name[declared].__name__} and {kind.__name__} both declare event {declared!r}"
            )
        by_name[declared] = kind
    if not by_name:
        raise TypeError("decode_event needs the classes that the event may be an instance of")
    name = received.event or "message"
    if name not in by_name:
        raise EventSchemaError(f"event {name!r} is none of {', '.join(map(repr, sorted(by_name)))}", name)
    try:
        return record_of(by_name[name]).read_fields(_json_object(received, name), "")
    except Mismatch as mismatch:
        _refuse(name, "accepted", mismatch)
    except RecursionError:
        raise EventSchemaError(f"event {name!r} cannot be accepted: it is nested too deeply", name) from None


def _from_event(kind: type[T], received: ServerSentEvent) -> T:
    """What was received as an instance of this class; see `decode_event`."""
    return decode_event(received, kind)


def _json_object(received: ServerSentEvent, name: str) -> dict[str, object]:
    text = received.data
    try:
        data = json.loads(text or "", parse_constant=_no_constant)
    except ValueError as error:
        shown = repr(text) if text is None or len(text) <= 60 else repr(text[:57] + "...")
        raise EventSchemaError(
            f"event {name!r} cannot be accepted: its data is not JSON, but {shown} ({error})", name
        ) from None
    if not isinstance(data, dict):
        kind = type(data).__name__
        raise EventSchemaError(
            f"event {name!r} cannot be accepted: its data is not a JSON object, but a {kind}", name
        )
    return data


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON (RFC 8259 section 6)")


def _refuse(name: str, verb: str, mismatch: Mismatch) -> NoReturn:
    message = f"event {name!r} cannot be {verb}: {mismatch.path} must be {mismatch.expected}, given {mismatch.given}"
    raise EventSchemaError(message, name, mismatch.path) from mismatch.__cause__
