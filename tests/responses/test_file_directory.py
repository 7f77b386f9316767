"""FileResponse(name, directory=...): names from clients, none of which leads out."""

from __future__ import annotations

import errno
import itertools
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from streamkit import FileResponse
from tests.responses.test_streamed import Answer

pytestmark = pytest.mark.usefixtures("nothing_left")

SECRET = b"root:x:0:0"


@pytest.fixture
def served(tmp_path: Path) -> Path:
    """A directory with files, and a secret beside it."""
    (tmp_path / "secret").write_bytes(SECRET)
    served = tmp_path / "served"
    (served / "a" / "deep").mkdir(parents=True)
    (served / "b.txt").write_bytes(b"b")
    (served / "a" / "deep" / "c.html").write_bytes(b"c")
    (served / "a b%2f\u00e9.txt").write_bytes(b"odd")
    (served / ".env").write_bytes(SECRET)
    (served / ".git").mkdir()
    (served / ".git" / "config").write_bytes(SECRET)
    (served / "link").symlink_to(tmp_path / "secret")
    (served / "inner").symlink_to("b.txt")
    (served / "out").symlink_to(tmp_path)
    os.mkfifo(served / "fifo")
    return served


def get(name: str, served: Path, **options: Any) -> Answer:
    return Answer(FileResponse(name, directory=served, **options))


def test_files_beneath_it(served: Path) -> None:
    answer = get("b.txt", served)
    assert (answer.status, answer.body) == ("200 OK", b"b")
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    answer = get("a/deep/c.html", served, as_attachment=True)
    assert (answer.status, answer.body) == ("200 OK", b"c")
    assert answer.headers["Content-Disposition"] == 'attachment; filename="c.html"'
    assert get("a b%2f\u00e9.txt", served).body == b"odd"  # decoded once, by the framework


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "/",
        "//",
        "../secret",
        "a/../../secret",
        "a/deep/../../../secret",
        "a/../b.txt",  # harmless here, but no name that a link on a page would have
        "./b.txt",
        "a//deep/c.html",
        "b.txt/",
        "b.txt/x",
        "/etc/passwd",
        "//etc/passwd",
        "..\\secret",
        "a\\..\\..\\secret",
        "C:/secret",
        "c:secret",
        "b.txt\0",
        "\0",
        "%2e%2e/secret",  # nothing is decoded a second time
        "..%2fsecret",
        "..%5csecret",
        "\uff0e\uff0e/secret",  # full-width dots are no dots
        "x" * 300,
        "x/" * 3000,
        "\udcff",
        "a",
        "a/deep",
        "fifo",
        ".env",
        ".git/config",
        "link",
        "inner",
        "out/secret",
        "out/served/b.txt",
        "missing",
        "missing/b.txt",
    ],
)
def test_names_that_are_refused(served: Path, name: str) -> None:
    response = FileResponse(
        name, directory=served, as_attachment=True, headers={"Cache-Control": "max-age=9"}
    )
    assert response.status_code == 404
    answer = Answer(response)
    assert answer.status.upper() == "404 NOT FOUND"
    assert SECRET not in answer.body
    assert "Cache-Control" not in answer.headers
    assert "Content-Disposition" not in answer.headers
    assert "ETag" not in answer.headers
    assert (
        int(answer.headers["Content-Length"]) == len(answer.body) if "Content-Length" in answer.headers else 1
    )


def test_every_short_name_out_of_dots_and_slashes(served: Path) -> None:
    for length in range(1, 6):
        for letters in itertools.product("./\\a", repeat=length):
            response = FileResponse("".join(letters) + "secret", directory=served / "a")
            assert response.status_code == 404
            response.close()


def test_links_by_option(served: Path) -> None:
    assert get("inner", served, follow_symlinks=True).body == b"b"
    assert get("link", served, follow_symlinks=True).body == SECRET
    assert get("out/served/b.txt", served, follow_symlinks=True).body == b"b"
    (served / "loop").symlink_to("loop")
    assert get("loop", served, follow_symlinks=True).status[:3] == "404"
    assert get("../secret", served, follow_symlinks=True).status[:3] == "404"


def test_dotfiles_by_option(served: Path) -> None:
    assert get(".git/config", served, dotfiles=True).body == SECRET
    for name in ("..", "../secret", ".", "./b.txt", ".git/../../secret"):
        assert get(name, served, dotfiles=True).status[:3] == "404"


def test_the_directory_itself_may_be_a_link(served: Path) -> None:
    link = served.parent / "current"
    link.symlink_to(served)
    assert get("b.txt", link).body == b"b"


def test_sockets_are_not_served(served: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(served / "socket"))
        assert get("socket", served).status[:3] == "404"


def test_a_directory_that_is_not_there_is_the_programs_mistake(served: Path) -> None:
    with pytest.raises(FileNotFoundError):
        FileResponse("b.txt", directory=served / "missing")
    with pytest.raises(NotADirectoryError):
        FileResponse("b.txt", directory=served / "b.txt")
    with pytest.raises(TypeError, match="as text"):
        FileResponse(b"b.txt", directory=served)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="directory="):
        FileResponse(served / "b.txt", follow_symlinks=True)


def test_a_file_that_may_not_be_read_is_forbidden(
    served: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = os.open

    def denied(path: Any, *rest: Any, **named: Any) -> int:
        if path == "b.txt":
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return real(path, *rest, **named)

    monkeypatch.setattr("os.open", denied)  # root may read everything
    answer = get("b.txt", served)
    assert answer.status[:3] == "403"
    assert "b.txt" in caplog.text


def test_too_many_open_files_is_no_404(served: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: Any, **__: Any) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("os.open", exhausted)
    with pytest.raises(OSError, match="Too many"):
        FileResponse("b.txt", directory=served)


def test_the_plain_answer_without_werkzeug(served: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(__import__("sys").modules, "werkzeug.exceptions", raising=False)
    answer = get("missing", served)
    assert (answer.status, answer.body) == ("404 Not Found", b"Not Found\n")
    response = FileResponse("missing", directory=served)
    assert Answer(response, "HEAD").body == b""


def test_flasks_own_error_page(served: Path) -> None:
    flask = pytest.importorskip("flask")
    app = flask.Flask("files")

    @app.errorhandler(404)  # type: ignore[untyped-decorator]
    def missing(_: Exception) -> tuple[str, int]:
        return "our own page", 404

    @app.get("/files/<path:name>")  # type: ignore[untyped-decorator]
    def file(name: str) -> FileResponse:
        return FileResponse(name, directory=served)

    client = app.test_client()
    answer = client.get("/files/b.txt")
    assert (answer.status_code, answer.data) == (200, b"b")
    for path in ("/files/missing", "/files/%2e%2e/secret", "/files/..%2fsecret", "/files/..%5csecret"):
        answer = client.get(path)
        assert (answer.status_code, answer.data) == (404, b"our own page")
