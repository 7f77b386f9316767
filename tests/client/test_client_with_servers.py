"""The client against the servers that streamkit runs on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamkit import EventSource
from streamkit.client.download import download
from streamkit.client.event_source import Retry
from streamkit.client.readers import read_events, read_json_lines
from streamkit.errors import DownloadError, StreamRefused
from tests.live_server import MODULES, LiveServer, running

FILE = bytes(range(256)) * 4096


@pytest.fixture(params=["fallback", "gunicorn-gthread", "waitress"])
def live(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LiveServer]:
    if request.param in MODULES:
        pytest.importorskip(MODULES[request.param])
    with running(request.param, tmp_path) as server:
        yield server


class Interrupted(Exception):
    """What stands for Ctrl-C in the middle of a download."""


def test_reading(live: LiveServer, tmp_path: Path) -> None:
    base = f"http://127.0.0.1:{live.port}"
    retries: list[Retry] = []
    with EventSource(f"{base}/events", max_retries=0, on_retry=retries.append, timeout=20) as source:
        assert [(event.id, event.json()) for event in source] == [(str(n), {"n": n}) for n in range(3)]
    with pytest.raises(StreamRefused) as caught, EventSource(f"{base}/nothing", timeout=20) as source:
        next(source)
    assert caught.value.body == b"no such stream\n"
    assert retries == []

    tokens = live.get("/tokens")[1]
    assert [event.data for event in read_events([tokens[:9], tokens[9:]])] == ["Hel", "lo", "[DONE]"]
    assert list(read_json_lines([live.get("/ndjson")[1]])) == [{"n": n} for n in range(5000)]


def test_downloading(live: LiveServer, tmp_path: Path) -> None:
    original = tmp_path / "original"
    original.write_bytes(FILE)
    os.utime(
        original, (1_700_000_000, 1_700_000_000)
    )  # a file of this second may change unseen: its ETag is weak
    url = f"http://127.0.0.1:{live.port}/named?{original}"
    path = tmp_path / "file"

    def interrupt(done: int, total: int | None) -> None:
        assert total == len(FILE)
        if done > 100_000:
            raise Interrupted

    with pytest.raises(Interrupted):
        download(url, path, progress=interrupt, timeout=20)
    kept = (tmp_path / "file.part").stat().st_size
    assert 100_000 < kept < len(FILE)
    done = download(url, path, timeout=20)
    assert (done.size, done.resumed_from) == (len(FILE), kept)
    assert path.read_bytes() == FILE


def test_a_table_that_breaks_off_is_not_a_file(live: LiveServer, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{live.port}/csv-fail"
    with pytest.raises(DownloadError, match="could not be loaded"):
        download(url, tmp_path / "table.csv", max_retries=0, timeout=20)
    assert not (tmp_path / "table.csv").exists()
