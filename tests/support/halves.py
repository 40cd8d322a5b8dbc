"""Both halves of a task over links in memory, of two parties called as their roles, one of which may fail."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fedtasks.config import Airflow, Dataset, FeatureType, Gateway, Party, Peer
from fedtasks.dataclass_io import to_plain
from fedtasks.errors import FedtasksError, LinkLost
from fedtasks.link.link import Link
from fedtasks.names import FOLLOWER, LEADER, WORK
from fedtasks.runtime.context import Outcome, TaskContext
from fedtasks.runtime.memory import MemoryContext, MemoryJoins, MemoryModels, run_halves
from fedtasks.runtime.task_config import TaskConfig
from tests.support.declared import assert_declared

RUN = "credit.2026-11-21.1"
ROLES = (LEADER, FOLLOWER)
End = Outcome | FedtasksError


def party_of(root: Path, role: str, networks: Mapping[str, Path] | None = None) -> Party:
    """Return the party in a role, whose storage is a folder of `root`; its gateway and its Airflow are never asked."""
    nowhere = root / "nowhere"
    peer = FOLLOWER if role == LEADER else LEADER
    return Party(
        name=role,
        gateway=Gateway(nowhere, nowhere, nowhere, nowhere, nowhere),
        airflow=Airflow("http://127.0.0.1", "nobody", nowhere),
        storage=f"file://{root}/{role}",
        peers=(Peer(peer, nowhere, ""),),
        datasets=(
            Dataset(
                name="people",
                uri=f"file://{nowhere}",
                id="id",
                features={"x": FeatureType.NUMERIC},
                label="y" if role == LEADER else None,
            ),
        ),
        networks=networks or {},
    )


class Context(MemoryContext):
    """One party's half of a task.

    Parameters
    ----------
    root
        Where both parties' storages are.
    role
        What the party is called; it leads if it is the leader, unless `leader` names another.
    task, settings, attempt, run_id
        Which half of what.
    models
        The party's registry.
    joins
        The party's commits of joined streams.
    networks
        The party's model files.
    worker
        Which of several workers it is; None where there is one.
    """

    def __init__(
        self,
        root: Path,
        role: str,
        task: str,
        *,
        settings: object,
        attempt: int = 1,
        run_id: str = RUN,
        leader: str = LEADER,
        models: MemoryModels | None = None,
        joins: MemoryJoins | None = None,
        networks: Mapping[str, Path] | None = None,
        worker: int | None = None,
    ) -> None:
        config = TaskConfig(
            party=root / "party.yaml",
            run_id=run_id,
            task=task,
            attempt=attempt,
            peer=FOLLOWER if role == LEADER else LEADER,
            leader=leader,
            datasets=dict.fromkeys(ROLES, "people"),
            settings=to_plain(settings),
            shared_digest="s",
            stage="" if worker is None else WORK,
            shard=worker,
        )
        self.fail_at: int | None = None
        super().__init__(config, party_of(root, role, networks), models=models, joins=joins, wrap=self._failing)

    def _failing(self, link: Link) -> Link:
        return link if self.fail_at is None else FailingLink(link, self.fail_at)


class FailingLink:
    """Raises `LinkLost` at the given call of `send`; the other half learns of it as from a gateway."""

    def __init__(self, link: Link, fail_at: int) -> None:
        self._link = link
        self._left = fail_at

    def __getattr__(self, name: str) -> Any:
        return getattr(self._link, name)

    def send(self, name: str, payload: Any) -> None:
        self._left -= 1
        if self._left < 0:
            raise LinkLost("the test cut it")
        self._link.send(name, payload)

    def __enter__(self) -> FailingLink:
        self._link.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._link.__exit__(*exception)


def run_both(
    entry: Callable[[TaskContext], Outcome],
    leader: MemoryContext,
    follower: MemoryContext,
    *,
    fail: tuple[str, int] | None = None,
) -> tuple[End, End]:
    """Run both halves, each in its thread; return what each ended with.

    With `fail`, the link of a role breaks at the given call of `send`. What they sent must be declared.
    """
    halves = {leader.party.name: leader, follower.party.name: follower}
    if fail is not None:
        role, fail_at = fail
        broken = halves[role]
        assert isinstance(broken, Context)
        broken.fail_at = fail_at
    ends = []
    for end in run_halves(entry, halves, deadline_s=240).values():
        if isinstance(end, Exception) and not isinstance(end, FedtasksError):
            raise end
        ends.append(end)
    assert_declared([*leader.sent, *follower.sent])
    return ends[0], ends[1]
