"""A token stream as language models send it: one JSON object per token, `data: [DONE]` last.

run:  gunicorn --threads 4 --chdir examples 08_token_stream:app
curl: curl -N http://127.0.0.1:8000/answer
"""

import time
from collections.abc import Iterator

from flask import Flask

from streamkit import EventSourceResponse

app = Flask(__name__)


def model(prompt: str) -> Iterator[str]:
    for word in ("Streams", " are", " lists", " that", " take", " their", " time", "."):
        time.sleep(0.05)
        yield word


@app.get("/answer")
def answer() -> EventSourceResponse:
    tokens = ({"choices": [{"index": 0, "delta": {"content": word}}]} for word in model("What is a stream?"))
    return EventSourceResponse(tokens, done="[DONE]")
