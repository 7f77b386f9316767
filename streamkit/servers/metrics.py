"""Metrics for Prometheus: a collector that reads records and totals when it is asked, and costs nothing before.

```python
app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {"/metrics": metrics_app()})  # Flask
prometheus_client.REGISTRY.register(StreamCollector())  # beside metrics of your own
```

Counters of events, chunks and bytes take in the streams that live, so that a stream of a day is seen while it runs;
what has an outcome is counted at the end. Labels have few values: kind, outcome, delivery, and names of yours, never a
path or an address.

The figures are those of one process. Multi-process mode of prometheus_client (`PROMETHEUS_MULTIPROC_DIR`) cannot take a
collector: let every worker be scraped by itself (docs/operations.md).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final, get_args

from streamkit.delivery.event_loop import event_loop
from streamkit.flow.stream import Outcome, Stream
from streamkit.flow.stream_threads import stream_threads
from streamkit.flow.streams import streams
from streamkit.flow.totals import DURATION_BUCKETS, FIRST_BYTE_BUCKETS, Total
from streamkit.servers.status import CountsPlaces

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

OUTCOMES: Final[tuple[str, ...]] = get_args(Outcome)


class StreamCollector:
    """A collector for a registry of prometheus_client: `registry.register(StreamCollector())`. Thread-safe.

    limiters: those to show, by a name of yours, which becomes a label.

    `streamkit_streams_live{kind,delivery}`, `streamkit_streams_ending{kind}` (live ones that are over for their
    client and wait for their producer to return), `streamkit_streams_ended_total{kind,outcome}`,
    `streamkit_events_total{kind}`, `streamkit_chunks_total{kind}`, `streamkit_bytes_total{kind}`, the histograms
    `streamkit_stream_duration_seconds{kind,outcome}` and `streamkit_first_byte_seconds{kind}` (both of ended streams),
    `streamkit_stream_threads{state}`, `streamkit_stream_threads_max`, `streamkit_loop_connections`,
    `streamkit_draining`, and for limiters `streamkit_limiter_taken{limiter}` and `streamkit_limiter_max{limiter}`.

    Raises ModuleNotFoundError where prometheus_client is not installed.
    """

    def __init__(self, *, limiters: Mapping[str, CountsPlaces] | None = None) -> None:
        _prometheus()
        self._limiters = dict(limiters or {})

    def collect(self) -> Iterator[Metric]:
        """The metrics of this moment. A scrape looks at each live stream once."""
        live, totals = streams.snapshot()  # of one moment, or a counter could fall when a stream ends
        yield from _of_streams(live, totals)
        yield from _of_times(totals)
        yield from _of_the_process()
        if self._limiters:
            yield from self._of_limiters()

    def _of_limiters(self) -> Iterator[Metric]:
        limits = [(name, limiter.max_streams) for name, limiter in self._limiters.items()]
        yield _gauge(
            "streamkit_limiter_taken",
            "Places that are taken in a limiter",
            ["limiter"],
            [((name,), len(limiter)) for name, limiter in self._limiters.items()],
        )
        yield _gauge(
            "streamkit_limiter_max",
            "Places that a limiter has in all",
            ["limiter"],
            [((name,), most) for name, most in limits if most is not None],
        )


def metrics_app(*, limiters: Mapping[str, CountsPlaces] | None = None) -> Callable[..., Iterable[bytes]]:
    """A WSGI application with the metrics of `StreamCollector` and those of the process (`process_open_fds`, …).

    It has a registry of its own, so it shows nothing else, and may be made any number of times. It answers GET on any
    path, to everybody whom the server lets through. As a route of `serve`: `lambda environ: metrics`.

    Raises ModuleNotFoundError where prometheus_client is not installed.
    """
    prometheus = _prometheus()
    registry = prometheus.CollectorRegistry()
    registry.register(StreamCollector(limiters=limiters))
    prometheus.ProcessCollector(registry=registry)
    app: Callable[..., Iterable[bytes]] = prometheus.make_wsgi_app(registry)
    return app


def _of_streams(live: Sequence[Stream], totals: Sequence[Total]) -> Iterator[Metric]:
    now: Counter[tuple[str, str]] = Counter()
    events: Counter[str] = Counter()
    chunks: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    ending: Counter[str] = Counter()
    ended: Counter[tuple[str, str]] = Counter()
    for stream in live:
        now[stream.kind, stream.delivery] += 1
        ending[stream.kind] += stream.outcome is not None
    all_of_them: Iterable[Stream | Total] = (*live, *totals)
    for counted in all_of_them:
        events[counted.kind] += counted.events
        chunks[counted.kind] += counted.chunks
        sizes[counted.kind] += counted.bytes
    for kind in sorted(events):
        # From zero on: the first failure of a series that appears with it would not be seen by `rate`. And a gauge that
        # vanished with its last stream would leave its last value in a graph.
        ended.update({(kind, outcome): 0 for outcome in OUTCOMES})
        now.update({(kind, delivery): 0 for delivery in ("threaded", "detached")})
        ending.update({kind: 0})
    for total in totals:
        ended[total.kind, total.outcome] += total.streams
    yield _gauge("streamkit_streams_live", "Streams that live now", ["kind", "delivery"], now.items())
    yield _counter("streamkit_streams_ended", "Streams that have ended", ["kind", "outcome"], ended.items())
    by_kind = ["kind"]
    yield _gauge(
        "streamkit_streams_ending", "Live streams whose producer has yet to return", by_kind, _keyed(ending)
    )
    yield _counter("streamkit_events", "Items taken from producers", by_kind, _keyed(events))
    yield _counter("streamkit_chunks", "Chunks handed to the server or sent", by_kind, _keyed(chunks))
    yield _counter("streamkit_bytes", "Bytes handed to the server or sent", by_kind, _keyed(sizes))


def _of_times(totals: Sequence[Total]) -> Iterator[Metric]:
    families = _prometheus().core
    durations = families.HistogramMetricFamily(
        "streamkit_stream_duration_seconds",
        "How long streams have lived, at their end",
        labels=["kind", "outcome"],
    )
    for total in totals:
        buckets = _buckets(DURATION_BUCKETS, total.durations)
        durations.add_metric([total.kind, total.outcome], buckets, total.seconds)
    yield durations
    delays = families.HistogramMetricFamily(
        "streamkit_first_byte_seconds",
        "From the opening of a stream to its first byte, counted at its end",
        labels=["kind"],
    )
    for kind in sorted({total.kind for total in totals}):
        of_kind = [total for total in totals if total.kind == kind]
        counts = [sum(column) for column in zip(*(total.first_byte_delays for total in of_kind), strict=True)]
        seconds = sum(total.first_byte_seconds for total in of_kind)
        delays.add_metric([kind], _buckets(FIRST_BYTE_BUCKETS, counts), seconds)
    yield delays


def _of_the_process() -> Iterator[Metric]:
    working = stream_threads.working
    idle = max(0, len(stream_threads) - working)
    yield _gauge(
        "streamkit_stream_threads",
        "Threads outside of the server's pool that producers run on",
        ["state"],
        [(("working",), working), (("idle",), idle)],
    )
    for name, documentation, value in (
        ("stream_threads_max", "Stream threads that this process may have", stream_threads.maximum),
        ("loop_connections", "Connections that the event loop holds", len(event_loop)),
        ("draining", "Whether this process is about to end and refuses streams", int(streams.closing)),
    ):
        yield _gauge(f"streamkit_{name}", documentation, [], [((), value)])


def _buckets(bounds: Sequence[float], counts: Sequence[int]) -> list[tuple[str, int]]:
    """Prometheus' buckets: each holds all that is below its bound, and the last is called +Inf."""
    return list(zip([*map(str, bounds), "+Inf"], accumulate(counts), strict=True))


def _keyed(counts: Counter[str]) -> Iterator[tuple[tuple[str], int]]:
    return (((kind,), count) for kind, count in counts.items())


def _gauge(
    name: str, documentation: str, labels: list[str], samples: Iterable[tuple[tuple[str, ...], float]]
) -> Metric:
    return _filled(_prometheus().core.GaugeMetricFamily(name, documentation, labels=labels), samples)


def _counter(
    name: str, documentation: str, labels: list[str], samples: Iterable[tuple[tuple[str, ...], float]]
) -> Metric:
    """Exposed as `name`_total."""
    return _filled(_prometheus().core.CounterMetricFamily(name, documentation, labels=labels), samples)


def _filled(family: Any, samples: Iterable[tuple[tuple[str, ...], float]]) -> Metric:
    for values, value in sorted(samples):
        family.add_metric(values, value)
    filled: Metric = family
    return filled


def _prometheus() -> Any:
    try:
        import prometheus_client.core
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "metrics need the package prometheus-client: pip install prometheus-client",
            name=error.name,
        ) from error
    return prometheus_client
