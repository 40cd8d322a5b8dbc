"""How much of a joined stream somebody has: how many commits of each of its shards."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import TypeAlias

from fedtasks.config import CUT

Cut: TypeAlias = tuple[int, ...]
"""The number of commits of each shard."""


def said(stream: str, cut: Sequence[int]) -> str:
    """Write a cut as what a model has learnt is kept: ``clicks@12.9.14``, or ``clicks@0`` of a stream without any."""
    return f"{stream}@{'.'.join(map(str, cut)) or '0'}"


def learnt(stream: str, names: Iterable[str]) -> Cut:
    """Return how much of a stream was learnt from, by what a model's versions say of themselves.

    Parameters
    ----------
    names
        What each has learnt from; of other streams, or partitions, nothing is taken.
    """
    found: Cut = ()
    for name in names:
        cut = CUT.fullmatch(name)
        if cut is not None and cut["stream"] == stream:
            found = furthest(found, [int(number) for number in cut["numbers"].split(".")])
    return found


def furthest(one: Sequence[int], other: Sequence[int]) -> Cut:
    """Return of each shard the more of two cuts."""
    return tuple(max(pair) for pair in zip_longest(one, other, fillvalue=0))


def common(one: Sequence[int], other: Sequence[int]) -> Cut:
    """Return of each shard what both of two cuts have."""
    return tuple(min(pair) for pair in zip_longest(one, other, fillvalue=0))
