"""Precompressed variants and digests of files."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
from base64 import b64encode
from pathlib import Path

import pytest

from streamkit import FileResponse
from streamkit.flow.byte_sources import OpenFile
from streamkit.flow.file_digests import FileDigests
from streamkit.flow.open_file import open_path
from tests.responses.test_streamed import Answer

pytestmark = pytest.mark.usefixtures("nothing_left")

PAGE = b"<p>page</p>" * 1000
OLD = 1_600_000_000


@pytest.fixture
def page(tmp_path: Path) -> Path:
    path = tmp_path / "page.html"
    path.write_bytes(PAGE)
    (tmp_path / "page.html.gz").write_bytes(gzip.compress(PAGE))
    (tmp_path / "page.html.br").write_bytes(b"brotli")
    for name in ("page.html", "page.html.gz", "page.html.br"):
        os.utime(tmp_path / name, (OLD, OLD))
    return path


def get(path: Path, accept: str = "", **headers: str) -> Answer:
    environ = {f"HTTP_{name.upper()}": value for name, value in headers.items()}
    response = FileResponse(path.name, directory=path.parent, precompressed=True)
    return Answer(response, HTTP_ACCEPT_ENCODING=accept, **environ)


def test_the_variant_that_the_client_likes_best(page: Path) -> None:
    for accept, coding in {
        "gzip": "gzip",
        "gzip, br": "br",
        "gzip, br;q=0.5": "gzip",
        "zstd, gzip": "gzip",  # there is no .zst
        "": None,
        "identity": None,
        "gzip;q=0": None,
        "*": "br",
    }.items():
        answer = get(page, accept)
        assert answer.status == "200 OK"
        assert answer.headers.get("Content-Encoding") == coding
        assert answer.headers["Vary"] == "Accept-Encoding"
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
        assert answer.headers["Content-Length"] == str(len(answer.body))
        if coding == "gzip":
            assert gzip.decompress(answer.body) == PAGE
        elif coding is None:
            assert answer.body == PAGE


def test_every_variant_has_its_own_tag(page: Path) -> None:
    tags = {accept: get(page, accept).headers["ETag"] for accept in ("gzip", "br", "")}
    assert len(set(tags.values())) == 3
    assert get(page, "gzip", if_none_match=tags["gzip"]).status[:3] == "304"
    assert get(page, "gzip", if_none_match=tags["br"]).status[:3] == "200"
    not_modified = get(page, "gzip", if_none_match=tags["gzip"])
    assert not_modified.headers["Vary"] == "Accept-Encoding"
    assert not_modified.headers["ETag"] == tags["gzip"]
    given = {
        accept: Answer(
            FileResponse(page, precompressed=True, etag='W/"v1"'), HTTP_ACCEPT_ENCODING=accept
        ).headers["ETag"]
        for accept in ("gzip", "")
    }
    assert given == {"gzip": 'W/"v1-gzip"', "": 'W/"v1"'}


def test_a_tag_that_is_set_later_is_another_for_each_variant(page: Path) -> None:
    def ask(**environ: str) -> Answer:
        response = FileResponse(page, precompressed=True)
        response.headers["ETag"] = '"v9"'
        return Answer(response, **environ)

    assert ask().headers["ETag"] == '"v9"'
    assert ask(HTTP_ACCEPT_ENCODING="gzip").headers["ETag"] == '"v9-gzip"'
    assert ask(HTTP_ACCEPT_ENCODING="gzip", HTTP_IF_NONE_MATCH='"v9-gzip"').status[:3] == "304"
    assert ask(HTTP_ACCEPT_ENCODING="gzip", HTTP_RANGE="bytes=0-1").headers["ETag"] == '"v9"'


def test_stale_and_unfinished_variants_are_ignored(page: Path) -> None:
    os.utime(page.with_name("page.html.gz"), (OLD - 1, OLD - 1))
    page.with_name("page.html.br").write_bytes(b"")
    assert "Content-Encoding" not in get(page, "gzip, br").headers
    page.with_name("page.html.br").unlink()
    page.with_name("page.html.br").symlink_to("page.html.gz")
    assert "Content-Encoding" not in get(page, "br").headers


def test_a_range_is_one_of_the_file_itself(page: Path) -> None:
    answer = get(page, "gzip", range="bytes=0-9")
    assert (answer.status[:3], answer.body) == ("206", PAGE[:10])
    assert "Content-Encoding" not in answer.headers
    assert answer.headers["Content-Range"] == f"bytes 0-9/{len(PAGE)}"
    assert answer.headers["ETag"] == get(page).headers["ETag"]
    assert answer.headers["Vary"] == "Accept-Encoding"


def test_the_rest_of_a_variant_is_one_of_the_variant(page: Path) -> None:
    whole = get(page, "gzip")
    rest = get(page, "gzip", range="bytes=10-", if_range=whole.headers["ETag"])
    assert (rest.status[:3], rest.body) == ("206", whole.body[10:])
    assert rest.headers["Content-Encoding"] == "gzip"


def test_a_range_of_a_variant_that_if_match_names(page: Path) -> None:
    whole = get(page, "gzip")
    rest = get(page, "gzip", range="bytes=10-", if_match=f'"other", {whole.headers["ETag"]}')
    assert (rest.status[:3], rest.body) == ("206", whole.body[10:])
    assert rest.headers["Content-Encoding"] == "gzip"
    own = get(page, "gzip", range="bytes=10-19", if_match=get(page).headers["ETag"])
    assert (own.status[:3], own.body) == ("206", PAGE[10:20])
    assert get(page, "gzip", range="bytes=10-", if_match='"other"').status[:3] == "412"


def test_a_variant_that_the_client_has_is_not_sent_again_for_a_range(page: Path) -> None:
    """RFC 9110 section 13.2.2: If-None-Match is looked at before Range."""
    tag = get(page, "gzip").headers["ETag"]
    for wanted in ("bytes=0-9", "items=0-9", "bytes=9-0"):
        for known in (tag, f'"other", W/{tag}', "*"):
            assert get(page, "gzip", range=wanted, if_none_match=known).status[:3] == "304"
    answer = get(page, "gzip", range="bytes=0-9", if_none_match='"other"')
    assert (answer.status[:3], answer.body) == ("206", PAGE[:10])


def test_vary_keeps_what_it_had(page: Path) -> None:
    response = FileResponse(page, precompressed=True, headers=[("Vary", "Origin"), ("Vary", "Cookie")])
    assert Answer(response).headers["Vary"] == "Origin, Cookie, Accept-Encoding"
    response = FileResponse(page, precompressed=True, headers={"Vary": "X-Accept-Encoding"})
    assert Answer(response).headers["Vary"] == "X-Accept-Encoding, Accept-Encoding"


def test_a_date_does_not_tell_variants_apart(page: Path) -> None:
    """Both have the same Last-Modified: half of one and half of the other must not be put together."""
    date = get(page, "gzip").headers["Last-Modified"]
    answer = get(page, "", range="bytes=10-", if_range=date)
    assert (answer.status[:3], answer.body) == ("200", PAGE)


@pytest.mark.parametrize("precompressed", [False, True])
@pytest.mark.parametrize("accept", ["gzip", "identity"])
def test_what_is_compressed_on_the_way_has_one_tag(page: Path, accept: str, precompressed: bool) -> None:
    def ask(**headers: str) -> Answer:
        return Answer(
            FileResponse(page, compress=True, precompressed=precompressed),
            HTTP_ACCEPT_ENCODING=accept,
            **headers,
        )

    whole = ask()
    assert whole.headers.get("Content-Encoding", "identity") == accept
    again = ask(HTTP_IF_NONE_MATCH=whole.headers["ETag"])
    assert (again.status[:3], again.body) == ("304", b"")
    assert again.headers["ETag"] == whole.headers["ETag"]
    for refused in (ask(HTTP_IF_MATCH='"other"'), ask(HTTP_RANGE="bytes=99999-")):
        assert (refused.status[:2], refused.body) == ("41", b"")
        assert "Content-Encoding" not in refused.headers
        assert refused.headers["Content-Length"] == "0"


def test_precompressed_needs_a_path() -> None:
    with pytest.raises(ValueError, match="path"):
        FileResponse(io.BytesIO(), precompressed=True)


def digest_of(answer: Answer) -> str:
    return answer.headers["Repr-Digest"]


def expected(content: bytes, name: str = "sha256") -> str:
    digest = b64encode(hashlib.new(name, content).digest()).decode()
    return f"{name[:3]}-{name[3:]}=:{digest}:"


def test_a_digest_is_that_of_the_whole_also_beside_a_part(page: Path) -> None:
    def ask(want: str | None = "sha-256=1", method: str = "GET", **environ: str) -> Answer:
        if want is not None:
            environ["HTTP_WANT_REPR_DIGEST"] = want
        return Answer(FileResponse(page, repr_digest=True, precompressed=True), method, **environ)

    assert digest_of(ask()) == expected(PAGE)
    assert digest_of(ask("sha-512=1")) == expected(PAGE, "sha512")
    assert digest_of(ask(method="HEAD")) == expected(PAGE)
    part = ask(HTTP_RANGE="bytes=0-4")
    assert (part.body, digest_of(part)) == (PAGE[:5], expected(PAGE))
    coded = ask(HTTP_ACCEPT_ENCODING="gzip")
    assert digest_of(coded) == expected(coded.body)
    for answer in (
        ask(None),
        ask("md5=1"),
        ask(HTTP_RANGE="bytes=99999999-"),
        ask(HTTP_IF_NONE_MATCH="*"),
    ):
        assert "Repr-Digest" not in answer.headers
    assert "Repr-Digest" not in Answer(FileResponse(page), HTTP_WANT_REPR_DIGEST="sha-256=1").headers


def test_digests_that_are_known(page: Path) -> None:
    known = hashlib.sha256(PAGE).digest()
    answer = Answer(
        FileResponse(lambda start, stop: PAGE[start:stop], size=len(PAGE), repr_digest={"sha-256": known}),
        HTTP_WANT_REPR_DIGEST="sha-256=1, sha-512=9",
    )
    assert digest_of(answer) == expected(PAGE)
    with pytest.raises(ValueError, match="repr_digest"):
        FileResponse(page, repr_digest={"sha-256": b"short"})
    with pytest.raises(ValueError, match="known"):
        FileResponse(lambda start, stop: b"", size=1, repr_digest=True)


def test_a_digest_is_computed_once(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    later = os.stat(page).st_ctime_ns + 10_000_000_000
    monkeypatch.setattr("streamkit.flow.file_digests.time.time_ns", lambda: later)
    digests = FileDigests(limit=2)
    source = open_path(str(page))
    reads = []
    monkeypatch.setattr(OpenFile, "blocks", lambda self, *ends: reads.append(ends) or iter([PAGE]))
    try:
        for _ in range(3):
            assert digests.digest(source, "sha-256") == hashlib.sha256(PAGE).digest()
        assert len(reads) == 1
        digests.digest(source, "sha-512")
        os.utime(page, (OLD + 1, OLD + 1))  # another validator: read again
        digests.digest(source, "sha-256")
        assert (len(reads), len(digests)) == (3, 2)  # bounded
    finally:
        source.close()


def test_the_digest_of_a_young_file_is_not_remembered(tmp_path: Path) -> None:
    (tmp_path / "new").write_bytes(b"1")
    digests = FileDigests()
    source = open_path(str(tmp_path / "new"))
    try:
        assert digests.digest(source, "sha-256") == hashlib.sha256(b"1").digest()
        assert len(digests) == 0
    finally:
        source.close()


def test_the_digest_of_what_a_file_had_is_not_remembered_for_what_it_has_now(page: Path) -> None:
    digests = FileDigests()
    before = open_path(str(page))
    with page.open("ab") as file:
        file.write(b"more")
    os.utime(page, (OLD, OLD))  # it lies still: digests are remembered
    after = open_path(str(page))
    try:
        assert digests.digest(before, "sha-256") == hashlib.sha256(PAGE).digest()
        assert digests.digest(after, "sha-256") == hashlib.sha256(PAGE + b"more").digest()
    finally:
        before.close()
        after.close()


def test_a_file_that_cannot_be_read_for_its_digest_is_an_early_failure(page: Path) -> None:
    response = FileResponse(page, repr_digest=True)
    os.truncate(page, 10)
    with pytest.raises(OSError, match="truncated"):
        Answer(response, HTTP_WANT_REPR_DIGEST="sha-256=1")
