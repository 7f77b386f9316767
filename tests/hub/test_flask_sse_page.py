"""The page for those who come from Flask-SSE: its code runs, and it keeps the promise of three lines."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT

pytest.importorskip("flask")

BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "flask-sse.md").read_text(), re.DOTALL)


def test_three_lines_of_set_up_change() -> None:
    before, after = (block.split("@app.get")[0].splitlines() for block in BLOCKS[:2])
    matcher = difflib.SequenceMatcher(None, before, after)
    changed = [line for line in after if line not in before]
    assert len([line for line in changed if not line.startswith("from flask import")]) == 3, (
        matcher.get_opcodes()
    )
    assert len(before) == len(after)


def test_the_code_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": __name__}  # Flask asks for the module's place
    code = BLOCKS[1] + BLOCKS[2]
    exec(compile(code, "docs/flask-sse.md", "exec"), names)
    client = names["app"].test_client()
    with names["hub"]:
        assert client.get("/hello").text == "Message sent!"
        for path in ("/stream", "/channels?channel=sse"):
            response = client.get(path, headers={"Last-Event-ID": "unknown"}, buffered=False)
            received = b""
            for chunk in response.response:
                received += chunk
                if b"Hello!" in received:
                    break
            response.close()
            assert b"event: greeting\n" in received
            assert b'data: {"message":"Hello!"}\n\n' in received
        assert client.get("/channels?channel=*", method="HEAD").status_code == 200
