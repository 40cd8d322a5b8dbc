"""A model of the person whom tickets ask for: who thinks, says yes, and in some plans no, nothing, or both."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

THINKS_S = 3.0
"""How long a question is thought about."""

YES, NO, NOTHING, BOTH = "yes", "no", "nothing", "both"
"""What people say; `BOTH` are two of them at once."""

_ANSWERS = {YES: (True,), NO: (False,), BOTH: (True, False)}


@dataclass(frozen=True)
class Answer:
    """What was said to a run, as its gateway has confirmed it.

    Parameters
    ----------
    asked_s, at_s
        When the gateway was told, and when it had confirmed that.
    party
        Whose person it was.
    run_id
        The run.
    approved
        Whether it may begin.
    """

    asked_s: float
    at_s: float
    party: str
    run_id: str
    approved: bool


class Person:
    """Who answers at one party."""

    def __init__(self) -> None:
        self.says = YES
        self.answers: list[Answer] = []

    async def think(self, most_s: float) -> Sequence[bool]:
        """Return the answers to a question, none where there was no answer in time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(most_s):
                await asyncio.sleep(THINKS_S)
                while self.says == NOTHING:
                    await asyncio.sleep(1.0)
                return _ANSWERS[self.says]
        return ()
