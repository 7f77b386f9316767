"""Declared events as documents: a fragment of OpenAPI 3.2, and a Markdown table.

The law of the fragment (OpenAPI Specification 3.2.0, section 4.14.4, "Special Considerations for Server-Sent
Events"):

- `itemSchema`, beside the media type, describes each event of the stream by itself.
- An event is modelled as an object of strings `event`, `data` and `id` and an integer `retry`. Its data stays a string:
  JSON in it is described by `contentMediaType` and `contentSchema` (JSON Schema 2020-12, section 8 of Validation).
- A stream may carry other events (an `error`, a heartbeat's comment, which is no event), so what is listed is what was
  declared, in the order given.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

from streamkit.formats.event_schema import event_name
from streamkit.formats.field_annotations import record_of
from streamkit.formats.field_types import Items, JSONSchema, Members, Record, Union

_EVENT: JSONSchema = {
    "type": "object",
    "required": ["data"],
    "properties": {
        "event": {"type": "string"},
        "data": {"type": "string"},
        "id": {"type": "string"},
        "retry": {"type": "integer", "minimum": 0},
    },
}


def declared_events(module: ModuleType) -> list[type]:
    """The declared events that a module has at its top level, each once, in its order.

    Raises ValueError where two of them have one name.
    """
    found: dict[str, type] = {}
    for thing in vars(module).values():
        name = event_name(thing) if isinstance(thing, type) else None
        if name is None or found.get(name) is thing:
            continue
        if name in found:
            raise ValueError(
                f"{found[name].__qualname__} and {thing.__qualname__} both declare event {name!r}"
            )
        found[name] = thing
    return list(found.values())


def openapi_fragment(*kinds: type) -> dict[str, Any]:
    """The fragment for a stream of these events, ready for `json.dumps`.

    `content` belongs into a Response Object, `components` into the document itself. Raises TypeError for a field's type
    that events cannot have, ValueError for two classes of one name.
    """
    schemas: dict[str, JSONSchema] = {}
    owners: dict[str, type] = {}

    def describe(kind: type) -> JSONSchema:
        name = kind.__name__
        if owners.setdefault(name, kind) is not kind:
            raise ValueError(f"two classes are called {name!r}, so one component schema cannot describe both")
        if name not in schemas:
            schemas[name] = {}  # known before its fields are: it may contain itself
            schemas[name] = _with_description(kind, record_of(kind).object_schema(describe))
        return {"$ref": f"#/components/schemas/{name}"}

    item_schema = {**_EVENT, "oneOf": [_alternative(kind, describe(kind)) for kind in kinds]}
    return {
        "content": {"text/event-stream": {"itemSchema": item_schema}},
        "components": {"schemas": schemas},
    }


def _alternative(kind: type, reference: JSONSchema) -> JSONSchema:
    name = event_name(kind)
    data = {"contentMediaType": "application/json", "contentSchema": reference}
    alternative: JSONSchema = {"properties": {"event": {"const": name}, "data": data}}
    # An event without a name is a "message" (WHATWG HTML 9.2.6); all others must say theirs.
    return alternative if name == "message" else {"required": ["event"], **alternative}


def _with_description(kind: type, schema: JSONSchema) -> JSONSchema:
    described = _description(kind)
    return {"description": described, **schema} if described else schema


def _description(kind: type) -> str:
    text = kind.__doc__ or ""
    if text.startswith(f"{kind.__name__}("):  # what dataclasses writes where there is no docstring
        return ""
    return " ".join(text.split("\n\n")[0].split())


def markdown_table(*kinds: type) -> str:
    """A Markdown table with one row a field; dataclasses inside of events follow in a table of their own.

    Raises TypeError for a field's type that events cannot have.
    """
    lines = ["| event | field | type | required | meaning |", "|---|---|---|---|---|"]
    nested: list[Record] = []
    for kind in kinds:
        record = record_of(kind)
        lines += _rows(f"`{_cell(event_name(kind) or '')}`", record, _description(kind))
        _collect(record, nested)
    others = [record for record in nested if record not in [record_of(kind) for kind in kinds]]
    if others:
        lines += ["", "| object | field | type | required | meaning |", "|---|---|---|---|---|"]
        for record in others:
            lines += _rows(_cell(record.words), record, "")
    return "\n".join(lines) + "\n"


def _rows(first: str, record: Record, description: str) -> list[str]:
    rows = []
    if description or not record.fields:
        rows.append(f"| {first} | | | | {_cell(description)} |")
        first = ""
    for field in record.fields:
        required = "yes" if field.required else "no"
        cells = [first, f"`{field.name}`", _cell(field.type.words), required, _cell(field.description)]
        rows.append(f"| {' | '.join(cells)} |")
        first = ""
    return rows


def _collect(thing: object, found: list[Record]) -> None:
    """The records that a record contains, near ones first; each once."""
    if isinstance(thing, Record):
        inside = [field.type for field in thing.fields]
    elif isinstance(thing, Union):
        inside = list(thing.options)
    elif isinstance(thing, (Items, Members)):
        inside = [thing.item]
    else:
        return
    for kind in inside:
        if isinstance(kind, Record):
            if kind in found:
                continue
            found.append(kind)
        _collect(kind, found)


def _cell(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")
