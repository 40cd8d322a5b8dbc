"""Outcomes of halves that no gateway has taken yet: kept beside the task's files, and told by whichever try comes next.

A file of the task's private folder in the storage, since the next try may be on another machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from fedtasks.errors import DataCorrupt, DataMissing, FedtasksError
from fedtasks.names import half_name

if TYPE_CHECKING:
    from fedtasks.link.client import GatewayClient
    from fedtasks.wire.v1 import run_pb2

FOLDER = "kept"
"""The folder beside those of a task's attempts."""


class Kept(NamedTuple):
    """What an attempt ended with."""

    attempt: int
    outcome: dict[str, Any]


@dataclass(frozen=True)
class Outcomes:
    """Where the outcome of one half is kept until this party's gateway has taken it.

    Parameters
    ----------
    storage
        Root of everything that runs write.
    run_id, task, stage, shard
        Which half.

    Notes
    -----
    Cost: nothing is written, read or imported unless a gateway could not take an outcome at once.
    """

    storage: str
    run_id: str
    task: str
    stage: str = ""
    shard: int | None = None

    def keep(self, attempt: int, outcome: Mapping[str, Any]) -> None:
        """Keep an outcome; raises what the storage raises."""
        from fedtasks.data.run_storage import RunStorage
        from fedtasks.data.storage import write_json

        RunStorage(self.storage, self.run_id).folder(self.task, FOLDER)
        write_json(self._uri(), {"attempt": attempt, "outcome": dict(outcome)})

    def get(self) -> Kept | None:
        """Return what is kept; None if that is nothing, or nothing that can be read."""
        from fedtasks.data.storage import read_json

        try:
            plain = read_json(self._uri())
            return Kept(int(plain["attempt"]), dict(plain["outcome"]))
        except (DataMissing, DataCorrupt, KeyError, TypeError, ValueError):
            return None

    def forget(self) -> None:
        """Keep nothing any more; what cannot be removed now is passed over later, since its attempt has ended."""
        from fedtasks.data.storage import remove

        with suppress(FedtasksError, OSError):
            remove(self._uri())

    def tell(self, client: GatewayClient) -> tuple[run_pb2.Run, dict[str, Any]] | None:
        """Let the gateway take what is kept, if the attempt that it belongs to still counts as running there.

        Returns
        -------
        tuple or None
            The run and the outcome. None if there is nothing to take: the half has to be run.

        Raises
        ------
        FedtasksError
            The gateway could not be told; what is kept stays.
        """
        from fedtasks.wire.v1 import run_pb2

        kept = self.get()
        if kept is None:
            return None
        half = half_name(self.task, self.stage, self.shard)
        answer = client.get_run(self.run_id)
        own = next((each for each in answer.own if each.task == half), None)
        if own is None or own.attempt != kept.attempt or own.state != run_pb2.STATE_RUNNING:
            self.forget()
            return None
        client.finish(self.run_id, half, kept.attempt, outcome=kept.outcome)
        self.forget()
        return answer.run, kept.outcome

    def _uri(self) -> str:
        from fedtasks.data.run_storage import RunStorage

        folder = f"{RunStorage(self.storage, self.run_id).uri}/{self.task}/{FOLDER}"
        return f"{folder}/{self.stage or 'whole'}-{'' if self.shard is None else self.shard}.json"
