"""Where this party's halves of models are: what a task has trained, and the versions that both sides have published."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from fedtasks import __version__
from fedtasks.config import Feature, FeatureType
from fedtasks.data.run_storage import Manifest, RunStorage
from fedtasks.data.storage import create_once, read_json
from fedtasks.digests import canonical
from fedtasks.errors import DataCorrupt, DataMissing, FedtasksError, ModelNewer, ModelUnknown
from fedtasks.models.contract import CARD, Algorithm, HalfModel, algorithms
from fedtasks.models.settings import FRESH, version_number
from fedtasks.names import FOLLOWER, LEADER
from fedtasks.runtime.context import TaskContext
from fedtasks.wire.v1.model_pb2 import ModelVersion


def role_of(context: TaskContext) -> str:
    """Return which half this party holds."""
    return LEADER if context.is_leader else FOLLOWER


def private_seed(storage: RunStorage, task: str) -> int:
    """Return a seed that only this party knows: drawn once per run, then kept for every attempt and every worker."""
    place = f"{storage.folder(task)}/initial-seed.json"
    try:
        return int(read_json(place))
    except DataMissing:
        create_once(place, canonical(secrets.randbits(63)).encode())  # by whoever is first
        return int(read_json(place))


def algorithm_of(manifest: Manifest) -> Algorithm:
    """Return the algorithm that has trained what a task published.

    Raises
    ------
    DataCorrupt
        The task has published no model, or one that no algorithm installed here can read.
    """
    name = manifest.facts.get("format")
    if name is None:  # an earlier release wrote it only into the half itself
        try:
            name = read_json(manifest.path(CARD)).get("format", "")
        except (DataMissing, AttributeError):
            text = f"task `{manifest.task}` has published no model; name the task that trains one"
            raise DataCorrupt(text, where=manifest.uri) from None
    for algorithm in algorithms().values():
        if name in (algorithm.name, *algorithm.earlier_formats):
            return algorithm
    known = ", ".join(algorithms())
    raise DataCorrupt(f"a model of format `{name}`; installed here are: {known}", where=manifest.uri)


def load_half(manifest: Manifest, role: str) -> HalfModel:
    """Return the half that a task has published, whichever algorithm has trained it.

    Raises
    ------
    DataCorrupt
        A file differs from the manifest, or it is no model, or the other party's half.
    ModelNewer
        A newer release wrote it, and this one cannot read it.
    """
    manifest.verify()
    place = manifest.path(CARD)
    with _of_its_release(place):
        algorithm = algorithm_of(manifest)
        found = read_json(place).get("role")
        if found != role:
            raise DataCorrupt(f"this is the {found}'s half, and this party is the {role}", where=place)
        return algorithm.load_half(manifest, role)


@contextmanager
def _of_its_release(place: str) -> Iterator[None]:
    """Say of what cannot be read whether a newer release wrote it: then the file is whole."""
    try:
        yield
    except DataCorrupt as error:
        release = str(read_json(place).get("release", ""))
        if _is_newer(release):
            text = f"fedtasks {release} wrote it, this is {__version__}: {error.detail}"
            raise ModelNewer(text, where=place) from error
        raise


def _is_newer(release: str) -> bool:
    known, written = ([int(part) for part in re.findall(r"\d+", each)[:3]] for each in (__version__, release))
    return written > known


def start_of(context: TaskContext, start_from: str, model: str) -> tuple[int, Manifest | None]:
    """Return the version that training goes on from and what holds this party's half; 0 and None to begin anew.

    Raises
    ------
    ModelUnknown
        There is no such version.
    """
    if start_from == FRESH:
        return 0, None
    number = version_number(start_from)
    parent, half = version_of(context, model, context.config.task, number)
    if number and half is None:
        raise ModelUnknown(model=model, version=number)
    return parent, half


def version_of(
    context: TaskContext, model: str, task: str, number: int = 0, *, of_another: bool = False
) -> tuple[int, Manifest | None]:
    """Return a version of a model, by default the one in use, and what holds this party's half; 0 and None if none.

    Parameters
    ----------
    task
        The task of its run that has trained it.
    of_another
        See `TaskContext.model`.
    """
    found = context.model(model, number, of_another=of_another)
    if not found.HasField("version"):
        return 0, None
    return found.version.version, manifest_of(context.party.storage, found.version, task)


def manifest_of(storage: str, version: ModelVersion, task: str) -> Manifest:
    """Return what holds this party's half of a version.

    Parameters
    ----------
    storage
        Root of everything that this party's runs write.
    version, task
        Which version, and the task of its run that has trained it.

    Raises
    ------
    DataCorrupt
        It is not there any more.
    """
    # A task that was cleared after it had been published may have trained another model since.
    for trained in RunStorage(storage, version.run_id).publications(task):
        if (trained.facts["digest"], trained.facts["peer_digest"]) == (version.own_digest, version.peer_digest):
            return trained
    text = f"no half that run {version.run_id} has trained is version {version.version} of `{version.model}`"
    raise DataCorrupt(text)


def lacking(
    storage: str,
    version: ModelVersion,
    task: str,
    role: str,
    declared: Mapping[str, FeatureType],
    details: Mapping[str, Feature],
) -> list[str]:
    """Return the features that this party's half of a version needs and that are not declared; none if it is not found.

    Parameters
    ----------
    storage
        Root of everything that this party's runs write.
    version, task
        Which version, and the task of its run that has trained it.
    role
        Which half this party holds.
    declared, details
        The features of the dataset: see `HalfModel.lacking`.
    """
    try:
        return load_half(manifest_of(storage, version, task), role).lacking(declared, details)
    except FedtasksError:  # whoever needs it says what is wrong with it
        return []
