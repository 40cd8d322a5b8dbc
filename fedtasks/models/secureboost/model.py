"""A trained half as JSON: the leader's trees with their leaves, or the follower's splits.

Neither can score alone. For a batch the follower says of each row which leaves its own splits allow; the leader does
the same with its splits, and only one leaf of each tree is left.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fedtasks.config import FeatureType, LabelKind
from fedtasks.data.columns import spelled, texts_of
from fedtasks.data.run_storage import Manifest
from fedtasks.data.storage import read_json, write_json
from fedtasks.dataclass_io import build, to_plain
from fedtasks.digests import digest
from fedtasks.encrypted.bins import (
    LARGEST,
    Column,
    NumericColumn,
    Split,
    numeric,
    unknown_category,
)
from fedtasks.errors import ConfigError, DataCorrupt, ProtocolViolated
from fedtasks.exchange.message import ArrayMessage
from fedtasks.kinds import remark_metric
from fedtasks.models.contract import CARD, Card, HalfModel
from fedtasks.models.secureboost import messages
from fedtasks.models.secureboost.frontier import ROOT
from fedtasks.models.secureboost.objective import objective_of
from fedtasks.models.secureboost.settings import TrainSettings
from fedtasks.models.settings import UNKNOWN_ERROR
from fedtasks.names import LEADER

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


@dataclass(frozen=True)
class Half(HalfModel):
    """What both kinds of halves have in common.

    Parameters
    ----------
    format
        Of this file.
    run_id, role
        Which run trained it, and ``leader`` or ``follower``.
    settings, row_order
        What it was trained with.
    categories
        Categorical column → the values that its train rows had.
    depth
        The most splits above a leaf, over all trees.
    digest, peer_digest
        Of what decides this half's output, and of the half that it was trained with.
    release
        The release that wrote it; empty of one that did not say.
    """

    format: str
    run_id: str
    role: str
    settings: TrainSettings
    row_order: str
    categories: Mapping[str, Any]
    depth: int
    digest: str = ""
    peer_digest: str = ""
    release: str = ""

    @property
    def answers(self) -> ArrayMessage:
        """See `HalfModel.answers`."""
        return messages.LEAVES

    @property
    def content_digest(self) -> str:
        """SHA-256 (hex) over what decides its output."""
        raise NotImplementedError

    @property
    def card(self) -> Card:
        """See `HalfModel.card`."""
        return Card.of(self)

    def save(self, folder: str) -> None:
        """Write ``model.json``."""
        write_json(f"{folder}/{CARD}", to_plain(self))

    def paired(self, peer_digest: str) -> Self:
        """Return this half with both digests."""
        return replace(self, digest=self.content_digest, peer_digest=peer_digest)

    @property
    def conditions(self) -> Iterator[Condition]:
        """Those of this party's splits."""
        raise NotImplementedError

    @property
    def needs(self) -> Mapping[str, FeatureType]:
        """See `HalfModel.needs`: those that it has splits on."""
        kinds = {True: FeatureType.CATEGORICAL, False: FeatureType.NUMERIC}
        return {each.feature: kinds[each.threshold is None] for each in self.conditions}

    def unknown_rows(self, rows: pa.Table | pa.RecordBatch) -> dict[str, np.ndarray]:
        """See `HalfModel.unknown_rows`."""
        found = {}
        for name, kind in self.needs.items():
            if kind is FeatureType.CATEGORICAL:
                values = self.categories[name]
                known = pc.is_in(
                    spelled(texts_of(rows, name), values), value_set=pa.array([*values, None], pa.string())
                )
                found[name] = np.flatnonzero(~known.to_numpy(zero_copy_only=False))
        return found

    def columns(self, rows: pa.Table | pa.RecordBatch, unknown: str = UNKNOWN_ERROR) -> Columns:
        """Return raw rows for this half."""
        return Columns(rows, self.categories, unknown)


@dataclass(frozen=True)
class LeaderHalf(Half):
    """The half of the party with the label.

    Parameters
    ----------
    label_kind, classes
        What is predicted.
    base
        Raw scores before the first tree.
    trees
        In the order in which they were grown.
    """

    label_kind: LabelKind = LabelKind.BINARY
    classes: tuple[str, ...] = ()
    base: tuple[float, ...] = ()
    trees: tuple[Tree, ...] = ()

    @property
    def answers(self) -> ArrayMessage:
        """The leaves that are left over, with as many bytes a row as this half's trees ask for."""
        return replace(messages.LEAVES, shape=(None, len(self.peer_trees) * leaf_bytes(self.depth)))

    @property
    def content_digest(self) -> str:
        """SHA-256 (hex) over what decides its output."""
        return digest([self.label_kind, self.classes, self.base, self.trees, self.categories])

    @property
    def n_trees(self) -> int:
        """Number of trees."""
        return len(self.trees)

    @property
    def conditions(self) -> Iterator[Condition]:
        """Those of the leader's splits."""
        return (node.condition for tree in self.trees for node in tree.nodes if node.condition)

    def remarks(self) -> dict[str, int]:
        """Say so if there is no split at all, or none of the follower's."""
        if not any(node.leaf is None for tree in self.trees for node in tree.nodes):
            return {remark_metric("no_split"): self.n_trees}
        return {} if self.peer_trees else {remark_metric("peer_unused"): self.n_trees}

    @property
    def peer_trees(self) -> list[int]:
        """The trees in which the follower has splits."""
        return [
            number for number, tree in enumerate(self.trees) if any(node.peer_split is not None for node in tree.nodes)
        ]

    def raw(self, rows: Columns, allowed: Bits) -> Floats:
        """Return raw scores, shape ``(n, width)``.

        Parameters
        ----------
        rows
            The leader's features.
        allowed
            What `FollowerHalf.answer` says of the same rows.

        Raises
        ------
        ProtocolViolated
            The follower allows no leaf, or more than one, in some row.
        """
        n_trees = len(self.peer_trees)
        width = leaf_bytes(self.depth)
        if allowed.shape != (len(rows), n_trees * width):
            raise ProtocolViolated(f"expected {n_trees * width} bytes of leaves for each of {len(rows)} rows")
        raw = np.tile(np.array(self.base), (len(rows), 1))
        place = {tree: number for number, tree in enumerate(self.peer_trees)}
        for number, tree in enumerate(self.trees):
            left = leaves_left(
                self.depth,
                len(rows),
                ((node.number, node.condition.left(rows)) for node in tree.nodes if node.condition),
            )
            if number in place:
                left &= allowed[:, place[number] * width : (place[number] + 1) * width]
            raw[:, tree.output] += _leaf_values(tree, self.depth)[_only_leaf(left, tree, self.depth)]
        return raw

    def answer(self, rows: pa.RecordBatch, unknown: str) -> np.ndarray:
        """Only the follower's half answers."""
        raise NotImplementedError

    def score(self, rows: pa.RecordBatch, answer: np.ndarray, unknown: str) -> np.ndarray:
        """See `HalfModel.score`."""
        return self.predict(self.raw(self.columns(rows, unknown), answer))

    def predict(self, raw: Floats) -> Floats:
        """Return what raw scores mean; see `Objective.predict`."""
        return objective_of(self.label_kind, len(self.classes)).predict(raw)

    def importance(self) -> dict[str, dict[str, float]]:
        """Return how much splits on each feature gained and how many there are; the peer's features by number."""
        found: dict[str, dict[str, float]] = {}
        for tree in self.trees:
            for node in tree.nodes:
                if node.leaf is not None:
                    continue
                name = node.condition.feature if node.condition else f"peer feature {node.peer_feature}"
                of_feature = found.setdefault(name, {"gain": 0.0, "splits": 0})
                of_feature["gain"] += node.gain
                of_feature["splits"] += 1
        return dict(sorted(found.items(), key=lambda item: -item[1]["gain"]))


@dataclass(frozen=True)
class FollowerHalf(Half):
    """The half of the party without the label.

    Parameters
    ----------
    splits
        In the order in which the leader chose them, which is how it refers to them.
    features
        The names behind the numbers that the leader sees.
    n_trees
        Number of trees that the leader has.
    """

    splits: tuple[FollowerSplit, ...] = ()
    features: tuple[str, ...] = ()
    n_trees: int = 0

    @property
    def content_digest(self) -> str:
        """SHA-256 (hex) over what decides its output."""
        return digest([self.splits, self.categories])

    @property
    def conditions(self) -> Iterator[Condition]:
        """Those of the follower's splits."""
        return (split.condition for split in self.splits)

    def answer(self, rows: pa.RecordBatch, unknown: str) -> np.ndarray:
        """Return which leaves this half's splits leave over; see `allowed`."""
        return self.allowed(self.columns(rows, unknown))

    def score(self, rows: pa.RecordBatch, answer: np.ndarray, unknown: str) -> np.ndarray:
        """Only the leader's half scores."""
        raise NotImplementedError

    def allowed(self, rows: Columns) -> Bits:
        """Return which leaves the follower's splits allow to each row, in each tree that has any.

        Returns
        -------
        ndarray
            Shape ``(n, trees with such splits × leaf_bytes(depth))``; a bit for each leaf that a full tree would have.

        Notes
        -----
        Reveals: to the leader, of each row and tree, which leaves are left over. Decisions below a branch that its
        splits rule out are not seen.
        """
        trees = sorted({split.tree for split in self.splits})
        parts = [
            leaves_left(
                self.depth,
                len(rows),
                ((split.node, split.condition.left(rows)) for split in self.splits if split.tree == tree),
            )
            for tree in trees
        ]
        return np.concatenate([np.empty((len(rows), 0), np.uint8), *parts], axis=1)

    def importance(self) -> dict[str, dict[str, float]]:
        """Return how many splits each feature has; what they gained, only the leader knows."""
        found: dict[str, dict[str, float]] = {}
        for split in self.splits:
            found.setdefault(split.condition.feature, {"splits": 0})["splits"] += 1
        return dict(sorted(found.items(), key=lambda item: -item[1]["splits"]))


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


def _leaf_values(tree: Tree, depth: int) -> Floats:
    """Return the value of each leaf of a full tree."""
    values = np.zeros(1 << depth)
    for node in tree.nodes:
        if node.leaf is not None:
            values[_span(node.number, depth)] = node.leaf
    return values


def _only_leaf(left: Bits, tree: Tree, depth: int) -> npt.NDArray[np.int64]:
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


def load(manifest: Manifest, role: str) -> Half:
    """Read a half that `train` has published.

    Raises
    ------
    DataCorrupt
        The file is no such model, or not the one that its digest names.
    """
    place = manifest.path(CARD)
    try:
        half: Half = build(LeaderHalf if role == LEADER else FollowerHalf, read_json(place))
    except ConfigError as error:
        raise DataCorrupt(f"not a model: {error.detail}", where=place) from error
    if half.content_digest != half.digest:
        raise DataCorrupt("the model is not the one that its digest names", where=place)
    return half
