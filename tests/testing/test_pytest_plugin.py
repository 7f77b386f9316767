"""The fixtures, in a run of pytest of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT

CONFTEST = 'pytest_plugins = ["streamkit.testing.pytest_plugin"]\n'
TESTS = """
from streamkit import EventSourceResponse, every
from streamkit.testing import pytest_plugin as plugin

kept = []


def app(environ, start_response):
    return EventSourceResponse(every(0.01, lambda: "tick"))(environ, start_response)


def test_serve_app_and_stream_client(serve_app, stream_client, no_streams_left):
    server = serve_app(app)
    other = serve_app(app, server="streamkit")
    assert server.port != other.port
    assert [event.data for event in stream_client(server.url).open("/").take(2)] == ["tick", "tick"]


def test_fake_clock(fake_clock):
    fake_clock.advance(5)
    assert fake_clock() == 5


def test_that_leaves_a_stream(no_streams_left):
    plugin.END_SECONDS = 0.1
    kept.append(app({"REQUEST_METHOD": "GET"}, lambda *_: None))
    next(kept[0])
"""


def test_fixtures(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_it.py").write_text(TESTS)
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "3 passed, 1 error" in run.stdout, run.stdout + run.stderr
    assert "still live 0.1 s after the test: [<Stream" in run.stdout


def test_without_pytest_it_says_so() -> None:
    code = "import sys; sys.modules['pytest'] = None; import streamkit.testing.pytest_plugin"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert "ImportError: streamkit.testing.pytest_plugin needs pytest (pip install pytest)" in run.stderr
