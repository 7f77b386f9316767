"""FileResponse: conditional requests and one range by RFC 9110, and files that misbehave."""

from __future__ import annotations

import errno
import io
import os
import socket
import tempfile
import time
from datetime import datetime, timezone
from email import policy
from email.parser import BytesParser
from email.utils import formatdate, parsedate_to_datetime
from pathlib import Path
from typing import Any

import pytest

from streamkit import FileResponse
from streamkit.errors import StreamkitError
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
    "header", ["items=0-1", "bytes=5-1", "bytes=a-b", "bytes=+1-2", "bytes=", "bytes=" + "0-0," * 10_000]
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


def parts(answer: Answer) -> list[tuple[str, str, bytes]]:
    """Content-Range, Content-Type and content of every part, by Python's own parser of multipart."""
    head = f"Content-Type: {answer.headers['Content-Type']}\r\n\r\n".encode()
    message = BytesParser(policy=policy.compat32).parsebytes(head + answer.body)
    assert message.get_content_type() == "multipart/byteranges"
    assert message.is_multipart()
    assert not message.defects
    return [
        (part["Content-Range"], part["Content-Type"], part.get_payload(decode=True))
        for part in message.get_payload()
    ]


def test_several_ranges(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(b"0123456789" * 100)
    # The third joins the second, the fourth the first, the last is not there.
    answer = get(path, range="bytes=997-998, 0-1, 1-2, -1, 5000-6000")
    assert answer.status[:3] == "206"
    assert "Content-Range" not in answer.headers  # 15.3.7.2
    assert answer.headers["Content-Length"] == str(len(answer.body))
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert answer.headers["ETag"] == get(path).headers["ETag"]
    kind = "text/plain; charset=utf-8"
    assert parts(answer) == [("bytes 997-999/1000", kind, b"789"), ("bytes 0-2/1000", kind, b"012")]


def test_several_ranges_that_come_to_one_are_sent_plainly(path: Path) -> None:
    for header in ("bytes=0-1,2-3", "bytes=0-3,9999-", "bytes=0-2,1-3,0-0"):
        answer = get(path, range=header)
        assert (answer.status[:3], answer.headers["Content-Range"]) == ("206", "bytes 0-3/1024")
        assert answer.body == DATA[:4]


def test_parts_that_are_longer_than_the_file_with_what_goes_around_them(path: Path) -> None:
    """RFC 9110 section 17.15: a request must not make the server send more than the file."""
    for count, status in {5: "206", 50: "200"}.items():
        answer = get(path, range="bytes=" + ",".join(f"{10 * n}-{10 * n}" for n in range(count)))
        assert answer.status[:3] == status
        assert len(answer.body) == int(answer.headers["Content-Length"]) <= len(DATA)


def test_a_hundred_parts(path: Path) -> None:
    path.write_bytes(DATA * 20)
    header = "bytes=" + ",".join(f"{10 * n}-{10 * n}" for n in range(100))
    answer = get(path, range=header)
    assert len(answer.body) == int(answer.headers["Content-Length"])
    assert [content for _, _, content in parts(answer)] == [DATA[10 * n : 10 * n + 1] for n in range(100)]


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


@pytest.mark.parametrize("etag", [False, '"v1"', None])
def test_if_range_with_the_date_of_a_young_file(path: Path, etag: Any) -> None:
    """It may change again within the same second (8.8.2.2), whatever its tag is."""
    os.utime(path)
    date = Answer(FileResponse(path, etag=etag)).headers["Last-Modified"]
    answer = Answer(FileResponse(path, etag=etag), HTTP_RANGE="bytes=0-1", HTTP_IF_RANGE=date)
    assert (answer.status[:3], answer.body) == ("200", DATA)


def test_if_range_with_a_date_where_the_file_may_have_been_sent_compressed(path: Path) -> None:
    """A tag tells the codings apart, a date does not: the rest of the file is not that of its gzip form."""
    whole = Answer(FileResponse(path, compress=True), HTTP_ACCEPT_ENCODING="gzip")
    assert whole.headers["Content-Encoding"] == "gzip"
    date = whole.headers["Last-Modified"]
    part = {"HTTP_RANGE": "bytes=10-", "HTTP_ACCEPT_ENCODING": "gzip"}
    assert Answer(FileResponse(path, compress=True), HTTP_IF_RANGE=date, **part).status[:3] == "200"
    strong = Answer(FileResponse(path, compress=True)).headers["ETag"]
    assert Answer(FileResponse(path, compress=True), HTTP_IF_RANGE=strong, **part).body == DATA[10:]


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
        "data:,a.jpg": "image/jpeg",  # a name is no URL
        "ab:evil.html?.jpg": "image/jpeg",
        "ab:evil.html#.jpg": "image/jpeg",
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
    with pytest.raises(TypeError, match="a path, a binary file or read_range"):
        FileResponse(7)  # type: ignore[arg-type]


def test_a_socket_and_a_device_are_no_files(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        with pytest.raises(ValueError, match="not a regular file"):
            FileResponse(tmp_path / "socket")
    with pytest.raises(ValueError, match="not a regular file"):
        FileResponse("/dev/zero")
    with open("/dev/zero", "rb") as device, pytest.raises(ValueError, match="not a regular file"):
        FileResponse(device)


def test_a_file_that_may_not_be_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: Any, **__: Any) -> int:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr("os.open", denied)  # root may read everything
    with pytest.raises(PermissionError):
        FileResponse(path)


def test_names_from_the_disk_are_made_presentable(tmp_path: Path) -> None:
    path = tmp_path / "a\nb\u202e.txt"
    path.touch()
    answer = Answer(FileResponse(path, as_attachment=True))
    assert answer.headers["Content-Disposition"] == 'attachment; filename="a_b_.txt"'


def test_a_wrong_etag_is_refused(path: Path) -> None:
    for etag in ("abc", 'w/"a"', '"a"b"', ""):
        with pytest.raises(ValueError, match="quotes"):
            FileResponse(path, etag=etag)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"etag": 5}, TypeError, "etag is 5; give a str"),
        ({"etag": b'"x"'}, TypeError, "etag is b'\"x\"'; give a str"),
        ({"etag": True}, TypeError, "etag is True; give a str"),
        ({"headers": {"etag": "v1"}}, ValueError, "etag is 'v1'; give it with its quotes"),
        ({"last_modified": datetime.now(timezone.utc)}, TypeError, r"of a datetime its timestamp\(\)"),
        ({"last_modified": formatdate(OLD)}, TypeError, "last_modified is '.*'; give seconds"),
        ({"last_modified": True}, TypeError, "last_modified is True; give seconds"),
        ({"last_modified": float("nan")}, ValueError, "nan is no date"),
        ({"last_modified": 1e15}, ValueError, "is no date"),
        ({"as_attachment": "a.txt"}, TypeError, "as_attachment is 'a.txt'; .* the name is filename="),
        ({"repr_digest": "sha-256"}, TypeError, "repr_digest is 'sha-256'; give True, False, or"),
        ({"mimetype": "a/b\r\nX: y"}, ValueError, "header 'Content-Type' holds the control character"),
        ({"mimetype": b"a/b"}, TypeError, "mimetype is b'a/b'; give a text"),
        ({"mimetype": "pdf"}, ValueError, "mimetype is 'pdf'; give a type and a subtype"),
        ({"filename": 5}, TypeError, "filename is int; give the name as str"),
        ({"follow": None}, TypeError, "follow is None; give True, False, or a function"),
        ({"precompressed": "gzip"}, TypeError, "precompressed is 'gzip'; it is True or False"),
        ({"directory": "/", "dotfiles": 1}, TypeError, "dotfiles is 1; it is True or False"),
        ({"directory": "/", "follow_symlinks": 1}, TypeError, "follow_symlinks is 1; it is True or False"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_values_that_no_parameter_may_have(
    path: Path, options: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        FileResponse(path, **options)


def test_a_date_from_the_future_is_now(path: Path) -> None:  # RFC 9110 section 8.8.2.1
    before = int(time.time())
    answer = Answer(FileResponse(path, last_modified=time.time() + 1e6))
    assert before <= parsedate_to_datetime(answer.headers["Last-Modified"]).timestamp() <= time.time()
    assert Answer(FileResponse(path, last_modified=-1.5)).headers["Last-Modified"] == formatdate(
        -2, usegmt=True
    )


def test_a_304_without_a_tag_keeps_its_date(path: Path) -> None:  # RFC 9110 section 15.4.5
    date = formatdate(OLD, usegmt=True)
    answer = Answer(FileResponse(path, etag=False), HTTP_IF_MODIFIED_SINCE=date)
    assert (answer.status[:3], answer.headers["Last-Modified"]) == ("304", date)


def test_no_validators(path: Path) -> None:
    answer = Answer(FileResponse(path, etag=False, last_modified=False), HTTP_IF_NONE_MATCH='"x"')
    assert "ETag" not in answer.headers
    assert "Last-Modified" not in answer.headers
    answer = Answer(FileResponse(path, last_modified=0))
    assert answer.headers["Last-Modified"] == formatdate(0, usegmt=True)


def test_validators_in_headers_are_those_that_conditions_are_compared_with(path: Path) -> None:
    headers = {"ETag": '"mine"', "Last-Modified": formatdate(OLD - 9, usegmt=True), "Content-Length": "7"}
    for condition in ({"IF_NONE_MATCH": '"mine"'}, {"IF_MODIFIED_SINCE": formatdate(OLD - 9, usegmt=True)}):
        environ = {f"HTTP_{name}": value for name, value in condition.items()}
        answer = Answer(FileResponse(path, headers=headers), **environ)
        assert answer.status[:3] == "304"
        assert answer.headers["ETag"] == '"mine"'
    answer = Answer(FileResponse(path, headers=headers))
    assert (answer.headers["Content-Length"], answer.body) == ("1024", DATA)


def test_validators_that_are_set_later_are_those_that_conditions_are_compared_with(path: Path) -> None:
    def ask(**headers: str) -> Answer:
        response = FileResponse(path)
        response.headers["ETag"] = '"v9"'
        response.headers["Last-Modified"] = formatdate(OLD + 9, usegmt=True)
        environ = {f"HTTP_{name.upper()}": value for name, value in headers.items()}
        return Answer(response, **environ)

    own, date = get(path).headers["ETag"], formatdate(OLD + 9, usegmt=True)
    assert ask(if_none_match='"v9"').status[:3] == "304"
    assert ask(if_none_match=own).headers["ETag"] == '"v9"'
    assert ask(if_modified_since=date).status[:3] == "304"
    assert ask(if_match='"v9"').status[:3] == "200"
    assert ask(if_match=own).status[:3] == "412"
    for condition, status in {'"v9"': "206", own: "200", date: "206"}.items():
        assert ask(range="bytes=0-1", if_range=condition).status[:3] == status


def test_validators_that_are_taken_away_later_are_not_compared(path: Path) -> None:
    etag = get(path).headers["ETag"]
    response = FileResponse(path)
    del response.headers["ETag"]
    del response.headers["Last-Modified"]
    answer = Answer(response, HTTP_RANGE="bytes=0-1", HTTP_IF_RANGE=etag, HTTP_IF_NONE_MATCH=etag)
    assert (answer.status[:3], answer.body) == ("200", DATA)
    assert not {"ETag", "Last-Modified"} & set(answer.headers)


def test_a_young_file_has_a_weak_tag(tmp_path: Path) -> None:
    (tmp_path / "new").write_bytes(b"x")
    etag = get(tmp_path / "new").headers["ETag"]
    assert etag.startswith('W/"')
    assert get(tmp_path / "new", if_none_match=etag).status[:3] == "304"
    assert get(tmp_path / "new", if_match=etag).status[:3] == "412"  # 13.1.1: strong comparison
    assert get(tmp_path / "new", range="bytes=0-0", if_range=etag).status[:3] == "200"


def test_lists_of_tags_and_the_asterisk(path: Path) -> None:
    etag = get(path).headers["ETag"]
    assert get(path, if_none_match=f'"a", W/{etag}').status[:3] == "304"
    assert get(path, if_none_match="*").status[:3] == "304"
    assert get(path, if_match=f'"a", {etag}').status[:3] == "200"
    assert get(path, if_match="*").status[:3] == "200"
    assert get(path, if_match=f"W/{etag}").status[:3] == "412"
    # If-None-Match decides alone (13.1.3)
    same = formatdate(OLD, usegmt=True)
    assert get(path, if_none_match='"other"', if_modified_since=same).status[:3] == "200"


def test_a_refused_request_does_not_download_an_empty_file(path: Path) -> None:
    for headers in ({"range": "bytes=5000-"}, {"if_match": '"other"'}):
        environ = {f"HTTP_{name.upper()}": value for name, value in headers.items()}
        response = FileResponse(path, as_attachment=True, headers={"Access-Control-Allow-Origin": "*"})
        answer = Answer(response, **environ)
        assert "Content-Disposition" not in answer.headers
        assert answer.headers["Access-Control-Allow-Origin"] == "*"


def test_a_refused_request_is_not_stored_in_place_of_the_file(path: Path) -> None:  # RFC 9111 section 3
    for headers in (
        {"range": "bytes=5000-"},
        {"if_match": '"other"'},
        {"if_unmodified_since": formatdate(0, usegmt=True)},
    ):
        environ = {f"HTTP_{name.upper()}": value for name, value in headers.items()}
        fresh = {"Cache-Control": "public, max-age=3600", "Expires": formatdate(OLD, usegmt=True)}
        answer = Answer(FileResponse(path, headers={**fresh, "CDN-Cache-Control": "max-age=9"}), **environ)
        assert answer.status[:2] == "41"
        stored = {"Cache-Control", "CDN-Cache-Control", "Expires", "ETag", "Last-Modified"}
        assert not stored & set(answer.headers)


def test_temporary_files() -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(DATA)  # not flushed, and the position is at the end
        response = FileResponse(file, filename="x.bin")
        assert response.headers["Content-Length"] == str(len(DATA))
        assert response.headers["ETag"]
        assert Answer(response).body == DATA
        assert file.closed


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


def test_a_known_server_sends_one_range_itself(path: Path) -> None:
    outcomes: list[Any] = []
    environ: dict[str, Any] = {
        "REQUEST_METHOD": "GET",
        "HTTP_RANGE": "bytes=100-349",
        "wsgi.file_wrapper": Wrapper,
        "SERVER_SOFTWARE": "waitress",
    }
    response = FileResponse(path, on_close=lambda stream: outcomes.append((stream.outcome, stream.bytes)))
    iterable: Any = response(environ, lambda *_: None)
    assert isinstance(iterable, Wrapper)
    assert os.lseek(iterable.filelike.fileno(), 0, os.SEEK_CUR) == 100  # where gunicorn's sendfile begins
    assert b"".join(iterable) == DATA[100:350]  # and no further
    iterable.close()
    assert outcomes == [("completed", 250)]


@pytest.mark.parametrize("server", ["waitress", "another"])
def test_a_file_that_the_view_has_closed_ends_the_response(path: Path, server: str) -> None:
    ended: list[str] = []
    with path.open("rb") as file:
        response = FileResponse(file)
    response.call_on_close(lambda: ended.append("ended"))
    environ = {"REQUEST_METHOD": "GET", "wsgi.file_wrapper": Wrapper, "SERVER_SOFTWARE": server}
    with pytest.raises(ValueError, match="the file was closed"):
        response(environ, lambda *_: pytest.fail("started"))
    assert ended == ["ended"]


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("HEAD", {}),
        ("GET", {"HTTP_IF_NONE_MATCH": "*"}),
        ("GET", {"HTTP_RANGE": "bytes=0-1"}),
        ("GET", {"HTTP_ACCEPT_ENCODING": "gzip"}),
    ],
)
def test_a_second_request_does_not_break_the_first(path: Path, method: str, headers: dict[str, str]) -> None:
    """One response for all requests is a mistake, of the one who made it and not of the client that came first."""
    path.write_bytes(DATA * 1000)
    Path(f"{path}.gz").write_bytes(b"shorter")
    response = FileResponse(path, precompressed=True)
    body = response({"REQUEST_METHOD": "GET"}, lambda *_: None)
    blocks = iter(body)
    first = next(blocks)
    with pytest.raises(StreamkitError, match="sent once"):
        Answer(response, method, **headers)
    assert first + b"".join(blocks) == DATA * 1000
    response.close()


@pytest.mark.parametrize("options", [{"max_bytes": 10_000}, {"max_duration": 60}])
def test_what_has_to_be_counted_is_not_left_to_the_server(path: Path, options: Any) -> None:
    environ = {"REQUEST_METHOD": "GET", "wsgi.file_wrapper": Wrapper, "SERVER_SOFTWARE": "waitress"}
    iterable: Any = FileResponse(path, **options)(environ, lambda *_: None)
    assert not isinstance(iterable, Wrapper)
    iterable.close()


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
