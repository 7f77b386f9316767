"""Every example of docs/testing.md and docs/schemas.md runs: each page's files together, in a folder of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

FILE = re.compile(r"# (\w+\.py)\n")


def run(folder: Path, *arguments: str) -> str:
    finished = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT), os.environ.get("PYTHONPATH", "")]),
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


@pytest.mark.parametrize("page", ["testing.md", "schemas.md"])
def test_page(page: str, tmp_path: Path) -> None:
    blocks = re.findall(r"```(\w+)\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)
    tests = 0
    for language, text in blocks:
        if language == "python":
            name = FILE.match(text)
            assert name, f"a block of {page} does not say which file it is: {text[:60]!r}"
            (tmp_path / name[1]).write_text(text)
            tests += text.count("\ndef test_")
        else:
            assert language == "console"
    output = run(tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    passed = re.search(r"(\d+) passed", output)
    assert passed
    assert int(passed[1]) >= tests > 0
    for language, text in blocks:
        if language == "console":
            command, _, expected = text.removeprefix("$ python ").partition("\n")
            assert run(tmp_path, *command.split()) == expected
