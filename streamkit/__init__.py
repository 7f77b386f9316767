"""Streaming HTTP responses for synchronous Python: WSGI, Flask, Werkzeug, or nothing but the standard library.

Every public name can be imported from here. Importing this package imports none of its parts: a name is
loaded when it is used for the first time, so a script that reads an event stream never loads a server.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = [
    "CSVResponse",
    "EventSource",
    "EventSourceResponse",
    "EventStreamDecoder",
    "FLUSH",
    "FileResponse",
    "Gap",
    "Hub",
    "JSONArrayResponse",
    "JSONSeqResponse",
    "Limiter",
    "NDJSONResponse",
    "Quota",
    "Rate",
    "ServerSentEvent",
    "StreamingResponse",
    "ZipResponse",
    "drain",
    "every",
    "last_event_id",
    "run_process",
    "serve",
    "streams",
    "tail_file",
]

_HOME = {
    "CSVResponse": "responses.csv_table",
    "EventSource": "client.event_source",
    "EventSourceResponse": "responses.event_source",
    "EventStreamDecoder": "formats.event_stream_decoder",
    "FLUSH": "flow.flush",
    "FileResponse": "responses.file",
    "Gap": "hub.gap",
    "Hub": "hub.hub",
    "JSONArrayResponse": "responses.json_records",
    "JSONSeqResponse": "responses.json_records",
    "Limiter": "flow.limiter",
    "NDJSONResponse": "responses.json_records",
    "Quota": "flow.rate",
    "Rate": "flow.rate",
    "ServerSentEvent": "formats.event_stream",
    "StreamingResponse": "responses.streaming",
    "ZipResponse": "responses.zip_archive",
    "drain": "flow.streams",
    "every": "flow.every",
    "last_event_id": "formats.last_event_id",
    "run_process": "flow.run_process",
    "serve": "servers.http_server",
    "streams": "flow.streams",
    "tail_file": "flow.tail_file",
}

if TYPE_CHECKING:
    from streamkit.client.event_source import EventSource
    from streamkit.flow.every import every
    from streamkit.flow.flush import FLUSH
    from streamkit.flow.limiter import Limiter
    from streamkit.flow.rate import Quota, Rate
    from streamkit.flow.run_process import run_process
    from streamkit.flow.streams import drain, streams
    from streamkit.flow.tail_file import tail_file
    from streamkit.formats.event_stream import ServerSentEvent
    from streamkit.formats.event_stream_decoder import EventStreamDecoder
    from streamkit.formats.last_event_id import last_event_id
    from streamkit.hub.gap import Gap
    from streamkit.hub.hub import Hub
    from streamkit.responses.csv_table import CSVResponse
    from streamkit.responses.event_source import EventSourceResponse
    from streamkit.responses.file import FileResponse
    from streamkit.responses.json_records import JSONArrayResponse, JSONSeqResponse, NDJSONResponse
    from streamkit.responses.streaming import StreamingResponse
    from streamkit.responses.zip_archive import ZipResponse
    from streamkit.servers.http_server import serve


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'streamkit' has no attribute {name!r}")
    value = getattr(import_module(f"streamkit.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
