"""What becomes of runs when their process ends: each has an end, and its producer is closed, within moments."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from streamkit.hub.hub import Hub
from tests.conftest import ROOT
from tests.hub.conftest import Viewer

# The exit itself has two seconds, one for streams and one for runs, where a run does not end. The rest is for a slow
# machine, on which `exit_app` waits longer for those that do.
EXIT_SECONDS = 15.0


@pytest.mark.parametrize(
    ("how", "ends", "closed"),
    [
        ("return", ["stopped", "stopped"], ["ticking closed", "upstream closed"]),
        ("drain", ["stopped", "stopped"], ["ticking closed", "upstream closed"]),
        ("stubborn", ["stopped"], []),
        ("finish", ["complete"], []),
    ],
)
def test_runs_end_with_their_process(tmp_path: Path, how: str, ends: list[str], closed: list[str]) -> None:
    url = f"sqlite:///{tmp_path}/events.db"
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.hub.exit_app", url, how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        assert process.stdout is not None
        ids = [process.stdout.readline().strip() for _ in ends]
        with Hub(url) as hub:
            runs = [hub.attach(f"run/{number}", id) for number, id in enumerate(ids)]
            viewers = [Viewer(run.events()) for run in runs if run is not None]
            for viewer in viewers:
                viewer.until(lambda viewer=viewer: viewer.events)  # type: ignore[misc]
            asked = time.monotonic()
            said, errors = process.communicate("", timeout=EXIT_SECONDS)
            assert time.monotonic() - asked < EXIT_SECONDS
            assert [viewer.end()[-1].event for viewer in viewers] == ends
            assert all(hub.attach(f"run/{number}") is None for number in range(len(ids))), "a lease was kept"
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0
    assert sorted(said.splitlines()) == closed
    assert "Traceback" not in errors
    if how == "stubborn":
        assert "does not stop; it is left behind" in errors
