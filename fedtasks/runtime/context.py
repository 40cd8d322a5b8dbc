"""One half of a task: what it may use, and what it ends with.

What runs as a half is an `Entry`: a function of a `TaskContext`. A context is implemented over the gateway
(`fedtasks.runtime.gateway`) and in memory (`fedtasks.runtime.memory`).
"""

from __future__ import annotations

import abc
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from fedtasks.config import Dataset, Party
from fedtasks.data.copies import copied
from fedtasks.data.partitions import landed_until
from fedtasks.data.run_storage import RunStorage
from fedtasks.dataclass_io import to_plain
from fedtasks.errors import ConfigError, ModelTaken
from fedtasks.label_budget import millionths
from fedtasks.link.link import Default, Link
from fedtasks.names import pipeline_of
from fedtasks.runtime.joins import JoinCommitted, JoinWindow
from fedtasks.runtime.task_config import TaskConfig
from fedtasks.wire.v1 import worker_pb2

if TYPE_CHECKING:
    from fedtasks.wire.v1 import model_pb2

_COPIES = "_copies"
"""The folder of a run in which copies of databases' rows lie; no task can be called so."""


@dataclass(frozen=True)
class Outcome:
    """What one half ended with; both sides' outcomes must be equal, so nothing private goes in.

    Parameters
    ----------
    counts
        Rows, people, steps.
    digests
        SHA-256 (hex) of what both sides hold alike, such as the row order.
    values
        What else both sides have found alike.
    """

    counts: Mapping[str, int] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)


class TaskContext(Protocol):
    """What a half may use: its configuration, its party, its storage, the link, models, and a place to report to."""

    @property
    def config(self) -> TaskConfig:
        """What this half needs to know."""

    @property
    def party(self) -> Party:
        """This party."""

    @property
    def dataset(self) -> Dataset:
        """This party's dataset of the run."""

    @property
    def partitions(self) -> list[str]:
        """The partitions of this party's dataset that the run may use now: up to its own, which must have landed.

        Raises
        ------
        DataNotLanded
            It has not.
        """

    @property
    def is_leader(self) -> bool:
        """Whether this party holds the label."""

    @property
    def storage(self) -> RunStorage:
        """Where this run's files are."""

    @property
    def folder(self) -> str:
        """URI of the folder that this attempt writes to."""

    def open_link(self, facts: Mapping[str, str]) -> Link:
        """Meet the other half.

        Parameters
        ----------
        facts
            What must be equal on both sides beside the task, the attempt and the shared configuration; see `facts_of`.

        Raises
        ------
        ConfigDiffers, RowOrderDiffers, VersionDiffers
            A fact differs; the error names it.
        """

    def count_use(self, kind: str, amounts: Mapping[str, int]) -> int:
        """Charge a use to the run's ticket; to be called before it happens.

        Parameters
        ----------
        kind
            Name of the limit, such as ``ids_blinded``.
        amounts
            Of each thing that is used, such as a file by its SHA-256, how much. The most that was ever said of it is
            charged: a retry costs nothing, a larger amount the difference, another thing all of its amount.

        Returns
        -------
        int
            What this run has been charged of this kind in all, by earlier attempts too.

        Raises
        ------
        TicketExhausted, TicketRateLimited
            A limit would be passed.
        TicketRevoked, TicketExpired, AttemptStale, RunEnded, …
            The ticket or this attempt is not valid any more.
        """

    def spend_label_leak(self, epsilon: float, item: str = "") -> None:
        """Charge what the peer is about to be told of this party's labels; to be called before it leaves.

        Parameters
        ----------
        epsilon
            By how much the peer can tell a row's labels apart by it: symmetric Kullback–Leibler divergence in nats
            (`fedtasks.label_budget`); infinity where nothing bounds that.
        item
            What is told once and for all, such as labels that were flipped once and stay so: charged over all runs by
            the most that was ever said of it. It begins with the name of its protection. By default it is what this
            attempt tells now, and adds up with all else.

        Raises
        ------
        LabelLeakSpent
            The peer would be told more of these labels, over all runs and tickets, than the run's ticket allows;
            nothing was charged.
        ConfigError
            This party is not the leader, or its dataset declares no label.
        TicketRevoked, TicketExpired, AttemptStale, RunEnded, …
            The ticket or this attempt is not valid any more.
        """

    def model(self, name: str, version: int = 0, *, of_another: bool = False) -> worker_pb2.GetModelResponse:
        """Return a version of a model, by default the one in use before this run, as this party's registry has it.

        What this run itself has published does not count: a task that is cleared does again what it did.

        Parameters
        ----------
        of_another
            Whether another pipeline may have trained it, which is so for whoever only uses it.

        Raises
        ------
        ModelTaken
            The name belongs to another pipeline.
        """

    def publish_model(
        self, version: model_pb2.ModelVersion, consumed: Mapping[str, Sequence[str]], metrics: Mapping[str, float]
    ) -> None:
        """Enter a version that both halves have agreed on in this party's registry; it is in use from now on.

        Parameters
        ----------
        version
            Its number, parent, run and digests.
        consumed
            Dataset of this party → the partitions that it has learnt from.
        metrics
            What this party knows of its quality.

        Raises
        ------
        ModelTaken
            The name belongs to another pipeline or peer, or the number to another version.
        """

    def join_commit(self, stream: str, shard: int) -> JoinCommitted | None:
        """Return the last commit of a shard of a stream that is joined with the peer, None if there is none yet."""

    def join_windows(self, stream: str, shard: int, limit: int) -> list[JoinWindow]:
        """Return the newest windows of event time of a shard as all its commits have counted them, by beginning."""

    def commit_join(
        self, stream: str, shard: int, number: int, digest: str, windows: Sequence[JoinWindow] = ()
    ) -> JoinCommitted:
        """Put a commit that both halves have prepared in the place of the one before it, in this party's store.

        Parameters
        ----------
        stream, shard
            Of what.
        number
            One more than the last commit, or 1.
        digest
            SHA-256 (hex) of this party's account of it: whatever was prepared under the same number and has another one
            does not count.
        windows
            What it adds to windows of event time; added up and kept in one transaction with the commit.

        Returns
        -------
        JoinCommitted
            The commit as it stands. The same number and digest again add nothing, whichever run says them.

        Raises
        ------
        JoinTaken
            Another commit is there than the one before it: what this attempt holds is of before, and it must end.
            Nothing has changed.
        AttemptStale, RunEnded, …
            The attempt may not speak; nothing has changed.

        Notes
        -----
        Reveals: nothing; it stays with this party.
        """

    def report(self, progress: Mapping[str, Any] | None = None, *, step: int = 0, **metrics: float) -> None:
        """Show progress (display only), store metrics at `step` and what has been sent; never fails the task."""

    def alive(self) -> None:
        """Say that a long computation goes on; as cheap as a look at the clock.

        Messages sent and taken, uses counted, metrics, and progress that has changed say so too. A half that says
        nothing for its `stall_s` is ended with `HalfStalled` and tried again: so only what really moves may call this,
        such as the loop that computes, never a timer.
        """

    def reached(self, step: int) -> None:
        """Say that what was done up to `step` is kept, and need not be done again by another attempt.

        Parameters
        ----------
        step
            How much it is, from 1, such as epochs or trees. An attempt that fails having reached more than any before
            it costs no try of Airflow's, and none of ``limits.attempts``.

        Notes
        -----
        Reveals: nothing; it stays with the operator. So only what another attempt would not let the peer see anew may
        be said. `fedtasks.models.checkpoint.Checkpoints.of` says it by itself.
        """


Entry: TypeAlias = Callable[[TaskContext], Outcome]
"""What runs as one half of a task: an algorithm's training, a ready-made step, or a function of somebody's own."""


class LocalContext(abc.ABC):
    """The part of a `TaskContext` that follows from its configuration and its party alone.

    Parameters
    ----------
    config, party
        See `TaskContext`.
    """

    def __init__(self, config: TaskConfig, party: Party) -> None:
        self.config = config
        self.party = party
        self._parts_told = itertools.count(1)

    @cached_property
    def dataset(self) -> Dataset:
        """See `TaskContext.dataset`."""
        declared = self.party.dataset(self.config.datasets[self.party.name])
        return copied(declared, f"{self.storage.uri}/{_COPIES}/{declared.name}")

    @property
    def partitions(self) -> list[str]:
        """See `TaskContext.partitions`."""
        return landed_until(self.dataset, self.config.partition)

    @property
    def is_leader(self) -> bool:
        """See `TaskContext.is_leader`."""
        return self.config.leader == self.party.name

    @cached_property
    def storage(self) -> RunStorage:
        """See `TaskContext.storage`."""
        return RunStorage(self.party.storage, self.config.run_id)

    @cached_property
    def folder(self) -> str:
        """See `TaskContext.folder`."""
        return self.storage.attempt(self.config.task, self.config.attempt)

    def model(self, name: str, version: int = 0, *, of_another: bool = False) -> worker_pb2.GetModelResponse:
        """See `TaskContext.model`."""
        found = self._registered(name, version)
        pipeline = pipeline_of(found.version.run_id)
        if pipeline and pipeline != pipeline_of(self.config.run_id) and not of_another:
            raise ModelTaken(f"`{name}` belongs to pipeline {pipeline}", model=name)
        if version or found.version.run_id != self.config.run_id:
            return found
        parent = found.version.parent
        return (
            self.model(name, parent, of_another=of_another)
            if parent
            else worker_pb2.GetModelResponse(newest=found.newest)
        )

    def spend_label_leak(self, epsilon: float, item: str = "") -> None:
        """See `TaskContext.spend_label_leak`."""
        config = self.config
        if not self.is_leader:
            raise ConfigError(f"{self.party.name} has no label in this run that could be told", field="label")
        if not item:
            item = f"{config.run_id} {config.half}, attempt {config.attempt}, part {next(self._parts_told)}"
        self._spend(item, millionths(epsilon))

    @abc.abstractmethod
    def _spend(self, item: str, epsilon: int) -> None:
        """Charge what is told of this party's labels, in millionths of a nat."""

    @abc.abstractmethod
    def alive(self) -> None:
        """See `TaskContext.alive`."""

    @abc.abstractmethod
    def _registered(self, name: str, version: int) -> worker_pb2.GetModelResponse:
        """Return a version as the registry has it now; 0 is the one in use."""


def facts_of(settings: object, **more: str) -> dict[str, str]:
    """Return a settings dataclass as facts for `open_link`, defaults too: neighbouring versions may differ in them.

    One that has its default is a `Default`, which does not keep apart a release that has the setting and one that has
    not.
    """
    said = {name: json.dumps(value, sort_keys=True) for name, value in to_plain(settings).items()}
    defaults = {name: json.dumps(value, sort_keys=True) for name, value in _defaults_of(settings).items()}
    kinds = {name: Default if defaults.get(name) == value else str for name, value in said.items()}
    return {**{f"settings.{name}": kinds[name](value) for name, value in said.items()}, **more}


def _defaults_of(settings: Any) -> dict[str, Any]:
    """Return the declared defaults of a settings dataclass, of the fields that have one."""
    found = {}
    for each in fields(settings) if is_dataclass(settings) else ():
        if each.default is not MISSING:
            found[each.name] = to_plain(each.default)
        elif each.default_factory is not MISSING:
            found[each.name] = to_plain(each.default_factory())
    return found


def report_remarks(context: TaskContext, remarks: Mapping[str, int]) -> None:
    """Say in note, page and shell of this party what a user must know of a result.

    Parameters
    ----------
    remarks
        Metrics as `fedtasks.kinds.remark_metric` names them, and their counts.

    Notes
    -----
    Reveals: nothing; the peer sees none of it.
    """
    if remarks:
        context.report(None, step=context.config.attempt, **{name: float(count) for name, count in remarks.items()})
