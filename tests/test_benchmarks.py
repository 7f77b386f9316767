"""The benchmarks are run rarely: what they ask of the package is tried here, on a few rows."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

import pytest

from benchmarks import csv_rows, json_lines, memory, tables
from tests.conftest import ROOT


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "benchmarks").glob("[a-z]*.py")))
def test_each_finds_what_it_imports(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUB_URL", "memory://")
    try:
        import_module(f"benchmarks.{name}")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ("benchmarks", "streamkit"):
            raise
        pytest.skip(f"{error.name} is not installed")


def test_the_sides_of_the_tables_agree() -> None:
    table = list(tables.rows(100))
    assert b"".join(csv_rows.chunks(table)) == csv_rows.bare(table).encode()
    records = list(tables.records(100))
    lines = b"".join(json_lines.chunks(records)).splitlines()
    assert [json.loads(line) for line in lines] == [json.loads(line) for line in json_lines.bare(records)]


def test_the_sides_of_the_stored_tables_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "STORED_ROWS", 100)
    stored = tables.Stored(tmp_path / "orders.db")
    try:
        assert b"".join(stored.csv()).partition(b"\r\n")[2] == "".join(stored.bare_csv()).encode()
        pytest.importorskip("orjson")
        assert b"".join(stored.ndjson()) == b"".join(stored.bare_ndjson())
    finally:
        stored.connection.close()


@pytest.mark.parametrize("kind", ["csv", "ndjson"])
def test_an_export_tells_its_bytes_and_its_peak(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    memory.export(kind, 100)
    sent, peak = map(int, capsys.readouterr().out.split())
    assert 0 < sent < peak
