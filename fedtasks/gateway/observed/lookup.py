"""What is found out in a thread, seldom, and never waited for long."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from fedtasks.errors import FedtasksError

log = logging.getLogger(__name__)

T = TypeVar("T")

PATIENCE_S = 3.0
"""How long whoever asks waits for what is being found out."""


class Lookup(Generic[T]):
    """A value that is found out when it is asked for, unless that was a moment ago; used on one event loop.

    Parameters
    ----------
    find
        Finds it out, in a thread.
    every_s
        How long it counts.

    Notes
    -----
    Cost: one `find` at a time and one each `every_s`, however many ask.
    """

    def __init__(self, find: Callable[[], T], every_s: float) -> None:
        self._find, self._every_s = find, every_s
        self._finding: asyncio.Task[T | None] | None = None
        self._begun_s = -every_s
        self._value: T | None = None

    async def get(self) -> T | None:
        """Return the value; None if it could not be found out, or has not been in time."""
        if self._finding is None and time.monotonic() - self._begun_s >= self._every_s:
            self._begun_s = time.monotonic()
            self._finding = asyncio.create_task(self._found())
        if self._finding is not None:
            await asyncio.wait({self._finding}, timeout=PATIENCE_S)
            if not self._finding.done():
                return None
            self._value, self._finding = self._finding.result(), None
        return self._value

    async def _found(self) -> T | None:
        try:
            return await asyncio.to_thread(self._find)
        except FedtasksError as error:
            log.info("what others see of this gateway is not known: %s", error)
        except Exception:
            log.exception("what others see of this gateway could not be found out")
        return None
