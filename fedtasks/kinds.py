"""Kinds of steps: what a step of a pipeline runs, which settings it takes, and what it may remark of its result."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from fedtasks import registry
from fedtasks.dataclass_io import build
from fedtasks.names import REMARK


@dataclass(frozen=True)
class VocabularyLimit:
    """How many values of a feature a kind lists.

    Parameters
    ----------
    most
        How many at most.
    least_rows
        In how many rows a value must stand to be listed.
    remedy
        What to do about more, as a sentence without its full stop.
    """

    most: int
    least_rows: int
    remedy: str


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
    is_sharded
        Whether each shard is a task of its own, so that its setting ``shards`` is what the DAG's file names.
    max_categories
        How many values of a categorical feature it takes at most; None is no limit.
    vocabulary_limit
        Its settings → how many frequent values of a feature it lists; None, or returning None, is no limit.
    """

    name: str
    entry: str
    settings: type
    needs_label: bool = False
    forks: bool = False
    is_sharded: bool = False
    max_categories: int | None = None
    vocabulary_limit: Callable[[Any], VocabularyLimit | None] | None = None

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


def vocabulary_limits(steps: Iterable[tuple[str, Mapping[str, Any]]]) -> dict[str, VocabularyLimit]:
    """Return kind → how many frequent values of a feature it lists, of those that have such a limit.

    Parameters
    ----------
    steps
        Kind and settings of each; kinds that are not installed have no limit.
    """
    known, limits = kinds(), dict[str, VocabularyLimit]()
    for name, settings in steps:
        found = known.get(name)
        if found is None or found.vocabulary_limit is None:
            continue
        limit = found.vocabulary_limit(build(found.settings, dict(settings)))
        if limit is not None:
            limits[name] = limit
    return limits


def kind(name: str) -> Kind:
    """Return the kind of this name; raise `ConfigError` if it is not installed."""
    found: Kind = registry.named("KINDS", name, "kind")
    return found


@dataclass(frozen=True)
class Remark:
    """What a half may have to say of its result that no figure says, such as that nothing was learnt.

    Only the party that makes it sees it. On its way into note, page and shell it is a metric: see `remark_metric`.

    Parameters
    ----------
    name
        Lower case and underscores.
    text
        In words, with a remedy. It may hold ``{about}``, what it is about, such as a feature of this party's;
        ``{count}``; and ``{peer}``, the other party.
    """

    name: str
    text: str


def remark_metric(name: str, about: str = "") -> str:
    """Return the metric that stands for a remark; its value is the remark's count."""
    return f"{REMARK}{name}.{about}" if about else f"{REMARK}{name}"


def remark_text(metric: str, count: float, peer: str) -> str:
    """Say in words what such a metric stands for; empty if no package that is installed declares it."""
    name, _, about = metric.removeprefix(REMARK).partition(".")
    remark: Remark | None = registry.declared("REMARKS").get(name)
    return remark.text.format(about=about, count=f"{int(count):,}", peer=peer) if remark else ""
