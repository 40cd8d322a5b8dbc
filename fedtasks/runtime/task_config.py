"""The configuration of one half of a task, and the files beside it: all that whoever starts a half must know of it.

It is light: an operator imports it, and neither file systems nor arrays.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedtasks.config import RESUME_S, Party
from fedtasks.errors import DatasetChanged
from fedtasks.names import half_name

OUTCOME = "outcome.json"
"""What a half that succeeded leaves beside its configuration."""
FAILURE = "failure.json"
"""What one that failed leaves there."""
MARK = "mark"
"""Where a half says that it makes progress, while it works."""
REACHED = "reached"
"""Where it says how much of its work it has kept."""


@dataclass(frozen=True)
class TaskConfig:
    """Everything one half of one task needs to know.

    Parameters
    ----------
    party
        Path of party.yaml.
    run_id, task, attempt
        Which task of which run, and the attempt that both halves agreed on.
    stage, shard
        Which part of the task this is, where a task is cut into several; the shard is None unless there is one such
        part for each.
    peer
        The other party's name.
    leader
        Name of the party that holds the label.
    datasets
        Party name → dataset name, for both parties.
    kind
        The kind of step that this is; empty for a step of somebody's own.
    settings
        The step's settings, equal on both sides.
    shared_digest
        Digest of the run's whole shared configuration.
    partition
        Whose data the run uses: a day or another key.
    kinds
        The kinds of all steps of the run; empty if nobody has said.
    kind_settings
        Their settings, in the same order; empty if nobody has said.
    bounds
        Clause → what the run's ticket says there.
    dataset_digest
        Digest of this party's dataset as it was declared when the run opened; empty if the gateway knows none.
    resume_s
        How long the connection to the other half may be cut before the half gives up.
    """

    party: Path
    run_id: str
    task: str
    attempt: int
    peer: str
    leader: str
    datasets: Mapping[str, str]
    settings: Mapping[str, Any] = field(default_factory=dict)
    shared_digest: str = ""
    partition: str = ""
    stage: str = ""
    shard: int | None = None
    kind: str = ""
    kinds: tuple[str, ...] = ()
    kind_settings: tuple[Mapping[str, Any], ...] = ()
    bounds: Mapping[str, Any] = field(default_factory=dict)
    dataset_digest: str = ""
    resume_s: float = RESUME_S

    @property
    def half(self) -> str:
        """The name under which both halves meet."""
        return half_name(self.task, self.stage, self.shard)


def check_declaration(config: TaskConfig, party: Party) -> None:
    """Refuse a dataset that is declared otherwise than when the run opened, before anything of it is read.

    Raises
    ------
    DatasetChanged
        The ticket was compared with another declaration than the one that this worker has read.
    """
    if not config.dataset_digest:
        return
    dataset = party.dataset(config.datasets[party.name])
    if dataset.declaration_digest != config.dataset_digest:
        raise DatasetChanged(f"`{dataset.name}` is declared otherwise in {config.party}", where=config.run_id)


def read_reached(folder: Path) -> int:
    """Return how much of its work a half has kept, as it wrote beside its configuration; 0 for nothing."""
    with suppress(OSError, ValueError):
        return int((folder / REACHED).read_text(encoding="ascii"))
    return 0


def write_reached(folder: Path, step: int) -> None:
    """Write what `read_reached` reads; display of progress that is lost costs a try, and no work."""
    with suppress(OSError):
        (folder / REACHED).write_text(str(step), encoding="ascii")
