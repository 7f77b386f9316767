"""sse-starlette: a generator over an `asyncio.Queue` for each client."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

streams: set[asyncio.Queue[ServerSentEvent]] = set()
numbers = itertools.count(1)


async def events() -> AsyncIterator[ServerSentEvent]:
    """One client's events, at most 1,000 behind."""
    mine: asyncio.Queue[ServerSentEvent] = asyncio.Queue(1000)
    streams.add(mine)
    try:
        yield ServerSentEvent(comment="")
        while True:
            yield await mine.get()
    finally:
        streams.discard(mine)


async def subscribe(_: Request) -> Response:
    return EventSourceResponse(events(), sep="\n", ping=3600)


async def publish(request: Request) -> Response:
    for _ in range(int(request.query_params["count"])):
        number = next(numbers)
        event = ServerSentEvent(f"{number} {time.monotonic_ns()}", id=str(number))
        for stream in list(streams):
            stream.put_nowait(event)
        await asyncio.sleep(float(request.query_params["gap"]))
    return PlainTextResponse("ok\n")


async def page(_: Request) -> Response:
    return PlainTextResponse("ok\n")


app = Starlette(routes=[Route("/events", subscribe), Route("/publish", publish), Route("/page", page)])
