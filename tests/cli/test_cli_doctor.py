"""`doctor`: what it concludes from what it has seen, what it prints, and how it tells what cannot be examined."""

from __future__ import annotations

import json
import socket
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from streamkit import EventSourceResponse, ServerSentEvent
from streamkit.cli import main, path_checks, path_look
from streamkit.cli import path_findings as findings_of
from streamkit.cli.path_look import MAX_ARRIVALS, MAX_BYTES, Arrival, Look, look
from streamkit.cli.path_remedies import hops, remedy
from streamkit.formats.event_stream_decoder import EventStreamDecoder
from streamkit.servers.http_server import StreamServer
from streamkit.servers.probe import MARK
from streamkit.servers.probe import app as probe_app
from tests.cli.naive_app import app as naive_app

STREAM = [("Content-Type", "text/event-stream"), ("Cache-Control", "no-store, no-transform")]


@pytest.fixture(scope="module")
def naive() -> Iterator[str]:
    with StreamServer(naive_app, port=0, grace=0).start() as server:
        yield server.url


@pytest.fixture(scope="module")
def probe() -> Iterator[str]:
    with StreamServer(probe_app, port=0, grace=0).start() as server:
        yield server.url


def seen(*times: float, sent: list[float] | None = None, **more: object) -> Look:
    """A look at a stream whose events arrived at these seconds, and carry these stamps."""
    stream = Look("http://127.0.0.1/", 200, "OK", "1.1", STREAM, True, 0.01, 0.01)
    for n, at in enumerate(times):
        data: object = n if sent is None else {"sent": sent[n]}
        stream.events.append(Arrival(at, 1_000_000.0 + at, ServerSentEvent(data)))
    for name, value in more.items():
        setattr(stream, name, value)
    return stream


@pytest.fixture
def busy_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pause of the machine's own is taken for a fault of the path."""
    monkeypatch.setattr(findings_of, "HELD_SECONDS", 20.0)
    monkeypatch.setattr(path_checks, "LEAVING_SECONDS", 20.0)


def faults(found: list[findings_of.Finding]) -> list[tuple[str, bool]]:
    return [(one.fault, one.is_risk) for one in found]


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (seen(0.1, 0.3, 0.5), []),
        (seen(2.0, 2.0, 2.01), [("buffered", False)]),  # all at once, long after the request
        (seen(0.01, 0.01, 0.02), []),  # a backlog at the beginning is no buffer
        (
            seen(*[1.0] * 4, *[2.0] * 4, *[3.0] * 4),
            [("buffered", True)],
        ),  # perhaps the application's own batches
        (
            seen(*[1.0] * 4, *[2.0] * 4, *[3.0] * 4, reads=[(1.0, 4096), (2.0, 4096), (3.0, 4096)]),
            [("buffered", False)],
        ),
        (seen(0.9, headers_at=0.9), [("late-headers", False)]),
        # By the stamps, on clocks that need not agree:
        (seen(0.1, 0.3, 0.5, sent=[5.0, 5.2, 5.4]), []),
        (seen(2.0, 2.0, 2.0, sent=[5.0, 5.2, 6.8]), [("buffered", False)]),
        (seen(0.1, 0.3, 0.5, sent=[9e9, 9e9 + 0.2, 9e9 + 0.4]), []),
    ],
)
def test_delay(stream: Look, expected: list[tuple[str, bool]]) -> None:
    assert faults(findings_of.of_delay(stream, [])) == expected


@pytest.mark.parametrize(
    ("end", "end_at", "last_read", "expected"),
    [
        ("open", 5.0, 1.0, []),
        ("whole", 5.0, 1.0, []),
        ("broken", 2.0, 1.9, [("truncated", False)]),
        ("reset", 2.0, 1.9, [("truncated", False)]),
        ("broken", 61.0, 1.0, [("idle-cut", False)]),
        ("unreadable", 1.0, 1.0, [("truncated", False)]),
    ],
)
def test_end(end: str, end_at: float, last_read: float, expected: list[tuple[str, bool]]) -> None:
    stream = seen(0.1, end=end, end_at=end_at, reads=[(last_read, 10)])
    assert faults(findings_of.of_end(stream, [])) == expected


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([*STREAM, ("X-Accel-Buffering", "no")], []),
        (STREAM, [("accel-buffering", True)]),
        ([*STREAM, ("Server", "nginx")], []),  # which takes the header out
        ([*STREAM, ("Server", "nginx"), ("Age", "3")], [("cached", False)]),
        ([*STREAM, ("Server", "nginx"), ("Content-Length", "9")], [("content-length", False)]),
        ([("Content-Type", "text/event-stream"), ("Server", "nginx")], [("cache-control", True)]),
        ([("Server", "nginx"), ("Cache-Control", "no-cache, no-transform")], [("content-type", False)]),
        ([("Content-Type", "text/csv"), ("Content-Length", "9")], []),  # a table may have a length
    ],
)
def test_headers(headers: list[tuple[str, str]], expected: list[tuple[str, bool]]) -> None:
    stream = seen(0.1, headers=headers)
    assert faults(findings_of.of_headers(stream, hops(headers), is_probe=False)) == expected


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([("CF-RAY", "8a"), ("Server", "cloudflare")], ["Cloudflare"]),
        ([("Server", "openresty/1.25"), ("Via", "1.1 vegur")], ["Heroku router", "nginx"]),
        ([("Via", "1.1 Caddy"), ("Server", "gunicorn")], ["Caddy", "gunicorn"]),
        ([("X-Powered-By", "Express")], ["a development proxy (webpack, Vite)"]),
        ([("Server", "home-made")], []),
    ],
)
def test_hops(headers: list[tuple[str, str]], expected: list[str]) -> None:
    assert hops(headers) == expected


def test_the_outermost_hop_with_a_cure_is_named() -> None:
    assert remedy("idle-cut", ["Cloudflare", "nginx"])[0] == "Cloudflare"
    hop, lines = remedy("buffered", ["gunicorn"])
    assert hop == ""  # what runs the application is no proxy
    assert any("middleware" in line for line in lines)


def test_the_headers_that_are_recommended_as_ours_are_ours() -> None:
    lines = remedy("buffered", [])[1]
    assert [": ".join(header) for header in EventSourceResponse([]).headers.items()] == lines[-3:]


def test_a_look_sees_a_stream_that_breaks(probe: str) -> None:
    whole, broken = look(f"{probe}/?count=2&interval=0.01", 10), look(f"{probe}/?count=2&end=broken", 10)
    assert (whole.end, broken.end) == ("whole", "broken")
    assert [arrival.event.id for arrival in whole.events] == ["1", "2"]


@pytest.mark.usefixtures("busy_machine")
def test_the_right_path_has_nothing_wrong(probe: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", probe, "--for", "0.7s", "--idle", "0.5s"]) == 0
    text = capsys.readouterr().out
    assert "fine" in text
    assert "leaving   noticed" in text
    assert "\x1b" not in text


@pytest.mark.parametrize(
    ("path", "words", "code"),
    [
        ("/page", "WRONG content-type", 1),
        ("/gone", "WRONG status: the answer is 404", 1),
        ("/whole", "WRONG content-length", 1),
        ("/late", "WRONG late-headers", 1),
    ],
)
def test_a_naive_stream(
    naive: str, capsys: pytest.CaptureFixture[str], path: str, words: str, code: int
) -> None:
    # Each of them comes to its end by itself long before.
    assert main(["doctor", naive + path, "--for", "20s"]) == code
    assert words in capsys.readouterr().out


@pytest.mark.usefixtures("busy_machine")
def test_what_a_naive_stream_risks(naive: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", naive, "--for", "20s"]) == 0
    assert "risk  cache-control: Cache-Control is missing" in capsys.readouterr().out


def test_risks_count_when_asked_to(naive: str) -> None:
    assert main(["doctor", naive, "--for", "0.3s", "--strict", "--json"]) == 1


def gzipping(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
    """The probe in a middleware that compresses and never flushes."""

    def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        return start_response(status, [*headers, ("Content-Encoding", "gzip")], exc_info)

    body = probe_app(environ, start)
    packer = zlib.compressobj(wbits=31)
    try:
        for chunk in body:
            yield packer.compress(chunk)
        yield packer.flush()
    finally:
        body.close()  # type: ignore[attr-defined]


def test_a_pause_of_its_own_is_no_buffer(
    probe: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    events = 0

    class Pausing(EventStreamDecoder):
        def feed(self, data: bytes) -> list[ServerSentEvent]:
            nonlocal events
            events += 1
            if events == 3:
                threading.Event().wait(3 * findings_of.HELD_SECONDS)
            return super().feed(data)

    monkeypatch.setattr(path_look, "EventStreamDecoder", Pausing)
    assert main(["doctor", probe, "--for", "2s", "--idle", "0"]) == 0, capsys.readouterr().out
    assert events > 5


def test_a_middleware_that_holds_events_back(capsys: pytest.CaptureFixture[str]) -> None:
    with StreamServer(gzipping, port=0, grace=0).start() as server:
        assert main(["doctor", server.url, "--for", "0.9s", "--idle", "0", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert [found["fault"] for found in report["findings"]][:2] == ["compressed", "buffered"]
    assert "COMPRESS_MIMETYPES" in str(report["findings"][0]["change"])
    assert "holds events back" in report["findings"][0]["what"]


@pytest.mark.parametrize(
    ("kind", "inflated"),
    [
        ("text/event-stream", b"data:1\n\n" * 1_000_000),
        ("text/event-stream", (b"data:" + b"x" * 60_000 + b"\n\n") * 1_000),
        ("text/plain", b"x" * 50_000_000),
    ],
)
def test_a_look_keeps_a_bounded_part_of_what_is_inflated(kind: str, inflated: bytes) -> None:
    packed = zlib.compress(inflated, wbits=31)
    assert len(packed) < 65_536  # so that one read brings most of it

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        start_response("200 OK", [("Content-Type", kind), ("Content-Encoding", "gzip")])
        return [packed, b"and more" * 100]

    with StreamServer(app, port=0, grace=0).start() as server:
        found = look(server.url, 30)
    assert len(found.events) <= MAX_ARRIVALS + 65_536 / 8
    assert sum(len(arrival.event.data or "") for arrival in found.events) <= MAX_BYTES + 65_536
    assert len(found.body) <= 65_536
    assert found.end in ("open", "whole")
    assert found.events or found.body


def test_what_follows_the_end_of_what_was_packed_is_left() -> None:
    packed = zlib.compress(b"data: one\n\n", wbits=31)

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        start_response("200 OK", [*STREAM, ("Content-Encoding", "gzip")])
        return [packed[:5], packed[5:] + b"data: two\n\n", b"data: three\n\n"]

    with StreamServer(app, port=0, grace=0).start() as server:
        found = look(server.url, 30)
    assert ([arrival.event.data for arrival in found.events], found.end) == (["one"], "whole")


@pytest.mark.usefixtures("busy_machine")
def test_the_fragment_of_a_url_hides_no_question(probe: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", f"{probe}/#part", "--for", "0.5s", "--idle", "0", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["unknown"] == []
    assert report["measured"]["leaving_noticed_after"] is not None


@pytest.mark.parametrize(
    ("event", "live"),
    [
        (b'{"seen": 5}', b'{"tokens": 5}'),
        (b'{"seen": {"headers": {"via": 5, "": []}, "server": []}}', b"[]"),
    ],
)
def test_who_only_says_to_be_the_probe_is_not_believed(
    capsys: pytest.CaptureFixture[str], event: bytes, live: bytes
) -> None:
    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        start_response("200 OK", [*STREAM, (MARK, "1")] if "live" not in environ["QUERY_STRING"] else [])
        return [live] if "live" in environ["QUERY_STRING"] else [b"data: " + event + b"\n\n"] * 3

    with StreamServer(app, port=0, grace=0).start() as server:
        assert main(["doctor", server.url, "--for", "0.3s", "--idle", "0.1s"]) in (0, 1)
    assert "the process of the stream did not answer again" in capsys.readouterr().out


def test_what_the_other_side_says_does_not_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def answer() -> None:
            with listener.accept()[0] as peer:
                peer.recv(65536)
                peer.sendall(
                    b"HTTP/1.1 200 \x1b[31mOK\r\nContent-Type: x/\x1b[2J\r\nContent-Length: 0\r\n\r\n"
                )

        thread = threading.Thread(target=answer)
        thread.start()
        assert main(["doctor", f"127.0.0.1:{port}", "--for", "0.5s"]) == 1
        thread.join()
    assert "\x1b" not in capsys.readouterr().out


def test_interim_answers_are_not_the_answer() -> None:
    """RFC 9110 section 15.2."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            with listener.accept()[0] as peer:
                peer.recv(65536)
                peer.sendall(
                    b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"
                    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: x\n\n"
                )

        thread = threading.Thread(target=answer)
        thread.start()
        seen = look(f"http://127.0.0.1:{listener.getsockname()[1]}/", 10)
        thread.join()
    assert (seen.status, seen.header("Link"), len(seen.events)) == (200, "", 1)


def test_a_server_that_hangs_up(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=lambda: listener.accept()[0].close())
        thread.start()
        assert main(["doctor", f"127.0.0.1:{listener.getsockname()[1]}", "--for", "20s"]) == 1
        thread.join()
    assert "no answer of HTTP came" in capsys.readouterr().out


def test_a_server_that_speaks_no_http_is_quoted_in_the_line(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            with listener.accept()[0] as connection:
                connection.recv(65536)
                connection.sendall(b"+OK redis\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        assert main(["doctor", f"127.0.0.1:{listener.getsockname()[1]}", "--for", "20s"]) == 1
        thread.join()
    assert "no answer of HTTP came (+OK redis)\n" in capsys.readouterr().out


def test_a_body_that_is_not_compressed_as_it_says_has_no_timing_and_no_usual_cause() -> None:
    seen = Look(
        "", status=200, headers=[*STREAM, ("Content-Encoding", "gzip")], end="unreadable", trouble="bad"
    )
    assert findings_of.of_compression(seen, [], is_probe=False, is_held=False) == []
    (found,) = findings_of.of_end(seen, [])
    assert (found.what, found.lines) == ("the body is not what its headers say: bad", [])


@pytest.mark.parametrize(
    ("target", "words", "code"),
    [
        ("ftp://127.0.0.1/", "not a URL", 2),
        ("http://127.0.0.1:1/", "cannot reach", 1),
        ("http://no-such-host.invalid/", "no host", 1),
        ("no_such_module_at_all:app", "no module", 2),
        ("http://127.0.0.1:1/ --path /x", "belong to module:name", 2),
        ("http://127.0.0.1:1/ --server uwsgi", "belong to module:name", 2),
        ("streamkit.servers.probe:app --path x", "has to begin with /", 2),
    ],
)
def test_what_cannot_be_examined_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, target: str, words: str, code: int
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert main(["doctor", *target.split(), "--for", "0.5s"]) == code
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


@pytest.mark.usefixtures("busy_machine")
def test_a_local_application_under_a_server(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    target = "streamkit.servers.probe:app"
    assert main(["doctor", target, "--server", "streamkit", "--for", "0.5s", "--idle", "0", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["server"], report["probe"], report["findings"]) == ("streamkit", True, [])


def test_the_gunicorn_of_the_user(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("gunicorn")
    monkeypatch.setattr(sys, "path", list(sys.path))
    arguments = ["doctor", "tests.cli.naive_app:app", "--path", "/late", "--server", "gunicorn sync"]
    assert main([*arguments, "--for", "20s"]) == 1  # it ends after one event
    assert "late-headers" in capsys.readouterr().out


def test_an_application_that_does_not_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "moody_site.py").write_text(
        "import os\nif os.environ.get('PYTHONPATH', '').startswith(os.getcwd()): 1 / 0\napp = print\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("PYTHONPATH", "")
    assert main(["doctor", "moody_site:app", "--server", "streamkit"]) == 1
    assert "does not start" in capsys.readouterr().out
