"""Bytes a second and bytes a period, with a clock that the test holds."""

from __future__ import annotations

import re
import threading
from time import monotonic

import pytest

from streamkit.errors import QuotaExceeded
from streamkit.flow import rate
from streamkit.flow.rate import Allowance, PerKey, Quota, Rate


def sent_by(limit: Rate | Allowance, chunk: int, seconds: float) -> int:
    """The bytes that go out in so many seconds if every wait is kept."""
    now, sent = 0.0, 0
    while True:
        now += limit.delay(chunk, now)
        if now > seconds:
            return sent
        sent += chunk


@pytest.mark.parametrize("chunk", [1, 100, 999, 1000, 5000])
def test_the_long_run_is_the_rate(chunk: int) -> None:
    sent = sent_by(Rate(1000, burst=1000), chunk, 100)
    assert 100_000 - chunk <= sent <= 101_000


def test_a_burst_goes_out_at_once_and_no_more() -> None:
    limit = Rate(100, burst=500)
    assert [limit.delay(100, 10.0) for _ in range(7)] == pytest.approx([0, 0, 0, 0, 0, 1, 2])


def test_the_burst_is_a_second_by_default_and_comes_back_after_a_pause() -> None:
    limit = Rate(100)
    assert limit.burst == 100
    assert limit.delay(100, 0.0) == 0
    assert limit.delay(100, 0.0) == pytest.approx(1)
    assert limit.delay(50, 1000.0) == 0  # long idle: no more than one burst
    assert limit.delay(50, 1000.0) == 0
    assert limit.delay(50, 1000.0) == pytest.approx(0.5)


def test_a_chunk_above_the_burst_waits_until_it_has_flowed_in() -> None:
    assert Rate(100, burst=100).delay(1000, 0.0) == pytest.approx(9)


def test_streams_that_share_a_rate_divide_it() -> None:
    limit = Rate(1000, burst=1)
    sent, ready = [0, 0], [0.0, 0.0]
    while min(ready) < 100:
        who = ready.index(min(ready))
        ready[who] += limit.delay(100, ready[who])
        sent[who] += 100
    assert sum(sent) == pytest.approx(100_000, rel=0.01)
    assert sent[0] == pytest.approx(sent[1], rel=0.01)


def test_threads_lose_no_byte() -> None:
    limit = Rate(1_000_000, burst=1)
    start = threading.Barrier(4)

    def book() -> None:
        start.wait()
        for _ in range(2000):
            limit.delay(100, 0.0)

    threads = [threading.Thread(target=book) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert limit.delay(0, 0.0) == pytest.approx(0.8, abs=0.001)


def test_even_chunks() -> None:
    assert Rate(1_000_000).even_bytes == 250_000
    assert Rate(10).even_bytes == 1024
    assert Allowance().even_bytes is None
    assert Allowance(Rate(1_000_000), Rate(8192), Quota(1, 1)).even_bytes == 2048


def test_a_quota_counts_until_its_period_is_over() -> None:
    quota = Quota(1000, per=60)
    assert quota.delay(600, 5.0) == 0
    assert quota.left(5.0) == 400
    with pytest.raises(
        QuotaExceeded, match=r"600 bytes of 1000 in 60 s are used, 401 more are too many; .* in 50 s"
    ):
        quota.delay(401, 15.0)
    assert quota.delay(400, 15.0) == 0  # what was refused was not booked
    assert quota.retry_after(15.5) == 50
    assert quota.left(64.9) == 0
    assert quota.retry_after(65.0) == 0
    assert quota.left(65.0) == 1000
    assert quota.delay(1000, 65.0) == 0


def test_all_limits_behind_one_call() -> None:
    allowance = Allowance(Rate(100, burst=100), Rate(50, burst=100), Quota(300, per=60))
    assert allowance.delay(100, 0.0) == 0
    assert allowance.delay(100, 0.0) == pytest.approx(2)
    own = Rate(100, burst=100)
    with pytest.raises(QuotaExceeded):
        Allowance(own, Quota(10, per=60)).delay(50, 0.0)
    assert own.is_idle(0.0)  # a quota is asked first: what it refuses costs no rate
    assert Allowance().delay(10**9, 0.0) == 0


def test_each_key_has_its_own() -> None:
    rates = PerKey(lambda: Rate(100))
    assert rates.of("a") is rates.of("a")
    assert rates.of("a") is not rates.of("b")


def test_idle_keys_are_forgotten() -> None:
    quotas = PerKey(lambda: Quota(100, per=10))
    for n in range(10_000):
        quotas.of(f"key {n}", now=float(n)).delay(1, float(n))
    assert len(quotas) < 200


def test_a_key_in_use_or_in_debt_is_not_forgotten() -> None:
    quotas = PerKey(lambda: Quota(100, per=10))
    in_use = quotas.of("in use", now=0.0)  # by a stream that was silent for a long time
    in_debt = id(quotas.of("in debt", now=0.0))
    quotas.of("in debt").delay(100, 1e9)
    for n in range(1000):
        quotas.of(f"key {n}", now=1e9)
    assert quotas.of("in use", now=1e9) is in_use
    assert id(quotas.of("in debt")) == in_debt
    assert quotas.of("in debt").left(1e9) == 0


@pytest.mark.parametrize("wrong", [0, -1, float("nan"), float("inf")])
def test_numbers_that_are_no_limit(wrong: float) -> None:
    with pytest.raises(ValueError, match="bytes_per_second is"):
        Rate(wrong)
    with pytest.raises(ValueError, match="burst is"):
        Rate(1, burst=wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="max_bytes is"):
        Quota(wrong, per=1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="per is"):
        Quota(1, per=wrong)


@pytest.mark.parametrize("wrong", ["1", True, None])
def test_what_is_no_number(wrong: object) -> None:
    with pytest.raises(TypeError, match="bytes_per_second is"):
        Rate(wrong)  # type: ignore[arg-type]


def test_a_new_process_does_not_inherit_a_held_lock() -> None:
    before = rate._lock
    rate._forget_lock()
    assert rate._lock is not before


def test_limits_tell_their_state() -> None:
    bucket, quota = Rate(1000), Quota(500, per=60)
    assert repr(bucket) == "<Rate 1000 bytes a second, 1000 of 1000 free>"
    assert repr(quota) == "<Quota 500 of 500 bytes left, per 60 s>"
    now = monotonic()
    bucket.delay(1_001_000, now)
    quota.delay(100, now)
    assert re.fullmatch(r"<Rate 1000 bytes a second, 99\d\d\d\d owed>|.* 1000000 owed>", repr(bucket))
    assert repr(quota) == "<Quota 400 of 500 bytes left, per 60 s>"
