"""A join whose other side does not keep to the protocol: refused by the side that notices, and nothing of it counts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from fedtasks.errors import FedtasksError, ProtocolViolated
from fedtasks.exchange.message import ArrayMessage, JsonMessage, Message
from fedtasks.join import messages
from fedtasks.join.settings import JoinSettings
from fedtasks.link.link import Link
from tests.support.halves import ROLES
from tests.support.join_case import JoinCase, check, run_to_the_end, small_rounds
from tests.support.join_logs import Shape, expect, generate

STREAM = "joined"


class Lie(NamedTuple):
    """What a half says in the place of one message."""

    message: Message
    change: Callable[[Any], Any]


def offer(**said: object) -> Lie:
    return Lie(messages.OFFER, lambda value: {**value, **said} if value["rows"] else value)


def answer(**said: object) -> Lie:
    return Lie(messages.ANSWER, lambda value: {**value, **said})


def seal(token: str) -> Lie:
    return Lie(messages.OFFER, lambda value: {**value, "seal": token} if value["seal"] else value)


def keys(change: Callable[[np.ndarray], np.ndarray]) -> Lie:
    return Lie(messages.KEYS, change)


def matches(change: Callable[[np.ndarray], np.ndarray]) -> Lie:
    return Lie(messages.MATCHES, change)


def one_row_in_each_place(words: np.ndarray) -> np.ndarray:
    """Return rows of one id and time, under numbers that ascend."""
    place = np.uint64(44)
    repeated = np.repeat(words[:1], len(words), axis=0)
    repeated[:, 0] = (words[:, 0] >> place << place) | (words[0, 0] << (64 - place) >> (64 - place))
    return repeated


OF_LEADER = {
    "more rows than a round has": offer(rows=1 << 40),
    "fewer than none": offer(rows=-1),
    "numbers below all": offer(first=-1),
    "numbers beyond all": offer(first=1 << 60),
    "numbers that fall from round to round": offer(first=0),
    "numbers that fall within a round": keys(lambda words: words[::-1]),
    "one row twice": keys(one_row_in_each_place),
    "a time beyond all": offer(newest_ms=1 << 63),
    "a commit by a name of its own": seal("../../elsewhere"),
}
OF_FOLLOWER = {
    "more rows than there can be": answer(rows=1 << 40),
    "fewer than none": answer(rows=-1),
    "a time beyond all": answer(newest_ms=1 << 63),
    "rows that are none": matches(lambda numbers: -numbers - 1),
    "rows that were not offered": matches(lambda numbers: numbers + (1 << 40)),
    "one row twice": matches(lambda numbers: np.repeat(numbers[:1], len(numbers) + 1)[: max(2, len(numbers))]),
}


@pytest.mark.parametrize(
    ("liar", "lie"),
    [
        *(pytest.param("leader", lie, id=f"leader: {name}") for name, lie in OF_LEADER.items()),
        *(pytest.param("follower", lie, id=f"follower: {name}") for name, lie in OF_FOLLOWER.items()),
    ],
)
def test_side_that_breaks_the_protocol_is_refused_and_nothing_of_it_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, liar: str, lie: Lie
) -> None:
    logs = generate(Shape(300, rate=5, disorder_s=10, apart_s=2, seed=1))
    join = JoinSettings(STREAM, within_s=4, lateness_s=20, block_rows=1000, final=True)
    case = JoinCase(tmp_path)
    for role, log in zip(ROLES, logs, strict=True):
        case.append(role, log, 100)

    with small_rounds():
        with monkeypatch.context() as patch:
            for kind in (JsonMessage, ArrayMessage):
                patch.setattr(kind, "send", _lying(kind.send, lie))
            (ends,) = case.run(join)
        honest = ends[1 - ROLES.index(liar)]
        assert isinstance(honest, ProtocolViolated), ends
        assert all(isinstance(end, FedtasksError) for end in ends), ends
        run_to_the_end(case, join)
    check(case, join, expect(*logs, join))


def _lying(send: Callable[[Any, Link, Any], None], lie: Lie) -> Callable[[Any, Link, Any], None]:
    def tell(message: Message, link: Link, value: Any) -> None:
        send(message, link, lie.change(value) if message.name == lie.message.name else value)

    return tell
