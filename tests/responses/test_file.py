"""FileResponse: conditional requests and one range by RFC 9110, and files that misbehave."""

from __future__ import annotations

import io
import os
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from streamkit import FileResponse
from tests.responses.test_streamed import Answer

pytestmark = pytest.mark.usefixtures("nothing_left")

DATA = bytes(range(256)) * 4
OLD = 1_600_000_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "data.bin"
    path.write_bytes(DATA)
    os.utime(path, (OLD, OLD))
    return path


def get(path: Any, method: str = "GET", **headers: str) -> Answer:
    environ = {f"HTTP_{name.upper()}": value for name, value in headers.items()}
    return Answer(FileResponse(path), method, **environ)


def test_the_whole_file(path: Path) -> None:
    answer = get(path)
    assert (answer.status, answer.body) == ("200 OK", DATA)
    assert answer.headers["Content-Length"] == str(len(DATA))
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert answer.headers["Last-Modified"] == formatdate(OLD, usegmt=True)
    assert answer.headers["ETag"].startswith('"')  # still for long enough to be strong (8.8.1)


def test_head(path: Path) -> None:
    assert get(path, "HEAD").headers == get(path).headers
    assert get(path, "HEAD").body == b""


@pytest.mark.parametrize(
    ("header", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=1023-1023", 1023, 1024),
        ("bytes=5-", 5, 1024),
        ("bytes=-1", 1023, 1024),
        ("bytes=-5000", 0, 1024),
        ("bytes=1000-99999999999999999999999", 1000, 1024),
        ("BYTES=1-2", 1, 3),
    ],
)
def test_one_range(path: Path, header: str, start: int, stop: int) -> None:
    answer = get(path, range=header)
    assert (answer.status[:3], answer.body) == ("206", DATA[start:stop])
    assert answer.headers["Content-Range"] == f"bytes {start}-{stop - 1}/1024"
    assert answer.headers["Content-Length"] == str(stop - start)
    assert answer.headers["ETag"] == get(path).headers["ETag"]


@pytest.mark.parametrize(
    "header", ["items=0-1", "bytes=5-1", "bytes=a-b", "bytes=+1-2", "bytes=", "bytes=0-1,4-5"]
)
def test_ranges_that_are_ignored(path: Path, header: str) -> None:
    answer = get(path, range=header)
    assert (answer.status, answer.body) == ("200 OK", DATA)


@pytest.mark.parametrize("header", ["bytes=1024-", "bytes=-0", "bytes=5000-6000"])
def test_ranges_that_cannot_be_satisfied(path: Path, header: str) -> None:
    answer = get(path, range=header)
    assert (answer.status[:3], answer.body) == ("416", b"")
    assert answer.headers["Content-Range"] == "bytes */1024"
    assert answer.headers["Content-Length"] == "0"


def test_a_range_is_for_get_alone(path: Path) -> None:
    assert get(path, "HEAD", range="bytes=0-1").status == "200 OK"
    assert get(path, "POST", range="bytes=0-1").body == DATA


def test_an_empty_file_has_no_range(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    answer = get(tmp_path / "empty", range="bytes=0-")
    assert (answer.status, answer.body, answer.headers["Content-Length"]) == ("200 OK", b"", "0")


def test_preconditions_come_before_the_range(path: Path) -> None:
    etag = get(path).headers["ETag"]
    for condition in ({"if_none_match": etag}, {"if_modified_since": formatdate(OLD, usegmt=True)}):
        answer = get(path, range="bytes=0-1", **condition)
        assert (answer.status[:3], answer.body) == ("304", b"")
        assert answer.headers["ETag"] == etag
        assert "Content-Length" not in answer.headers
    for condition in ({"if_match": '"other"'}, {"if_unmodified_since": formatdate(OLD - 1, usegmt=True)}):
        answer = get(path, range="bytes=0-1", **condition)
        assert (answer.status[:3], answer.body) == ("412", b"")
    assert get(path, if_match=etag).status == "200 OK"


def test_if_range(path: Path) -> None:
    etag = get(path).headers["ETag"]
    same = formatdate(OLD, usegmt=True)
    later = formatdate(OLD + 1, usegmt=True)
    assert get(path, range="bytes=0-1", if_range=etag).body == DATA[:2]
    assert get(path, range="bytes=0-1", if_range=same).body == DATA[:2]
    for changed in ('"other"', f"W/{etag}", later):  # 13.1.5: strong, or exactly equal
        assert get(path, range="bytes=0-1", if_range=changed).body == DATA
    assert get(path, range="bytes=5000-", if_range='"other"').body == DATA


def test_names(path: Path) -> None:
    assert "Content-Disposition" not in get(path).headers
    shown = Answer(FileResponse(path, filename="naïve plan.txt")).headers["Content-Disposition"]
    assert shown.startswith("inline; filename=")
    assert "filename*=UTF-8''na%C3%AFve%20plan.txt" in shown
    saved = Answer(FileResponse(path, as_attachment=True)).headers["Content-Disposition"]
    assert saved == 'attachment; filename="data.bin"'
    with pytest.raises(ValueError, match="filename"):
        FileResponse(path, filename="two\r\nlines")


def test_types(tmp_path: Path) -> None:
    for name, expected in {
        "a.html": "text/html; charset=utf-8",
        "a.png": "image/png",
        "a.tar.gz": "application/octet-stream",
        "a": "application/octet-stream",
    }.items():
        (tmp_path / name).touch()
        response = FileResponse(tmp_path / name)
        assert response.headers["Content-Type"] == expected
        response.close()


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        FileResponse(tmp_path / "missing")
    with pytest.raises(IsADirectoryError, match="directory"):
        FileResponse(tmp_path)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ValueError, match="not a regular file"):
        FileResponse(tmp_path / "fifo")
    with pytest.raises(ValueError, match="NUL"):
        FileResponse(f"{tmp_path}/a\0b")
    with pytest.raises(TypeError, match="text mode"):
        FileResponse(io.StringIO("x"))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="path or a binary file"):
        FileResponse(7)  # type: ignore[arg-type]


def test_file_objects() -> None:
    response = FileResponse(io.BytesIO(DATA), filename="x.bin", etag='"v1"', last_modified=OLD)
    assert response.headers["ETag"] == '"v1"'
    answer = Answer(response, HTTP_RANGE="bytes=1-3")
    assert answer.body == DATA[1:4]


def test_a_file_that_shrinks_while_it_is_sent_is_no_whole_answer(tmp_path: Path) -> None:
    path = tmp_path / "big"
    path.write_bytes(b"x" * 1_000_000)
    response = FileResponse(path)
    body = iter(response({"REQUEST_METHOD": "GET"}, lambda *_: None))
    assert next(body)
    os.truncate(path, 300_000)
    with pytest.raises(OSError, match="truncated"):
        for _ in body:
            pass


def test_a_file_that_grows_is_sent_as_long_as_promised(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"x" * 600_000)
    response = FileResponse(path)
    body = iter(response({"REQUEST_METHOD": "GET"}, lambda *_: None))
    first = next(body)
    with path.open("ab") as log:
        log.write(b"y" * 1000)
    assert len(first + b"".join(body)) == 600_000


def test_a_file_that_is_replaced_is_sent_as_it_was(path: Path) -> None:
    response = FileResponse(path)
    other = path.with_name("other")
    other.write_bytes(b"new")
    other.replace(path)
    assert Answer(response).body == DATA


class Wrapper:
    """A server's wsgi.file_wrapper."""

    def __init__(self, filelike: Any, size: int) -> None:
        self.filelike = filelike
        self.close = filelike.close

    def __iter__(self) -> Any:
        return iter(lambda: self.filelike.read(100), b"")


def test_a_known_server_sends_whole_files_itself(path: Path) -> None:
    outcomes: list[Any] = []
    response = FileResponse(path, on_close=lambda stream: outcomes.append((stream.outcome, stream.bytes)))
    environ: dict[str, Any] = {
        "REQUEST_METHOD": "GET",
        "wsgi.file_wrapper": Wrapper,
        "SERVER_SOFTWARE": "waitress",
    }
    iterable: Any = response(environ, lambda *_: None)
    assert isinstance(iterable, Wrapper)
    assert b"".join(iterable) == DATA
    iterable.close()
    iterable.close()
    assert outcomes == [("completed", len(DATA))]


def test_a_server_that_sends_less_than_the_whole_file_is_seen(path: Path) -> None:
    environ: dict[str, Any] = {
        "REQUEST_METHOD": "GET",
        "wsgi.file_wrapper": Wrapper,
        "SERVER_SOFTWARE": "waitress",
    }
    outcomes: list[Any] = []
    iterable: Any = FileResponse(path, on_close=lambda s: outcomes.append(s.outcome))(
        environ, lambda *_: None
    )
    iterable.filelike.read(10)
    iterable.close()
    assert outcomes == ["client_gone"]
    iterable = FileResponse(path, on_close=lambda s: outcomes.append(s.outcome))(environ, lambda *_: None)
    os.truncate(path, 10)
    with pytest.raises(OSError, match="truncated"):
        for _ in iterable:
            pass
    with pytest.raises(OSError, match="truncated"):
        iterable.close()
    assert outcomes == ["client_gone", "failed"]
