"""The progress of a long job, which is never run twice: after `done` a browser that reconnects gets 204.

run:  gunicorn --threads 4 --chdir examples 07_progress:app
curl: curl -N http://127.0.0.1:8000/job
"""

import hashlib
import os
from collections.abc import Iterator

from flask import Flask

from streamkit import EventSourceResponse, ServerSentEvent

app = Flask(__name__)


@app.get("/job")
def job() -> EventSourceResponse:
    def work() -> Iterator[ServerSentEvent]:
        digest = hashlib.sha256()
        for step in range(1, 11):
            digest.update(os.urandom(1_000_000))
            yield ServerSentEvent({"percent": 10 * step}, event="progress")
        yield ServerSentEvent({"sha256": digest.hexdigest()}, event="result")

    return EventSourceResponse(work(), complete="done")
