"""Whether a peer that has asked for something still waits for the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field

from fedtasks.errors import PeerUnreachable


@dataclass(frozen=True)
class Asker:
    """Who waits for the answer to one request.

    Parameters
    ----------
    is_there
        Whether the conversation goes on in which it was asked: no other one brings the answer.
    """

    is_there: Callable[[], bool]
    _since_s: float = field(default_factory=lambda: asyncio.get_running_loop().time(), init=False)

    def require(self, within_ms: int) -> None:
        """Check that the answer is still waited for; called right before what costs something.

        Parameters
        ----------
        within_ms
            How long the asker waits, as it says; 0 if it does not say.

        Raises
        ------
        PeerUnreachable
            It waits no longer: whatever was done now, nobody would learn of it.
        """
        waited_ms = 1000 * (asyncio.get_running_loop().time() - self._since_s)
        if not self.is_there() or (within_ms and waited_ms > within_ms):
            raise PeerUnreachable("whoever has asked waits no longer for the answer")


ASKER: ContextVar[Asker | None] = ContextVar("ASKER", default=None)
"""Whose request this task answers; None for this party's own work."""


def require_asker(within_ms: int) -> None:
    """Check that whoever's request this task answers still waits (`Asker.require`)."""
    asker = ASKER.get()
    if asker is not None:
        asker.require(within_ms)
