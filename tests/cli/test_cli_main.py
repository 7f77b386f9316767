"""What holds for every command: help with examples, exit codes, and no traceback for what a user gets wrong."""

from __future__ import annotations

import argparse
import os
import re
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from streamkit.cli import COMMANDS, arguments, main
from tests.conftest import ROOT


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_examples_and_exit_codes(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"python -m streamkit {name}" in text.split("examples:")[1]
    assert "exit codes: 0 fine" in text
    assert "--json" in text


@pytest.mark.parametrize("name", COMMANDS)
def test_an_option_that_is_not_there_is_2(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--no-such-option"]) == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_documented_with_its_options(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "docs" / "commands.md").read_text()
    assert f"## `{name}" in text
    common = text.split("\n## ")[0]
    section = common + text.split(f"## `{name}")[1].split("\n## ")[0]
    main([name, "--help"])
    options = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", capsys.readouterr().out.split("examples:")[0]))
    missing = {option for option in options if option not in section}
    assert not missing, f"docs/commands.md does not mention {sorted(missing)} of {name}"


def test_a_module_is_not_loaded_before_it_is_needed() -> None:
    code = (
        "import sys, streamkit.cli as cli; cli.main(['config', 'nginx']);"
        " heavy = {'werkzeug', 'gunicorn', 'rich', 'sqlite3', 'streamkit.servers.http_server'};"
        " print(sorted(heavy & set(sys.modules)))"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout
    assert output.splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", ["rich", "no rich"])
def test_progress_is_shown_on_a_terminal_alone(name: str) -> None:
    """On the terminal of `script`-like pseudo terminals; the standard output stays for the results."""
    pty = pytest.importorskip("pty")
    if name == "rich":
        pytest.importorskip("rich")
    hide = "" if name == "rich" else "sys.modules['rich'] = sys.modules['rich.console'] = None;"
    code = (
        f"import sys; {hide} from streamkit.cli.output import progress\n"
        "with progress() as shown:\n"
        "    for n in range(5): shown.update(n / 4, 'step %d [red]' % n)\n"
        "print('result')\n"
    )
    master, slave = pty.openpty()
    try:
        environment = {**os.environ, "TERM": "xterm"}
        command = [sys.executable, "-c", code]
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=slave, cwd=ROOT, env=environment, timeout=30
        )
        assert done.returncode == 0
        assert done.stdout == b"result\n"
        shown = b""
        # One read gives 4 KiB at most, and a slow machine draws more often.
        while b"step 4 [red]" not in shown:
            assert select.select([master], [], [], 20)[0], shown
            shown += os.read(master, 65536)
    finally:
        os.close(master)
        os.close(slave)
    quiet = subprocess.run(command, capture_output=True, cwd=ROOT, timeout=30)
    assert quiet.stderr == b""


@pytest.mark.parametrize(
    ("text", "seconds"), [("30", 30.0), ("2.5s", 2.5), ("500ms", 0.5), ("2m", 120.0), ("1h", 3600.0)]
)
def test_durations(text: str, seconds: float) -> None:
    assert arguments.duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "-1", "1e3", "nan", "1d", "25h", "٣", "1 s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        arguments.duration(text)


def test_urls() -> None:
    assert arguments.http_url("localhost:8000/x?y=1") == "http://localhost:8000/x?y=1"
    assert arguments.http_url("https://[::1]:8/") == "https://[::1]:8/"
    for text in ("", "ftp://x/", "http://", "http://a b/", "http://a/\x00", "http://[::1/", "http://a:b/"):
        with pytest.raises(argparse.ArgumentTypeError):
            arguments.http_url(text)
    assert arguments.without_secrets("https://me:secret@host:1/path?token=x#y") == "https://host:1/path"


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), ("LOCALHOST.", True),
        ("localhost.example", False), ("0.0.0.0", False), ("192.168.0.1", False), ("2130706433", False),
    ],
)  # fmt: skip
def test_loopback(host: str, expected: bool) -> None:
    assert arguments.is_loopback(host) is expected


@pytest.mark.parametrize(
    "command", [["doctor", "{url}", "--for", "1m"], ["bench", "{url}", "-n", "2", "--for", "1m"]]
)
def test_ctrl_c_at_work_is_130_without_a_traceback(command: list[str]) -> None:
    """The signal comes once the server has its stream, so the command is at work for sure."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        process = subprocess.Popen(
            [sys.executable, "-m", "streamkit", *(word.format(url=url) for word in command)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=ROOT,
        )
        with process, listener.accept()[0] as peer:
            assert peer.recv(65536)
            process.send_signal(signal.SIGINT)
            _, error = process.communicate(timeout=20)
    assert process.returncode == 130
    assert error == b""


def test_help_into_a_closed_pipe_is_silent() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        command = [sys.executable, "-m", "streamkit", "doctor", "--help"]
        done = subprocess.run(command, stdout=write_end, stderr=subprocess.PIPE, cwd=ROOT, timeout=30)
    finally:
        os.close(write_end)
    assert done.stderr == b""


@pytest.mark.parametrize(
    ("command", "closed", "code"),
    [
        (["config", "nginx"], ">&-", 0),
        (["--help"], ">&-", 0),
        (["publish", "sqlite:///{folder}/events.db", "news", "-"], "<&-", 0),
        (["publish", "sqlite:///{folder}/events.db", "news", "hello"], ">&- 2>&-", 0),
        (["tail", "127.0.0.1:1", "--data", "@-"], "<&-", 1),
        (["tail", "127.0.0.1:1", "--no-reconnect"], "<&- >&- 2>&-", 1),
        (["doctor", "127.0.0.1:1"], "2>&-", 1),
        (["doctor", "127.0.0.1:1"], ">&- 2>&-", 1),
    ],
)
def test_a_closed_standard_stream_is_nothing(
    tmp_path: Path, command: list[str], closed: str, code: int
) -> None:
    words = [sys.executable, "-m", "streamkit", *(word.format(folder=tmp_path) for word in command)]
    done = subprocess.run(
        ["/bin/sh", "-c", f'exec "$@" {closed}', "sh", *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=30,
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    if "2>&-" not in closed:
        assert done.stderr.count("\n") == code


def test_ctrl_c_while_the_commands_are_loaded_is_130(tmp_path: Path) -> None:
    """The first module that a command imports is one that says so, and takes its time."""
    (tmp_path / "argparse.py").write_text("import sys, time\nprint('loading', flush=True)\ntime.sleep(20)\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "streamkit", "--version"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"loading\n"
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=15)
    assert (process.returncode, error) == (130, b"")


def heard(command: list[str], url: str = "http://127.0.0.1:{port}/") -> list[str]:
    """The lines of the request that a command sends: to a server that reads it, and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        target = url.format(port=listener.getsockname()[1])
        words = [sys.executable, "-m", "streamkit", *(word.format(url=target) for word in command)]
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT)
        with process:
            try:
                listener.settimeout(20)
                with listener.accept()[0] as peer:
                    peer.settimeout(20)
                    head = b""
                    while b"\r\n\r\n" not in head and (data := peer.recv(65536)):
                        head += data
            finally:
                process.kill()
    return head.decode("latin-1").split("\r\n")


READERS = (["tail", "{url}", "--no-reconnect"], ["doctor", "{url}"], ["bench", "{url}", "-n", "1"])


def values(lines: list[str], name: str) -> list[str]:
    return [line.partition(": ")[2] for line in lines if line.lower().startswith(f"{name}:")]


@pytest.mark.parametrize("command", READERS)
def test_given_headers_are_sent_once_and_in_place_of_our_own(command: list[str]) -> None:
    given = ["Host: a.example", "accept: text/x", "Cache-control: max-age=0"]
    given += ["X-Word: one", "x-word: two", "Cookie: a=1", "Cookie: b=2"]
    lines = heard([*command, *(word for header in given for word in ("-H", header))])
    assert values(lines, "host") == ["a.example"]
    assert values(lines, "accept") == ["text/x"]
    assert values(lines, "cache-control") == ["max-age=0"]
    assert values(lines, "x-word") == ["one, two"]
    assert values(lines, "cookie") == ["a=1; b=2"]


@pytest.mark.parametrize("command", READERS)
def test_what_a_url_says_is_sent(command: list[str]) -> None:
    """A user name and password as `Authorization`, other letters as UTF-8, and never the fragment."""
    lines = heard(command, "me:p%20w@127.0.0.1:{port}/\N{LATIN SMALL LETTER E WITH ACUTE}?q=\xfc#part")
    assert lines[0] == "GET /%C3%A9?q=%C3%BC HTTP/1.1"
    assert values(lines, "authorization") == ["Basic bWU6cCB3"]
    assert "@" not in values(lines, "host")[0]


@pytest.mark.parametrize("command", READERS)
@pytest.mark.parametrize(
    ("url", "headers", "words"),
    [
        ("http://127.0.0.1:1/", ["Authorization: a", "authorization: b"], "Authorization was given twice"),
        ("http://me:pw@127.0.0.1:1/", ["Authorization: a"], "credentials are given twice"),
        ("http://a..b/", [], "host name"),
        ("http://127.0.0.1:1/", ["X-Word: \N{EURO SIGN}"], "HTTP cannot carry"),
    ],
)
def test_a_request_that_cannot_be_sent_is_2(
    capsys: pytest.CaptureFixture[str], command: list[str], url: str, headers: list[str], words: str
) -> None:
    options = [word for header in headers for word in ("-H", header)]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = url.replace(":1/", f":{listener.getsockname()[1]}/")
        assert main([*(word.format(url=url) for word in command), *options]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert "Traceback" not in error
