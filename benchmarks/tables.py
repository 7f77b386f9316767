"""The rows and records that several subjects send."""

from __future__ import annotations

from collections.abc import Iterator

Row = tuple[int, str, float, str, int, bool, None, float, str, str]


def row(n: int) -> Row:
    """Ten mixed cells, about 90 bytes as CSV; one of them has to be quoted."""
    return (
        n,
        f"customer {n % 1000}",
        n / 7,
        "DE",
        n % 50,
        n % 2 == 0,
        None,
        19.99,
        "2026-11-21",
        'a "note", quoted' if n % 10 == 0 else "a plain note",
    )


def record(n: int) -> dict[str, object]:
    """About 150 bytes as a line of JSON."""
    return {
        "id": n,
        "customer": f"customer {n % 1000}",
        "price": 19.99,
        "country": "DE",
        "count": n % 50,
        "paid": n % 2 == 0,
        "voucher": None,
        "day": "2026-11-21",
        "note": "a plain note",
    }


def rows(count: int) -> Iterator[Row]:
    """`count` rows, one at a time."""
    return map(row, range(count))


def records(count: int) -> Iterator[dict[str, object]]:
    """`count` records, one at a time."""
    return map(record, range(count))
