"""`serve FOLDER`: its files, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest

from streamkit.cli.folder import folder_app


@pytest.fixture
def site(tmp_path: Path) -> Path:
    folder = tmp_path / "site"
    (folder / "sub").mkdir(parents=True)
    (folder / "empty").mkdir()
    (folder / "index.html").write_text("home")
    (folder / "sub" / "index.html").write_text("sub")
    (folder / "a ü.txt").write_text("0123456789")
    (folder / ".env").write_text("secret")
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text("secret")
    (tmp_path / "outside.txt").write_text("secret")
    (folder / "link.txt").symlink_to(tmp_path / "outside.txt")
    (folder / "inner.txt").symlink_to(folder / "index.html")
    (folder / "circle").symlink_to(folder / "circle")
    (tmp_path / "secrets" / "deeper").mkdir(parents=True)
    (folder / "away").symlink_to(tmp_path / "secrets")
    (folder / "near").symlink_to(folder / "sub")
    (folder / "out").mkdir()
    (folder / "out" / "index.html").symlink_to(tmp_path / "outside.txt")
    return folder


def get(folder: Path, path: str, method: str = "GET", **more: str) -> tuple[str, dict[str, str], bytes]:
    environ: dict[str, Any] = {"REQUEST_METHOD": method, "PATH_INFO": path, **more}
    setup_testing_defaults(environ)
    told: list[Any] = []
    start: Callable[..., Any] = lambda status, headers, exc_info=None: told.append((status, dict(headers)))  # noqa: E731
    answer: Iterable[bytes] = folder_app(folder)(environ, start)
    try:
        body = b"".join(answer)
    finally:
        close = getattr(answer, "close", None)
        if close is not None:
            close()
    return told[0][0], told[0][1], body


def test_files_and_indexes(site: Path) -> None:
    assert get(site, "/")[2] == b"home"
    assert get(site, "/sub/")[2] == b"sub"
    assert get(site, "/a ü.txt".encode().decode("latin-1"))[2] == b"0123456789"


def test_ranges_validators_and_head(site: Path) -> None:
    path = "/a ü.txt".encode().decode("latin-1")
    status, headers, body = get(site, path, HTTP_RANGE="bytes=2-4")
    assert (status[:3], body) == ("206", b"234")
    assert get(site, path, HTTP_IF_NONE_MATCH=headers["ETag"])[0][:3] == "304"
    status, headers, body = get(site, path, method="HEAD")
    assert (status[:3], headers["Content-Length"], body) == ("200", "10", b"")


def test_a_folder_is_left_with_a_slash_on_this_host(site: Path) -> None:
    status, headers, _ = get(site, "/sub")
    assert (status[:3], headers["Location"]) == ("308", "/sub/")
    assert get(site, "//sub")[1]["Location"] == "/sub/"  # never //sub/, which is another host
    assert get(site, "/sub", SCRIPT_NAME="/files")[1]["Location"] == "/files/sub/"


@pytest.mark.parametrize(
    ("query", "expected"),
    [("a=1&b=%20x", "?a=1&b=%20x"), ("", ""), ('q=\xc3\xa9"<', "?q=%C3%A9%22%3C"), ("a\r\nb", "?a%0D%0Ab")],
)
def test_the_query_comes_along(site: Path, query: str, expected: str) -> None:
    assert get(site, "/sub", QUERY_STRING=query)[1]["Location"] == f"/sub/{expected}"


@pytest.mark.parametrize(
    "path",
    ["/missing", "/.env", "/.git/config", "/../outside.txt", "/sub/../../outside.txt", "/link.txt", "/inner.txt",
     "/circle", "/away", "/away/deeper", "/away/", "/away/nope", "/near", "/near/", "/sub/../away",
     "/empty/", "/index.html/", "/a\x00b", "/out/", "/\xff\xfe", "//../outside.txt", "/" + "a" * 5000],
)  # fmt: skip
def test_nothing_else(site: Path, path: str) -> None:
    status, _, body = get(site, path)
    assert status.lower() == "404 not found"
    assert b"secret" not in body


def test_only_reading(site: Path) -> None:
    status, headers, _ = get(site, "/", method="POST")
    assert (status[:3], headers["Allow"]) == ("405", "GET, HEAD")
