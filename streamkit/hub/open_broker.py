"""From a URL to a broker. The only place that knows the schemes."""

from __future__ import annotations

from streamkit.hub.broker import Broker

REDIS_SCHEMES = ("redis", "rediss", "unix", "valkey", "valkeys")


def open_broker(url: str, *, retain: int | None, retain_seconds: float | None) -> Broker:
    """The broker that a URL means; nothing is connected or opened yet.

    Raises ValueError for a URL that means none, BrokerUnavailable for a folder that does not exist, ImportError where
    the package for it is missing.
    """
    scheme, separator, _ = url.partition(":")
    if separator and scheme == "memory":
        from streamkit.hub.memory import MemoryBroker

        if url != "memory://":
            raise ValueError(f"{url!r}: a log in memory has no name; write memory://")
        return MemoryBroker(url, retain=retain, retain_seconds=retain_seconds)
    if separator and scheme == "sqlite":
        from streamkit.hub.sqlite import SQLiteBroker

        return SQLiteBroker(url, retain=retain, retain_seconds=retain_seconds)
    if separator and scheme in REDIS_SCHEMES:
        from streamkit.hub.redis import RedisBroker

        return RedisBroker(url, retain=retain, retain_seconds=retain_seconds)
    raise ValueError(
        f"{scheme[:20]!r} is no scheme of a hub: write memory://, sqlite:///path/events.db or redis://host:6379/0"
    )
