"""What a type checker tells the users of this package: `py.typed` is a promise."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytest.importorskip("mypy")

PROGRAM = """\
import io
import queue
import sqlite3
from collections.abc import AsyncIterator, Iterator

from streamkit import CSVResponse, EventSourceResponse, FLUSH, Hub, NDJSONResponse, StreamingResponse, every, tail_file

hub = Hub("memory://")


def items() -> Iterator[object]:
    yield "text"
    yield FLUSH


async def asynchronous() -> AsyncIterator[str]:
    yield "text"


EventSourceResponse(items())
EventSourceResponse(items, heartbeat=5)
EventSourceResponse(hub.subscribe("topic"))
EventSourceResponse(queue.Queue[str]())
EventSourceResponse(queue.SimpleQueue[str]())
EventSourceResponse(every(1.0, lambda: 1))
EventSourceResponse(tail_file("server.log"), limit_key=lambda environ: environ["REMOTE_ADDR"])
CSVResponse(sqlite3.connect(":memory:").execute("SELECT 1"), max_rate=1e6)
NDJSONResponse([{"a": 1}], status=201)
StreamingResponse(io.BytesIO(b"bytes"), mimetype="image/png")
StreamingResponse.from_writer(lambda out: out.write(b"bytes"), mimetype="text/plain")

EventSourceResponse(5)  # wrong
EventSourceResponse(None)  # wrong
EventSourceResponse(hub)  # wrong
EventSourceResponse(asynchronous())  # wrong
EventSourceResponse(items(), hartbeat=5)  # wrong
CSVResponse([], heartbeat=5)  # wrong
StreamingResponse.from_writer(lambda out: None, status=None)  # wrong
"""


def test_what_is_refused_when_it_runs_is_refused_by_a_type_checker(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", str(program)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    told = {int(line) for line in re.findall(r"program\.py:(\d+): error", done.stdout)}
    wrong = {number for number, line in enumerate(PROGRAM.splitlines(), 1) if line.endswith("# wrong")}
    assert told == wrong, done.stdout + done.stderr
