from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

import pytest

from fedtasks.errors import PeerUnreachable
from fedtasks.gateway import skew
from fedtasks.gateway.skew import Skew
from fedtasks.wire.v1 import peer_pb2


def measured(answers: Iterator[int | None], monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return what is known after each answer of a clock that is so many milliseconds ahead; None answers nothing."""
    monkeypatch.setattr(skew, "EVERY_S", 0.0)
    known: list[float] = []
    watched = Skew("shop", 60.0, lambda: 1_000_000)

    async def ask(_: peer_pb2.Clock) -> peer_pb2.Clock:
        known.append(watched.seconds)
        ahead_ms = next(answers)
        if ahead_ms is None:
            raise PeerUnreachable("not now")
        return peer_pb2.Clock(clock_ms=1_000_000 + ahead_ms)

    with contextlib.suppress(RuntimeError):  # there are no more answers
        asyncio.run(watched.measure(ask))
    return [round(each) for each in known[1:]]


def test_clock_that_jumps_is_noted_and_one_that_trembles_or_does_not_answer_is_as_it_was(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    answers = iter([100, 90_000, 90_300, None, 0, 10])
    with caplog.at_level("INFO"):
        assert measured(answers, monkeypatch) == [0, 90, 90, 90, 0, 0]
    said = [record.levelname for record in caplog.records if "the clock of shop differs" in record.getMessage()]
    assert said == ["WARNING", "INFO"]


def test_answer_that_takes_long_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(skew, "TAKES_S", -1.0)
    assert measured(iter([90_000, 90_000]), monkeypatch) == [0, 0]
