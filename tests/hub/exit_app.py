"""A process that ends while its runs go on: `python -m tests.hub.exit_app HUB_URL [drain|stubborn|finish]`."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator

from streamkit import drain
from streamkit.hub import runs
from streamkit.hub.hub import Hub


class Upstream:
    """A response that is read by blocking, and can be closed from elsewhere."""

    def __init__(self) -> None:
        self.over = threading.Event()
        self.items = iter(["half"])

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        for item in self.items:
            return item
        self.over.wait(60)
        raise StopIteration

    def cancel(self) -> None:
        self.over.set()

    def close(self) -> None:
        print("upstream closed", flush=True)


def ticking() -> Iterator[str]:
    try:
        while True:
            yield "half"
            time.sleep(0.05)
    finally:
        print("ticking closed", flush=True)


def stubborn() -> Iterator[str]:
    yield "half"
    time.sleep(60)


def slow() -> Iterator[str]:
    yield "half"
    time.sleep(1.0)
    yield "whole"


def main() -> None:
    how = sys.argv[2]
    if how != "stubborn":  # what ends at once may wait for the processor
        runs.CLOSE_SECONDS = 10.0  # type: ignore[misc]
    hub = Hub(sys.argv[1], finish_runs=20.0 if how == "finish" else 0.0)
    producers = {"stubborn": [stubborn], "finish": [slow]}.get(how, [Upstream, ticking])
    for number, producer in enumerate(producers):
        print(hub.run(f"run/{number}", producer).id, flush=True)
    sys.stdin.read()
    if how == "drain":
        drain(1.0)


if __name__ == "__main__":
    main()
