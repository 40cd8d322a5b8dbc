"""The shared configuration of a run: made from the initiator's trigger form, checked by both sides."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fedtasks import __version__
from fedtasks.config import Dataset, Party
from fedtasks.dataclass_io import build
from fedtasks.digests import canonical
from fedtasks.errors import (
    ColumnEmpty,
    ColumnMissing,
    ConfigDiffers,
    ConfigError,
    LabelInvalid,
    ModelTaken,
    ModelUnknown,
)
from fedtasks.kinds import kinds
from fedtasks.models.contract import algorithm, algorithms
from fedtasks.models.settings import FRESH, version_number
from fedtasks.names import FOLLOWER, LEADER, pipeline_of
from fedtasks.pipeline.step import WORKERS, Step, parts_of
from fedtasks.psi.settings import AlignSettings
from fedtasks.text import plain_text

if TYPE_CHECKING:
    from fedtasks.wire.v1 import worker_pb2
    from fedtasks.wire.v1.model_pb2 import ModelVersion


WAIT = "wait_minutes"
"""The field that says how long a half waits for the other."""

PARTITION = "partition"
"""The field that says which partition a run is about, and all runs of a DAG run."""

RUN = ("peer", "ticket", PARTITION, "reason", "own_dataset", "peer_dataset", "leader", "force", WAIT)
"""The fields of a trigger form that are not a step's."""

_MAX_NAME = 80

_OF_STREAMS = ("join", "joined")
"""The kinds of steps that are of streams."""


def check_names(conf: Collection[str], fields: Collection[str], others: Collection[str]) -> None:
    """Refuse what somebody has passed to a run that is no field, so that a slip of the pen starts nothing.

    Parameters
    ----------
    conf
        The names passed.
    fields
        Those of the form.
    others
        Names that may be passed besides, such as that of a step.

    Raises
    ------
    ConfigError
        With the nearest name that there is.
    """
    known = {*fields, *others}
    for name in conf:
        if name in known:
            continue
        # Whoever names a setting alone means it of a step.
        endings = [each for each in fields if each.rpartition(".")[2] == name]
        near = endings or difflib.get_close_matches(name, sorted(known), n=3, cutoff=0.5)
        shown = plain_text(name, _MAX_NAME)
        hint = f"nearest: {', '.join(near)}" if near else f"there are: {_some(fields)}"
        raise ConfigError(f"`{shown}` is no field of this pipeline's trigger form; {hint}", field="conf")


def _some(fields: Collection[str]) -> str:
    """Name the fields of every run, and one of a step's many."""
    plain = [name for name in fields if "." not in name]
    return ", ".join([*plain, *[f"settings such as {name}" for name in fields if "." in name][:1]])


def initiate(party: Party, steps: Sequence[Step], params: Mapping[str, Any], partition: str) -> dict[str, Any]:
    """Return what the initiator asks its gateway for.

    Parameters
    ----------
    party
        This party.
    steps
        The pipeline's steps; their settings are completed by those in `params`.
    params
        The trigger form.
    partition
        Whose data the run uses.

    Raises
    ------
    PeerUnknown, ConfigError
        A field of the form names what there is not.
    """
    if not params.get("peer"):
        known = ", ".join(peer.name for peer in party.peers) or "none"
        raise ConfigError(f"name the party to run with; known are: {known}", field="peer", where="trigger form")
    peer = party.peer(params["peer"]).name
    if not params.get("own_dataset"):
        leads = params["leader"] == "own"
        known = ", ".join(suitable_datasets(party, steps, leads=leads)) or "none is declared"
        text = f"name the dataset of {party.name} in the form, or once for all as `dataset` of the pipeline: {known}"
        raise ConfigError(text, field="own_dataset", where="trigger form")
    datasets = {party.name: params["own_dataset"]}
    if params.get("peer_dataset"):
        datasets[peer] = params["peer_dataset"]  # without it, the gateway takes the one that the tickets allow
    settings = {step.name: step.settings_with(params) for step in steps}
    for step in steps:
        # What there is no setting for is a slip of the pen here; where the peer sends it, another release.
        step.check(settings[step.name])
    shared = {
        "leader": party.name if params["leader"] == "own" else peer,
        "datasets": datasets,
        "steps": settings,
    }
    check_shared(party, peer, steps, {**shared, "datasets": {peer: "", **datasets}})
    ticket = params.get("ticket") or "auto"
    return {
        "partition": partition,
        "config_json": canonical(shared),
        "peer": peer,
        "ticket_id": "" if ticket == "auto" else ticket,
        "force": bool(params.get("force")),
        "reason": params.get("reason") or "",
    }


def suitable_datasets(
    party: Party, steps: Sequence[Step], *, leads: bool, by_partition: bool = False
) -> tuple[str, ...]:
    """Return the names of this party's datasets that a run can be meant for; all of them if none stands out.

    Parameters
    ----------
    leads
        Whether this party holds the label, where a step needs one.
    by_partition
        Whether runs begin by partitions.
    """
    found = list(party.datasets)
    if any(step.kind in _OF_STREAMS for step in steps):
        found = [dataset for dataset in found if dataset.is_stream] or found
    elif by_partition:
        found = [dataset for dataset in found if dataset.is_partitioned] or found
    if any(step.needs_label for step in steps):
        found = [dataset for dataset in found if (dataset.label is not None) == leads] or found
    return tuple(dataset.name for dataset in found)


def check_shared(party: Party, peer: str, steps: Sequence[Step], shared: Mapping[str, Any]) -> None:
    """Check a shared configuration against what this party has, before anything runs.

    Raises
    ------
    ConfigError
        It names a dataset that this party does not declare, a leader that is no party of the run, a setting that will
        not do, or a task that is not there or does not do what the setting asks of it.
    ConfigDiffers
        It has settings for other steps than this pipeline, or a setting that this release has not.
    ColumnEmpty
        A model is trained, measured or used, and this party follows without a feature.
    ColumnType
        The dataset has a feature of a type that an algorithm of the pipeline does not take.
    LabelInvalid
        A step needs a label, and the leader's dataset has none or one that it does not predict, or the follower's has
        one.
    """
    datasets, leader = shared["datasets"], shared["leader"]
    if sorted(datasets) != sorted((party.name, peer)):
        raise ConfigError(f"datasets of {party.name} and {peer} are needed", field="datasets")
    if leader not in datasets:
        raise ConfigError(f"`{leader}` is neither {party.name} nor {peer}", field="leader")
    ours, theirs = sorted(step.name for step in steps), sorted(shared["steps"])
    if ours != theirs:
        raise ConfigDiffers(field="steps", ours=" ".join(ours), theirs=" ".join(theirs))
    _check_known(steps, shared["steps"])
    check_steps(steps, shared["steps"])
    dataset = party.dataset(datasets[party.name])
    _check_dataset(dataset, LEADER if leader == party.name else FOLLOWER, steps, shared["steps"])
    for step in steps:
        if step.kind in _OF_STREAMS and not dataset.is_stream:
            text = f"dataset `{dataset.name}` is no stream: name the column of its rows' times in `event_time`"
            raise ConfigError(text, field="datasets")
        if step.kind == "align" and leader == party.name:
            build(AlignSettings, dict(shared["steps"][step.name]), path=step.name).check_dataset(dataset)


def _check_known(steps: Sequence[Step], settings: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse a setting that somebody has set in a release which has it, while this one has not."""
    for step in steps:
        declared = {field.name for field in step.declared}
        for name, value in settings[step.name].items() if declared else ():
            if name not in declared:
                field, shown = plain_text(f"{step.name}.{name}", _MAX_NAME), plain_text(str(value), _MAX_NAME)
                raise ConfigDiffers(field=field, ours=f"absent in {__version__}", theirs=shown)


def check_workers(steps: Sequence[Step], settings: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse a run that asks for another number of workers than this party's DAG names: they are its processes.

    Parameters
    ----------
    steps
        This party's, which has been asked for the run.
    settings
        Step → the settings that the other one asks for.

    Raises
    ------
    ConfigDiffers
        With both numbers.
    """
    for step in steps:
        if WORKERS not in step.mapped_by:
            continue
        ours, theirs = parts_of(step.settings, WORKERS), parts_of(settings[step.name], WORKERS)
        if ours != theirs:
            raise ConfigDiffers(field=f"{step.name}.{WORKERS}", ours=str(ours), theirs=str(theirs))


def check_steps(steps: Sequence[Step], settings: Mapping[str, Mapping[str, Any]]) -> None:
    """Check a pipeline's settings, and that its steps find what they need of one another.

    Parameters
    ----------
    steps
        The pipeline's steps.
    settings
        Step → its settings where they differ from the defaults.

    Raises
    ------
    ConfigError
        A setting will not do; or it names a task that does not stand before its step, or is not of the kind that it
        needs, such as one that trains no model.
    """
    for step in steps:
        step.check(settings[step.name])
    wanted = {"psi_task": {"psi"}, "rows_task": None, "model_task": set(algorithms()), "evaluate_task": {"evaluate"}}
    for place, step in enumerate(steps):
        effective = step.effective(settings[step.name])
        # What predicts with a model by name takes it from the run that has trained it.
        by_name = step.kind == "predict" and bool(effective["model"])
        before = {known.name: known.kind for known in steps[:place]}
        for name, suitable in wanted.items():
            if name not in effective or (name == "model_task" and by_name):
                continue
            task = effective[name]
            if task not in before:
                known = ", ".join(before) or "none"
                raise ConfigError(f"there is no task `{task}` before `{step.name}`; there are: {known}", field=name)
            # Nobody but its author knows what a step of one's own does.
            if before[task] and suitable is not None and before[task] not in suitable:
                needed = ", ".join(sorted(suitable))
                text = f"task `{task}` is of kind {before[task]}, and `{step.name}` needs: {needed}"
                raise ConfigError(text, field=name)


def _check_dataset(
    dataset: Dataset, role: str, steps: Sequence[Step], settings: Mapping[str, Mapping[str, Any]]
) -> None:
    """Refuse a dataset that has not the label or features which the steps ask of this role, or settings for another.

    A leader may have its label alone; a follower brings features, which its gateway makes sure of on either side.
    """
    if any(step.needs_label for step in steps):
        if role == LEADER and dataset.label is None:
            raise LabelInvalid(f"this party leads, but its dataset `{dataset.name}` declares no label")
        if role == FOLLOWER and dataset.label is not None:
            raise LabelInvalid(f"this party follows, but its dataset `{dataset.name}` declares a label too")
    known = algorithms()
    if role == FOLLOWER and not dataset.features and any(step.kind in {*known, "predict"} for step in steps):
        text = f"this party follows, but its dataset `{dataset.name}` has no feature: nothing can be learnt from it"
        raise ColumnEmpty(text, where=dataset.name)
    for step in steps:
        if step.kind not in known:
            continue
        found = known[step.kind]
        asked: Any = build(found.settings, dict(settings[step.name]), path=step.name)
        found.check_features(dataset.model_features)
        found.check_details(asked, dataset.details)
        if role == LEADER:
            found.check_label(dataset.label_kind)
            found.check_settings(asked, dataset.label_kind, dataset.label_classes)


def check_models(
    models: Callable[[str, int], worker_pb2.GetModelResponse],
    run_id: str,
    steps: Sequence[Step],
    shared: Mapping[str, Any],
    party: Party,
) -> list[str]:
    """Check the versions of models that steps name, before anything runs.

    Parameters
    ----------
    models
        Returns a version of a model as this party's registry has it; 0 is the one in use.
    run_id
        What the run itself has published does not count.
    party
        This party, whose dataset and whose halves of the versions they are.

    Returns
    -------
    list of str
        What will not be done, though the run goes on: which version in use cannot be measured.

    Raises
    ------
    ModelUnknown
        There is no such version to go on from, or to predict with.
    ModelTaken
        The model belongs to another pipeline, or is one of another algorithm than goes on from it.
    ConfigError
        What is to predict was trained by an algorithm that is not installed here.
    ColumnMissing
        A version to go on from, or to predict with, needs a feature that the dataset does not declare.
    """
    known, installed = kinds(), algorithms()
    warnings: list[str] = []
    for step in steps:
        if step.kind not in known:
            continue
        settings: Any = build(known[step.kind].settings, shared["steps"][step.name], path=step.name)
        model, start_from = getattr(settings, "model", ""), getattr(settings, "start_from", FRESH)
        trains, predicts = step.kind in installed, step.kind == "predict"
        if not model or (trains and start_from == FRESH):
            continue
        number = version_number(start_from) if trains else getattr(settings, "version", 0)
        found = models(model, number).version
        if found.run_id == run_id:
            continue
        if not found.version and (number or predicts):
            raise ModelUnknown(model=model, version=number or "in use")
        pipeline = pipeline_of(found.run_id)
        if pipeline and pipeline != pipeline_of(run_id) and not predicts:
            raise ModelTaken(f"`{model}` belongs to pipeline {pipeline}", model=model)
        if trains and found.algorithm not in ("", step.kind):
            text = f"`{model}` is one of `{found.algorithm}`, from which `{step.kind}` cannot go on"
            raise ModelTaken(text, model=model)
        if predicts and found.algorithm:
            algorithm(found.algorithm)
        if found.version:
            trained_by = step.name if trains else getattr(settings, "model_task", "")
            warnings += _check_features(found, trained_by, step, shared, party)
    return warnings


def _check_features(
    version: ModelVersion, trained_by: str, step: Step, shared: Mapping[str, Any], party: Party
) -> list[str]:
    """Refuse a version that needs what the dataset no longer declares, or say that it will not be measured."""
    from fedtasks.models.versions import lacking  # reads models, which few runs need here

    dataset = party.dataset(shared["datasets"][party.name])
    role = LEADER if shared["leader"] == party.name else FOLLOWER
    missing = lacking(party.storage, version, trained_by, role, dataset.model_features, dataset.details)
    if not missing:
        return []
    names = ", ".join(f"`{name}`" for name in missing)
    text = (
        f"version {version.version} of `{version.model}` needs {names}, which dataset `{dataset.name}` does not declare"
    )
    if step.kind == "evaluate":
        return [f"{text}: it is not measured, so the new model will be published without a comparison"]
    remedy = "choose another version, or declare the column again"
    if step.kind != "predict":
        remedy = "set `start_from` to `fresh`, or give the new model another `model`"
    raise ColumnMissing(f"{text}; {remedy}", where=step.name)
