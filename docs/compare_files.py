"""How servers of files answer conditional requests and ranges: makes the table of files.md by asking real servers.

    pip install gunicorn werkzeug starlette uvicorn aiohttp whitenoise     # and nginx; what is missing has no column
    python docs/compare_files.py            # print the table
    python docs/compare_files.py --write    # put it into files.md

Every peer serves the same directory in the way that its own documentation shows.
"""

from __future__ import annotations

import gzip
import importlib.metadata
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = Path(__file__).resolve().parent / "files.md"
OLD = 1_600_000_000
DATA = b"0123456789" * 100
DATE = formatdate(OLD, usegmt=True)
EARLIER, LATER = formatdate(OLD - 60, usegmt=True), formatdate(OLD + 60, usegmt=True)

# -- the servers --------------------------------------------------------------------------------------------------

_GUNICORN = """
import sys
from gunicorn.app.base import BaseApplication
class Server(BaseApplication):
    def load_config(self):
        for name, value in {"bind": "127.0.0.1:" + sys.argv[1], "threads": 4, "loglevel": "critical"}.items():
            self.cfg.set(name, value)
        if "control_socket_disable" in self.cfg.settings:
            self.cfg.set("control_socket_disable", True)
    def load(self):
        return app
folder = sys.argv[2]
"""

PROGRAMS = {
    "streamkit": _GUNICORN
    + """
from streamkit import FileResponse
def app(environ, start_response):
    name = environ["PATH_INFO"].removeprefix("/")
    return FileResponse(name, directory=folder, precompressed=True, repr_digest=True)(environ, start_response)
Server().run()
""",
    "Werkzeug": _GUNICORN
    + """
from werkzeug.exceptions import HTTPException
from werkzeug.utils import send_from_directory
def app(environ, start_response):
    try:
        response = send_from_directory(folder, environ["PATH_INFO"].removeprefix("/"), environ)
    except HTTPException as error:
        response = error
    return response(environ, start_response)
Server().run()
""",
    "WhiteNoise": _GUNICORN
    + """
from whitenoise import WhiteNoise
def missing(environ, start_response):
    start_response("404 Not Found", [("Content-Length", "0")])
    return []
app = WhiteNoise(missing, root=folder)
Server().run()
""",
    "Starlette": """
import sys, uvicorn
from starlette.staticfiles import StaticFiles
uvicorn.run(StaticFiles(directory=sys.argv[2]), port=int(sys.argv[1]), log_level="critical")
""",
    "aiohttp": """
import sys
from aiohttp import web
app = web.Application()
app.router.add_static("/", sys.argv[2])
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None)
""",
}

_NGINX = """
daemon off; pid {folder}.pid; error_log /dev/null; user root;
events {{ worker_connections 64; }}
http {{
  access_log off; sendfile on; gzip_static on;
  client_body_temp_path {folder}.tmp; proxy_temp_path {folder}.tmp; fastcgi_temp_path {folder}.tmp;
  uwsgi_temp_path {folder}.tmp; scgi_temp_path {folder}.tmp;
  server {{ listen 127.0.0.1:{port}; root {folder}; }}
}}
"""

_PACKAGES = {"streamkit": "streamkit-wsgi", "WhiteNoise": "whitenoise", "Werkzeug": "werkzeug"}


def version(name: str) -> str | None:
    """What is installed of it, or None."""
    if name == "nginx":
        program = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if program is None:
            return None
        return (
            subprocess.run([program, "-v"], capture_output=True, text=True).stderr.split("/")[-1].split()[0]
        )
    if name == "streamkit":
        from streamkit import __version__

        return __version__
    try:
        return importlib.metadata.version(_PACKAGES.get(name, name.lower()))
    except importlib.metadata.PackageNotFoundError:
        return None


@contextmanager
def serving(name: str, folder: str) -> Iterator[int]:
    """Run this server on a free port with the files of `folder`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    if name == "nginx":
        program = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin") or "nginx"
        Path(f"{folder}.conf").write_text(_NGINX.format(folder=folder, port=port))
        command = [program, "-p", folder, "-e", "/dev/null", "-c", f"{folder}.conf"]
    else:
        command = [sys.executable, "-c", PROGRAMS[name], str(port), folder]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=environ, cwd=folder, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{name} did not start") from None
                time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait(20)


# -- the questions ------------------------------------------------------------------------------------------------


@dataclass
class Answer:
    """What came back; status 0 where the connection ended without an answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    def __str__(self) -> str:
        return str(self.status) if self.status else "no answer"


class Server:
    """One running server, asked over raw sockets."""

    def __init__(self, port: int) -> None:
        self._port = port

    def get(self, path: str = "/data.bin", method: str = "GET", **headers: str) -> Answer:
        """Ask; `if_range="x"` is the header If-Range."""
        fields = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        data = b""
        with socket.create_connection(("127.0.0.1", self._port), timeout=10) as connection:
            connection.sendall(
                f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{fields}\r\n".encode()
            )
            try:
                while piece := connection.recv(65536):
                    data += piece
            except OSError:
                pass
        head, _, body = data.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        status = int(lines[0].split()[1]) if len(lines[0].split()) > 1 else 0
        pairs = (line.partition(":") for line in lines[1:])
        return Answer(status, {name.lower(): value.strip() for name, _, value in pairs}, body)

    @property
    def etag(self) -> str:
        """The tag of the file, or one that matches nothing."""
        return self.get().headers.get("etag", '"none"')


Check = Callable[[Server], "tuple[bool, object]"]


def _range(header: str, expected: bytes) -> Check:
    def check(server: Server) -> tuple[bool, object]:
        answer = server.get(range=header)
        return (answer.status, answer.body) == (206, expected), answer

    return check


def _status(*wanted: int, **headers: str) -> Check:
    def check(server: Server) -> tuple[bool, object]:
        filled = {name: value.replace("ETAG", server.etag) for name, value in headers.items()}
        answer = server.get(**filled)
        return answer.status in wanted, answer

    return check


def _unsatisfied(server: Server) -> tuple[bool, object]:
    answer = server.get(range="bytes=5000-")
    value = answer.headers.get("content-range", "no Content-Range")
    return (answer.status, value) == (416, "bytes */1000"), f"{answer.status}, {value}"


def _several(server: Server) -> tuple[bool, object]:
    answer = server.get(range="bytes=0-1,500-501")
    ok = answer.status == 206 and "multipart/byteranges" in answer.headers.get("content-type", "")
    return ok and "content-range" not in answer.headers, answer


def _overlapping(server: Server) -> tuple[bool, object]:
    answer = server.get(range="bytes=" + ",".join(["0-"] * 50))
    return answer.status in (200, 206) and len(answer.body) <= 1500, f"{answer}, {len(answer.body)} bytes"


def _head(server: Server) -> tuple[bool, object]:
    answer = server.get(method="HEAD", range="bytes=0-1")
    return (answer.status, answer.headers.get("content-length")) == (200, "1000"), answer


def _weak_if_range(server: Server) -> tuple[bool, object]:
    answer = server.get(range="bytes=0-1", if_range=f"W/{server.etag.removeprefix('W/')}")
    return answer.status == 200, answer


def _strong_tag(server: Server) -> tuple[bool, object]:
    tag = server.get().headers.get("etag", "none")
    return tag.startswith('"'), tag if len(tag) < 8 else "weak"


def _own_tags(server: Server) -> tuple[bool, object]:
    plain, coded = server.get("/page.html"), server.get("/page.html", accept_encoding="gzip")
    if coded.headers.get("content-encoding") != "gzip":
        return False, "no variants"
    if "etag" not in plain.headers:
        return False, "no tags"
    same = plain.headers["etag"] == coded.headers["etag"]
    return not same, "the same tag"


def _path(path: str) -> Check:
    def check(server: Server) -> tuple[bool, object]:
        answer = server.get(path)
        return answer.status in (400, 403, 404), answer

    return check


def _digest(server: Server) -> tuple[bool, object]:
    answer = server.get(want_repr_digest="sha-256=1")
    return "repr-digest" in answer.headers, "no"


ROWS: list[tuple[str, str, Check]] = [
    ("14.1.2", "the first byte, `bytes=0-0`", _range("bytes=0-0", DATA[:1])),
    ("14.1.2", "the last byte, `bytes=999-`", _range("bytes=999-", DATA[999:])),
    ("14.1.2", "a suffix longer than the file is all of it", _range("bytes=-5000", DATA)),
    ("14.1.2", "a zero suffix, `bytes=-0`, is 416", _status(416, range="bytes=-0")),
    ("14.1.2", "a last position of 40 digits is cut", _range("bytes=990-" + "9" * 40, DATA[990:])),
    ("14.1", "the unit in capitals", _range("BYTES=0-1", DATA[:2])),
    ("14.2", "another unit is ignored", _status(200, range="items=0-1")),
    ("14.2", "bad syntax is ignored or 416", _status(200, 416, range="bytes=x-y")),
    ("14.1.1", "signs are bad syntax, `bytes=+1-+2`", _status(200, 416, range="bytes=+1-+2")),
    ("14.2", "first after last is ignored or 416", _status(200, 416, range="bytes=5-1")),
    ("14.1.1", "whitespace in the list", _range("bytes=0-1 , 5000-", DATA[:2])),
    ("14.1.2", "one range fits, one does not: the one", _range("bytes=5000-,0-1", DATA[:2])),
    ("15.3.7.2", "several ranges are multipart", _several),
    ("17.15", "fifty overlapping ranges do not multiply the file", _overlapping),
    ("15.5.17", "416 says `Content-Range: bytes */1000`", _unsatisfied),
    ("14.2", "a range is for GET alone (HEAD: 200)", _head),
    ("13.1.5", "If-Range with the tag: the range", _status(206, range="bytes=0-1", if_range="ETAG")),
    ("13.1.5", "If-Range with another tag: everything", _status(200, range="bytes=0-1", if_range='"x"')),
    ("13.1.5", "If-Range with a weak tag: everything", _weak_if_range),
    ("13.1.5", "If-Range with a later date: everything", _status(200, range="bytes=0-1", if_range=LATER)),
    ("13.2.2", "If-None-Match before Range: 304", _status(304, range="bytes=0-1", if_none_match="ETAG")),
    ("13.1.2", "If-None-Match with a list", _status(304, if_none_match='"x", ETAG')),
    ("13.1.2", "If-None-Match: *", _status(304, if_none_match="*")),
    (
        "13.1.3",
        "If-None-Match wins over If-Modified-Since",
        _status(200, if_none_match='"x"', if_modified_since=DATE),
    ),
    ("13.1.1", "If-Match with another tag: 412", _status(412, if_match='"x"')),
    ("13.1.1", "If-Match: * is 200", _status(200, if_match="*")),
    ("13.1.4", "If-Unmodified-Since an earlier date: 412", _status(412, if_unmodified_since=EARLIER)),
    ("8.8.1", "a strong tag for a file that lies still", _strong_tag),
    ("8.8.3.3", "a gzip variant has its own tag", _own_tags),
    ("17.3", "NUL in the path is no server error", _path("/data.bin%00")),
    ("17.3", "a FIFO is not opened", _path("/fifo")),
    ("17.3", "dotfiles are not served unless asked for", _path("/.env")),
    ("17.3", "a link out of the directory is not followed unless asked for", _path("/link")),
    ("RFC 9530", "Repr-Digest on request", _digest),
]


def prepare(folder: Path) -> None:
    """The files that every server gets."""
    files = {"data.bin": DATA, "page.html": b"<p>x</p>" * 50, ".env": b"secret"}
    files["page.html.gz"] = gzip.compress(files["page.html"])
    for name, content in files.items():
        (folder / name).write_bytes(content)
        os.utime(folder / name, (OLD, OLD))
    outside = folder.parent / "outside"
    outside.write_bytes(b"outside")
    (folder / "link").symlink_to(outside)


def table() -> str:
    """The comparison as Markdown."""
    names = ["streamkit", "nginx", "Werkzeug", "Starlette", "aiohttp", "WhiteNoise"]
    versions = {name: found for name in names if (found := version(name)) is not None}
    cells: list[list[str]] = [[f"{question} ({section})"] for section, question, _ in ROWS]
    kept = dict.fromkeys(versions, 0)
    for name in versions:
        with tempfile.TemporaryDirectory() as parent:
            os.chmod(parent, 0o755)
            folder = Path(parent) / "files"
            folder.mkdir()
            prepare(folder)
            with serving(name, str(folder)) as port:
                os.mkfifo(folder / "fifo")  # later: a server that reads everything at its start would hang
                for row, (_, _, check) in zip(cells, ROWS, strict=True):
                    try:
                        ok, seen = check(Server(port))
                    except TimeoutError:
                        ok, seen = False, "hangs"
                    kept[name] += ok
                    row.append("✓" if ok else str(seen).replace("|", "\\|"))
    head = ["rule (section of RFC 9110)"] + [f"{name} {number}" for name, number in versions.items()]
    cells.append([f"kept, of {len(ROWS)}"] + [str(count) for count in kept.values()])
    lines = [head, ["---"] * len(head), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(arguments: list[str]) -> None:
    """Print the table, or write it into files.md."""
    made = table()
    if arguments != ["--write"]:
        print(made)
        return
    text = PAGE.read_text()
    marked = r"(<!-- made by compare_files.py -->\n).*?(\n?<!-- end -->)"
    PAGE.write_text(re.sub(marked, lambda found: f"{found[1]}{made}{found[2]}", text, flags=re.DOTALL))


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main(sys.argv[1:])
