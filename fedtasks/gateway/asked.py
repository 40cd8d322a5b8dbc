"""What a request for a run says, whoever makes it: its shared configuration and its steps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fedtasks.errors import ConfigDiffers, ConfigError
from fedtasks.text import plain_text
from fedtasks.tickets import check_readable
from fedtasks.untrusted import parse_object
from fedtasks.wire.v1 import peer_pb2, run_pb2, worker_pb2


def readable_config(request: worker_pb2.OpenRunRequest | peer_pb2.StartRun) -> dict[str, Any]:
    """Return the shared configuration of a request, all of which can be shown to whoever may have to approve it.

    Raises
    ------
    ConfigError
        It cannot be read or shown.
    """
    try:
        config = parse_object(request.config_json)
    except ValueError as error:
        raise ConfigError(f"the shared configuration is {error}", field="config", reason=error) from error
    check_readable(config, request.reason)
    return config


def check_roles(config: Mapping[str, Any], peer: str, party: str) -> None:
    """Check that a configuration says which of both parties leads, and has settings of steps.

    Raises
    ------
    ConfigError
        Naming the field.
    """
    if config.get("leader") not in (peer, party):
        raise ConfigError("the label is held by one of both parties", field="leader")
    if not isinstance(config.get("steps"), dict):
        raise ConfigError("expected a mapping", field="steps")


def plain_steps(steps: Iterable[run_pb2.Step]) -> list[dict[str, str]]:
    """Return the steps of a request as they are stored."""
    return [{"name": step.name, "kind": step.kind, "digest": step.digest} for step in steps]


def difference_of(
    our_steps: Iterable[Mapping[str, str]], their_steps: Iterable[Mapping[str, str]]
) -> ConfigDiffers | None:
    """Return the first difference between the steps of both sides: in kind, since tickets bound by it, or in digest."""
    ours = {step["name"]: step for step in our_steps}
    theirs = {step["name"]: step for step in their_steps}
    for name in dict.fromkeys((*ours, *theirs)):
        mine, other = ours.get(name, {}), theirs.get(name, {})
        place = f"steps.{plain_text(name, 64)}"
        if mine and other and mine["kind"] != other.get("kind"):
            theirs_is = plain_text(other.get("kind", ""), 64) or "none"
            return ConfigDiffers(field=f"{place}.kind", ours=mine["kind"] or "none", theirs=theirs_is)
        if mine.get("digest") != other.get("digest"):
            shown = [plain_text(step.get("digest", "absent"), 12) for step in (mine, other)]
            return ConfigDiffers(field=place, ours=shown[0], theirs=shown[1])
    if list(ours) != list(theirs):
        return ConfigDiffers(field="steps", ours=" ".join(ours), theirs=plain_text(" ".join(theirs)))
    return None
