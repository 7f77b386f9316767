"""Behind nginx with its defaults: HTTP/1.0 to the application, buffering on. Streams must survive both."""

from __future__ import annotations

import contextlib
import http.client
import socket
import subprocess
from collections.abc import Iterator

import pytest

from tests.conftest import eventually
from tests.live_server import LiveServer, _await_port, running
from tests.ports import free_port
from tests.services import program

CONFIGURATION = """
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log info;
events {{ worker_connections 64; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{port};
    location / {{ proxy_pass http://127.0.0.1:{upstream}; }}
  }}
  server {{
    listen unix:{folder}/outer.sock;
    location /buffered/ {{ proxy_pass http://127.0.0.1:{port}/; }}
    location /unbuffered/ {{ proxy_pass http://127.0.0.1:{port}/; proxy_buffering off; }}
  }}
}}
"""


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LiveServer, LiveServer]]:
    """The application's server, and nginx before it."""
    pytest.importorskip("gunicorn")
    nginx = program("nginx")
    folder = tmp_path_factory.mktemp("nginx")
    folder.chmod(0o755)
    port = free_port()
    with running("gunicorn-gthread", folder) as upstream:
        configuration = folder / "nginx.conf"
        configuration.write_text(CONFIGURATION.format(folder=folder, port=port, upstream=upstream.port))
        log_path = folder / "error.log"
        log_path.touch()
        command = [nginx, "-p", str(folder), "-e", str(log_path), "-c", str(configuration)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            _await_port(process, port, log_path)
            yield upstream, LiveServer(process, port, log_path)
        finally:
            process.terminate()
            process.wait(30)


def test_the_first_event_comes_through_while_the_stream_is_open(
    servers: tuple[LiveServer, LiveServer],
) -> None:
    upstream, proxy = servers
    with proxy.connect("/cancelled") as sock:
        data = b""
        while b"data: first\n\n" not in data:
            more = sock.recv(4096)
            assert more
            data += more
    eventually(lambda: "cancelled" in upstream.state()["closed"])  # and its leaving reaches the producer


@pytest.mark.parametrize("path", ["/csv-fail", "/array-fail"])
def test_a_broken_export_does_not_become_a_whole_one(
    servers: tuple[LiveServer, LiveServer], path: str
) -> None:
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        servers[1].get(path)


def test_a_whole_export_does(servers: tuple[LiveServer, LiveServer]) -> None:
    assert servers[1].get("/csv")[1].count(b"\r\n") == 5000


def test_a_range_of_a_file(servers: tuple[LiveServer, LiveServer]) -> None:
    response, body = servers[1].get("/file", {"Range": "bytes=10-19"})
    assert (response.status, body) == (206, bytes(range(10, 20)))


def test_a_failed_stream_of_events_says_so(servers: tuple[LiveServer, LiveServer]) -> None:
    try:
        body = servers[1].get("/events-fail")[1]
    except http.client.IncompleteRead as error:
        body = error.partial
    assert b"event: error\n" in body


def test_a_second_nginx_before_it_does_not_see_the_header_and_needs_proxy_buffering_off(
    servers: tuple[LiveServer, LiveServer], tmp_path_factory: pytest.TempPathFactory
) -> None:
    upstream, _ = servers
    address = str(upstream._log_path.parent / "outer.sock")

    def asked(path: str) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(30)
        sock.connect(address)
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        return sock

    def received(sock: socket.socket) -> bytes:
        data = b""
        with contextlib.suppress(TimeoutError):
            while b"data: first\n\n" not in data:
                data += sock.recv(4096)
        return data

    with asked("/buffered/cancelled") as buffered, asked("/unbuffered/cancelled") as unbuffered:
        data = received(unbuffered)
        assert data.endswith(b"data: first\n\n\r\n")
        assert b"X-Accel-Buffering" not in data
        buffered.settimeout(1)
        late = received(buffered)
        assert late.partition(b"\r\n\r\n")[2] == b""
        assert late == b"" or b" 200 OK" in late
