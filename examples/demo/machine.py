"""CPU and memory of this machine, from /proc (proc(5)): text files that the kernel writes at the moment they are read.

A share of CPU time is a difference between two looks, so a meter remembers its last one.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

PROC = Path("/proc")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Meter:
    """`read()` gives the numbers of this moment. Not thread-safe; it costs two small reads."""

    def __init__(self, proc: Path = PROC) -> None:
        self._proc = proc
        self._last = self._cpu_times()

    def read(self) -> dict[str, Any]:
        """Values for JSON. `cpu` is a share, 0 to 1, since the last look, None at the first; sizes are in bytes.

        Where there is no /proc (macOS, BSD) only `time` and `note` are there, and the page shows the note.
        """
        if self._last is None:
            return {
                "time": time.time(),
                "note": f"{os.uname().sysname} has no /proc: there is nothing to measure",
            }
        fields = _fields(self._proc / "meminfo")
        memory = {name: int(value.split()[0]) * 1024 for name, value in fields.items()}
        return {
            "time": time.time(),
            "cpu": self._cpu_share(),
            "cores": os.cpu_count(),
            "load": round(os.getloadavg()[0], 2),
            "memory_total": memory["MemTotal"],
            "memory_used": memory["MemTotal"] - memory.get("MemAvailable", memory["MemFree"]),
        }

    def _cpu_times(self) -> tuple[int, int] | None:
        """(busy, all) in ticks since boot, of all cores together."""
        try:
            with (self._proc / "stat").open() as file:
                # user nice system idle iowait irq softirq steal; guest time is contained in user and nice.
                ticks = [int(field) for field in file.readline().split()[1:9]]
        except FileNotFoundError:
            return None
        return sum(ticks) - ticks[3] - ticks[4], sum(ticks)

    def _cpu_share(self) -> float | None:
        now, last = self._cpu_times(), self._last
        assert now is not None
        assert last is not None
        elapsed = now[1] - last[1]
        if elapsed <= 0:  # no tick since the meter was made a moment ago
            return None
        self._last = now
        return round(max(0, now[0] - last[0]) / elapsed, 4)


def process_size(proc: Path = PROC) -> dict[str, int]:
    """`threads` and resident `bytes` of this process; empty where there is no /proc."""
    try:
        return {
            "threads": int(_fields(proc / "self/status")["Threads"]),
            "bytes": int((proc / "self/statm").read_text().split()[1]) * PAGE_BYTES,
        }
    except FileNotFoundError:
        return {}


def _fields(path: Path) -> dict[str, str]:
    lines = path.read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}
