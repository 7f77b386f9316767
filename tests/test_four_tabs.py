"""The script that the README opens with does what it says."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.conftest import ROOT

pytest.importorskip("gunicorn")


def test_dead_at_four_tabs_with_a_generator_and_alive_with_streamkit() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "four_tabs.py"), "--streams", "200"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    plain, streamkit = done.stdout.split("$ gunicorn --threads 4 ")[1:]
    assert "4 streams open" in plain, done
    assert "The site is down" in plain
    assert "200 streams open" in streamkit
    assert re.search(r"200 pages: p50 [\d.]+ ms, p99 [\d.]+ ms", streamkit), done
    if sys.platform == "linux":
        assert float(re.findall(r"memory of a stream: (-?[\d.]+) KiB", streamkit)[0]) < 64
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("count", ["0", "-3", "many"])
def test_a_number_of_streams_that_makes_no_sense(count: str) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "four_tabs.py"), f"--streams={count}"],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 2
    assert "--streams" in done.stderr
