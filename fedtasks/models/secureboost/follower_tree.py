"""One tree, level by level, at the follower."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from fedtasks.encrypted.bins import Candidates, left_bins
from fedtasks.encrypted.cipher import SumCipher
from fedtasks.encrypted.histograms import BinnedRows, EncryptedHistograms, at_once, plain_histograms
from fedtasks.errors import ProtocolViolated
from fedtasks.exchange.message import SMALL
from fedtasks.link.link import Link
from fedtasks.models.progress import Report
from fedtasks.models.secureboost import messages
from fedtasks.models.secureboost.frontier import (
    ROOT,
    Mask,
    Node,
    Pair,
    from_bits,
    pairs_of,
    rows_in_sums_of,
    slots_of,
    to_bits,
)
from fedtasks.models.secureboost.noise import SumNoise, most_noise
from fedtasks.models.secureboost.settings import TrainSettings
from fedtasks.models.secureboost.trees import Condition, FollowerSplit
from fedtasks.wire.v1.secureboost_pb2 import LevelSums, NodeSplit, OwnedSplit


class FollowerTree:
    """Offers the splits of one tree's nodes, and carries out those that the leader chooses.

    Parameters
    ----------
    number
        The tree's.
    rows, candidates, columns
        The follower's, and which of its columns this tree may use.
    bag
        Which rows the tree is grown from.
    feature_numbers
        What the leader is told instead of each column.
    cipher, sums
        What adds up, and where the tree's ciphertexts go.
    settings
        As for the whole training.

    Attributes
    ----------
    splits
        This party's splits that were chosen.
    """

    def __init__(
        self,
        number: int,
        rows: BinnedRows,
        candidates: Candidates,
        columns: Sequence[int],
        bag: Mask,
        feature_numbers: Sequence[int],
        cipher: SumCipher,
        sums: EncryptedHistograms,
        settings: TrainSettings,
    ) -> None:
        self._number = number
        self._rows, self._candidates, self._columns = rows, candidates, columns
        self._bag, self._feature_numbers = bag, feature_numbers
        self._cipher, self._sums, self._settings = cipher, sums, settings
        self._drawn = np.isin(candidates.columns, columns)
        # What stands where in messages; nobody else knows, and the next tree has another order.
        self._order = np.random.default_rng(secrets.randbits(128)).permutation(len(candidates))
        self._counts: dict[int, npt.NDArray[np.int64]] = {}
        self._noise = SumNoise(rows.n_rows, most_noise(settings.noise_rows, cipher.precision))
        # Which rows the sums of each node that is added up are made of.
        self._sets: dict[int, npt.NDArray[np.int64]] = {}
        self.splits: list[FollowerSplit] = []

    def receive_gradients(self, link: Link, report: Report) -> None:
        """Take the ciphertexts of all rows that the tree is grown from."""
        bag = np.flatnonzero(self._bag)
        self._sums.begin(bag, self._columns)
        for start in range(0, len(bag), messages.ROWS_AT_ONCE):
            n_rows = min(messages.ROWS_AT_ONCE, len(bag) - start)
            self._sums.add(messages.GRADIENTS.receive(link, n_rows, self._cipher.width))
            report({"phase": "gradients", "tree": self._number + 1, "done": start + n_rows, "of": len(bag)})

    def grow(self, link: Link, report: Report) -> None:
        """Go through all levels with the leader."""
        root = Node.of(ROOT, np.arange(self._rows.n_rows), self._bag)
        pairs = [Pair(root)] if root.n_bag >= 2 * self._settings.min_leaf_rows else []
        owned: list[OwnedSplit] = []
        while True:
            self._counts = self._count(pairs)
            frontier = [node for pair in pairs for node in pair.growing]
            allowed = {node.number: self._allowed(node) for node in frontier}
            self._answer(link, pairs, owned, allowed)
            if not frontier:
                return
            report({"phase": "train", "tree": self._number + 1, "level": frontier[0].depth + 1})
            # A bit for each row, and for each node any of the candidates, whose places have five bytes at most.
            limit = SMALL + self._rows.n_rows // 8 + 5 * len(frontier) * len(self._order)
            chosen = messages.SPLITS.receive(link, limit).nodes
            if len(chosen) != len(frontier):
                raise ProtocolViolated(f"{len(chosen)} splits for {len(frontier)} nodes")
            owned, children = [], []
            for node, split in zip(frontier, chosen, strict=True):
                kind = split.WhichOneof("split")
                if kind is None:
                    continue
                if kind == "left_rows":
                    left = from_bits(split.left_rows, len(node.rows))
                    self._check_sides(node, left)
                else:
                    left, answer = self._split(node, split, allowed[node.number])
                    owned.append(answer)
                if node.depth + 1 < self._settings.depth:
                    children.append((node.split(left, self._bag), (split.grow_left, split.grow_right)))
            pairs = pairs_of(children, self._settings.min_leaf_rows)

    def _count(self, pairs: Sequence[Pair]) -> dict[int, npt.NDArray[np.int64]]:
        """Return how many rows each candidate has on its inner side, of all nodes of the next level."""
        found = {}
        self._sets = {}
        slots = slots_of(pairs, self._bag)
        added = self._noise.marks
        sums = plain_histograms(self._rows, self._candidates, self._columns, slots, len(pairs), added)
        for pair, of_pair in zip(pairs, sums, strict=True):
            *marks, inner = self._candidates.accumulate(of_pair, np.zeros((1, len(added) + 1), np.int64), np.add).T
            if marks:
                self._sets[pair.summed.number] = self._noise.names(*marks)
            found[pair.summed.number] = inner
            if pair.derived:
                found[pair.derived.number] = self._counts[pair.derived.number // 2] - inner
        return found

    def _allowed(self, node: Node) -> Mask:
        """Return which candidates leave enough rows on both sides."""
        inner, least = self._counts[node.number], self._settings.min_leaf_rows
        return (inner >= least) & (node.n_bag - inner >= least) & self._drawn

    def _answer(
        self, link: Link, pairs: Sequence[Pair], owned: Sequence[OwnedSplit], allowed: Mapping[int, Mask]
    ) -> None:
        """Send this party's splits of the level above and the sums of this one."""
        sent = [
            self._order[np.logical_or.reduce([allowed[node.number] for node in pair.growing])[self._order]]
            for pair in pairs
        ]
        sent, distinct, repeats = self._without_repeats(pairs, sent)
        ranges = at_once(len(pairs), self._candidates.n_sums)
        messages.SUMS.send(
            link,
            LevelSums(
                splits=owned,
                allowed=[to_bits(allowed[node.number][self._order]) for pair in pairs for node in pair.growing],
                sums=[sum(len(sent[place]) for place in places) for places in ranges],
                distinct=distinct,
                repeats=repeats,
            ),
        )
        n_rows = rows_in_sums_of(pairs, self._settings)
        for places in ranges:
            here = [pairs[place] for place in places]
            # A copy is laid out so that one addition takes all nodes' sums of a bin.
            raw = np.moveaxis(self._sums.of(slots_of(here, self._bag), len(here)), 0, 1).copy()
            zero = np.repeat(self._cipher.zero, len(here), axis=0)[np.newaxis]
            inner = self._candidates.accumulate(raw, zero, self._add)
            chosen = np.concatenate([inner[sent[place], number] for number, place in enumerate(places)])
            if self._noise:
                sets = [self._sets[pairs[place].summed.number][sent[place]] for place in places]
                chosen = self._cipher.add_plain(chosen, *self._noise.of(np.concatenate(sets)))
            messages.SEALED.send(link, self._cipher.seal(chosen, n_rows))

    def _without_repeats(
        self, pairs: Sequence[Pair], sent: Sequence[npt.NDArray[np.int64]]
    ) -> tuple[list[npt.NDArray[np.int64]], list[bytes], npt.NDArray[np.int64]]:
        """Leave out candidates that have the same rows as one before: their sums, noise included, are equal.

        Returns
        -------
        sent, distinct, repeats
            What is left of each pair's; which these are, as bits; and for each of the others its number among them.
        """
        kept, distinct, repeats = [], [], []
        left = messages.MOST_REPEATS
        for pair, here in zip(pairs, sent, strict=True):
            number, is_distinct = np.arange(len(here)), np.ones(len(here), dtype=bool)
            if self._noise and left >= len(here):
                number, is_distinct = _numbered(self._sets[pair.summed.number][here])
            kept.append(here[is_distinct])
            distinct.append(to_bits(is_distinct))
            repeats.append(number[~is_distinct])
            left -= len(repeats[-1])
        return kept, distinct, np.concatenate([np.empty(0, np.int64), *repeats])

    def _add(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        width = a.shape[-1]
        return self._cipher.add(a.reshape(-1, width), b.reshape(-1, width)).reshape(a.shape)

    def _check_sides(self, node: Node, left: Mask) -> None:
        """Refuse a split of the leader's that puts fewer rows aside than its own columns may."""
        n_left, least = int(self._bag[node.rows[left]].sum()), self._settings.min_leaf_rows
        if min(n_left, node.n_bag - n_left) < least:
            raise ProtocolViolated(f"a split leaves fewer than {least} rows on one side")

    def _split(self, node: Node, split: NodeSplit, allowed: Mask) -> tuple[Mask, OwnedSplit]:
        """Carry out a split of this party that the leader chose."""
        places = np.array(split.candidates.places, dtype=np.int64)
        n_offered = len(self._order)
        if not 0 < len(places) <= n_offered or places.max() >= n_offered or not allowed[self._order[places]].all():
            raise ProtocolViolated("a split that was not offered")
        # To the leader they are all alike; we take the first.
        found = self._candidates.splits[int(self._order[places].min())]
        column = self._rows.binner.columns[found.column]
        left = left_bins(found, column)[self._rows.numbers[found.column][node.rows]]
        condition = Condition.of(found, column, left[self._bag[node.rows]])
        self.splits.append(FollowerSplit(self._number, node.number, condition))
        return left, OwnedSplit(left_rows=to_bits(left), feature=self._feature_numbers[found.column])


def _numbered(sets: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], Mask]:
    """Number sets of rows in the order in which they first occur, and say where they do."""
    _, first, of_each = np.unique(sets, return_index=True, return_inverse=True)
    is_distinct = np.zeros(len(sets), dtype=bool)
    is_distinct[first] = True
    return (np.cumsum(is_distinct) - 1)[first][of_each], is_distinct
