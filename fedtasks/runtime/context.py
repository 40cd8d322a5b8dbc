"""An algorithm as a process of its own: one configuration file in, one outcome file out.

An operator writes the `TaskConfig`, starts ``fedtasks task run CONFIG`` (or a Spark job), and reads beside it either
``outcome.json`` or ``failure.json``. Progress and metrics go to the own gateway as the work goes on.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from fedtasks.config import Dataset, Party, load_party
from fedtasks.data.partitions import landed_until
from fedtasks.data.storage import RunStorage
from fedtasks.dataclass_io import build, to_plain
from fedtasks.errors import ConfigError, FedtasksError, ModelTaken, ProcessFailed
from fedtasks.link.client import GatewayClient
from fedtasks.link.grpc_link import GrpcLink
from fedtasks.link.link import Link
from fedtasks.names import half_name
from fedtasks.wire.v1 import model_pb2, worker_pb2

log = logging.getLogger(__name__)

OUTCOME = "outcome.json"
FAILURE = "failure.json"


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
    settings
        The step's own settings, equal on both sides.
    shared_digest
        Digest of the run's whole shared configuration.
    partition
        Whose data the run uses: a day or another key.
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

    @property
    def half(self) -> str:
        """The name under which both halves meet."""
        return half_name(self.task, self.stage, self.shard)


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


class TaskContext:
    """What an algorithm may use: its configuration, its party, its storage, the link and a place to report to."""

    def __init__(self, config: TaskConfig, party: Party, client: GatewayClient) -> None:
        self.config = config
        self.party = party
        self._client = client
        self._link: GrpcLink | None = None

    @cached_property
    def dataset(self) -> Dataset:
        """The own dataset of this run."""
        return self.party.dataset(self.config.datasets[self.party.name])

    @property
    def partitions(self) -> list[str]:
        """The partitions of the own dataset that this run may use now: up to its own, which must have landed.

        Raises
        ------
        DataNotLanded
            It has not.
        """
        return landed_until(self.dataset, self.config.partition)

    @property
    def is_leader(self) -> bool:
        """Whether this party holds the label."""
        return self.config.leader == self.party.name

    @cached_property
    def storage(self) -> RunStorage:
        """Where this run's files are."""
        return RunStorage(self.party.storage, self.config.run_id)

    @cached_property
    def folder(self) -> str:
        """URI of the folder that this attempt writes to."""
        return self.storage.attempt(self.config.task, self.config.attempt)

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
        config = self.config
        self._link = GrpcLink(
            self._client,
            peer=config.peer,
            run_id=config.run_id,
            task=config.half,
            shard=config.shard or 0,
            attempt=config.attempt,
            facts={"shared configuration": config.shared_digest, **facts},
        )
        return self._link

    def count_use(self, kind: str, amount: int) -> None:
        """Charge a use to the run's ticket; to be called before it happens.

        Parameters
        ----------
        kind
            Name of the limit, such as ``ids_blinded``.
        amount
            What this run uses in all: a retry costs nothing, a larger amount the difference.

        Raises
        ------
        TicketExhausted, TicketRateLimited
            A limit would be passed.
        TicketRevoked, TicketExpired, AttemptStale, RunEnded, …
            The ticket or this attempt is not valid any more.
        """
        self._client.count_use(self.config.run_id, self.config.half, self.config.attempt, kind, amount)

    def model(self, name: str, version: int = 0, *, of_another: bool = False) -> worker_pb2.GetModelResponse:
        """Return a version of a model, by default the one in use before this run, as the own registry has it.

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
        found = self._client.get_model(name, version)
        pipeline, _, _ = found.version.run_id.partition(".")
        if pipeline and pipeline != self.config.run_id.partition(".")[0] and not of_another:
            raise ModelTaken(f"`{name}` belongs to pipeline {pipeline}", model=name)
        if version or found.version.run_id != self.config.run_id:
            return found
        parent = found.version.parent
        return (
            self.model(name, parent, of_another=of_another)
            if parent
            else worker_pb2.GetModelResponse(newest=found.newest)
        )

    def publish_model(
        self, version: model_pb2.ModelVersion, consumed: Mapping[str, Sequence[str]], metrics: Mapping[str, float]
    ) -> None:
        """Enter a version that both halves have agreed on in the own registry; see `GatewayClient.publish_model`."""
        config = self.config
        self._client.publish_model(config.run_id, config.half, config.attempt, version, consumed, metrics)

    def report(self, progress: Mapping[str, Any] | None = None, *, step: int = 0, **metrics: float) -> None:
        """Show progress (display only), store metrics at `step` and what has been sent; never fails the task."""
        config, sent = self.config, self._link.sent if self._link is not None else {}
        disclosures = [
            worker_pb2.Disclosure(name=name, messages=each.messages, items=each.items, bytes=each.bytes)
            for name, each in list(sent.items())
        ]
        try:
            self._client.report(
                config.run_id,
                config.half,
                config.attempt,
                progress=progress,
                step=step,
                metrics=metrics,
                disclosures=disclosures,
            )
        except FedtasksError as error:
            log.warning("progress could not be reported: %s", error)


def facts_of(settings: object, **more: str) -> dict[str, str]:
    """Return a settings dataclass as facts for `open_link`, defaults too: neighbouring versions may differ in them."""
    plain = to_plain(settings)
    return {**{f"settings.{name}": json.dumps(value, sort_keys=True) for name, value in plain.items()}, **more}


Algorithm = Callable[[TaskContext], Outcome]


def run(algorithm: Algorithm, config_file: Path) -> int:
    """Run one half of a task and write its outcome or failure beside `config_file`.

    Returns
    -------
    int
        Exit code: 0 when the half succeeded, 1 when it failed and ``failure.json`` says why.
    """
    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    folder = config_file.parent
    try:
        config = build(TaskConfig, json.loads(config_file.read_text(encoding="utf-8")))
        party = load_party(config.party)
        with GatewayClient.of(party) as client:
            context = TaskContext(config, party, client)
            try:
                outcome = algorithm(context)
            finally:
                context.report()  # whatever became of it, this has left the house
    except FedtasksError as error:
        log.error("%s", error)
        _write(folder / FAILURE, _failure(error))
        return 1
    except Exception as error:
        log.exception("the algorithm raised an error that it does not know")
        unknown = ProcessFailed(f"{type(error).__name__} in {config_file.name}; see the log")
        _write(folder / FAILURE, _failure(unknown))
        return 1
    _write(folder / OUTCOME, to_plain(outcome))
    return 0


def _failure(error: FedtasksError) -> dict[str, Any]:
    facts = {"code": error.code, "detail": error.detail, "where": error.where, "public": error.public}
    return {**facts, "fields": error.fields}


def _write(path: Path, value: Mapping[str, Any]) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(value, sort_keys=True), encoding="utf-8")
    os.replace(partial, path)


def main(algorithm: Algorithm) -> None:
    """Entry point of a Spark job: the one argument is the configuration file."""
    if len(sys.argv) != 2:
        raise SystemExit(str(ConfigError(f"usage: {sys.argv[0]} CONFIG")))
    raise SystemExit(run(algorithm, Path(sys.argv[1])))
