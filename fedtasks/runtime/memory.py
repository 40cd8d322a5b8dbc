"""Both halves of a task in one process: each in a thread of its own, over links in memory, without a gateway.

``fedtasks dag test``, the pytest plugin and tests run halves so. What they would charge to a ticket, report and publish
is kept, so that whoever ran them can look at it.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

from fedtasks.config import Party
from fedtasks.errors import DeadlinePassed, FedtasksError, JoinTaken, ModelTaken, ModelUnknown, PeerFailed
from fedtasks.link.endpoint import Sent, sent_over
from fedtasks.link.link import Link
from fedtasks.link.memory import MemoryLink, memory_pair
from fedtasks.names import pipeline_of
from fedtasks.runtime.context import Entry, LocalContext, Outcome
from fedtasks.runtime.joins import JoinCommitted, JoinWindow
from fedtasks.runtime.task_config import TaskConfig
from fedtasks.wire.v1 import model_pb2, worker_pb2

Wrap = Callable[[Link], Link]


class MemoryModels:
    """One party's registry of models, in memory: versions, from which each goes on, and which one is in use."""

    def __init__(self) -> None:
        self._versions: dict[str, dict[int, model_pb2.ModelVersion]] = {}
        self._consumed: dict[tuple[str, int], dict[str, list[str]]] = {}
        self._champions: dict[str, int] = {}

    def versions(self, name: str) -> list[model_pb2.ModelVersion]:
        """Return all versions of a model, by number."""
        return [version for _, version in sorted(self._versions.get(name, {}).items())]

    def champion(self, name: str) -> model_pb2.ModelVersion | None:
        """Return the version in use, or None."""
        return self._versions.get(name, {}).get(self._champions.get(name, 0))

    def make_champion(self, name: str, version: int) -> None:
        """Put a version into use; raise `ModelUnknown` when there is none."""
        if version not in self._versions.get(name, {}):
            raise ModelUnknown(model=name, version=version)
        self._champions[name] = version
        for number, known in self._versions[name].items():
            known.champion = number == version

    def get(self, name: str, version: int = 0) -> worker_pb2.GetModelResponse:
        """Return a version, the one in use by default, and what it has learnt from; nothing if there is none."""
        known = self._versions.get(name, {})
        newest = max(known, default=0)
        found = known.get(version or self._champions.get(name, 0))
        if found is None:
            return worker_pb2.GetModelResponse(newest=newest)
        consumed = json.dumps(self._learnt(name, found.version))
        return worker_pb2.GetModelResponse(version=found, consumed_json=consumed, newest=newest)

    def publish(self, version: model_pb2.ModelVersion, consumed: Mapping[str, Sequence[str]]) -> None:
        """Enter a version, which is in use from now on; entering it twice enters it once.

        Raises
        ------
        ModelTaken
            The name belongs to another pipeline, or the number to another version.
        ModelUnknown
            There is no such version to go on from.
        """
        name, number = version.model, version.version
        known = self._versions.setdefault(name, {})
        for other in known.values():
            if _pipeline(other) != _pipeline(version):
                raise ModelTaken(f"`{name}` belongs to pipeline {_pipeline(other)}", model=name)
        if number in known and _identity(known[number]) == _identity(version):
            return
        newest = max(known, default=0)
        if number <= newest:
            raise ModelTaken(model=name, version=number, newest=newest)
        if version.parent and version.parent not in known:
            raise ModelUnknown(model=name, version=version.parent)
        entered = model_pb2.ModelVersion()
        entered.CopyFrom(version)
        known[number] = entered
        self._consumed[name, number] = {dataset: list(partitions) for dataset, partitions in consumed.items()}
        self.make_champion(name, number)

    def _learnt(self, name: str, version: int) -> dict[str, list[str]]:
        """Return what a version and all that it went on from have learnt from: dataset → sorted partitions."""
        found: dict[str, set[str]] = {}
        while version:
            for dataset, partitions in self._consumed[name, version].items():
                found.setdefault(dataset, set()).update(partitions)
            version = self._versions[name][version].parent
        return {dataset: sorted(partitions) for dataset, partitions in sorted(found.items())}


def _pipeline(version: model_pb2.ModelVersion) -> str:
    return pipeline_of(str(version.run_id))


def _identity(version: model_pb2.ModelVersion) -> tuple[Any, ...]:
    return version.run_id, version.parent, version.own_digest, version.peer_digest


class MemoryJoins:
    """One party's commits of joined streams with one peer, in memory, and what they count of windows."""

    def __init__(self) -> None:
        self._commits: dict[tuple[str, int], JoinCommitted] = {}
        self._windows: dict[tuple[str, int, int], JoinWindow] = {}
        self._changing = threading.Lock()

    def get(self, stream: str, shard: int) -> JoinCommitted | None:
        """Return the last commit of a shard, None if there is none yet."""
        return self._commits.get((stream, shard))

    def windows(self, stream: str, shard: int | None = None) -> list[JoinWindow]:
        """Return the windows of a stream by their beginning, of one shard or summed over all."""
        found: dict[int, JoinWindow] = {}
        for (of_stream, of_shard, start_ms), window in sorted(self._windows.items()):
            if of_stream == stream and shard in (None, of_shard):
                found[start_ms] = found.get(start_ms, JoinWindow(start_ms)) + window
        return [window for _, window in sorted(found.items())]

    def commit(self, stream: str, shard: int, commit: JoinCommitted, windows: Sequence[JoinWindow]) -> JoinCommitted:
        """Put a commit in the place of the one before it; the same again adds nothing.

        Raises
        ------
        JoinTaken
            Another commit is there; nothing has changed.
        """
        with self._changing:
            found = self._commits.get((stream, shard))
            if found == commit:
                return found
            newest = found.number if found else 0
            if commit.number != newest + 1:
                raise JoinTaken(stream=stream, shard=shard, number=commit.number, newest=newest)
            self._commits[stream, shard] = commit
            for window in windows:
                key = (stream, shard, window.start_ms)
                self._windows[key] = self._windows.get(key, JoinWindow(window.start_ms)) + window
            return commit


class MemoryContext(LocalContext):
    """A `TaskContext` without a gateway: it meets its other half in memory, and keeps what a gateway would be told.

    Parameters
    ----------
    config, party
        See `TaskContext`.
    models
        This party's registry; by default there is no model yet.
    joins
        This party's commits of joined streams; by default there is none yet.
    wrap
        What the half gets in place of its end of a link, such as one that fails.

    Attributes
    ----------
    facts
        With what the half asked for its link; empty if it has not.
    uses
        Limit → what the ticket would be charged.
    labels_told
        What would be charged of this party's labels, in millionths of a nat, by item.
    reports
        Progress and metrics of each report, in order.
    metrics
        The last value of each metric.
    kept
        How much of its work the half has kept, 0 for nothing.
    """

    def __init__(
        self,
        config: TaskConfig,
        party: Party,
        *,
        models: MemoryModels | None = None,
        joins: MemoryJoins | None = None,
        wrap: Wrap = lambda link: link,
    ) -> None:
        super().__init__(config, party)
        self.models = models if models is not None else MemoryModels()
        self.joins = joins if joins is not None else MemoryJoins()
        self.facts: dict[str, str] = {}
        self.uses: dict[str, int] = {}
        self.labels_told: dict[str, int] = {}
        self._charged: dict[str, dict[str, int]] = {}
        self.reports: list[tuple[Mapping[str, Any] | None, dict[str, float]]] = []
        self.metrics: dict[str, float] = {}
        self.kept = 0
        self._wrap = wrap
        self._meeting: Meeting | None = None
        self._links: list[MemoryLink] = []

    @property
    def sent(self) -> dict[str, Sent]:
        """What was sent, by name."""
        return sent_over(self._links)

    def join(self, meeting: Meeting) -> None:
        """Let this half meet the other one there."""
        self._meeting = meeting

    def open_link(self, facts: Mapping[str, str]) -> Link:
        """See `TaskContext.open_link`."""
        self.facts = dict(facts)
        if self._meeting is None:
            raise PeerFailed("there is no other half; run both with `run_halves`")
        link = self._meeting.link(self.party.name, {"shared configuration": self.config.shared_digest, **facts})
        self._links.append(link)
        return self._wrap(link)

    def count_use(self, kind: str, amounts: Mapping[str, int]) -> int:
        """Keep what a ticket would be charged."""
        charged = self._charged.setdefault(kind, {})
        for item, amount in amounts.items():
            charged[item] = max(amount, charged.get(item, 0))
        self.uses[kind] = sum(charged.values())
        return self.uses[kind]

    def publish_model(
        self, version: model_pb2.ModelVersion, consumed: Mapping[str, Sequence[str]], metrics: Mapping[str, float]
    ) -> None:
        """See `TaskContext.publish_model`."""
        self.models.publish(version, consumed)
        self.metrics |= metrics

    def join_commit(self, stream: str, shard: int) -> JoinCommitted | None:
        """See `TaskContext.join_commit`."""
        return self.joins.get(stream, shard)

    def join_windows(self, stream: str, shard: int, limit: int) -> list[JoinWindow]:
        """See `TaskContext.join_windows`."""
        return self.joins.windows(stream, shard)[-limit:]

    def commit_join(
        self, stream: str, shard: int, number: int, digest: str, windows: Sequence[JoinWindow] = ()
    ) -> JoinCommitted:
        """See `TaskContext.commit_join`."""
        return self.joins.commit(stream, shard, JoinCommitted(number, digest), windows)

    def report(self, progress: Mapping[str, Any] | None = None, *, step: int = 0, **metrics: float) -> None:
        """Keep progress and metrics."""
        self.reports.append((progress, metrics))
        self.metrics |= metrics

    def alive(self) -> None:
        """Nobody watches whether it is."""

    def reached(self, step: int) -> None:
        """Remember it."""
        self.kept = max(self.kept, step)

    def _spend(self, item: str, epsilon: int) -> None:
        self.labels_told[item] = max(epsilon, self.labels_told.get(item, 0))

    def _registered(self, name: str, version: int) -> worker_pb2.GetModelResponse:
        return self.models.get(name, version)


class Meeting:
    """Gives two halves, each in a thread of its own, the two ends of a link once both have asked for it.

    Parameters
    ----------
    *names
        The two parties.
    """

    def __init__(self, *names: str) -> None:
        self._names = names
        self._asked: dict[str, Mapping[str, str]] = {}
        self._ends: dict[str, MemoryLink | FedtasksError] = {}
        self._links: list[MemoryLink] = []
        self._is_left = False
        self._changed = threading.Condition()

    def link(self, name: str, facts: Mapping[str, str]) -> MemoryLink:
        """Wait for the other half, then return this one's end.

        Raises
        ------
        ConfigDiffers, RowOrderDiffers
            A fact differs; both halves are told.
        PeerFailed
            The other half has ended.
        """
        with self._changed:
            self._asked[name] = facts
            if len(self._asked) == len(self._names):
                self._connect()
                self._changed.notify_all()
            self._changed.wait_for(lambda: name in self._ends or self._is_left)
            if name not in self._ends:
                raise PeerFailed("the other half ended before they met")
            end = self._ends.pop(name)
        if isinstance(end, FedtasksError):
            raise end
        return end

    def leave(self) -> None:
        """Let nobody wait for a half that has ended."""
        with self._changed:
            self._is_left = True
            self._changed.notify_all()

    def abort(self) -> None:
        """End whatever both halves wait for."""
        self.leave()
        for link in self._links:
            link.abort()

    def _connect(self) -> None:
        a, b = self._names
        facts, self._asked = self._asked, {}
        try:
            ends = memory_pair(facts_a=facts[a], facts_b=facts[b], names=(a, b))
        except FedtasksError as error:
            self._ends = dict.fromkeys(self._names, error)
            return
        self._links += ends
        self._ends = dict(zip(self._names, ends, strict=True))


def run_halves(
    entry: Entry, contexts: Mapping[str, MemoryContext], *, deadline_s: float | None = None
) -> dict[str, Outcome | Exception]:
    """Run both halves of a task, each in its thread.

    Parameters
    ----------
    entry
        What to run.
    contexts
        Party name → context of its half.
    deadline_s
        How long both may take; by default as long as they like.

    Returns
    -------
    dict of str to Outcome or Exception
        How each half ended.

    Raises
    ------
    DeadlinePassed
        A half was not done in time; both have been ended.
    """
    meeting = Meeting(*contexts)

    def half(context: MemoryContext) -> Outcome | Exception:
        context.join(meeting)
        try:
            return entry(context)
        except Exception as error:
            return error
        finally:
            meeting.leave()

    with ThreadPoolExecutor(len(contexts), thread_name_prefix="half") as pool:
        futures = {name: pool.submit(half, context) for name, context in contexts.items()}
        if wait(futures.values(), deadline_s).not_done:
            meeting.abort()
            task = next(iter(contexts.values())).config.half
            text = f"a half is not done after {deadline_s:g} s; does each receive what the other sends?"
            raise DeadlinePassed(text, where=task)
        return {name: future.result() for name, future in futures.items()}
