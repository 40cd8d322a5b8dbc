"""Kinds of steps: what a step of a pipeline runs, and which settings it takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fedtasks import registry


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
    needs_label
        Whether the leader's dataset must declare a label, and the follower's none.
    forks
        Whether a process that forks halves may import its module beforehand: that module starts no thread.
    max_categories
        How many values of a categorical feature it takes at most; None is no limit.
    """

    name: str
    entry: str
    settings: type
    needs_label: bool = False
    forks: bool = False
    max_categories: int | None = None

    @property
    def module(self) -> str:
        """Where its entry is."""
        return self.entry.partition(":")[0]


def kinds() -> Mapping[str, Kind]:
    """Return all kinds that are installed here, by name."""
    return registry.declared("KINDS")


def category_limits(names: Iterable[str]) -> dict[str, int]:
    """Return kind → how many values of a categorical feature it takes at most, of those that have such a limit.

    Parameters
    ----------
    names
        Of which kinds; those that are not installed have none.
    """
    known = kinds()
    limits = {name: known[name].max_categories for name in names if name in known}
    return {name: most for name, most in limits.items() if most is not None}


def kind(name: str) -> Kind:
    """Return the kind of this name; raise `ConfigError` if it is not installed."""
    found: Kind = registry.named("KINDS", name, "kind")
    return found
