"""`bench`: what it counts, what it refuses, and what it does with servers that misbehave."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from streamkit.cli import main
from streamkit.cli.bench_plot import draw
from streamkit.cli.stream_crowd import Crowd, Histogram, Second
from streamkit.servers.http_server import StreamServer
from streamkit.servers.probe import app as probe_app
from tests.cli.naive_app import app as naive_app


@pytest.fixture(scope="module")
def probe() -> Iterator[str]:
    with StreamServer(probe_app, port=0, grace=0).start() as server:
        yield server.url


def test_streams_are_held_and_measured(
    probe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plot = tmp_path / "plot.svg"
    url = f"{probe}/?interval=0.1"
    assert main(["bench", url, "-n", "60", "--for", "3s", "--json", "--plot", str(plot)]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["opened"], figures["failed"], figures["ended_early"]) == (60, {}, {})
    assert figures["events"] >= 60 * 3
    assert (figures["lost"], figures["repeated"]) == (0, 0)
    assert 0 < figures["delay"]["p50"] <= figures["delay"]["p99"] <= figures["delay"]["longest"]
    root = ElementTree.parse(plot).getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"


def test_text(probe: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", f"{probe}/?interval=0.05", "-n", "3", "--for", "2s"]) == 0
    text = capsys.readouterr().out
    assert "streams   3 of 3 open" in text
    assert "lost      0" in text


def test_ctrl_c_tells_what_was_measured_by_then(
    probe: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    turn = Crowd.turn
    settled: list[float] = []

    def interrupted(crowd: Crowd, seconds: float) -> None:
        if crowd.settled:
            now = time.monotonic()
            settled.append(now)
            # A busy machine may take its time to open them, and then it holds them for longer than that.
            if crowd.events >= 9 and now - settled[0] > max(0.3, settled[0] - crowd.start):
                raise KeyboardInterrupt
        turn(crowd, seconds)

    monkeypatch.setattr(Crowd, "turn", interrupted)
    assert main(["bench", f"{probe}/?interval=0.2", "-n", "3", "--for", "60s", "--json"]) == 130
    figures = json.loads(capsys.readouterr().out)
    assert figures["held_seconds"] > 0.3
    assert figures["opening_seconds"] < figures["held_seconds"]  # not up to the interrupt
    assert figures["events"] >= 9


def test_streams_that_end_are_found_wrong(probe: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", f"{probe}/?count=2&interval=0.01", "-n", "5", "--for", "5s", "--json"]) == 1
    figures = json.loads(capsys.readouterr().out)
    assert figures["ended_early"] == {"ended by the server": 5}
    assert (
        main(["bench", f"{probe}/?count=2&end=broken&interval=0.01", "-n", "2", "--for", "5s", "--json"]) == 1
    )
    assert json.loads(capsys.readouterr().out)["ended_early"] == {"cut off": 2}


def test_events_without_stamp_and_id(capsys: pytest.CaptureFixture[str]) -> None:
    with StreamServer(naive_app, port=0, grace=0).start() as server:
        assert main(["bench", server.url, "-n", "2", "--for", "0.3s"]) == 0
    text = capsys.readouterr().out
    assert "delay     unknown" in text
    assert "lost      unknown" in text


WIRE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (WIRE + b"id: a-1\ndata: x\n\nid: a-2\ndata: x\n\nid: a-7\ndata: x\n\n", {"lost": 4, "repeated": 0}),
        (WIRE + b"id: a-1\ndata: x\n\nid: a-2\ndata: x\n\nid: b-1\ndata: x\n\n", {"lost": 0, "repeated": 0}),
        (WIRE + b"id: 2\ndata: x\n\nid: 2\ndata: x\n\n", {"lost": 0, "repeated": 1}),
        (WIRE + b"data: x\n\n", {"lost": None}),
        (b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n" * 2 + WIRE + b"data: x\n\n", {"events": 1}),
        (WIRE, {"events": 0, "ended_early": {"closed by the server": 1}}),
    ],
)
def test_ids(capsys: pytest.CaptureFixture[str], answer: bytes, expected: dict[str, object]) -> None:
    figures = figures_of(answer, capsys)
    assert {name: figures[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 503 No\r\n\r\n", "1x status 503"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<h1>", "1x not an event stream, but text/html"),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + WIRE, "1x status 101"),
        (b"nonsense", "1x closed by the server"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000, "1x a head without an end"),
    ],
)
def test_streams_that_do_not_open(capsys: pytest.CaptureFixture[str], answer: bytes, words: str) -> None:
    port = one_answer(answer)
    assert main(["bench", f"127.0.0.1:{port}", "-n", "1", "--for", "2s"]) == 1
    assert words in capsys.readouterr().err


def figures_of(answer: bytes, capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    assert main(["bench", f"127.0.0.1:{one_answer(answer)}", "-n", "1", "--for", "20s", "--json"]) == 1
    figures: dict[str, object] = json.loads(capsys.readouterr().out)
    return figures


def one_answer(answer: bytes) -> int:
    """The port of a server that sends these bytes to its one client, and closes."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with listener, listener.accept()[0] as peer:
            peer.recv(65536)
            peer.sendall(answer)

    threading.Thread(target=serve).start()
    port: int = listener.getsockname()[1]
    return port


@pytest.mark.parametrize(
    ("arguments", "words", "code"),
    [
        (["http://192.0.2.1/"], "--i-own-this-server", 2),
        (["https://127.0.0.1/"], "plain HTTP", 2),
        (["http://no-such-host.invalid/"], "no host", 1),
        (["http://127.0.0.1:1/"], "Connection refused", 1),
        (["http://127.0.0.1:1/", "--plot", "/no/such/folder/x.svg"], "cannot write", 1),
        (["http://127.0.0.1:1/", "-n", "900000000"], "hard limit", 1),
    ],
)
def test_what_is_refused(
    capsys: pytest.CaptureFixture[str], arguments: list[str], words: str, code: int
) -> None:
    assert main(["bench", *arguments]) == code
    error = capsys.readouterr().err
    assert words in error
    assert "Traceback" not in error


def test_histogram() -> None:
    times = Histogram()
    assert times.percentile(50) is None
    for number in range(1, 1001):
        times.add(number / 1000)
    for percent in (1, 50, 90, 99, 100):
        found = times.percentile(percent)
        assert found is not None
        assert percent / 100 <= found * 1.0001 <= percent / 100 * 1.03
    assert times.longest == 1.0
    negative = Histogram()
    negative.add(-1.0)  # clocks that disagree
    assert negative.count == 1


def test_a_plot_of_nothing_and_of_odd_titles() -> None:
    ElementTree.fromstring(draw({}, '<none> & "nothing"'))
    ElementTree.fromstring(draw({0: Second(events=3), 4: Second(events=1)}, "a title"))
