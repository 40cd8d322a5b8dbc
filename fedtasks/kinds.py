"""Kinds of steps: what a step of a pipeline runs, and which settings it takes."""

from __future__ import annotations

from dataclasses import dataclass

from fedtasks import registry
from fedtasks.errors import ConfigError


@dataclass(frozen=True)
class Kind:
    """A ready-made step.

    Parameters
    ----------
    name
        Both sides know it by this name; the training of an algorithm is called as the algorithm.
    entry
        ``package.module:function`` that runs one half.
    settings
        The dataclass that declares its settings.
    needs_spark
        Whether it starts a Spark session.
    needs_label
        Whether the leader's dataset must declare a label, and the follower's none.
    """

    name: str
    entry: str
    settings: type
    needs_spark: bool = False
    needs_label: bool = False


def kinds() -> dict[str, Kind]:
    """Return all kinds that are installed here, by name."""
    return {kind.name: kind for kind in registry.declared("KINDS")}


def kind(name: str) -> Kind:
    """Return the kind of this name; raise `ConfigError` if it is not installed."""
    known = kinds()
    if name not in known:
        raise ConfigError(f"`{name}` is none of: {', '.join(known)}; install the package that has it", field="kind")
    return known[name]
