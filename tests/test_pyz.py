"""One file, `streamkit.pyz`, and scripts that have nothing else."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

SCRIPT = """
import sys
sys.path.insert(0, "streamkit.pyz")
from streamkit import CSVResponse, EventSourceResponse, EventStreamDecoder

assert "streamkit.pyz" in EventSourceResponse.__init__.__code__.co_filename
assert not {"werkzeug", "flask"} & set(sys.modules), "nothing but the standard library"

def body(response):
    return b"".join(response({"REQUEST_METHOD": "GET"}, lambda status, headers: print(status)))

events = EventStreamDecoder().feed(body(EventSourceResponse(["one", "two"])))
print([event.data for event in events])
print(body(CSVResponse([{"a": 1, "b": 2}])))
"""


@pytest.fixture(scope="module")
def pyz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    path = tmp_path_factory.mktemp("pyz") / "streamkit.pyz"
    subprocess.run(["make", "-s", "pyz", f"PYZ={path}", f"PYTHON={sys.executable}"], cwd=ROOT, check=True)
    return path


def test_a_script_that_has_only_the_file(pyz: Path) -> None:
    (pyz.parent / "script.py").write_text(SCRIPT)
    # -I -S: no installed packages, no environment; the file is all there is
    done = subprocess.run(
        [sys.executable, "-I", "-S", "script.py"], cwd=pyz.parent, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [
        "200 OK",
        "['one', 'two']",
        "200 OK",
        r"b'a,b\r\n1,2\r\n'",
    ]


def test_the_file_is_the_command_too(pyz: Path) -> None:
    done = subprocess.run([sys.executable, "-I", str(pyz), "serve", "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert "--port" in done.stdout
