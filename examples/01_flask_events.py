"""Server-sent events from a Flask view; `request` and `g` work inside the generator.

run:  gunicorn --threads 4 --chdir examples 01_flask_events:app
curl: curl -N "http://127.0.0.1:8000/ticks?name=Ada"
"""

import time
from collections.abc import Iterator

from flask import Flask, request

from streamkit import EventSourceResponse, ServerSentEvent

app = Flask(__name__)


@app.get("/ticks")
def ticks() -> EventSourceResponse:
    def generate() -> Iterator[ServerSentEvent]:
        for number in range(5):
            yield ServerSentEvent(
                {"hello": request.args["name"], "tick": number}, id=str(number), event="tick"
            )
            time.sleep(0.2)

    return EventSourceResponse(generate())
