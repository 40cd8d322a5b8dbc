"""The nodes of one level, which both halves derive alike from the splits of the level above."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from fedtasks.errors import ProtocolViolated
from fedtasks.models.secureboost.settings import TrainSettings

Mask = npt.NDArray[np.bool_]
RowNumbers = npt.NDArray[np.int64]

ROOT = 1


@dataclass(frozen=True)
class Node:
    """A node and the rows in it.

    Parameters
    ----------
    number
        1 for the root; the children of node i are 2i (left) and 2i + 1.
    rows
        Ascending.
    n_bag
        How many of them the tree is grown from.
    """

    number: int
    rows: RowNumbers
    n_bag: int

    @classmethod
    def of(cls, number: int, rows: RowNumbers, bag: Mask) -> Self:
        """Count the rows that the tree is grown from."""
        return cls(number, rows, int(bag[rows].sum()))

    @property
    def depth(self) -> int:
        """Splits above it."""
        return self.number.bit_length() - 1

    def split(self, left: Mask, bag: Mask) -> tuple[Node, Node]:
        """Return both children; `left` says which of the node's rows go left."""
        sides = (self.rows[left], self.rows[~left])
        return Node.of(2 * self.number, sides[0], bag), Node.of(2 * self.number + 1, sides[1], bag)


@dataclass(frozen=True)
class Pair:
    """Nodes of which at least one may be split: only the smaller one's sums are computed.

    Parameters
    ----------
    summed
        The node whose rows are added up: the root, or the smaller child.
    derived
        The other one, whose sums are those of the parent less the smaller one's; None if it is a leaf, or for the root.
    is_growing
        Whether `summed` may be split itself.
    """

    summed: Node
    derived: Node | None = None
    is_growing: bool = True

    @property
    def growing(self) -> tuple[Node, ...]:
        """The nodes that may be split, left before right."""
        nodes = [self.summed] if self.is_growing else []
        nodes += [self.derived] if self.derived else []
        return tuple(sorted(nodes, key=lambda node: node.number))


def pairs_of(children: Sequence[tuple[tuple[Node, Node], tuple[bool, bool]]], min_leaf_rows: int) -> list[Pair]:
    """Return what has to be summed for the next level.

    Parameters
    ----------
    children
        Both children of each node that was split, and which of them the leader lets grow.
    min_leaf_rows
        A node with fewer than twice as many rows cannot be split.
    """
    found = []
    for sides, grow in children:
        growing = [node for node, may in zip(sides, grow, strict=True) if may and node.n_bag >= 2 * min_leaf_rows]
        if not growing:
            continue
        left, right = sides
        small, large = (left, right) if left.n_bag <= right.n_bag else (right, left)
        found.append(Pair(small, large if large in growing else None, small in growing))
    return found


def slots_of(pairs: Sequence[Pair], bag: Mask) -> npt.NDArray[np.int32]:
    """Return for each row the number of the pair in which it is summed; -1 for none."""
    slots = np.full(len(bag), -1, dtype=np.int32)
    for number, pair in enumerate(pairs):
        slots[pair.summed.rows[bag[pair.summed.rows]]] = number
    return slots


def rows_in_sums_of(pairs: Sequence[Pair], settings: TrainSettings) -> int:
    """Return over how many rows the sums of a level must have room."""
    return settings.rows_in_sums(max((pair.summed.n_bag for pair in pairs), default=0))


def to_bits(mask: Mask) -> bytes:
    """Return a mask as bits."""
    return np.packbits(mask).tobytes()


def from_bits(bits: bytes, count: int) -> Mask:
    """Return a mask that `to_bits` made of `count` values; raise `ProtocolViolated` if it is none."""
    if len(bits) != -(-count // 8):
        raise ProtocolViolated(f"expected {count} bits, found {len(bits)} bytes")
    found = np.unpackbits(np.frombuffer(bits, dtype=np.uint8))
    if found[count:].any():
        raise ProtocolViolated(f"more than {count} bits")
    return found[:count].astype(bool)
