"""Trees of two halves: which rows go left at a node, and which leaves of a tree that leaves to each row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fedtasks.data.columns import spelled, texts_of
from fedtasks.encrypted.bins import LARGEST, Column, NumericColumn, Split, numeric, unknown_category
from fedtasks.errors import ProtocolViolated
from fedtasks.models.secureboost.frontier import ROOT
from fedtasks.models.settings import UNKNOWN_ERROR

Floats = npt.NDArray[np.float64]
Bits = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Condition:
    """Which rows go left.

    Parameters
    ----------
    feature
        The column that it looks at.
    threshold
        Numeric: values up to this one go left.
    category
        Categorical: rows with this value go left; None for those without a value.
    missing_left
        Whether rows without a value go left.
    """

    feature: str
    missing_left: bool
    threshold: float | None = None
    category: str | None = None

    @classmethod
    def of(cls, split: Split, column: Column, left: npt.NDArray[np.bool_]) -> Condition:
        """Say in values what a split says in bins.

        Parameters
        ----------
        left
            Which of the rows that it was chosen for go left: a value that is missing without having been so in training
            goes where most of them go.
        """
        if isinstance(column, NumericColumn):
            missing_left = split.missing_left if column.has_missing else bool(2 * left.sum() >= len(left))
            # Behind the last edge are only rows without a value.
            threshold = column.edges[split.bin] if split.bin < len(column.edges) else LARGEST
            return cls(column.name, missing_left, threshold=threshold)
        category = column.values[split.bin] if split.bin < len(column.values) else None
        return cls(column.name, split.missing_left, category=category)

    def left(self, rows: Columns) -> npt.NDArray[np.bool_]:
        """Return which rows go left."""
        if self.threshold is not None:
            values = rows.numbers(self.feature)
            return np.where(np.isnan(values), self.missing_left, values <= self.threshold)
        texts = rows.texts(self.feature)
        found = pc.is_null(texts) if self.category is None else pc.fill_null(pc.equal(texts, self.category), False)
        return np.asarray(found.to_numpy(zero_copy_only=False), dtype=bool)


class Columns:
    """Raw rows, each column of which is converted once.

    Parameters
    ----------
    rows
        Features as in a block; other columns are left out.
    values
        Categorical column → the values that its train rows had.
    unknown
        What to do with others: see `EvaluateSettings`.
    """

    def __init__(
        self, rows: pa.Table | pa.RecordBatch, values: Mapping[str, Sequence[str]], unknown: str = UNKNOWN_ERROR
    ) -> None:
        self._rows = rows
        self._values = values
        self._unknown = unknown
        self._numbers: dict[str, Floats] = {}
        self._texts: dict[str, pa.Array] = {}

    def __len__(self) -> int:
        return int(self._rows.num_rows)

    def numbers(self, name: str) -> Floats:
        """Return a numeric column; raises `ColumnMissing` or `ColumnType`."""
        if name not in self._numbers:
            self._numbers[name] = numeric(self._rows, name)
        return self._numbers[name]

    def texts(self, name: str) -> pa.Array:
        """Return a categorical column; raises `ColumnMissing`, `ColumnType` or `CategoryUnknown`."""
        if name not in self._texts:
            texts = spelled(texts_of(self._rows, name), self._values[name])
            known = pc.is_in(texts, value_set=pa.array([*self._values[name], None], pa.string()))
            if not pc.all(known).as_py() and len(texts):
                if self._unknown == UNKNOWN_ERROR:
                    raise unknown_category(name, int(known.index(False).as_py()))
                texts = pc.if_else(known, texts, pa.scalar(None, pa.string()))
            self._texts[name] = texts
        return self._texts[name]


@dataclass(frozen=True)
class LeaderNode:
    """A node as the leader knows it: a leaf, a split of the leader's, or one of the follower's.

    Parameters
    ----------
    number
        See `Node`.
    rows
        How many rows the tree was grown from here.
    leaf
        What a leaf adds to the raw score.
    condition
        A split of the leader's.
    peer_split, peer_feature
        Number of a split of the follower's, and of its feature, whose name only the follower knows.
    gain
        What the split gained.
    """

    number: int
    rows: int
    leaf: float | None = None
    condition: Condition | None = None
    peer_split: int | None = None
    peer_feature: int | None = None
    gain: float = 0.0


@dataclass(frozen=True)
class Tree:
    """One tree.

    Parameters
    ----------
    output
        Which raw score it adds to: the number of a class, else 0.
    nodes
        In the order of their numbers.
    """

    output: int
    nodes: tuple[LeaderNode, ...]


@dataclass(frozen=True)
class FollowerSplit:
    """A split as the follower knows it.

    Parameters
    ----------
    tree, node
        Where it is.
    condition
        Which rows go left.
    """

    tree: int
    node: int
    condition: Condition


def leaf_bytes(depth: int) -> int:
    """Return how many bytes hold a bit for each leaf of a full tree."""
    return max(1, (1 << depth) // 8)


def leaves_left(depth: int, n_rows: int, splits: Iterator[tuple[int, npt.NDArray[np.bool_]]]) -> Bits:
    """Return which leaves of a full tree some splits leave to each row.

    Parameters
    ----------
    splits
        Number of the node, and which rows go left.
    """
    found = np.full((n_rows, leaf_bytes(depth)), 255, dtype=np.uint8)
    for number, left in splits:
        for child, is_here in ((2 * number, left), (2 * number + 1, ~left)):
            found[~is_here] &= ~_below(child, depth)
    return found


def _span(number: int, depth: int) -> slice:
    """Return which leaves of a full tree lie below a node."""
    level = number.bit_length() - 1
    width = 1 << (depth - level)
    start = (number - (ROOT << level)) * width
    return slice(start, start + width)


def _below(number: int, depth: int) -> Bits:
    bits = np.zeros(8 * leaf_bytes(depth), dtype=np.uint8)
    bits[_span(number, depth)] = 1
    return np.packbits(bits)


def leaf_values(tree: Tree, depth: int) -> Floats:
    """Return the value of each leaf of a full tree."""
    values = np.zeros(1 << depth)
    for node in tree.nodes:
        if node.leaf is not None:
            values[_span(node.number, depth)] = node.leaf
    return values


def only_leaf(left: Bits, tree: Tree, depth: int) -> npt.NDArray[np.int64]:
    """Return one of the full tree's leaves below the one leaf that each row has left."""
    bits = np.unpackbits(left, axis=1)[:, : 1 << depth]
    first = bits.argmax(axis=1)
    owner, width = np.zeros(1 << depth, np.int64), np.zeros(1 << depth, np.int64)
    for node in tree.nodes:
        if node.leaf is not None:
            span = _span(node.number, depth)
            owner[span], width[span] = span.start, span.stop - span.start
    if not (bits.any(axis=1) & (owner[first] == first) & (bits.sum(axis=1) == width[first])).all():
        raise ProtocolViolated("the other half's leaves and ours leave a row none, or more than one")
    return np.asarray(first)
