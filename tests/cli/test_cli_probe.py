"""`streamkit.servers.probe`: the stream that paths are judged by, as its own head describes it."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from wsgiref.validate import validator

import pytest

from streamkit import EventStreamDecoder
from streamkit.cli.path_look import look, offered_protocol
from streamkit.servers.http_server import StreamServer
from streamkit.servers.probe import MARK, app
from tests.conftest import eventually
from tests.services import program


@pytest.fixture(scope="module")
def probe() -> Iterator[str]:
    with StreamServer(validator(app), port=0, grace=0).start() as server:
        yield server.url


def events(url: str) -> list[dict[str, Any]]:
    with urllib.request.urlopen(url, timeout=10) as response:
        assert response.headers[MARK] == "1"
        return [event.json() for event in EventStreamDecoder().feed(response.read())]


def live(probe: str) -> list[str]:
    with urllib.request.urlopen(f"{probe}/?ask=live", timeout=10) as response:
        tokens: list[str] = json.load(response)["tokens"]
        return tokens


def test_events_are_numbered_and_stamped(probe: str) -> None:
    found = events(f"{probe}/any/path?count=3&interval=0.01&size=10")
    assert [event["n"] for event in found] == [1, 2, 3]
    assert found[0]["sent"] <= found[1]["sent"] <= found[2]["sent"]
    assert all(event["padding"] == "." * 10 for event in found)
    assert found[0]["seen"]["protocol"] == "HTTP/1.1"


def test_a_quiet_stream_has_two_events(probe: str) -> None:
    assert len(events(f"{probe}/?quiet=0.2")) == 2


def test_a_stream_is_live_until_its_reader_leaves(probe: str) -> None:
    with urllib.request.urlopen(f"{probe}/?quiet=60&token=mine", timeout=10) as response:
        assert response.readline()
        assert "mine" in live(probe)
    eventually(lambda: "mine" not in live(probe))


@pytest.mark.parametrize(
    "query",
    ["count=x", "count=0", "interval=0", "interval=nan", "quiet=-1", "size=99999999", "end=maybe", "end=broken",
     "token=" + "x" * 65],
)  # fmt: skip
def test_what_makes_no_sense_is_400(probe: str, query: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{probe}/?{query}", timeout=10)
    with caught.value as error:
        assert error.code == 400
        assert query.partition("=")[0].encode() in error.read()


def test_what_tls_offers_to_browsers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    openssl = program("openssl")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["h2"])
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            with context.wrap_socket(listener.accept()[0], server_side=True) as peer:
                peer.recv(1)

        thread = threading.Thread(target=answer)
        thread.start()
        assert offered_protocol(f"https://localhost:{listener.getsockname()[1]}/") == "h2"
        thread.join()
    assert offered_protocol("http://localhost/") == ""
    assert offered_protocol("https://127.0.0.1:1/") == ""


def test_a_look_at_the_probe(probe: str) -> None:
    seen = look(f"{probe}/?interval=0.01", 10, enough=lambda seen: len(seen.events) >= 3)
    assert seen.is_event_stream
    assert not seen.ends_by_close
    assert seen.end == "open"
