"""Five seconds of the soak; the long one is `python -m tests.soak`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.soak import MOST_SECONDS, soak

pytest.importorskip("gunicorn")


def test_every_count_is_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WRITE_SECONDS", str(MOST_SECONDS))
    assert soak(5, clients=12, seed=7, folder=tmp_path) == []
