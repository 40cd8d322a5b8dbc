"""What belongs to a half of a model, whichever algorithm has trained it: its role, its pair, its version."""

from __future__ import annotations

import secrets

from fedtasks.data.blocks import Blocks
from fedtasks.data.storage import Manifest, RunStorage, read_json, write_json
from fedtasks.digests import digest
from fedtasks.errors import DataCorrupt, DataMissing, LabelInvalid, ModelUnknown, ProtocolViolated
from fedtasks.link.link import Link
from fedtasks.models.settings import CHAMPION, FRESH
from fedtasks.runtime.context import TaskContext

LEADER, FOLLOWER = "leader", "follower"

_DIGEST = "model digest"


def role_of(context: TaskContext) -> str:
    """Return which half this party holds."""
    return LEADER if context.is_leader else FOLLOWER


def pairing(role: str, own: str, peer: str) -> str:
    """Return SHA-256 (hex) over both halves' digests: equal on both sides, different for halves of different runs."""
    return digest((own, peer) if role == LEADER else (peer, own))


def exchange_digest(link: Link, own: str) -> str:
    """Tell the other half the digest of the own one, and return its."""
    link.send(_DIGEST, own.encode())
    theirs = link.receive(_DIGEST)
    if not isinstance(theirs, bytes) or len(theirs) != len(own):
        raise ProtocolViolated("the other half did not send its model's digest")
    return theirs.decode("ascii", errors="replace")


def open_labelled(context: TaskContext) -> Blocks:
    """Open the run's blocks; raise `LabelInvalid` unless exactly the leader's have a label."""
    blocks = Blocks.open(context.storage)
    if context.is_leader and not blocks.has_label:
        raise LabelInvalid("this party is the leader, but its dataset declares no label")
    if not context.is_leader and blocks.has_label:
        raise LabelInvalid("this party is the follower, but its dataset declares a label too")
    return blocks


def private_seed(storage: RunStorage, task: str) -> int:
    """Return a seed that only this party knows: drawn once per run, then kept for every attempt."""
    place = f"{storage.folder(task)}/initial-seed.json"
    try:
        return int(read_json(place))
    except DataMissing:
        seed = secrets.randbits(63)
        write_json(place, seed)
        return seed


def start_of(context: TaskContext, start_from: str, model: str) -> tuple[int, Manifest | None]:
    """Return the version that training goes on from and what holds its own half; 0 and None to begin anew.

    Raises
    ------
    ModelUnknown
        There is no such version.
    """
    if start_from == FRESH:
        return 0, None
    number = 0 if start_from == CHAMPION else int(start_from[1:])
    parent, half = version_of(context, model, context.config.task, number)
    if number and half is None:
        raise ModelUnknown(model=model, version=number)
    return parent, half


def version_of(
    context: TaskContext, model: str, task: str, number: int = 0, *, of_another: bool = False
) -> tuple[int, Manifest | None]:
    """Return a version of a model, by default the one in use, and what holds its own half.

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
    version = found.version
    # A task that was cleared after it had been published may have trained another model since.
    for trained in RunStorage(context.party.storage, version.run_id).publications(task):
        if (trained.facts["digest"], trained.facts["peer_digest"]) == (version.own_digest, version.peer_digest):
            return version.version, trained
    raise DataCorrupt(f"no half that run {version.run_id} has trained is version {version.version} of `{model}`")
