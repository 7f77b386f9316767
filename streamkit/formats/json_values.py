"""Values to JSON text on one line, the same for every format that carries JSON.

The law: what is written is JSON as RFC 8259 defines it, in ASCII and without spaces or newlines, so that a
line-based format can carry it whole and a reader that cuts at U+2028 is not harmed. RFC 8259 section 6 has no
NaN and no Infinity, so neither is written. The text is made here; nothing is read here.
"""

import dataclasses
import datetime
import decimal
import enum
import json
import json.encoder
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from math import isfinite


def json_default(value: object) -> object:
    """Turn a value that JSON does not know into one that it knows; the `default` of a `json.JSONEncoder`.

    | value | becomes |
    |---|---|
    | a dataclass instance | an object of its fields; what is in them is turned in its own turn |
    | `datetime`, `date`, `time` | text in ISO 8601 |
    | `Decimal` | text, because a JSON number would lose digits in most readers |
    | `UUID` | text |
    | a row with names: `sqlite3.Row`, SQLAlchemy's | an object of its columns |
    | any other mapping | an object |
    | `Enum` member | its `.value` |

    Raises `TypeError` for any other type, and `ValueError` for a `Decimal` that is NaN or infinite, and for a row
    with two columns of one name. Safe from any thread.
    """
    if isinstance(value, enum.Enum):
        return value.value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        # One level only: the encoder comes back for what is nested, and `asdict` would copy all of it first.
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        if not value.is_finite():
            raise ValueError(
                f"{value!r} cannot be sent: JSON has no NaN or Infinity; send None or text instead"
            )
        return str(value)
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, Mapping):
        return _object(value, value.items())
    named = getattr(value, "_mapping", None)  # SQLAlchemy's Row
    if isinstance(named, Mapping):
        return _object(named, named.items())
    keys = getattr(value, "keys", None)
    if callable(keys) and hasattr(value, "__getitem__") and not isinstance(value, type):
        names = list(keys())
        # sqlite3.Row is a sequence, and takes `ID` for `id` when it is asked by name.
        values = value if isinstance(value, Sequence) else [value[name] for name in names]
        return _object(names, zip(names, values, strict=True))
    raise TypeError(
        f"{type(value).__qualname__} cannot be sent as JSON: {_shortened(value)}; turn it into a str, int, "
        "float, bool, None, list, dict, dataclass, date, time, Decimal, UUID or Enum first"
    )


def _object(names: Collection[object], pairs: Iterable[tuple[object, object]]) -> dict[object, object]:
    """The pairs as a dict. Raises ValueError where two have one name, of which a reader would see the last."""
    fields = dict(pairs)
    if len(fields) != len(names):
        listed = list(names)
        for name in fields:
            if listed.count(name) > 1:
                raise ValueError(
                    f"a row has {listed.count(name)} columns of the name {name!r}, and a JSON object one place for "
                    "them; name them apart (in SQL with AS), or send rows that are tuples"
                )
    return fields


def _make_encoder() -> Callable[[object], str]:
    """One encoder for the process: `json.dumps` with options of its own builds a new one at every call.

    Where the standard library has its encoder in C, that is asked directly, because `JSONEncoder.encode` builds one of
    those at every call too, a fifth of the time that a small record takes. It keeps no list of what it is inside of
    (that list could not be shared between threads), so a value that contains itself ends as too deeply nested.
    """
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:
        return json.JSONEncoder(
            ensure_ascii=True,
            allow_nan=False,
            separators=(",", ":"),
            default=json_default,
            check_circular=False,
        ).encode
    no_list, indent, sort_keys, skip_keys, allow_nan = None, None, False, False, False
    escape = json.encoder.encode_basestring_ascii
    parts = make(no_list, json_default, escape, indent, ":", ",", sort_keys, skip_keys, allow_nan)
    join = "".join

    def encode(value: object) -> str:
        return join(parts(value, 0))

    return encode


_encode = _make_encoder()


def compact_json(value: object) -> str:
    """Return `value` as JSON text: ASCII, no spaces, no newline.

    Takes what `json.dumps` takes, and what `json_default` adds. A lone surrogate in a string is escaped, as JSON
    allows. Raises `ValueError` for NaN, Infinity (the message says which value, and where it is), a circular
    reference and nesting deeper than the interpreter's recursion limit; `TypeError` for a type that JSON cannot
    hold. Safe from any thread.
    """
    try:
        return _encode(value)
    except RecursionError:
        raise ValueError("the value is nested too deeply to be sent as JSON, or contains itself") from None
    except ValueError as error:
        for path, number in _non_finite(value, "value", 0):
            raise ValueError(
                f"{path} is {number!r}, which cannot be sent: JSON has no NaN or Infinity; "
                "send None or text instead"
            ) from error
        raise


# Deep enough for any real message; a circular value ends here too, instead of never.
_SEARCH_DEPTH = 64


def _non_finite(value: object, path: str, depth: int) -> Iterator[tuple[str, float]]:
    """Yield where a NaN or an infinity is hidden. Only for the message of an error, so speed does not matter."""
    if isinstance(value, float):
        if not isfinite(value):
            yield path, value
    elif depth > _SEARCH_DEPTH or value is None or isinstance(value, (str, int)):
        return
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _non_finite(key, f"a key of {path}", depth + 1)
            yield from _non_finite(item, f"{path}[{key!r}]", depth + 1)
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _non_finite(item, f"{path}[{index}]", depth + 1)
    else:
        try:
            known = json_default(value)
        except (TypeError, ValueError):
            return
        yield from _non_finite(known, path, depth + 1)


def _shortened(value: object) -> str:
    """Return the repr of `value`, cut so that a message stays readable."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
