"""`download` against servers that break off, change the file, lie about it, and disks that are full."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from streamkit.client import download as download_module
from streamkit.client.download import Downloaded, download
from streamkit.errors import DigestMismatch, DownloadError
from tests.client.raw_server import Server, chunked, moved

DATA = bytes(range(256)) * 40
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download_module, "FIRST_WAIT", 0.001)


def ok(data: bytes = DATA, *headers: str, etag: str | None = '"one"', sent: int | None = None) -> bytes:
    """A 200 that breaks off after `sent` bytes."""
    lines = ["HTTP/1.1 200 OK", f"Content-Length: {len(data)}", *headers]
    if etag is not None:
        lines.append(f"ETag: {etag}")
    return "\r\n".join([*lines, "", ""]).encode() + data[:sent]


def rest(
    start: int, data: bytes = DATA, *headers: str, etag: str | None = '"one"', sent: int | None = None
) -> bytes:
    head = [
        "HTTP/1.1 206 Partial Content",
        f"Content-Range: bytes {start}-{len(data) - 1}/{len(data)}",
        f"Content-Length: {len(data) - start}",
        *headers,
    ]
    if etag is not None:
        head.append(f"ETag: {etag}")
    return "\r\n".join([*head, "", ""]).encode() + data[start:][:sent]


def sha_header(name: str, data: bytes) -> str:
    return f"{name}: sha-256=:{base64.b64encode(hashlib.sha256(data).digest()).decode()}:"


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def ranges(server: Server) -> list[tuple[str | None, str | None]]:
    return [(headers.get("range"), headers.get("if-range")) for _, headers, _ in server.requests]


def test_a_file_and_its_progress(server: Server, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    url = server.start(ok())
    done = download(url, tmp_path / "file", progress=lambda *told: seen.append(told), timeout=10)
    assert done == Downloaded(tmp_path / "file", len(DATA), 0, False)
    assert (tmp_path / "file").read_bytes() == DATA
    assert left(tmp_path) == {"file"}
    assert seen[0] == (0, len(DATA))
    assert seen[-1] == (len(DATA), len(DATA))
    assert seen == sorted(seen)
    assert server.requests[0][1]["accept-encoding"] == "identity"


def test_an_empty_file_and_one_in_place_of_an_older(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    assert download(server.start(ok(b"")), tmp_path / "file", timeout=10).size == 0
    assert (tmp_path / "file").read_bytes() == b""
    assert left(tmp_path) == {"file"}


def test_it_resumes_within_a_call(server: Server, tmp_path: Path) -> None:
    url = server.start(ok(sent=1000), rest(1000, sent=500), rest(1500))
    assert download(url, tmp_path / "file", timeout=10).resumed_from == 0
    assert (tmp_path / "file").read_bytes() == DATA
    assert ranges(server) == [(None, None), ("bytes=1000-", '"one"'), ("bytes=1500-", '"one"')]


def test_it_resumes_what_an_earlier_call_left(server: Server, tmp_path: Path) -> None:
    url = server.start(ok(sent=1000), rest(1000, DATA, sha_header("Repr-Digest", DATA)))
    with pytest.raises(DownloadError, match=r"1000 bytes are kept in .*file\.part"):
        download(url, tmp_path / "file", max_retries=0, timeout=10)
    assert left(tmp_path) == {"file.part", "file.part.json"}
    assert "http" not in (tmp_path / "file.part.json").read_text()  # a URL may hold a secret
    done = download(url, tmp_path / "file", max_retries=0, timeout=10)
    assert done == Downloaded(tmp_path / "file", len(DATA), 1000, True)
    assert (tmp_path / "file").read_bytes() == DATA
    assert left(tmp_path) == {"file"}


@pytest.mark.parametrize(
    "second",
    [
        ok(DATA[::-1], etag='"two"'),  # If-Range did its work
        rest(1000, DATA[::-1], etag='"two"'),  # it did not
        rest(1000, DATA[::-1], etag='W/"one"'),
        rest(1000, DATA[::-1], etag=None),  # which is against RFC 9110 section 15.3.7
        rest(900, DATA[::-1]),  # another range than asked for
        rest(1000, DATA[::-1] + b"longer"),
        b"HTTP/1.1 206 Partial Content\r\nContent-Type: multipart/byteranges; boundary=x\r\n\r\n",
        b"HTTP/1.1 416 Range Not Satisfiable\r\nContent-Range: bytes */10\r\n\r\n",
        b"HTTP/1.1 416 Range Not Satisfiable\r\n\r\n",
    ],
    ids=["200", "etag", "weak", "no etag", "position", "length", "multipart", "shorter", "416 without size"],
)
def test_a_file_that_changed_starts_over(server: Server, tmp_path: Path, second: bytes) -> None:
    url = server.start(ok(sent=1000), second, ok(DATA[::-1], etag='"two"'))
    download(url, tmp_path / "file", timeout=10)
    assert (tmp_path / "file").read_bytes() == DATA[::-1]
    assert all(ranged == (None, None) for ranged in ranges(server)[2:])


FRIDAY = "Last-Modified: Fri, 20 Nov 2026 10:00:00 GMT"
SATURDAY = "Last-Modified: Sat, 21 Nov 2026 11:00:00 GMT"
DATE = "Date: Sat, 21 Nov 2026 14:00:00 GMT"


@pytest.mark.parametrize(
    ("field", "same"),
    [
        ((SATURDAY,), False),
        (("Last-Modified: yesterday",), False),
        ((FRIDAY,), True),
        (("Last-Modified: Friday, 20-Nov-26 10:00:00 GMT",), True),
        ((), True),  # RFC 9110 section 15.3.7: an answer to If-Range should leave it out
    ],
)
def test_a_date_that_changed_starts_over(
    server: Server, tmp_path: Path, field: tuple[str, ...], same: bool
) -> None:
    """RFC 9110 section 15.3.7.3. The server does not look at If-Range."""
    changed = DATA[:1000] + DATA[1000:][::-1]
    first = ok(DATA, FRIDAY, DATE, etag=None, sent=1000)
    url = server.start(
        first, rest(1000, changed, *field, etag=None), ok(DATA[::-1], SATURDAY, DATE, etag=None)
    )
    download(url, tmp_path / "file", timeout=10)
    assert (tmp_path / "file").read_bytes() == (changed if same else DATA[::-1])


@pytest.mark.parametrize(
    "fields",
    [
        ["Content-Range: bytes 5-9/*"],
        ["Content-Range: bytes 5-9/*", "Content-Length: 5"],
        ["Content-Range: bytes 5-7/*", "Content-Length: 3"],
        ["Content-Range: bytes 5-7/*", "Transfer-Encoding: chunked"],
        ["Content-Range: bytes 5-9/10", "Content-Length: 3"],
        ["Content-Range: bytes 5-4/10", "Content-Length: 0"],
    ],
)
def test_a_range_that_tells_no_end_starts_over(server: Server, tmp_path: Path, fields: list[str]) -> None:
    """RFC 9110 section 14.4: `*` is a length that the server did not know, so more may follow what it sent."""
    head = b'HTTP/1.1 200 OK\r\nETag: "c"\r\nTransfer-Encoding: chunked\r\n\r\n'
    body = chunked(b"OLD", b"") if fields[-1].endswith("chunked") else b"OLD"
    part = "\r\n".join(["HTTP/1.1 206 Partial Content", 'ETag: "c"', *fields, "", ""]).encode() + body
    url = server.start(head + chunked(b"OLDOL"), part, head + chunked(b"OLDOLDOLDO", b""))
    download(url, tmp_path / "file", timeout=10)
    assert (tmp_path / "file").read_bytes() == b"OLDOLDOLDO"
    assert ranges(server) == [(None, None), ("bytes=5-", '"c"'), (None, None)]


def test_a_range_that_breaks_off_is_taken_up_again(server: Server, tmp_path: Path) -> None:
    """Without a length of its own and of the whole; the digest says when it is whole."""
    data = b"OLDOLDOLDO"
    head = b'HTTP/1.1 200 OK\r\nETag: "c"\r\nTransfer-Encoding: chunked\r\n\r\n'
    url = server.start(
        head + chunked(b"OLDOL"),
        b'HTTP/1.1 206 Partial Content\r\nETag: "c"\r\nContent-Range: bytes 5-9/*\r\n\r\nDOL',
        b'HTTP/1.1 206 Partial Content\r\nETag: "c"\r\nContent-Range: bytes 8-9/*\r\n\r\nDO',
    )
    done = download(url, tmp_path / "file", sha256=hashlib.sha256(data).hexdigest(), timeout=10)
    assert done.verified
    assert (tmp_path / "file").read_bytes() == data
    assert [ranged for ranged, _ in ranges(server)] == [None, "bytes=5-", "bytes=8-"]


def test_a_range_that_is_shorter_than_asked_for_is_gone_on_from(server: Server, tmp_path: Path) -> None:
    """RFC 9110 section 15.3.7: a server may send less, and the client asks for the others."""

    def some(start: int, end: int) -> bytes:
        head = f"HTTP/1.1 206 Partial Content\r\nContent-Range: Bytes {start}-{end - 1}/{len(DATA)}\r\n"
        return f'{head}Content-Length: {end - start}\r\nETag: "one"\r\n\r\n'.encode() + DATA[start:end]

    url = server.start(ok(sent=1000), some(1000, 3000), some(3000, 3001), some(3001, len(DATA)))
    download(url, tmp_path / "file", max_retries=1, timeout=10)
    assert (tmp_path / "file").read_bytes() == DATA
    assert [ranged for ranged, _ in ranges(server)] == [None, "bytes=1000-", "bytes=3000-", "bytes=3001-"]


def test_a_short_range_of_a_whole_whose_length_nobody_tells_is_gone_on_from(
    server: Server, tmp_path: Path
) -> None:
    """RFC 9110 section 14.4; a digest that does not fit yet says nothing against the bytes that have come."""

    def some(start: int, end: int) -> bytes:
        head = f"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {start}-{end - 1}/*\r\n"
        return f'{head}Content-Length: {end - start}\r\nETag: "c"\r\n\r\n'.encode() + DATA[start:end]

    head = b'HTTP/1.1 200 OK\r\nETag: "c"\r\nTransfer-Encoding: chunked\r\n\r\n'
    begun = head + chunked(DATA[:1000])
    end = b"HTTP/1.1 416 Range Not Satisfiable\r\nContent-Range: bytes */3000\r\n\r\n"
    url = server.start(begun, some(1000, 3000), some(3000, len(DATA)), begun, some(1000, 3000), end)
    assert download(url, tmp_path / "file", sha256=SHA256, max_retries=1, timeout=10).verified
    assert [ranged for ranged, _ in ranges(server)] == [None, "bytes=1000-", "bytes=3000-"]
    with pytest.raises(DigestMismatch):
        download(url, tmp_path / "file", sha256=SHA256, max_retries=1, timeout=10)


def test_bytes_that_were_thrown_away_are_not_said_to_be_kept(server: Server, tmp_path: Path) -> None:
    url = server.start(ok(sent=1000), rest(900))
    with pytest.raises(DownloadError, match="another part than was asked for; nothing of it is kept"):
        download(url, tmp_path / "file", max_retries=1, timeout=10)
    assert left(tmp_path) == set()


@pytest.mark.parametrize("etag", ['"c"', '"d"'])
def test_a_416_is_compared_with_what_is_known(server: Server, tmp_path: Path, etag: str) -> None:
    """The file is now as long as the part, on a server that does not look at If-Range."""
    first = ok(DATA, etag='"c"', sent=1000)
    if etag == '"d"':
        first = b'HTTP/1.1 200 OK\r\nETag: "c"\r\nTransfer-Encoding: chunked\r\n\r\n' + chunked(DATA[:1000])
    none = b"HTTP/1.1 416 Nothing\r\nETag: %b\r\nContent-Range: bytes */1000\r\n\r\n" % etag.encode()
    url = server.start(first, none, ok(DATA[::-1][:1000], etag='"d"'))
    download(url, tmp_path / "file", timeout=10)
    assert (tmp_path / "file").read_bytes() == DATA[::-1][:1000]


def test_the_part_of_another_url_is_not_used(server: Server, tmp_path: Path) -> None:
    url = server.start(ok(sent=1000), ok(DATA[::-1]))
    with pytest.raises(DownloadError):
        download(url + "/a", tmp_path / "file", max_retries=0, timeout=10)
    download(url + "/b", tmp_path / "file", max_retries=0, timeout=10)
    assert (tmp_path / "file").read_bytes() == DATA[::-1]


@pytest.mark.parametrize("note", ["", "[]", "{", '{"source": 1, "validator": 2, "size": "x"}'])
def test_a_broken_note_is_no_note(server: Server, tmp_path: Path, note: str) -> None:
    (tmp_path / "file.part").write_bytes(b"garbage")
    (tmp_path / "file.part.json").write_text(note)
    download(server.start(ok()), tmp_path / "file", timeout=10)
    assert (tmp_path / "file").read_bytes() == DATA
    assert ranges(server) == [(None, None)]


@pytest.mark.parametrize(
    ("headers", "resumable"),
    [
        ({"etag": None}, False),
        ({"etag": 'W/"weak"'}, False),
        ({"etag": "unquoted"}, False),
        ({"etag": '"strong"'}, True),
    ],
)
def test_what_resumes(
    server: Server, tmp_path: Path, headers: dict[str, str | None], resumable: bool
) -> None:
    url = server.start(ok(sent=1000, etag=headers["etag"]), ok())
    download(url, tmp_path / "file", timeout=10)
    assert (ranges(server)[1][0] is not None) is resumable
    assert (tmp_path / "file").read_bytes() == DATA


@pytest.mark.parametrize(("date", "strong"), [("12:00:00", False), ("12:00:01", True)])
def test_a_date_resumes_only_where_it_is_strong(
    server: Server, tmp_path: Path, date: str, strong: bool
) -> None:
    modified = "Sat, 21 Nov 2026 12:00:00 GMT"
    first = ok(DATA, f"Last-Modified: {modified}", f"Date: Sat, 21 Nov 2026 {date} GMT", etag=None, sent=1000)
    download(server.start(first, ok()), tmp_path / "file", timeout=10)
    assert ranges(server)[1] == (("bytes=1000-", modified) if strong else (None, None))


def test_a_part_that_is_whole_already(server: Server, tmp_path: Path) -> None:
    """As a process leaves it that is killed before the rename."""
    url = server.start(
        ok(sent=1000), b"HTTP/1.1 416 Nothing\r\nContent-Range: bytes */%d\r\n\r\n" % len(DATA)
    )
    with pytest.raises(DownloadError):
        download(url, tmp_path / "file", max_retries=0, timeout=10)
    (tmp_path / "file.part").write_bytes(DATA)
    assert download(url, tmp_path / "file", sha256=SHA256, timeout=10).verified
    assert (tmp_path / "file").read_bytes() == DATA


def test_chunks_tell_their_end(server: Server, tmp_path: Path) -> None:
    head = b'HTTP/1.1 200 OK\r\nETag: "c"\r\nTransfer-Encoding: chunked\r\n\r\n'
    url = server.start(head + chunked(DATA[:500]), rest(500, etag='"c"'), head + chunked(DATA, b""))
    seen: list[tuple[int, int | None]] = []
    download(url, tmp_path / "a", timeout=10, progress=lambda *told: seen.append(told))
    assert seen[0] == (0, None)
    assert seen[-1] == (len(DATA), len(DATA))
    download(url, tmp_path / "b", timeout=10)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() == DATA


def test_a_body_of_unknown_length_needs_a_word(server: Server, tmp_path: Path) -> None:
    answer = b"HTTP/1.0 200 OK\r\n\r\n" + DATA
    url = server.start(answer, answer, answer)
    with pytest.raises(DownloadError, match="allow_unknown_length"):
        download(url, tmp_path / "file", timeout=10)
    assert left(tmp_path) == set()
    assert not download(url, tmp_path / "file", allow_unknown_length=True, timeout=10).verified
    assert download(url, tmp_path / "file", sha256=SHA256.upper(), timeout=10).verified


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        (("Content-Length: 5", "Content-Length: 10"), "Content-Length '5, 10', which is no length"),
        (("Content-Length: 0", "Content-Length: 10"), "Content-Length '0, 10', which is no length"),
        (("Content-Length: 5, 10",), "no length"),
        (("Content-Length: 10, 010",), "no length"),
        (("Content-Length: 1_0",), "no length"),
        (("Content-Length: +10",), "no length"),
        (("Content-Length: -5",), "no length"),
        (("Content-Length:",), "no length"),
        (("Content-Length: " + "9" * 5000,), "no length"),
        (("Transfer-Encoding: gzip, chunked", "Content-Length: 5"), "only chunked can be read"),
        (("Transfer-Encoding: chunked", "Transfer-Encoding: gzip"), "only chunked can be read"),
        (("Transfer-Encoding: chunked, chunked",), "only chunked can be read"),
        (("Transfer-Encoding: identity", "Content-Length: 10"), "only chunked can be read"),
        (("Transfer-Encoding:", "Content-Length: 10"), "only chunked can be read"),
    ],
)
def test_framing_that_cannot_be_trusted_is_refused(
    server: Server, tmp_path: Path, fields: tuple[str, ...], told: str
) -> None:
    """RFC 9112 section 6.3, numbers 4 and 5."""
    url = server.start("\r\n".join(["HTTP/1.1 200 OK", *fields, "", "helloworld"]).encode())
    with pytest.raises(DownloadError, match=told):
        download(url, tmp_path / "file", timeout=10)
    assert left(tmp_path) == set()


@pytest.mark.parametrize(
    ("fields", "body"),
    [
        (("Content-Length: 5, 5",), b"hello"),
        (("Content-Length: 5", "Content-Length: 5"), b"hello"),
        (("Content-Length: 5 \t",), b"hello"),
        (("Transfer-Encoding: Chunked ", "Content-Length: 0"), chunked(b"hello", b"")),
    ],
)
def test_framing_that_says_one_thing_twice(
    server: Server, tmp_path: Path, fields: tuple[str, ...], body: bytes
) -> None:
    """RFC 9112 section 6.3: equal lengths are one (5), and chunks override a length (3)."""
    url = server.start("\r\n".join(["HTTP/1.1 200 OK", *fields, "", ""]).encode() + body)
    assert download(url, tmp_path / "file", timeout=10).size == 5


def test_wrong_bytes_are_removed(server: Server, tmp_path: Path) -> None:
    wrong = DATA[::-1]
    url = server.start(
        ok(wrong),
        ok(wrong, sha_header("Repr-Digest", DATA)),
        ok(wrong, sha_header("Content-Digest", DATA)),
        ok(sent=1000),
        rest(1000, DATA, sha_header("Content-Digest", wrong[1000:])),
        ok(DATA, sha_header("Repr-Digest", DATA), sent=1000),
        rest(1000, wrong),
    )
    for options in ({"sha256": SHA256}, {}, {}, {}, {}):
        with pytest.raises(DigestMismatch, match="sha-256"):
            download(url, tmp_path / "file", timeout=10, **options)  # type: ignore[arg-type]
        assert left(tmp_path) == set()


def test_right_digests(server: Server, tmp_path: Path) -> None:
    url = server.start(
        ok(
            DATA,
            sha_header("Repr-Digest", DATA) + ", sha-512=:bm90IDY0IGJ5dGVz=:",
            "Content-Digest: md5=:AA==:",
        ),
        ok(sent=1000),
        rest(1000, DATA, sha_header("Content-Digest", DATA[1000:])),
        ok(DATA, "Repr-Digest: sha-256=:***:"),
    )
    assert download(url, tmp_path / "a", timeout=10).verified
    assert download(url, tmp_path / "b", timeout=10).verified
    assert not download(url, tmp_path / "c", timeout=10).verified


@pytest.mark.parametrize("status", [204, 304, 401, 404, 410, 501])
def test_statuses_that_are_final(server: Server, tmp_path: Path, status: int) -> None:
    url = server.start(b"HTTP/1.1 %d Because\r\n\r\n" % status)
    with pytest.raises(DownloadError, match=f"answered {status} Because") as caught:
        download(url + "?token=secret", tmp_path / "file", timeout=10)
    assert caught.value.status == status
    assert "secret" not in str(caught.value)
    assert left(tmp_path) == set()


def test_statuses_that_may_pass(server: Server, tmp_path: Path) -> None:
    busy = b"HTTP/1.1 503 Busy\r\nRetry-After: 0\r\n\r\n"
    download(server.start(busy, busy, b"", ok()), tmp_path / "file", timeout=10)
    assert (tmp_path / "file").read_bytes() == DATA


def test_a_wait_of_hours_is_final(server: Server, tmp_path: Path) -> None:
    url = server.start(b"HTTP/1.1 503 Busy\r\nRetry-After: 7200\r\n\r\n")
    with pytest.raises(DownloadError, match="503 Busy"):
        download(url, tmp_path / "file", timeout=10)


def test_a_server_that_starts_over_for_ever_is_given_up(server: Server, tmp_path: Path) -> None:
    url = server.start(*[ok(etag=None, sent=1000)] * 3)
    with pytest.raises(DownloadError, match="the next call starts over"):
        download(url, tmp_path / "file", max_retries=2, timeout=10)
    assert len(server.requests) == 3  # more would have been refused a connection


def test_redirects_and_compression(server: Server, tmp_path: Path) -> None:
    url = server.start(
        moved(302, "/there"), ok(), ok(DATA, "Content-Encoding: gzip"), *[moved(302, "/x")] * 21
    )
    download(url, tmp_path / "file", timeout=10)
    with pytest.raises(DownloadError, match="came compressed"):
        download(url, tmp_path / "other", timeout=10)
    with pytest.raises(DownloadError, match="redirected more than 20") as caught:
        download(url, tmp_path / "other", timeout=10)
    assert caught.value.status == 302


def test_too_much_is_refused_and_a_refused_port_is_told(server: Server, tmp_path: Path) -> None:
    url = server.start(ok(), b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(DATA, DATA))
    for _ in range(2):
        with pytest.raises(DownloadError, match="max_bytes is 100"):
            download(url, tmp_path / "file", max_bytes=100, timeout=10)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(DownloadError, match="ConnectionRefused"):
        download(f"http://127.0.0.1:{port}/", tmp_path / "x", max_retries=1, timeout=10)


def test_an_interruption_keeps_the_part(server: Server, tmp_path: Path) -> None:
    def interrupt(done: int, total: int | None) -> None:
        if done:
            raise KeyboardInterrupt

    url = server.start(ok(sent=1000), rest(1000))
    with pytest.raises(KeyboardInterrupt):
        download(url, tmp_path / "file", progress=interrupt, timeout=10)
    assert download(url, tmp_path / "file", timeout=10).resumed_from == 1000


def test_two_downloads_into_one_path_exclude_each_other(server: Server, tmp_path: Path) -> None:
    refused: list[str] = []

    def again(done: int, total: int | None) -> None:
        with pytest.raises(DownloadError) as caught:
            download(server.url, tmp_path / "file", timeout=10)
        refused.append(str(caught.value))

    download(server.start(ok()), tmp_path / "file", progress=again, timeout=10)
    assert "another download" in refused[0]
    assert (tmp_path / "file").read_bytes() == DATA


FULL_DISK = """
import resource, sys
from streamkit.client.download import download
from streamkit.errors import DownloadError
url, path, limit = sys.argv[1:]
resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
try:
    download(url, path, timeout=10)
except DownloadError as error:
    print(error)
"""


def on_a_full_disk(url: str, path: Path, limit: int) -> str:
    """What a download says where no file may have more than `limit` bytes."""
    return subprocess.run(
        [sys.executable, "-c", FULL_DISK, url, str(path), str(limit)],
        capture_output=True, text=True, timeout=60, check=True,
    ).stdout  # fmt: skip


def test_a_disk_too_full_to_begin(server: Server, tmp_path: Path) -> None:
    told = on_a_full_disk(server.start(ok()), tmp_path / "file", 10)
    assert re.search(r"no space is left for .*file\.part \(.*\); nothing of it is kept$", told)
    assert left(tmp_path) == set()


def test_a_full_disk_keeps_the_part(server: Server, tmp_path: Path) -> None:
    url = server.start(ok(), rest(5000))
    told = on_a_full_disk(url, tmp_path / "file", 5000)
    assert "no space is left" in told
    assert "5000 bytes are kept" in told
    assert (tmp_path / "file.part").read_bytes() == DATA[:5000]
    assert json.loads((tmp_path / "file.part.json").read_text())["validator"] == '"one"'
    assert download(url, tmp_path / "file", timeout=10).resumed_from == 5000
    assert (tmp_path / "file").read_bytes() == DATA


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda path: download("ftp://x/", path), ValueError),
        (lambda path: download("http://x/", path, sha256="abc"), ValueError),
        (lambda path: download("http://x/", path, timeout=0), ValueError),
        (lambda path: download("http://x/", path, max_retries=-1), ValueError),
        (lambda path: download("http://x/", path, max_bytes=0), ValueError),
        (lambda path: download("http://x/", path, headers={"RANGE": "bytes=0-"}), ValueError),
        (lambda path: download("http://x/", path, headers={"A": "1", "a": "2"}), ValueError),
        (lambda path: download("http://x/", path.parent), IsADirectoryError),
        (lambda path: download("http://x/", path / "no" / "folder"), FileNotFoundError),
    ],
)
def test_parameters_that_are_refused(
    tmp_path: Path, call: Callable[[Path], object], error: type[Exception]
) -> None:
    with pytest.raises(error):
        call(tmp_path / "file")
    assert left(tmp_path) == set()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"url": None}, "url must be str.* not NoneType"),
        ({"path": None}, "path must be str or a path.* not NoneType"),
        ({"path": b"file"}, "path must be str or a path.* not bytes"),
        ({"headers": [("A", "1")]}, "headers must be a mapping .* not list"),
        ({"auth": "u:p"}, "auth must be a tuple .* not str"),
        ({"sha256": b"0" * 64}, "sha256 must be str, 64 hexadecimal digits.* not bytes"),
        ({"max_bytes": "1"}, "max_bytes must be a whole number of at least 1.* not '1'"),
        ({"timeout": "1"}, "timeout must be seconds .* not '1'"),
        ({"max_retries": 0.5}, "max_retries must be a whole number of at least 0.* not 0.5"),
        ({"allow_unknown_length": "no"}, "allow_unknown_length must be True or False, not 'no'"),
        ({"ssl_context": 1}, "ssl_context must be an ssl.SSLContext.* not int"),
        ({"proxy": 1}, "proxy must be 'environment'.* not int"),
        ({"progress": 1}, "progress must be a function .* not 1"),
    ],
)
def test_a_parameter_of_another_kind_is_told_by_its_name(
    tmp_path: Path, options: dict[str, object], message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        download(**{"url": "http://127.0.0.1/", "path": tmp_path / "file", **options})  # type: ignore[arg-type]
    assert left(tmp_path) == set()
