"""`python -m streamkit schema`: what it prints, and how it tells a user's mistake."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from streamkit.cli import main

ROOT = Path(__file__).resolve().parent.parent.parent

EVENTS = '''
from streamkit.formats.event_schema import event

@event("price")
class Price:
    """A price has changed."""
    symbol: str
    value: float = 0.0
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to be in; modules of tests before are forgotten."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.setattr(sys, "modules", {**sys.modules})
    return tmp_path


def schema(*arguments: str) -> int:
    return main(["schema", *arguments])


@pytest.mark.parametrize("options", [[], ["--format", "json"], ["--json"]])
def test_a_fragment_of_openapi(folder: Path, capsys: pytest.CaptureFixture[str], options: list[str]) -> None:
    (folder / "shop").mkdir()
    (folder / "shop" / "shop_events.py").write_text(EVENTS)
    assert schema("shop.shop_events", *options) == 0
    fragment = json.loads(capsys.readouterr().out)
    assert list(fragment) == ["content", "components"]
    (alternative,) = fragment["content"]["text/event-stream"]["itemSchema"]["oneOf"]
    assert alternative["properties"]["event"] == {"const": "price"}
    assert fragment["components"]["schemas"]["Price"]["required"] == ["symbol"]


def test_a_markdown_table(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "shop_events.py").write_text(EVENTS)
    assert schema("shop_events", "--format", "markdown") == 0
    assert capsys.readouterr().out.splitlines() == [
        "| event | field | type | required | meaning |",
        "|---|---|---|---|---|",
        "| `price` | | | | A price has changed. |",
        "|  | `symbol` | str | yes |  |",
        "|  | `value` | float | no |  |",
    ]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["no_such_module"], 2, "error: there is no module 'no_such_module' in "),
        (["shop_events:app"], 2, "error: MODULE is 'shop_events:app'; give the name of a Python module"),
        (["shop.py"], 2, "error: there is no module"),
        ([""], 2, "error: MODULE is ''"),
        (["./shop_events.py"], 2, "error: MODULE is './shop_events.py'; write shop_events"),
        (["shop_events.py"], 2, "error: MODULE is 'shop_events.py'; write shop_events"),
        (["shop_events", "--json", "--format", "markdown"], 2, "error: --json and --format markdown exclude"),
        (["shop_events", "--format", "yaml"], 2, "invalid choice: 'yaml'"),
        (["shop_empty"], 1, "error: the module 'shop_empty' declares no events; decorate a class"),
        (["shop_odd"], 1, "error: Odd.field is bytes, which an event cannot have"),
        (["shop_twice"], 1, "error: Price and Second both declare event 'price'"),
    ],
)
def test_mistakes_are_told_in_a_line(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str
) -> None:
    (folder / "shop_events.py").write_text(EVENTS)
    (folder / "shop_empty.py").write_text("")
    (folder / "shop_odd.py").write_text(EVENTS + '\n@event("odd")\nclass Odd:\n    field: bytes\n')
    (folder / "shop_twice.py").write_text(EVENTS + '\n@event("price")\nclass Second:\n    n: int\n')
    assert schema(*arguments) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert "Traceback" not in captured.err


def test_a_module_that_fails_shows_its_own_traceback(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "shop_broken.py").write_text("1 / 0\n")
    assert schema("shop_broken") == 1
    error = capsys.readouterr().err
    assert "ZeroDivisionError" in error
    assert "error: the module 'shop_broken' cannot be imported; see above" in error


def test_as_a_program(tmp_path: Path) -> None:
    (tmp_path / "shop_events.py").write_text(EVENTS)

    def run(*arguments: str) -> Any:
        return subprocess.run(
            [sys.executable, "-m", "streamkit", "schema", *arguments],
            cwd=tmp_path,
            env={"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    printed = run("shop_events")
    assert (printed.returncode, printed.stderr) == (0, "")
    assert (
        json.loads(printed.stdout)["components"]["schemas"]["Price"]["description"] == "A price has changed."
    )
    assert "examples:" in run("--help").stdout
