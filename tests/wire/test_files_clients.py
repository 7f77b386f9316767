"""Real downloaders, players and readers of Parquet against files under gunicorn."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
from base64 import b64encode
from collections.abc import Iterator
from email import policy
from email.parser import BytesParser
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import eventually
from tests.live_server import LiveServer, running
from tests.services import program

pytest.importorskip("gunicorn")

SIZE = 5_000_000
OLD = 1_600_000_000
DATA = random.Random(6).randbytes(SIZE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[LiveServer]:
    place(folder / "data.bin", DATA)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FILES", str(folder))
        with running("gunicorn-gthread", folder, "tests.apps.files_app:app") as server:
            yield server


def place(path: Path, content: bytes, modified: int = OLD) -> None:
    path.write_bytes(content)
    os.utime(path, (modified, modified))


def run(*command: str, cwd: Path) -> subprocess.CompletedProcess[bytes]:
    environ = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    return subprocess.run(command, cwd=cwd, capture_output=True, timeout=60, env=environ, check=False)


def url(server: LiveServer, name: str) -> str:
    return f"http://127.0.0.1:{server.port}/{name}"


def asked(server: LiveServer, name: str) -> list[dict[str, str]]:
    """The requests for this file so far."""
    return [request for request in server.state()["requests"] if request["path"] == f"/{name}"]


def half(tmp_path: Path) -> Path:
    """Half a download."""
    path = tmp_path / "data.bin"
    path.write_bytes(DATA[:2_000_000])
    return path


def test_curl_resumes(server: LiveServer, tmp_path: Path) -> None:
    path = half(tmp_path)
    done = run(program("curl"), "-sSf", "-C", "-", "-O", url(server, "data.bin"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert path.read_bytes() == DATA
    assert asked(server, "data.bin")[-1] == {
        "method": "GET",
        "path": "/data.bin",
        "status": "206 PARTIAL CONTENT",
        "HTTP_RANGE": "bytes=2000000-",
    }
    # A download that is complete already: 416, which curl takes as success where it knows the size.
    run(program("curl"), "-sS", "-C", "-", "-O", url(server, "data.bin"), cwd=tmp_path)
    assert path.read_bytes() == DATA


def test_curl_ranges(server: LiveServer, tmp_path: Path) -> None:
    curl = program("curl")
    for asked_for, expected in {"0-0": DATA[:1], "-9": DATA[-9:], "4999999-": DATA[-1:]}.items():
        done = run(curl, "-sSf", "-r", asked_for, url(server, "data.bin"), cwd=tmp_path)
        assert done.stdout == expected
    done = run(curl, "-sSf", "-D", "head", "-r", "0-9,100-199,-1", url(server, "data.bin"), cwd=tmp_path)
    lines = (tmp_path / "head").read_bytes().splitlines(keepends=True)
    head = [line for line in lines if line.lower().startswith(b"content-type:")]
    message = BytesParser(policy=policy.compat32).parsebytes(b"".join([*head, b"\r\n", done.stdout]))
    parts: list[Any] = message.get_payload()
    assert [part["Content-Range"] for part in parts] == [
        f"bytes 0-9/{SIZE}",
        f"bytes 100-199/{SIZE}",
        f"bytes {SIZE - 1}-{SIZE - 1}/{SIZE}",
    ]


def test_wget_resumes(server: LiveServer, tmp_path: Path) -> None:
    path = half(tmp_path)
    for _ in range(2):  # the second time there is nothing left to get
        done = run(program("wget"), "-q", "-c", url(server, "data.bin"), cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert path.read_bytes() == DATA
    assert [request["status"][:3] for request in asked(server, "data.bin")[-2:]] == ["206", "416"]


def test_aria2c_downloads_in_parallel(server: LiveServer, tmp_path: Path) -> None:
    arguments = ["-x4", "-s4", "-k1M", "--quiet", "--no-conf", "--async-dns=false", url(server, "data.bin")]
    done = run(program("aria2c"), *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    assert (tmp_path / "data.bin").read_bytes() == DATA
    assert sum("HTTP_RANGE" in request for request in asked(server, "data.bin")) >= 3


def test_a_download_whose_file_changed_is_not_stitched_together(
    server: LiveServer, folder: Path, tmp_path: Path
) -> None:
    """What a browser sends: If-Range with the tag of the first half."""
    name = "changing.bin"
    place(folder / name, b"old " * 1000)
    first, _ = server.get(f"/{name}", {"Range": "bytes=0-999"})
    assert first.headers["ETag"].startswith('"')
    place(folder / name, b"new " * 1000, OLD + 60)
    for condition in (first.headers["ETag"], first.headers["Last-Modified"]):
        rest, body = server.get(f"/{name}", {"Range": "bytes=1000-", "If-Range": condition})
        assert (rest.status, body) == (200, b"new " * 1000)
    # aria2c sends no If-Range but looks at the size; curl can be told to ask for the tag.
    done = run(
        *[program("curl"), "-sS", "-o", "out", "-w", "%{http_code}", "-r", "1000-"],
        *["-H", f"If-Range: {first.headers['ETag']}", url(server, name)],
        cwd=tmp_path,
    )
    assert done.stdout == b"200"
    assert (tmp_path / "out").read_bytes() == b"new " * 1000


def test_curl_compares_tags(server: LiveServer, tmp_path: Path) -> None:
    curl = [program("curl"), "-sS", "--etag-compare", "tag", "--etag-save", "tag", "-o", "out"]
    (tmp_path / "tag").touch()
    codes = [run(*curl, "-w", "%{http_code}", url(server, "data.bin"), cwd=tmp_path).stdout for _ in range(2)]
    assert codes == [b"200", b"304"]


def test_the_digest_of_a_download_in_pieces(server: LiveServer, tmp_path: Path) -> None:
    """The server tells the checksum of the whole with every piece."""
    head = [program("curl"), "-sSf", "-D", "head", "-H", "Want-Repr-Digest: sha-512=1", "-o", "data.bin"]
    half(tmp_path)
    assert run(*head, "-C", "-", url(server, "data.bin"), cwd=tmp_path).returncode == 0
    digest = b64encode(hashlib.sha512((tmp_path / "data.bin").read_bytes()).digest()).decode()
    assert f"Repr-Digest: sha-512=:{digest}:" in (tmp_path / "head").read_text()


def test_a_player_seeks_to_an_index_at_the_end(server: LiveServer, folder: Path, tmp_path: Path) -> None:
    """An mp4 as ffmpeg writes it: media first, the index (moov) last."""
    video = folder / "video.mp4"
    made = run(
        *[program("ffmpeg"), "-v", "error", "-f", "lavfi", "-i", "testsrc2=size=640x360:rate=10:duration=20"],
        *["-c:v", "mpeg4", "-q:v", "2", str(video)],
        cwd=tmp_path,
    )
    assert made.returncode == 0, made.stderr
    content = video.read_bytes()
    assert content.index(b"moov") > len(content) * 0.9
    arguments = ["-v", "error", "-of", "json", "-show_format", "-read_intervals", "15%+#1", "-show_packets"]
    done = run(program("ffprobe"), *arguments, url(server, "video.mp4"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert float(answer["format"]["duration"]) == pytest.approx(20, abs=0.2)
    assert float(answer["packets"][0]["pts_time"]) <= 15
    ranges = [request.get("HTTP_RANGE", "") for request in asked(server, "video.mp4")]
    assert len(ranges) >= 2  # the start, the end, and the place that was sought
    eventually(lambda: server.state()["open"] == [])  # the server learns that the player has gone


def test_polars_reads_a_column_of_a_parquet_file(server: LiveServer, folder: Path) -> None:
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame({"a": list(range(100_000)), "b": [f"text {n}" for n in range(100_000)]})
    frame.write_parquet(folder / "table.parquet", row_group_size=10_000)
    read = polars.scan_parquet(url(server, "table.parquet")).select(polars.col("a").sum()).collect()
    assert read.item() == sum(range(100_000))
    ranged = [request for request in asked(server, "table.parquet") if "HTTP_RANGE" in request]
    assert ranged
    assert all(request["status"].startswith("206") for request in ranged)


class RangedFile:
    """A file object over HTTP, as fsspec's is: one range for each read."""

    def __init__(self, server: LiveServer, name: str, size: int) -> None:
        self.closed = False
        self._server = server
        self._name = name
        self._size = size
        self._position = 0

    def read(self, size: int = -1) -> bytes:
        stop = self._size if size < 0 else min(self._size, self._position + size)
        if stop <= self._position:
            return b""
        asked_for = {"Range": f"bytes={self._position}-{stop - 1}", "Accept-Encoding": "gzip, deflate, br"}
        response, body = self._server.get(f"/{self._name}", asked_for)
        assert response.status == 206
        self._position = stop
        return body

    def seek(self, offset: int, whence: int = 0) -> int:
        self._position = (0, self._position, self._size)[whence] + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True


def test_pyarrow_reads_a_column_of_a_parquet_file(server: LiveServer, folder: Path) -> None:
    """With Accept-Encoding beside each Range, as fsspec sends it."""
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pyarrow.table({"a": list(range(50_000)), "b": ["x"] * 50_000})
    parquet.write_table(table, folder / "arrow.parquet")
    place(folder / "arrow.parquet.gz", b"never to be mixed into a range")
    size = int(server.get("/arrow.parquet", method="HEAD")[0].headers["Content-Length"])
    read = parquet.read_table(RangedFile(server, "arrow.parquet", size), columns=["a"])
    assert read.column("a").to_pylist() == list(range(50_000))


def test_pandas_over_fsspec(server: LiveServer, folder: Path) -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("fsspec")
    pytest.importorskip("aiohttp")
    pytest.importorskip("pyarrow")
    pandas.DataFrame({"a": range(1000)}).to_parquet(folder / "pandas.parquet")
    assert pandas.read_parquet(url(server, "pandas.parquet"))["a"].sum() == sum(range(1000))
