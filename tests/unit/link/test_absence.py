from __future__ import annotations

import pytest

from fedtasks.errors import FedtasksError, GatewayUnreachable, LinkLost, PeerUnreachable
from fedtasks.link.absence import SETTLED_S, Absence

OWN, PEER, HALF = (
    "the gateway of bank",
    "the gateway of shop or the network between both gateways",
    "the half of shop",
)


@pytest.mark.parametrize(
    ("sessions", "stands_s", "away"),
    [
        ([], 100.0, HALF),
        ([(LinkLost("the stream ended"), 300.0)], 100.0, HALF),
        ([(GatewayUnreachable(), 2.0)] * 50, 10.0, OWN),
        ([(GatewayUnreachable(), 20.0)] * 5, 10.0, OWN),
        ([(PeerUnreachable(), 20.0)] * 5, 10.0, PEER),
        ([(GatewayUnreachable(), 2.0)] * 20 + [(PeerUnreachable(), 20.0)] * 4, 0.0, PEER),
        ([(PeerUnreachable(), 20.0)], SETTLED_S + 60.0, HALF),
    ],
    ids=[
        "nothing failed",
        "only a cut",
        "nobody listens",
        "hangs",
        "peer",
        "own, then peer",
        "peer came, half did not",
    ],
)
def test_who_was_away_for_longest_is_named(
    sessions: list[tuple[FedtasksError, float]], stands_s: float, away: str
) -> None:
    now = [0.0]
    absence = Absence("bank", "shop", lambda: now[0])
    for cut, stood_s in sessions:
        now[0] += stood_s
        absence.note(cut)
    now[0] += stands_s
    assert absence.who() == away


def test_what_was_before_the_halves_met_again_does_not_count() -> None:
    now = [0.0]
    absence = Absence("bank", "shop", lambda: now[0])
    now[0] = 90.0
    absence.note(GatewayUnreachable())
    absence.forget()
    now[0] = 100.0
    absence.note(PeerUnreachable())
    assert absence.who() == PEER
