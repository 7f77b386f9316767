"""`python -m benchmarks [name ...]`: print a table of figures; exit code 1 if one is missed."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from time import perf_counter

from benchmarks.measure import TABLE_HEAD

SUBJECTS = (
    "encode_events",
    "decode_events",
    "csv_rows",
    "json_lines",
    "memory",
    "first_byte",
    "tables",
    "fairness",
    "files",
    "client",
    "reading",
    "hub_publish",
    "redis_broker",
    "hub_restart",
    "hub_fan_out",
    "detached_crowd",
    "detached_fan_out",
    "detached_contention",
    "detached_leaving",
    "detached_generators",
    "detached_stalled",
)


def main(arguments: list[str] | None = None) -> int:
    """Measure the subjects named in `arguments`, or all. Returns 0, or 1 where a figure is missed, or 2."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"of {', '.join(SUBJECTS)}; default: all")
    names = parser.parse_args(arguments).names or list(SUBJECTS)
    unknown = [name for name in names if name not in SUBJECTS]
    if unknown:
        parser.error(f"there is no subject {unknown[0]!r}; choose from {', '.join(SUBJECTS)}")
    missed: list[str] = []
    for name in names:
        try:
            subject = import_module(f"benchmarks.{name}")
        except ModuleNotFoundError as error:
            print(f"{name} needs the package {error.name!r}: pip install -e '.[bench]'", file=sys.stderr)
            return 2
        start = perf_counter()
        print(f"\n### {name}\n\n{(subject.__doc__ or '').strip()}\n\n{TABLE_HEAD}", flush=True)
        for figure in subject.figures():
            print(figure.row(), flush=True)
            if not figure.ok:
                missed.append(f"{name}: {figure.name}")
        print(f"\n{perf_counter() - start:.0f} s", flush=True)
    print("\n" + (f"{len(missed)} missed: " + "; ".join(missed) if missed else "all ok"))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
