"""Metrics for Prometheus: the right types, counters that never fall, and nothing about a single client."""

from __future__ import annotations

import os
import queue
import re
import subprocess
import sys
import threading
import time
import urllib.request
from contextvars import copy_context
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest

prometheus_client = pytest.importorskip("prometheus_client")

from prometheus_client.parser import text_string_to_metric_families  # noqa: E402

from streamkit import EventSourceResponse, Limiter  # noqa: E402
from streamkit.flow.stream import Outcome, Stream  # noqa: E402
from streamkit.flow.streams import streams  # noqa: E402
from streamkit.servers.metrics import OUTCOMES, StreamCollector, metrics_app  # noqa: E402
from streamkit.servers.routes import routes_app  # noqa: E402
from tests.conftest import ROOT, eventually  # noqa: E402
from tests.ports import free_ports_in_a_row  # noqa: E402
from tests.servers.raw_client import connected, get, read_answer, read_until, running  # noqa: E402

GUIDE = (ROOT / "docs" / "operations.md").read_text()


def scraped(app: Any) -> str:
    environ: dict[str, Any] = {"QUERY_STRING": "", "SCRIPT_NAME": "", "PATH_INFO": "/"}
    setup_testing_defaults(environ)
    body = validator(app)(environ, lambda status, fields, exc_info=None: lambda data: None)
    try:
        return b"".join(body).decode()
    finally:
        body.close()


def value(name: str, collector: StreamCollector | None = None, **labels: str) -> float | None:
    registry = prometheus_client.CollectorRegistry()
    registry.register(collector or StreamCollector())
    found: float | None = registry.get_sample_value(name, labels)
    return found


def opened(kind: str) -> Stream:
    stream = Stream(kind, {"PATH_INFO": "/secret-path", "REMOTE_ADDR": "192.0.2.77"}, copy_context())
    streams._add(stream)
    return stream


def ended(stream: Stream, outcome: Outcome) -> None:
    stream.end(outcome)
    stream.leave()


def test_live_streams_count_at_once_and_ended_ones_by_outcome() -> None:
    kind = "metrics-test"
    stream = opened(kind)
    stream.produced += 3
    stream.sent(100)
    assert value("streamkit_streams_live", kind=kind, delivery="threaded") == 1
    assert value("streamkit_streams_live", kind=kind, delivery="detached") == 0
    assert value("streamkit_events_total", kind=kind) == 3
    assert value("streamkit_chunks_total", kind=kind) == 1
    assert value("streamkit_bytes_total", kind=kind) == 100
    # `rate` sees no first failure of a series that was not there before.
    assert [value("streamkit_streams_ended_total", kind=kind, outcome=name) for name in OUTCOMES] == [0] * 6
    ended(stream, "client_gone")
    assert value("streamkit_streams_live", kind=kind, delivery="threaded") == 0
    assert value("streamkit_streams_ended_total", kind=kind, outcome="client_gone") == 1
    assert value("streamkit_streams_ended_total", kind=kind, outcome="failed") == 0
    assert value("streamkit_bytes_total", kind=kind) == 100


def test_a_stream_whose_producer_does_not_return_is_told_apart() -> None:
    kind = "blocked-test"
    stream = opened(kind)
    assert value("streamkit_streams_ending", kind=kind) == 0
    stream.end("client_gone")
    assert value("streamkit_streams_ending", kind=kind) == 1
    assert value("streamkit_streams_live", kind=kind, delivery="threaded") == 1
    stream.leave()
    assert value("streamkit_streams_ending", kind=kind) == 0


def test_the_histograms_add_up() -> None:
    kind = "histogram-test"
    outcomes: list[Outcome] = ["completed", "failed"]
    for outcome in outcomes:
        stream = opened(kind)
        stream._started -= 30  # it began half a minute ago
        stream.sent(1)
        ended(stream, outcome)
    duration = "streamkit_stream_duration_seconds"
    assert value(f"{duration}_bucket", kind=kind, outcome="failed", le="10.0") == 0
    assert value(f"{duration}_bucket", kind=kind, outcome="failed", le="60.0") == 1
    assert value(f"{duration}_bucket", kind=kind, outcome="failed", le="+Inf") == 1
    assert value(f"{duration}_count", kind=kind, outcome="failed") == 1
    assert value(f"{duration}_sum", kind=kind, outcome="failed") == pytest.approx(30, abs=20)
    assert value("streamkit_first_byte_seconds_count", kind=kind) == 2
    assert value("streamkit_first_byte_seconds_bucket", kind=kind, le="10.0") == 0
    assert value("streamkit_first_byte_seconds_bucket", kind=kind, le="+Inf") == 2


def test_no_counter_falls_when_a_stream_ends_during_a_scrape() -> None:
    kind = "monotonic-test"
    stop = threading.Event()

    def churn() -> None:
        while not stop.is_set():
            stream = opened(kind)
            stream.sent(10)
            ended(stream, "completed")

    threads = [threading.Thread(target=churn) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        registry = prometheus_client.CollectorRegistry()
        registry.register(StreamCollector())
        last = 0.0
        deadline = time.monotonic() + 10  # a bound, not a measure: the machine may be slow
        for _ in range(200):
            now = registry.get_sample_value("streamkit_bytes_total", {"kind": kind}) or 0.0
            assert now >= last
            last = now
            if time.monotonic() > deadline:
                break
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_the_text_is_what_prometheus_reads_and_holds_no_path_and_no_address() -> None:
    stream = opened("text-test")
    try:
        limiter = Limiter(5)
        text = scraped(metrics_app(limiters={"viewers": limiter, "keys": Limiter(per_key=1)}))
    finally:
        ended(stream, "completed")
    families = {family.name: family for family in text_string_to_metric_families(text)}
    types = {name: family.type for name, family in families.items() if name.startswith("streamkit_")}
    assert types == {
        "streamkit_streams_live": "gauge",
        "streamkit_streams_ending": "gauge",
        "streamkit_streams_ended": "counter",
        "streamkit_events": "counter",
        "streamkit_chunks": "counter",
        "streamkit_bytes": "counter",
        "streamkit_stream_duration_seconds": "histogram",
        "streamkit_first_byte_seconds": "histogram",
        "streamkit_stream_threads": "gauge",
        "streamkit_stream_threads_max": "gauge",
        "streamkit_loop_connections": "gauge",
        "streamkit_draining": "gauge",
        "streamkit_limiter_taken": "gauge",
        "streamkit_limiter_max": "gauge",
    }
    limits = {sample.labels["limiter"]: sample.value for sample in families["streamkit_limiter_max"].samples}
    assert limits == {"viewers": 5}  # one without a limit in all has none to show
    assert "secret-path" not in text
    assert "192.0.2.77" not in text
    if sys.platform == "linux":
        assert families["process_open_fds"].samples[0].value > 2


def test_the_guide_names_every_metric_and_no_other() -> None:
    collector = StreamCollector(limiters={"a": Limiter(1)})
    suffixes = {"counter": "_total"}
    exposed = {f"{family.name}{suffixes.get(family.type, '')}" for family in collector.collect()}
    named = {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"\bstreamkit_\w+", GUIDE)}
    assert named == exposed


def test_a_registry_refuses_the_same_metrics_twice() -> None:
    registry = prometheus_client.CollectorRegistry(auto_describe=True)  # as the default one is
    registry.register(StreamCollector())
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        registry.register(StreamCollector())


def test_without_the_package_the_error_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['prometheus_client'] = None\n"
        "from streamkit.servers.metrics import metrics_app\n"
        "try: metrics_app()\n"
        "except ModuleNotFoundError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert "pip install prometheus-client" in done.stdout


def test_scraped_from_a_real_server_beside_a_stream() -> None:
    items: queue.Queue[str | None] = queue.Queue()
    items.put("one")
    metrics = metrics_app()
    app = routes_app(
        {"/events": lambda environ: EventSourceResponse(items), "/metrics": lambda environ: metrics}
    )
    with running(app) as server:

        def live() -> float:
            with connected(server) as asking:
                asking.sendall(get("/metrics"))
                code, fields, body = read_answer(asking)
            assert code == 200
            assert fields["content-type"].startswith("text/plain; version=")
            sample = re.search(rb'streams_live{delivery="detached",kind="events"} (\S+)', body)
            return float(sample[1]) if sample else -1

        with connected(server) as sock:
            sock.sendall(get("/events"))
            read_until(sock, b"data: one")
            eventually(lambda: live() == 1)
        eventually(lambda: live() == 0)


def test_each_worker_of_gunicorn_can_be_scraped(tmp_path: Path) -> None:
    """The recipe of docs/operations.md, with its ports moved to free ones."""
    pytest.importorskip("gunicorn")
    from tests.live_server import GUNICORN

    (recipe,) = re.findall(r"```python\n(# gunicorn\.conf\.py\n.*?)```", GUIDE, re.DOTALL)
    first = free_ports_in_a_row(3)
    assert "range(9101, 9109)" in recipe
    (tmp_path / "conf.py").write_text(recipe.replace("range(9101, 9109)", f"range({first}, {first + 3})"))
    (tmp_path / "plain.py").write_text("def app(environ, start_response):\n    raise SystemError\n")
    log = tmp_path / "log"
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [
                *[sys.executable, *GUNICORN, "--config", str(tmp_path / "conf.py"), "--workers", "2"],
                *["--bind", "127.0.0.1:0", "--chdir", str(tmp_path), "plain:app"],
            ],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.DEVNULL,
            stderr=stderr,
        )
    try:

        def answers() -> list[bytes]:
            found = []
            for port in range(first, first + 3):
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as response:
                        found.append(response.read())
                except OSError:
                    pass
            return found

        eventually(lambda: len(answers()) == 2, 20, f"two workers answering; see {log}")
        assert all(b"streamkit_stream_threads_max" in answer for answer in answers())
    finally:
        process.terminate()
        process.wait(15)
