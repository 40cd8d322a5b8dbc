"""What is to be done for several others, each at its own pace: who keeps one thing waiting holds up nobody else's."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable, Iterable
from typing import Generic, TypeVar

from fedtasks.errors import FedtasksError

log = logging.getLogger(__name__)

T = TypeVar("T", bound=Hashable)


class Backlogs(Generic[T]):
    """One queue for each of them, without repetitions; used on the event loop.

    Parameters
    ----------
    names
        Whose they are.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._waiting: dict[str, dict[T, None]] = {name: {} for name in names}
        self._filled = {name: asyncio.Event() for name in self._waiting}

    def add(self, name: str, item: T) -> None:
        """Put something at the end of a queue unless it waits there, or is being done."""
        self._waiting[name].setdefault(item)
        self._filled[name].set()

    async def work_off(self, do: Callable[[str, T], Awaitable[object]]) -> None:
        """Do what waits, of all queues side by side, until cancelled; what fails is logged and gone.

        Parameters
        ----------
        do
            Called with the name of the queue and what waits in it.
        """
        await asyncio.gather(*(self._work_off(name, do) for name in self._waiting))

    async def _work_off(self, name: str, do: Callable[[str, T], Awaitable[object]]) -> None:
        waiting, filled = self._waiting[name], self._filled[name]
        while True:
            await filled.wait()
            filled.clear()
            while waiting:
                item = next(iter(waiting))
                try:
                    await do(name, item)
                except FedtasksError as error:
                    log.warning("%s", error)
                except Exception:
                    log.exception("something for %s could not be done", name)
                finally:
                    del waiting[item]
