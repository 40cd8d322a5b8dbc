from __future__ import annotations

from fedtasks.gateway.bucket import Bucket


def test_bucket_gives_its_burst_at_once_and_then_what_time_brings() -> None:
    now = [0]
    bucket = Bucket(3, 0.5, lambda: now[0])
    assert [bucket.take() for _ in range(4)] == [True, True, True, False]
    now[0] += 2_000
    assert [bucket.take() for _ in range(2)] == [True, False]
    now[0] += 1_000_000
    assert [bucket.take() for _ in range(4)] == [True, True, True, False]


def test_bucket_in_debt_says_how_long_that_lasts() -> None:
    now = [0]
    bucket = Bucket(2, 4, lambda: now[0])
    assert [bucket.reserve() for _ in range(5)] == [0, 0, 0, 0.25, 0.5]
    now[0] += 750
    assert [bucket.reserve(100), bucket.reserve()] == [0, 25]


def test_clock_that_is_set_back_takes_no_tokens_away() -> None:
    now = [10_000]
    bucket = Bucket(2, 1, lambda: now[0])
    assert bucket.take()
    now[0] = 0
    assert bucket.take()
    assert not bucket.take()
    now[0] += 1_000
    assert bucket.take()
