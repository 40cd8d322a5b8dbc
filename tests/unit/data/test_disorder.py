from __future__ import annotations

import numpy as np
import pytest

from fedtasks.data.disorder import DisorderTally


def tally_of(times: np.ndarray, cuts: list[int]) -> DisorderTally:
    tally = DisorderTally()
    for part in np.split(times, cuts):
        tally.add(part)
    return tally


@pytest.mark.parametrize("cuts", [[], [0, 1, 1, 500, 9_999]])
@pytest.mark.parametrize("share", [0.5, 0.9, 0.99, 0.999, 1.0])
def test_quantile_is_that_of_a_plain_count_to_two_per_cent(share: float, cuts: list[int]) -> None:
    rng = np.random.default_rng(5)
    times = 1_795_262_400_000 + np.arange(10_000) * 100 - (rng.pareto(1.1, 10_000) * 1000).astype(np.int64)
    newest, behind = times[0], []
    for each in times.tolist():
        behind.append(max(0, newest - each))
        newest = max(newest, each)
    tally = tally_of(times, cuts)
    assert (tally.rows, tally.behind) == (10_000, sum(each > 0 for each in behind))
    assert (tally.oldest_ms, tally.newest_ms, tally.most_ms) == (times.min(), times.max(), max(behind))
    exact = sorted(behind)[round(share * 10_000) - 1]
    assert exact <= tally.quantile_ms(share) <= exact * 1.021 + 1


def test_times_in_their_order_are_never_behind() -> None:
    tally = tally_of(np.array([5, 5, 6, 9], dtype=np.int64), [2])
    assert (tally.behind, tally.quantile_ms(0.999), tally.most_ms) == (0, 0, 0)
    assert DisorderTally().quantile_ms(0.5) == 0
