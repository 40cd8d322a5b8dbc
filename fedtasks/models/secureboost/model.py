"""A trained half as JSON: the leader's trees with their leaves, or the follower's splits.

Neither can score alone. For a batch the follower says of each row which leaves its own splits allow; the leader does
the same with its splits, and only one leaf of each tree is left.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fedtasks.config import FeatureType, LabelKind
from fedtasks.data.columns import spelled, texts_of
from fedtasks.data.run_storage import Manifest
from fedtasks.data.storage import read_json, write_json
from fedtasks.dataclass_io import build, to_plain
from fedtasks.digests import digest
from fedtasks.errors import ConfigError, DataCorrupt, ProtocolViolated
from fedtasks.exchange.message import ArrayMessage
from fedtasks.kinds import remark_metric
from fedtasks.models.contract import CARD, Card, HalfModel
from fedtasks.models.secureboost import messages
from fedtasks.models.secureboost.objective import objective_of
from fedtasks.models.secureboost.settings import TrainSettings
from fedtasks.models.secureboost.trees import (
    Bits,
    Columns,
    Condition,
    Floats,
    FollowerSplit,
    Tree,
    leaf_bytes,
    leaf_values,
    leaves_left,
    only_leaf,
)
from fedtasks.models.settings import UNKNOWN_ERROR
from fedtasks.names import LEADER


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
            raw[:, tree.output] += leaf_values(tree, self.depth)[only_leaf(left, tree, self.depth)]
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
