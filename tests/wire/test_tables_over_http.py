"""Tables, records and archives over real servers, read by the programs that people read them with."""

from __future__ import annotations

import hashlib
import http.client
import io
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.apps.tables_app import ROWS
from tests.live_server import MODULES, LiveServer, running
from tests.services import program


@pytest.fixture(scope="module", params=["fallback", "gunicorn-gthread"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    if request.param in MODULES:
        pytest.importorskip(MODULES[request.param])
    folder = tmp_path_factory.mktemp("tables")
    with running(request.param, folder, app="tests.apps.tables_app:app") as server:
        yield server


def curl(server: LiveServer, path: str, target: Path, *options: str) -> int:
    """The exit code of curl: 0 for a body that it takes for whole."""
    url = f"http://127.0.0.1:{server.port}{path}"
    return subprocess.run(
        [program("curl"), "-sS", *options, "-o", str(target), url], capture_output=True, timeout=60
    ).returncode


@pytest.mark.parametrize("path", ["/stored.zip", "/deflated.zip"])
def test_an_archive(server: LiveServer, tmp_path: Path, path: str) -> None:
    target = tmp_path / "a.zip"
    assert curl(server, path, target) == 0
    subprocess.run([sys.executable, "-m", "zipfile", "-t", str(target)], check=True, capture_output=True)
    if shutil.which("unzip"):
        done = subprocess.run(["unzip", "-tq", str(target)], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout
    head, body = server.get(path, method="HEAD")
    assert body == b""
    assert head.headers["Content-Length"] == (str(target.stat().st_size) if path == "/stored.zip" else None)


@pytest.mark.parametrize("path", ["/broken.zip", "/broken.csv"])
def test_what_breaks_off_is_an_error_for_clients(server: LiveServer, tmp_path: Path, path: str) -> None:
    assert curl(server, path, tmp_path / "broken") != 0
    assert curl(server, path, tmp_path / "compressed", "--compressed") != 0
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        server.get(path)


def test_a_broken_archive_is_refused_even_if_it_was_kept(server: LiveServer, tmp_path: Path) -> None:
    target = tmp_path / "broken.zip"
    curl(server, "/broken.zip", target)
    assert target.stat().st_size > 0
    assert not zipfile.is_zipfile(target)


def test_pandas_reads_the_table(server: LiveServer) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_csv(f"http://127.0.0.1:{server.port}/table.csv")
    assert list(frame.columns) == ["id", "name", "half"]
    assert len(frame) == ROWS
    assert int(frame["id"].sum()) == ROWS * (ROWS + 1) // 2
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        pandas.read_csv(f"http://127.0.0.1:{server.port}/broken.csv")


def test_polars_reads_the_table(server: LiveServer) -> None:
    polars = pytest.importorskip("polars")
    frame = polars.read_csv(io.BytesIO(server.get("/table.csv")[1]))
    assert frame.shape == (ROWS, 3)


def test_the_closing_record_over_the_wire(server: LiveServer) -> None:
    body = server.get("/records")[1]
    *lines, last = body.splitlines(keepends=True)
    assert json.loads(last) == {"rows": ROWS, "sha256": hashlib.sha256(b"".join(lines)).hexdigest()}


class TestCompression:
    def test_a_client_that_decodes(self, server: LiveServer, tmp_path: Path) -> None:
        plain, decoded = tmp_path / "plain", tmp_path / "decoded"
        assert curl(server, "/table.csv", plain) == 0
        assert curl(server, "/table.csv", decoded, "--compressed") == 0
        assert plain.read_bytes() == decoded.read_bytes()
        assert plain.read_bytes().count(b"\r\n") == ROWS + 1

    def test_the_header(self, server: LiveServer) -> None:
        coded, body = server.get("/table.csv", {"Accept-Encoding": "gzip"})
        plain, whole = server.get("/table.csv")
        head, nothing = server.get("/table.csv", {"Accept-Encoding": "gzip"}, "HEAD")
        assert coded.headers["Content-Encoding"] == head.headers["Content-Encoding"] == "gzip"
        assert plain.headers["Content-Encoding"] is None
        assert coded.headers["Vary"] == plain.headers["Vary"] == "Accept-Encoding"
        assert len(body) < len(whole) / 2
        assert nothing == b""

    def test_the_end_of_the_coding_is_there_only_at_the_end(self, server: LiveServer) -> None:
        import zlib

        decoder = zlib.decompressobj(31)
        decoder.decompress(server.get("/table.csv", {"Accept-Encoding": "gzip"})[1])
        assert decoder.eof
        with pytest.raises((http.client.IncompleteRead, ConnectionError)) as caught:
            server.get("/broken.csv", {"Accept-Encoding": "gzip"})
        if isinstance(caught.value, http.client.IncompleteRead):
            decoder = zlib.decompressobj(31)
            assert decoder.decompress(caught.value.partial).startswith(b"id,name\r\n0,row 0\r\n")
            assert not decoder.eof
