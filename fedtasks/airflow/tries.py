"""How often a half is tried again: Airflow counts tries, and one that has come further than any before is not spent.

A long training meets more outages than a task has retries. So an attempt that fails after it has kept more of its work
than any before begins the next one itself, within the same try of Airflow's; only failures that follow one another
without any such progress use tries up. What is kept only grows, so this ends.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from fedtasks.errors import AttemptStale, FedtasksError


@dataclass(frozen=True)
class Tries:
    """The attempts that one try of Airflow's has made before this one.

    Parameters
    ----------
    begun
        How many.
    reached
        How much of its work the best of them has kept, as `TaskContext.reached` counts it.
    in_vain
        How many have followed the best one.
    """

    begun: int = 0
    reached: int = 0
    in_vain: int = 0

    def token(self, try_id: object) -> str:
        """Name the attempt: Airflow gives every try an id, and keeps it while the try is deferred."""
        return f"{try_id}.{self.begun}" if self.begun else str(try_id)

    def after(self, error: FedtasksError, reached: int, retries: int) -> Tries | None:
        """Return what the next attempt of this try begins with; None if the try has failed.

        Parameters
        ----------
        error
            Why the attempt has failed.
        reached
            How much of its work it had kept, 0 for nothing.
        retries
            How often the task may be tried again.
        """
        # What is stale has been begun anew by another try: two would begin against each other for ever.
        if not error.retryable or not retries or isinstance(error, AttemptStale):
            return None
        if reached > self.reached:
            return Tries(self.begun + 1, reached, 0)
        if self.reached and self.in_vain < retries:
            return Tries(self.begun + 1, self.reached, self.in_vain + 1)
        return None

    @property
    def is_renewed(self) -> bool:
        """Whether the attempt goes on from one that came further than any before."""
        return bool(self.begun) and not self.in_vain

    @property
    def state(self) -> dict[str, Any]:
        """What a wait that is deferred keeps of it."""
        return {"tries": asdict(self)} if self.begun else {}


FIRST = Tries()
"""Before the first attempt of a try."""
