"""An outage of the store is said once when it begins and ends, and told of in notes for a while."""

from __future__ import annotations

import pytest

from fedtasks.errors import StoreUnavailable
from fedtasks.gateway.outage import SHORTEST_MS, TOLD_MS, Outage

NOW = 1_700_000_000_000


class Clock:
    now = NOW

    def __call__(self) -> int:
        return self.now


def test_outage_is_logged_at_its_beginning_and_its_end_and_told_for_a_while(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    outage = Outage(clock)
    assert not outage.end()
    for _ in range(30):
        outage.begin(StoreUnavailable("away"))
        clock.now += 2_000
    assert outage.sentence("shop") == ""
    assert outage.end()
    assert not outage.end()
    assert outage.sentence("shop") == "shop's store was away from 22:13:20 to 22:14:20 UTC"
    assert len(caplog.records) == 2
    clock.now += TOLD_MS + 1
    assert outage.sentence("shop") == ""


def test_moment_of_absence_is_told_to_nobody() -> None:
    clock = Clock()
    outage = Outage(clock)
    outage.begin(StoreUnavailable("away"))
    clock.now += SHORTEST_MS - 1
    assert outage.end()
    assert outage.sentence("shop") == ""
