"""An answer that survives a refresh, a second tab and a reload of the workers: the model is asked once.

run:  gunicorn --workers 2 --threads 4 --chdir examples 12_resumable_answer:app
curl: curl -N http://127.0.0.1:8000/answer/42
curl: curl -N http://127.0.0.1:8000/answer/42
curl: curl -X DELETE http://127.0.0.1:8000/answer/42
"""

import tempfile
import time
from collections.abc import Iterator

from flask import Flask

from streamkit import EventSourceResponse, Hub

app = Flask(__name__)
hub = Hub(f"sqlite:///{tempfile.gettempdir()}/resumable_answer.db", finish_runs=20)


def model(number: int) -> Iterator[str]:
    print(f"the model is paid for answer {number}", flush=True)
    for word in ("Streams", " are", " lists", " that", " take", " their", " time", "."):
        time.sleep(0.1)
        yield word


@app.get("/answer/<int:number>")
def answer(number: int) -> EventSourceResponse:
    run = hub.run(f"answer/{number}", lambda: model(number), id=f"answer-{number}")
    return EventSourceResponse(run.events(), complete="over")


@app.delete("/answer/<int:number>")
def stop(number: int) -> dict[str, bool]:
    run = hub.attach(f"answer/{number}")
    return {"stopped": run is not None and run.stop()}
