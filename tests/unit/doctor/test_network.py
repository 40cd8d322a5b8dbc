from __future__ import annotations

from typing import Any

import pytest

from fedtasks.checks import Verdict
from fedtasks.doctor.network import network_findings
from fedtasks.wire.v1 import worker_pb2

WHOLE = 1 << 20
GOOD: dict[str, Any] = {
    "rtt_ms": 20,
    "worst_rtt_ms": 25,
    "held_out_ms": 8,
    "held_back_ms": 9,
    "largest_out": WHOLE,
    "largest_back": WHOLE,
    "out_per_s": 5e7,
    "back_per_s": 4e7,
    "idle_s": 70,
    "dialled": True,
}


@pytest.mark.parametrize(
    ("changes", "verdict", "subject", "remedy"),
    [
        ({"rtt_ms": 200, "worst_rtt_ms": 210}, Verdict.WARNING, "round trip", "larger batches"),
        ({"held_out_ms": 2000}, Verdict.WARNING, "small messages bank → shop", "buffering off"),
        ({"held_back_ms": 2000}, Verdict.WARNING, "small messages shop → bank", "ssl_preread"),
        ({"back_per_s": 1e5}, Verdict.WARNING, "bandwidth shop → bank", "take long"),
        ({"largest_back": 1 << 16}, Verdict.WRONG, "large messages shop → bank", "client_max_body_size 0"),
        ({"cut": True, "idle_s": 61}, Verdict.WARNING, "silence", "proxy_timeout"),
        ({"broken_at": "bulk"}, Verdict.WRONG, "stream", "firewall"),
    ],
    ids=lambda given: str(given)[:40],
)
def test_what_is_wrong_with_the_way_has_its_direction_and_a_remedy(
    changes: dict[str, Any], verdict: Verdict, subject: str, remedy: str
) -> None:
    found = list(network_findings(worker_pb2.ProbeNetworkResponse(**(GOOD | changes)), "bank", "shop"))
    (trouble,) = [each for each in found if each.verdict is not Verdict.OK]
    assert (trouble.verdict, trouble.subject, remedy in trouble.remedy) == (verdict, subject, True)


def test_good_way_has_nothing_to_mend_and_varies_with_its_round_trips() -> None:
    busy = GOOD | {"worst_rtt_ms": 500, "held_out_ms": 900}
    for facts in (GOOD, busy):
        found = list(network_findings(worker_pb2.ProbeNetworkResponse(**facts), "bank", "shop"))
        assert {each.verdict for each in found} == {Verdict.OK}
        assert found[0].text.startswith("bank has dialled shop")
        assert len(found) == 9
