"""`tail`: what it prints of a stream, when it leaves, and what it says when there is nothing to read."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from streamkit.cli import main
from streamkit.cli import tail as tail_command
from streamkit.cli.output import safe, safe_line
from streamkit.servers.http_server import StreamServer
from streamkit.servers.probe import app as probe_app
from tests.cli.naive_app import app as naive_app
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def naive() -> Iterator[str]:
    with StreamServer(naive_app, port=0, grace=0).start() as server:
        yield server.url


@pytest.fixture(scope="module")
def probe() -> Iterator[str]:
    with StreamServer(probe_app, port=0, grace=0).start() as server:
        yield server.url


def test_events_with_their_times_and_gaps(probe: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tail", f"{probe}/?interval=0.05", "-n", "3"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "message" in line]
    assert re.fullmatch(r"\d\d:\d\d:\d\d\.\d{3} message id=1", lines[0])
    assert re.match(r"\d\d:\d\d:\d\d\.\d{3} \+\d\.\d{3}s message id=2 \{\"sent\"", lines[1])
    assert len(lines) == 3


def test_json_is_one_object_a_line(probe: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tail", f"{probe}/?interval=0.05", "-n", "2", "--json"]) == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first["gap"] is None
    assert second["gap"] > 0
    assert (second["id"], second["event"], second["data"]["n"]) == ("2", "message", 2)


def test_raw_is_the_data_alone(naive: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tail", naive, "--raw", "-n", "2"]) == 0
    assert capsys.readouterr().out == "0 \n1 \n"


def test_a_body_is_posted_once_with_headers_and_the_id(
    naive: str, capsys: pytest.CaptureFixture[str]
) -> None:
    body = '{"prompt": "hi"}'
    assert main(["tail", f"{naive}/echo", "--data", body, "-H", "X-Word: word", "--since", "7", "--raw"]) == 0
    assert capsys.readouterr().out.splitlines() == ["POST", "word", "7", body]


def test_a_body_from_a_file_and_another_method(
    naive: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "body").write_text("from a file")
    assert main(["tail", f"{naive}/echo", "--data", f"@{tmp_path / 'body'}", "--method", "PUT", "--raw"]) == 0
    assert capsys.readouterr().out.splitlines() == ["PUT", "", "", "from a file"]


def test_a_method_that_may_change_something_is_used_once(
    naive: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tail", f"{naive}/echo", "--method", "POST", "--raw", "--for", "10s"]) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines() == ["POST", "", "", ""]
    assert captured.err == ""


def begin_time_with(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Let the time of --for begin with the first call of this function of `tail`, however slow the machine."""
    called = threading.Event()
    function: Callable[..., Any] = getattr(tail_command, name)

    class Timer(threading.Timer):
        def run(self) -> None:
            called.wait(20)
            super().run()

    def call(*arguments: Any) -> Any:
        called.set()
        return function(*arguments)

    monkeypatch.setattr(tail_command, name, call)
    monkeypatch.setattr(threading, "Timer", Timer)


def test_where_nothing_listens_it_says_so_in_words(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = "the connection was lost (cannot connect to 127.0.0.1 port 1)"
    assert main(["tail", "127.0.0.1:1", "--no-reconnect"]) == 1
    assert capsys.readouterr().err == f"error: {lost}\n"
    begin_time_with(monkeypatch, "complain")
    assert main(["tail", "127.0.0.1:1", "--for", "0.3s"]) == 0
    assert capsys.readouterr().err.startswith(f"{lost}; again in 3.")


def test_only_the_events_of_a_name(naive: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tail", f"{naive}/escape", "--event", "message", "--raw", "--no-reconnect"]) == 0
    assert capsys.readouterr().out == '{"deep":1}\n'


def test_control_characters_are_escaped(naive: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tail", f"{naive}/escape", "--no-reconnect"]) == 0
    text = capsys.readouterr().out
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "\\x1b]0;owned\\x07" in text
    assert "a\\x1b[2J" in text


@contextlib.contextmanager
def sending(*events: str) -> Iterator[str]:
    """The URL of a server that sends the data of these events to each client, and closes."""

    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/event-stream")])
        return [f"data: {data}\n\n".encode() for data in events]

    with StreamServer(app, port=0, grace=0).start() as server:
        yield server.url


@pytest.mark.parametrize("options", [[], ["--json"], ["--raw"]])
def test_data_of_any_depth_is_printed(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Near the limit of recursion a level more or less of the caller decides, so each depth is tried."""
    depths = [30, *range(850, 1001, 5), 100_000]
    with sending(*("[" * depth + "]" * depth for depth in depths)) as url:
        assert main(["tail", url, "--no-reconnect", *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    if options == ["--json"]:
        values = [json.loads(line)["data"] for line in lines]
        assert isinstance(values[0], list)
        assert values[1:] == ["[" * depth + "]" * depth for depth in depths[1:]]
    else:
        assert lines[-1].endswith("[" * 100_000 + "]" * 100_000)


def test_one_event_cannot_fill_the_screen(capsys: pytest.CaptureFixture[str]) -> None:
    """Laid out over lines each of these zeros would stand behind thousands of spaces."""
    deep = "[" * 900 + "0," * 10_000 + "0" + "]" * 900
    wide = "[" * 20 + "0," * 1_500 + "0" + "]" * 20
    with sending(deep, wide) as url:
        assert main(["tail", url, "--no-reconnect"]) == 0
    shown = capsys.readouterr().out
    assert deep in shown
    assert len(shown) < len(deep) + 100_000


def test_it_leaves_in_time(
    probe: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["tail", f"{probe}/?interval=60", "--for", "0.3s"]) == 0
    begin_time_with(monkeypatch, "_pretty")  # called for each event that is shown
    assert main(["tail", f"{probe}/?interval=60", "--for", "0.3s", "-n", "2"]) == 1
    assert "only 1 of 2 events came" in capsys.readouterr().err


def test_it_comes_back_and_says_so(
    probe: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    begin_time_with(monkeypatch, "complain")
    assert main(["tail", f"{probe}/?count=1", "--for", "0.5s"]) == 0
    assert "the stream has ended; again in" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words", "code"),
    [
        (["{naive}/gone"], "404", 1),
        (["{naive}/page"], "not an event stream", 1),
        (["http://127.0.0.1:1/", "--no-reconnect"], "lost", 1),
        (["ftp://127.0.0.1/"], "not a URL", 2),
        (["http://127.0.0.1:99999/"], "not a URL", 2),
        (["{naive}", "-H", "no colon"], "not a header", 2),
        (["{naive}", "-n", "0"], "not a count", 2),
        (["{naive}", "--for", "0"], "not a time above 0", 2),
        (["{naive}", "--for", "2 weeks"], "not a time", 2),
        (["{naive}", "--since", "a\nb"], "id", 2),
        (["{naive}", "--data", "@/no/such/file"], "cannot read", 2),
        (["{naive}", "--method", "GET /"], "method", 2),
        (["{naive}", "--json", "--raw"], "exclude each other", 2),
    ],
)
def test_what_a_user_gets_wrong(
    naive: str, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str, code: int
) -> None:
    assert main(["tail", *(argument.format(naive=naive) for argument in arguments)]) == code
    error = capsys.readouterr().err
    assert words in error
    assert "Traceback" not in error


def tail(url: str, *options: str, **more: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "streamkit", "tail", url, *options]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more}
    return subprocess.Popen(command, cwd=ROOT, text=True, **pipes)  # type: ignore[call-overload, no-any-return]


def test_ctrl_c_is_130_and_silent(probe: str) -> None:
    with tail(f"{probe}/?interval=60") as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=10)
    assert process.returncode == 130
    assert error == ""


def test_a_reader_that_has_enough_is_no_failure(probe: str) -> None:
    with tail(f"{probe}/?interval=0.01", "--raw") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline()
        process.stdout.close()
        assert process.wait(10) == 0
        assert process.stderr.read() == ""


def test_a_full_disk_is_one_line(probe: str) -> None:
    with Path("/dev/full").open("w") as full, tail(probe, "-n", "1", stdout=full) as process:
        _, error = process.communicate(timeout=10)
    assert process.returncode == 1
    assert error.count("\n") == 1
    assert "cannot write to the standard output: No space left on device" in error


def test_an_output_that_lacks_characters_gets_escapes(naive: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    with tail(f"{naive}/echo", "--data", "ü€", "--raw") as process:
        output, error = process.communicate(timeout=10)
    assert (process.returncode, error) == (0, "")
    assert output.splitlines()[3] == "\\xfc\\u20ac"


def test_escapes() -> None:
    assert safe("a\tb\nc\x1b\x9b\x7f") == "a\tb\nc\\x1b\\x9b\\x7f"
    assert safe_line("a\nb") == "a\\nb"
    assert safe("ü 漢 \u2066") == "ü 漢 \\u2066"


class Terminal:
    """A standard output that says that it is a terminal."""

    encoding = "utf-8"

    def __init__(self) -> None:
        self.text = ""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None: ...


@pytest.mark.parametrize(
    ("name", "value", "coloured"), [("X", "", True), ("NO_COLOR", "1", False), ("TERM", "dumb", False)]
)
def test_colour_is_for_terminals_that_want_it(
    naive: str, monkeypatch: pytest.MonkeyPatch, name: str, value: str, coloured: bool
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv(name, value)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    assert main(["tail", naive, "-n", "1"]) == 0
    assert ("\x1b[" in terminal.text) is coloured
