"""The shared configuration of a run: made from the initiator's trigger form, checked by both sides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fedtasks.config import Party
from fedtasks.digests import canonical
from fedtasks.errors import ConfigDiffers, ConfigError, LabelInvalid
from fedtasks.pipeline.step import Step


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
        raise ConfigError(f"name the dataset of {party.name}", field="own_dataset", where="trigger form")
    datasets = {party.name: params["own_dataset"]}
    if params.get("peer_dataset"):
        datasets[peer] = params["peer_dataset"]  # without it, the gateway takes the one that the tickets allow
    shared = {
        "leader": party.name if params["leader"] == "own" else peer,
        "datasets": datasets,
        "steps": {step.name: step.settings_with(params) for step in steps},
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


def check_shared(party: Party, peer: str, steps: Sequence[Step], shared: Mapping[str, Any]) -> None:
    """Check a shared configuration against what this party has, before anything runs.

    Raises
    ------
    ConfigError
        It names a dataset that this party does not declare, or a leader that is no party of the run.
    ConfigDiffers
        It has settings for other steps than this pipeline.
    LabelInvalid
        A step needs a label, and the leader's dataset has none or the follower's has one.
    """
    datasets, leader = shared["datasets"], shared["leader"]
    if sorted(datasets) != sorted((party.name, peer)):
        raise ConfigError(f"datasets of {party.name} and {peer} are needed", field="datasets")
    if leader not in datasets:
        raise ConfigError(f"`{leader}` is neither {party.name} nor {peer}", field="leader")
    ours, theirs = sorted(step.name for step in steps), sorted(shared["steps"])
    if ours != theirs:
        raise ConfigDiffers(field="steps", ours=" ".join(ours), theirs=" ".join(theirs))
    for step in steps:
        step.check(shared["steps"][step.name])
    dataset = party.dataset(datasets[party.name])
    if not any(step.needs_label for step in steps):
        return
    if leader == party.name and dataset.label is None:
        raise LabelInvalid(f"{party.name} leads, but its dataset `{dataset.name}` declares no label")
    if leader != party.name and dataset.label is not None:
        raise LabelInvalid(f"{peer} leads, but the dataset `{dataset.name}` of {party.name} declares a label too")
