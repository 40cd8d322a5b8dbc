"""Both halves of a boosting in one process, without encryption; and a plain booster on pooled rows to compare with."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from fedtasks.config import FeatureType, LabelKind
from fedtasks.data.blocks import SPLIT
from fedtasks.encrypted.bins import Binner, NumericColumn
from fedtasks.encrypted.cipher import OwnerCipher, PaillierOwner, PaillierSums, SumCipher
from fedtasks.encrypted.histograms import BinnedRows, LocalHistograms, Scratch
from fedtasks.link.memory import memory_pair
from fedtasks.models.checkpoint import Checkpoints
from fedtasks.models.secureboost import sampling
from fedtasks.models.secureboost.declaration import SECUREBOOST
from fedtasks.models.secureboost.follower import Follower
from fedtasks.models.secureboost.gain import Gradients
from fedtasks.models.secureboost.leader import Leader
from fedtasks.models.secureboost.model import FollowerHalf, LeaderHalf
from fedtasks.models.secureboost.objective import Objective, objective_of
from fedtasks.models.secureboost.settings import LEADER_ALONE, TrainSettings
from fedtasks.wire.v1.encrypted_pb2 import EncryptionKey

PRECISION = 24


class NullOwner:
    """Encrypts nothing: the integers travel as they are."""

    precision = PRECISION

    def key(self) -> EncryptionKey:
        return EncryptionKey()

    def prepare(self, n_rows: int) -> None:
        pass

    def encrypt(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return np.stack([first, second], axis=1).view(np.uint8)

    def decrypt(self, sealed: np.ndarray, n_sums: int, n_rows: int) -> tuple[np.ndarray, np.ndarray]:
        pairs = np.ascontiguousarray(sealed).view(np.int64)
        return pairs[:n_sums, 0], pairs[:n_sums, 1]

    def close(self) -> None:
        pass


class NullSums:
    """Adds integers up."""

    zero = np.zeros((1, 2), np.int64)
    width = 16
    precision = PRECISION

    def enter(self, rows: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(rows).view(np.int64)

    def enter_rows(self, rows: np.ndarray) -> np.ndarray:
        return self.enter(rows)

    def leave(self, sums: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(sums).view(np.uint8)

    def maker(self) -> Callable[[], SumCipher]:
        return type(self)

    def add(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return a + b

    def totals(self, values: np.ndarray, order: np.ndarray, starts: np.ndarray) -> np.ndarray:
        so_far = np.concatenate([self.zero, np.cumsum(values[order], axis=0)])
        return so_far[starts[1:]] - so_far[starts[:-1]]

    def row_totals(self, values: np.ndarray, order: np.ndarray, starts: np.ndarray) -> np.ndarray:
        return self.totals(values, order, starts)

    def add_plain(self, sums: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return sums + np.stack([first, second], axis=1)

    def seal(self, sums: np.ndarray, n_rows: int) -> np.ndarray:
        return self.leave(sums)


class Rows:
    """A table in the place of blocks: all of it is for training."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table
        self.n_rows = table.num_rows
        self.features = {
            name: FeatureType.CATEGORICAL if pa.types.is_string(kind) else FeatureType.NUMERIC
            for name, kind in zip(table.schema.names, table.schema.types, strict=True)
        }

    def batches(
        self, rows: int, split: str | None = None, *, columns: Sequence[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        column = pa.array(["train"] * self.n_rows, pa.string())
        yield from self.table.append_column(SPLIT, column).to_batches(rows)


@dataclass(frozen=True)
class Problem:
    """Rows of both parties and what is to be predicted."""

    leader: pa.Table
    follower: pa.Table
    labels: np.ndarray
    weights: np.ndarray
    kind: LabelKind = LabelKind.BINARY
    n_classes: int = 0

    @property
    def objective(self) -> Objective:
        return objective_of(self.kind, self.n_classes)

    @property
    def base(self) -> np.ndarray:
        return self.objective.base(self.labels, self.weights)


@dataclass(frozen=True)
class Trained:
    """Both halves, what the leader reported, and how many rounds there are."""

    leader: LeaderHalf
    follower: FollowerHalf
    reports: list[tuple[Mapping[str, Any] | None, dict[str, float]]]
    rounds: int

    def raw(self, problem: Problem) -> np.ndarray:
        allowed = self.follower.allowed(self.follower.columns(problem.follower))
        return self.leader.raw(self.leader.columns(problem.leader), allowed)


def train_both(
    problem: Problem,
    settings: TrainSettings,
    folder: Path,
    *,
    encrypted: bool = False,
    before: Trained | None = None,
    wrap: Callable[[Any], Any] = lambda link: link,
) -> Trained:
    """Train both halves over a link in memory."""
    n_rows = len(problem.labels)
    n_in_sums = settings.rows_in_sums(n_rows)
    settings = replace(settings, trees_per_round=problem.objective.width)
    reports: list[tuple[Mapping[str, Any] | None, dict[str, float]]] = []
    links = memory_pair()

    def make_owner() -> OwnerCipher:
        return PaillierOwner(n_in_sums, settings.key_bits, settings.precision) if encrypted else NullOwner()

    def make_sum(key: EncryptionKey) -> SumCipher:
        return PaillierSums.of(key, n_in_sums, settings.key_bits, settings.precision) if encrypted else NullSums()

    def lead() -> tuple[LeaderHalf, int]:
        with links[0], Scratch() as scratch:
            binner = Binner.fit(Rows(problem.leader), "train", settings.bins)  # type: ignore[arg-type]
            rows = BinnedRows.of(Rows(problem.leader), "train", binner, scratch)  # type: ignore[arg-type]
            base = np.array(before.leader.base) if before else problem.base
            raw = before.raw(problem) if before else np.tile(base, (n_rows, 1))
            trees = before.leader.trees if before else ()
            leader = Leader(rows, problem.labels, problem.weights, problem.objective, settings, raw, trees)

            def report(progress: Mapping[str, Any] | None = None, *, step: int = 0, **metrics: float) -> None:
                reports.append((progress, metrics))

            rounds = leader.train(wrap(links[0]), make_owner, Checkpoints(f"file://{folder}/leader", "x"), report)
            half = LeaderHalf(
                SECUREBOOST.name,
                "run",
                "leader",
                settings,
                "order",
                binner.categories,
                settings.depth,
                label_kind=problem.kind,
                classes=tuple(map(str, range(problem.n_classes))),
                base=tuple(base.tolist()),
                trees=tuple(leader.trees),
            )
            return half, rounds

    def follow() -> FollowerHalf:
        with links[1], Scratch() as scratch:
            binner = Binner.fit(Rows(problem.follower), "train", settings.bins)  # type: ignore[arg-type]
            rows = BinnedRows.of(Rows(problem.follower), "train", binner, scratch)  # type: ignore[arg-type]
            follower = Follower(
                rows,
                settings,
                list(range(len(binner.columns))),
                splits=before.follower.splits if before else (),
                first_tree=len(before.leader.trees) if before else 0,
            )
            follower.train(
                wrap(links[1]),
                make_sum,
                lambda cipher: LocalHistograms(rows, follower.candidates, cipher, scratch),
                Checkpoints(f"file://{folder}/follower", "x"),
                lambda *_, **__: None,
            )
            return FollowerHalf(
                SECUREBOOST.name,
                "run",
                "follower",
                settings,
                "order",
                binner.categories,
                settings.depth,
                splits=tuple(follower.splits),
            )

    with ThreadPoolExecutor(2) as pool:
        leading, following = pool.submit(lead), pool.submit(follow)
        for half in (leading, following):
            error = half.exception()
            if error is not None and type(error).__name__ != "PeerFailed":
                raise error
        half, rounds = leading.result()
        return Trained(half, following.result(), reports, rounds)


# ------------------------------------------------------------------------------------------------------------ oracle
@dataclass(frozen=True)
class PlainNode:
    """A node of a tree on pooled rows."""

    leaf: float | None = None
    owner: str = ""
    feature: str = ""
    threshold: float | None = None
    category: str | None = None
    missing_left: bool = False


PlainTree = dict[int, PlainNode]


def pooled_splits(problem: Problem, settings: TrainSettings) -> list[tuple[str, PlainNode, np.ndarray, bool]]:
    """Return every split of both parties' columns, which rows it sends left, and whether rows lack a value."""
    found = []
    for owner, table in (("leader", problem.leader), ("follower", problem.follower)):
        for column in Binner.fit(Rows(table), "train", settings.bins).columns:  # type: ignore[arg-type]
            raw = table[column.name]
            missing = np.array([value is None for value in raw.to_pylist()], dtype=bool)
            if isinstance(column, NumericColumn):
                values = np.array([math.nan if value is None else value for value in raw.to_pylist()], dtype=float)
                values = np.clip(values, -np.finfo(float).max, np.finfo(float).max)
                missing |= np.isnan(values)
                edges = [*column.edges, np.finfo(float).max] if missing.any() else list(column.edges)
                for number, edge in enumerate(edges):
                    sides = (False, True) if missing.any() and number < len(column.edges) else (False,)
                    for missing_left in sides:
                        left = np.where(missing, missing_left, values <= edge)
                        node = PlainNode(None, owner, column.name, edge, None, missing_left)
                        found.append((column.name, node, left.astype(bool), bool(missing.any())))
            else:
                choices: list[str | None] = sorted({value for value in raw.to_pylist() if value is not None})
                if missing.any():
                    choices.append(None)
                for value in choices if len(choices) > 2 else choices[:-1]:
                    left = np.array([each == value for each in raw.to_pylist()], dtype=bool)
                    node = PlainNode(None, owner, column.name, None, value, value is None)
                    found.append((column.name, node, left, True))
    return found


def boost_plainly(problem: Problem, settings: TrainSettings) -> tuple[list[PlainTree], np.ndarray]:
    """Grow all trees on pooled rows, one node after another; return them and the rows' raw scores."""
    every = pooled_splits(problem, settings)
    objective = problem.objective
    raw = np.tile(problem.base, (len(problem.labels), 1))
    held_out = sampling.validation_rows(len(raw), settings)
    names = {"leader": problem.leader.schema.names, "follower": problem.follower.schema.names}
    trees: list[PlainTree] = []
    for number in range(settings.trees * objective.width):
        output = number % objective.width
        if output == 0:
            derivatives = objective.derivatives(problem.labels, raw)
        first, second = (each[:, output] * problem.weights for each in derivatives)
        bag, counts = sampling.bag(number, np.abs(first), ~held_out, settings)
        gradients = Gradients.of(first * counts * bag, second * counts * bag, PRECISION)
        alone = number < objective.width and settings.first_tree == LEADER_ALONE
        used = {
            owner: {names[owner][place] for place in sampling.columns(number, len(names[owner]), party, settings)}
            for party, owner in enumerate(("leader", "follower"))
        }
        splits = [
            each for each in every if each[0] in used[each[1].owner] and not (alone and each[1].owner == "follower")
        ]
        tree: PlainTree = {}
        values = np.zeros(len(raw))
        _grow(1, np.arange(len(raw)), gradients, bag, splits, settings, tree, values)
        raw[:, output] += values
        trees.append(tree)
    return trees, raw


def _grow(
    number: int,
    rows: np.ndarray,
    gradients: Gradients,
    bag: np.ndarray,
    splits: Sequence[tuple[str, PlainNode, np.ndarray, bool]],
    settings: TrainSettings,
    tree: PlainTree,
    values: np.ndarray,
) -> None:
    def total(some: np.ndarray) -> tuple[float, float]:
        return (
            float(gradients.first[some].sum()) * gradients.units[0],
            float(gradients.second[some].sum()) * gradients.units[1],
        )

    def score(sums: tuple[float, float]) -> float:
        return sums[0] * sums[0] / (sums[1] + settings.reg_lambda) if sums[1] + settings.reg_lambda > 0 else 0.0

    best, best_gain = None, -math.inf
    if number < 1 << settings.depth:
        for _, node, goes_left, has_missing in splits:
            left, right = rows[goes_left[rows]], rows[~goes_left[rows]]
            if min(bag[left].sum(), bag[right].sum()) < settings.min_leaf_rows:
                continue
            if min(total(left)[1], total(right)[1]) < settings.min_child_weight:
                continue
            sides = score(total(left)) + score(total(right))
            gain = (sides - score(total(rows))) / 2 - settings.gamma
            if gain > 1e-10 * sides and gain > best_gain:
                missing_left = node.missing_left
                if not has_missing:
                    missing_left = 2 * bag[left].sum() >= bag[rows].sum()
                best_gain = gain
                best = (node, left, right, bool(missing_left))
    if best is None:
        sums = total(rows)
        below = sums[1] + settings.reg_lambda
        tree[number] = PlainNode(leaf=-sums[0] / below * settings.learning_rate if below > 0 else 0.0)
        values[rows] = tree[number].leaf
        return
    node, left, right, missing_left = best
    tree[number] = PlainNode(None, node.owner, node.feature, node.threshold, node.category, missing_left)
    _grow(2 * number, left, gradients, bag, splits, settings, tree, values)
    _grow(2 * number + 1, right, gradients, bag, splits, settings, tree, values)


def as_plain(trained: Trained) -> list[PlainTree]:
    """Put both halves together."""
    trees = []
    for number, tree in enumerate(trained.leader.trees):
        nodes: PlainTree = {}
        for node in tree.nodes:
            if node.leaf is not None:
                nodes[node.number] = PlainNode(leaf=node.leaf)
                continue
            owner, condition = "leader", node.condition
            if condition is None:
                assert node.peer_split is not None
                split = trained.follower.splits[node.peer_split]
                assert (split.tree, split.node) == (number, node.number)
                owner, condition = "follower", split.condition
            nodes[node.number] = PlainNode(
                None, owner, condition.feature, condition.threshold, condition.category, condition.missing_left
            )
        trees.append(nodes)
    return trees


def column(rng: np.random.Generator, kind: str, n: int, missing: float) -> pa.Array:
    mask = rng.random(n) < missing
    mask[0] = False
    if kind == "text":
        texts = rng.choice(np.array(["a", "b", "c", "d"][: rng.integers(1, 5)]), n)
        return pa.array(texts.tolist(), pa.string(), mask=mask)
    values = {
        "normal": rng.normal(size=n),
        "few": rng.integers(0, 3, n).astype(float),
        "sparse": np.where(rng.random(n) < 0.8, 0.0, rng.normal(size=n)),
        "constant": np.ones(n),
        "wild": rng.choice([-math.inf, -1e300, 0.0, 1e-300, 1e300, math.inf], n),
    }[kind]
    return pa.array(values, mask=mask)


def table(rng: np.random.Generator, kinds: list[str], n: int, missing: float) -> pa.Table:
    return pa.table({f"x{place}": column(rng, kind, n, missing) for place, kind in enumerate(kinds)})


def problem(
    seed: int,
    kinds: tuple[list[str], list[str]],
    n: int,
    *,
    missing: float = 0.0,
    label: LabelKind = LabelKind.BINARY,
    weighted: bool = False,
) -> Problem:
    rng = np.random.default_rng(seed)
    leader, follower = (table(rng, each, n, missing) for each in kinds)
    trait = rng.normal(size=n)
    for side in (leader, follower):
        for name in side.column_names:
            if pa.types.is_floating(side[name].type):
                trait += np.clip(np.nan_to_num(side[name].fill_null(0.5).to_numpy()), -2, 2)
    weights = rng.integers(1, 9, n) / 4 if weighted else np.ones(n)
    if label is LabelKind.NUMBER:
        return Problem(leader, follower, trait * 1000, weights, label)
    if label is LabelKind.CLASSES:
        classes = np.digitize(trait, np.quantile(trait, [0.3, 0.6]))
        return Problem(leader, follower, classes, weights, label, 3)
    return Problem(leader, follower, (trait > np.median(trait)).astype(np.int64), weights, label)
