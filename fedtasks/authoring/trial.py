"""A pipeline tried at one desk: both halves of every step on sample data, over a link in memory, without Airflow.

What runs is what runs in production, storage, alignment and algorithms included. Only the gateways are missing: no
ticket is asked, so what would be charged to one is counted and reported.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from fedtasks.airflow.dagfiles import Declared
from fedtasks.authoring.networks import KIND as NETWORKS
from fedtasks.authoring.networks import Network, with_networks
from fedtasks.authoring.sample import BANK, SHARED, SHOP, Pair, pair_as_declared, sample_pair
from fedtasks.config import Party, load_party
from fedtasks.crypto.scheme import generate_key
from fedtasks.crypto.schemes import Scheme
from fedtasks.dataclass_io import to_plain
from fedtasks.errors import (
    ConfigError,
    FedtasksError,
    ModelUnknown,
    PeerFailed,
    ProcessFailed,
    ReceiptsDiffer,
)
from fedtasks.link.endpoint import Sent
from fedtasks.pipeline.catalogue import join
from fedtasks.pipeline.shared import RUN, check_names, check_steps
from fedtasks.pipeline.step import Step, parts_of
from fedtasks.runtime.context import Outcome
from fedtasks.runtime.function import entry_at
from fedtasks.runtime.memory import MemoryContext, MemoryJoins, MemoryModels, run_halves
from fedtasks.runtime.task_config import TaskConfig
from fedtasks.shortage import shortage

DEADLINE_S = 120.0
"""How long both halves of one step may take on sample data."""

_KEY_BITS = 3072
_OF_STREAMS = ("join", "joined")
_numbers = itertools.count(1)


@dataclass
class Side:
    """What one half of a step did.

    Parameters
    ----------
    outcome
        What it ended with, as the receipts hold it.
    sent
        What it sent, by name.
    uses
        What it would have charged to the ticket.
    labels_told
        What it would have charged of its party's labels, in millionths of a nat, by item.
    metrics
        The last value of each metric that it reported.
    """

    outcome: dict[str, Any] = field(default_factory=dict)
    sent: dict[str, Sent] = field(default_factory=dict)
    uses: dict[str, int] = field(default_factory=dict)
    labels_told: dict[str, int] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass
class Tried:
    """What became of one step.

    Parameters
    ----------
    step
        Its name.
    sides
        Party name → what its half did; of a step in stages, all of them together.
    took_s
        How long both took.
    left_out
        Why it was not tried; empty if it was.
    networks
        Party name → what its half is, where the step trains a network by model files.
    """

    step: str
    sides: dict[str, Side] = field(default_factory=dict)
    took_s: float = 0.0
    left_out: str = ""
    networks: dict[str, Network] = field(default_factory=dict)


def try_out(
    steps: Sequence[Step], pair: Pair, folder: Path, *, params: Mapping[str, Any] | None = None, partition: str
) -> Iterator[Tried]:
    """Run a pipeline's steps one after another, yielding what became of each.

    Parameters
    ----------
    steps
        The steps.
    pair
        The two parties.
    folder
        Where keys and scratch files go.
    params
        What a trigger form would say of the settings.
    partition
        Whose data the run is about.

    Raises
    ------
    ConfigError
        A name in `params` is no field; the steps' settings will not do, or they do not fit together.
    FedtasksError
        A half failed: what went wrong, and in which half of which party.
    ReceiptsDiffer
        The halves of a step ended with different outcomes.
    """
    fields = [f"{step.name}.{declared.name}" for step in steps for declared in step.declared]
    check_names(params or {}, fields, (*RUN, *(step.name for step in steps)))
    settings = {step.name: step.settings_with(params or {}) for step in steps}
    check_steps(steps, settings)
    pair = _with_keys_for(pair, steps, settings, folder)
    run_id = f"trial.{partition}.{next(_numbers)}"
    models = {name: MemoryModels() for name in pair.parties}
    joins = {name: MemoryJoins() for name in pair.parties}
    for step in _joining(steps):
        try:
            networks: dict[str, Network] = {}
            if step.kind == NETWORKS and settings[step.name].get("network"):
                pair, networks = with_networks(pair, settings[step.name], run_id, folder)
            tried = _try_step(step, _ended(step, settings), pair, models, joins, run_id, partition)
            tried.networks = networks
            if step in steps:
                yield tried
        except ModelUnknown as error:
            yield Tried(step.name, left_out=f"it needs the model `{error.fields['model']}`, which another run trains")


def pair_for(
    declared: Declared, folder: Path, party_file: Path | None = None, peer_network: Path | None = None
) -> Pair:
    """Make the two parties that a pipeline can be tried with.

    Parameters
    ----------
    declared
        The pipeline.
    folder
        Where their files go.
    party_file
        One of them has the name, the columns and the model files of this party; None makes both up.
    peer_network
        The model file of the other one, for every step that names a network; by default a counterpart is made up.
    """
    shared = max(SHARED, *(int(step.settings.get("min_intersection", 0)) for step in declared.steps))
    streams = any(step.kind in _OF_STREAMS for step in declared.steps)
    if party_file is None:
        return sample_pair(folder, shared=shared, streams=streams)
    party = load_party(party_file)
    if not party.datasets:
        raise ConfigError("declare a dataset, whose columns the made-up people will have", where=str(party_file))
    named = declared.shared.get("datasets", {}).get(party.name) or party.datasets[0].name
    peer = declared.asks.get("peer") or next((peer.name for peer in party.peers), SHOP if party.name == BANK else BANK)
    pair = pair_as_declared(folder, party.dataset(named), party.name, peer, shared=shared, streams=streams)
    theirs = dict.fromkeys(party.networks, peer_network) if peer_network else {}
    networks = {party.name: party.networks, peer: theirs}
    return replace(pair, parties={name: replace(each, networks=networks[name]) for name, each in pair.parties.items()})


def _joining(steps: Sequence[Step]) -> Iterator[Step]:
    """Yield the steps, before one that takes what another pipeline joins one that joins it."""
    joined: set[str] = set()
    for step in steps:
        stream = str(step.settings.get("stream", ""))
        if step.kind == "joined" and stream not in joined:
            yield join(stream)
        if step.kind in _OF_STREAMS:
            joined.add(stream)
        yield step


def _ended(step: Step, settings: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return a step's settings; made-up logs have ended, so all of them is joined."""
    found = settings.get(step.name, step.settings)
    return {**found, "final": True} if step.kind == "join" else found


def _with_keys_for(pair: Pair, steps: Sequence[Step], settings: Mapping[str, Mapping[str, Any]], folder: Path) -> Pair:
    """Return the pair with signing keys as long as the steps ask for, if one of them may sign."""
    if not any(step.kind == "psi" for step in steps):
        return pair
    bits = max(_KEY_BITS, *(int(of_step.get("key_bits_min", 0)) for of_step in settings.values()))
    return replace(pair, parties={name: _with_keys(party, folder, bits) for name, party in pair.parties.items()})


def _with_keys(party: Party, folder: Path, bits: int) -> Party:
    keys = {}
    for field_name, scheme, length in (("psi_key", Scheme.BLIND_RSA, bits), ("psi_oprf_key", Scheme.OPRF, None)):
        keys[field_name] = folder / party.name / f"{scheme.value}-{bits}.key"
        if not keys[field_name].exists():
            generate_key(scheme, keys[field_name], length)
    return replace(party, psi_key=keys["psi_key"], psi_oprf_key=keys["psi_oprf_key"])


def _try_step(
    step: Step,
    settings: Mapping[str, Any],
    pair: Pair,
    models: Mapping[str, MemoryModels],
    joins: Mapping[str, MemoryJoins],
    run_id: str,
    partition: str,
) -> Tried:
    entry = entry_at(step.entry)
    tried = Tried(step.name, {name: Side() for name in pair.parties})
    began = time.monotonic()
    for together in _parts(step, settings):
        pairs = []
        for stage, shard in together:
            contexts = {}
            for name, party in pair.parties.items():
                config = TaskConfig(
                    party=Path("party.yaml"),
                    run_id=run_id,
                    task=step.name,
                    attempt=1,
                    peer=pair.other(name),
                    leader=pair.leader,
                    datasets=pair.datasets,
                    settings=settings,
                    partition=partition,
                    stage=stage,
                    shard=shard,
                    kind=step.kind,
                )
                contexts[name] = MemoryContext(config, party, models=models[name], joins=joins[name])
            pairs.append(contexts)
        with ThreadPoolExecutor(len(pairs)) as pool:
            ends = [*pool.map(partial(run_halves, entry, deadline_s=DEADLINE_S), pairs)]
        for contexts, ended in zip(pairs, ends, strict=True):
            _take_up(contexts, ended, tried)
    tried.took_s = time.monotonic() - began
    return tried


def _parts(step: Step, settings: Mapping[str, Any]) -> Iterator[list[tuple[str, int | None]]]:
    """Yield stage and shard of the tasks that a step is cut into, in an order in which they may run: those together."""
    if not step.stages:
        yield [("", None)]
    for stage in step.stages:
        if not stage.by:
            yield [(stage.name, None)]
            continue
        tasks: list[tuple[str, int | None]] = [(stage.name, number) for number in range(parts_of(settings, stage.by))]
        yield from [tasks] if stage.by_worker else ([task] for task in tasks)


def _take_up(contexts: Mapping[str, MemoryContext], ends: Mapping[str, Outcome | Exception], tried: Tried) -> None:
    _raise_first(contexts, ends)
    outcomes = {name: dict(to_plain(end)) for name, end in ends.items()}
    if len({str(outcome) for outcome in outcomes.values()}) > 1:
        told = "; ".join(f"{name}: {outcome}" for name, outcome in outcomes.items())
        raise ReceiptsDiffer(f"both halves must end with the same, but did not: {told}", where=tried.step)
    for name, context in contexts.items():
        _add(tried.sides[name], context, outcomes[name])


def _raise_first(contexts: Mapping[str, MemoryContext], ends: Mapping[str, Outcome | Exception]) -> None:
    """Raise what went wrong, if anything did; that the other half hung up is a consequence."""
    errors = {name: end for name, end in ends.items() if isinstance(end, Exception)}
    for name, error in sorted(errors.items(), key=lambda item: isinstance(item[1], PeerFailed)):
        where = f"{contexts[name].config.half} of {name}"
        if isinstance(error, FedtasksError):
            error.where = error.where or where
            raise error
        raise shortage(error) or ProcessFailed(f"{type(error).__name__}: {error}", where=where) from error


def _add(side: Side, context: MemoryContext, outcome: Mapping[str, Any]) -> None:
    for part, values in outcome.items():
        side.outcome.setdefault(part, {}).update(values)
    for name, sent in context.sent.items():
        total = side.sent.setdefault(name, Sent())
        total.messages, total.items, total.bytes = (
            total.messages + sent.messages,
            total.items + sent.items,
            total.bytes + sent.bytes,
        )
    side.uses |= context.uses
    side.labels_told |= context.labels_told
    side.metrics |= context.metrics
