"""A log file, live: its last lines, then what is appended, across truncation and rotation.

run:  LOG=README.md gunicorn --threads 4 --chdir examples 10_log_tail:app
curl: curl -N --max-time 1 http://127.0.0.1:8000/log
curl: curl -N --max-time 1 http://127.0.0.1:8000/disk
"""

import os
from pathlib import Path

from flask import Flask

from streamkit import EventSourceResponse, run_process, tail_file

LOG = Path(__file__).resolve().parent.parent / os.environ.get("LOG", "README.md")
app = Flask(__name__)


@app.get("/log")
def log() -> EventSourceResponse:
    return EventSourceResponse(tail_file(LOG, lines=3))


@app.get("/disk")
def disk() -> EventSourceResponse:
    return EventSourceResponse(
        run_process(["df", "-h"])
    )  # the process ends with the stream, children included
