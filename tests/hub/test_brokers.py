"""The conformance suite over the brokers that need no service."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from streamkit.hub.broker import Broker
from streamkit.hub.memory import MemoryBroker
from streamkit.hub.sqlite import SQLiteBroker
from streamkit.testing.check_broker import CHECKS, check_broker


@pytest.mark.parametrize("name", CHECKS)
def test_memory(name: str) -> None:
    CHECKS[name](lambda retain: MemoryBroker(retain=retain), None)


@pytest.mark.parametrize("name", CHECKS)
def test_sqlite(name: str, tmp_path: Path) -> None:
    numbers = itertools.count()

    def fresh(retain: int) -> Broker:
        return SQLiteBroker(f"sqlite:///{tmp_path}/{next(numbers)}.db", retain=retain)

    CHECKS[name](fresh, lambda broker: SQLiteBroker(broker.url))
    assert not list(tmp_path.glob("*-bell-*")), "a bell was left hanging"


def test_all_at_once() -> None:
    check_broker(lambda retain: MemoryBroker(retain=retain))
