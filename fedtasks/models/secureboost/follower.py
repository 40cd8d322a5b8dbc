"""The follower's side of training: it adds up what it cannot read, and splits where the leader chooses."""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from fedtasks.errors import ProtocolViolated
from fedtasks.link.link import Link
from fedtasks.models.checkpoint import Checkpoints, agree
from fedtasks.models.progress import Report
from fedtasks.models.secureboost import messages, sampling
from fedtasks.models.secureboost.bins import left_bins
from fedtasks.models.secureboost.cipher import SumCipher
from fedtasks.models.secureboost.frontier import ROOT, Mask, Node, Pair, from_bits, pairs_of, slots_of, to_bits
from fedtasks.models.secureboost.halves import Condition, FollowerSplit
from fedtasks.models.secureboost.messages import receive_bytes, receive_message
from fedtasks.models.secureboost.settings import TrainSettings
from fedtasks.models.secureboost.sums import BinnedRows, EncryptedSums, at_once, plain_sums
from fedtasks.settings import build, to_plain
from fedtasks.wire.v1.secureboost_pb2 import (
    EncryptionKey,
    LevelSplits,
    LevelSums,
    NodeSplit,
    OwnedSplit,
    SplitOffer,
    TreeStart,
)

log = logging.getLogger(__name__)


class Follower:
    """Grows trees with a leader.

    Parameters
    ----------
    rows
        The own train rows.
    settings
        As the leader's.
    feature_numbers
        What the leader is told instead of each column.
    splits
        Those of the model that training goes on from.
    first_tree
        Number of the first tree that is added to it.

    Attributes
    ----------
    candidates
        All splits that the rows allow.
    splits
        Those of the model so far.

    Notes
    -----
    Reveals: to the leader, for each node that may be split, the encrypted gradients' sums on one side of each own
    candidate split that leaves `min_leaf_rows` on both sides, in an order drawn anew for each tree, and how many
    candidates there are; of a split that it chooses, which rows go where and the number of the feature. Never a
    threshold or a value.
    """

    def __init__(
        self,
        rows: BinnedRows,
        settings: TrainSettings,
        feature_numbers: Sequence[int],
        *,
        splits: Sequence[FollowerSplit] = (),
        first_tree: int = 0,
    ) -> None:
        self._rows = rows
        self._columns = rows.binner.columns
        self._settings = settings
        self._feature_numbers = feature_numbers
        self.candidates = rows.candidates()
        self._first_tree = first_tree
        self._before = list(splits)
        self.splits = list(splits)

    def train(
        self,
        link: Link,
        make_cipher: Callable[[EncryptionKey], SumCipher],
        make_sums: Callable[[SumCipher], EncryptedSums],
        checkpoints: Checkpoints,
        report: Report,
    ) -> int:
        """Grow trees until the leader ends it; return how many trees the model has.

        Raises
        ------
        ProtocolViolated
            The leader sent what it must not.
        KeyWeak, KeyInvalid, ConfigDiffers
            The leader's key cannot be used.
        """
        grown = agree(link, checkpoints)
        if grown:
            (state,) = checkpoints.load(grown)
            self.splits = [build(FollowerSplit, each) for each in json.loads(state.tobytes())]
            log.info("going on after %d trees, of which both halves hold a checkpoint", grown)
        self._cipher = make_cipher(receive_message(link, messages.KEY, EncryptionKey))
        self._sums = make_sums(self._cipher)
        link.send(messages.OFFER, SplitOffer(candidates=len(self.candidates)))
        while True:
            start = receive_message(link, messages.START, TreeStart)
            if start.end:
                if start.tree > self._first_tree + grown:
                    raise ProtocolViolated("the leader ends with trees that were not grown")
                self.splits = [split for split in self.splits if split.tree < start.tree]
                return start.tree
            if start.tree != self._first_tree + grown:
                raise ProtocolViolated(f"tree {start.tree} cannot follow {self._first_tree + grown} trees")
            if start.federated:
                n_rows = self._rows.n_rows
                bag = from_bits(start.bag, n_rows) if start.bag else np.ones(n_rows, dtype=bool)
                self._grow(link, start.tree, bag, report)
            grown += 1
            state = np.frombuffer(json.dumps(to_plain(self.splits)).encode(), dtype=np.uint8)
            checkpoints.save(grown, [state])

    def _grow(self, link: Link, tree: int, bag: Mask, report: Report) -> None:
        columns = sampling.columns(tree, len(self._columns), sampling.FOLLOWER, self._settings)
        self._drawn = np.isin(self.candidates.columns, columns)
        # What stands where in messages; nobody else knows, and the next tree has another order.
        self._order = np.random.default_rng(secrets.randbits(128)).permutation(len(self.candidates))
        self._used = columns
        self._receive_gradients(link, np.flatnonzero(bag), report, tree)
        root = Node.of(ROOT, np.arange(self._rows.n_rows), bag)
        pairs = [Pair(root)] if root.n_bag >= 2 * self._settings.min_leaf_rows else []
        counts: dict[int, npt.NDArray[np.int64]] = {}
        owned: list[OwnedSplit] = []
        while True:
            counts = self._counts(pairs, bag, counts)
            frontier = [node for pair in pairs for node in pair.growing]
            allowed = {node.number: self._allowed(node, counts[node.number]) for node in frontier}
            self._answer(link, pairs, bag, owned, allowed)
            if not frontier:
                return
            report({"phase": "train", "tree": tree + 1, "level": frontier[0].depth + 1})
            chosen = receive_message(link, messages.SPLITS, LevelSplits).nodes
            if len(chosen) != len(frontier):
                raise ProtocolViolated(f"{len(chosen)} splits for {len(frontier)} nodes")
            owned, children = [], []
            for node, split in zip(frontier, chosen, strict=True):
                kind = split.WhichOneof("split")
                if kind is None:
                    continue
                if kind == "left_rows":
                    left = from_bits(split.left_rows, len(node.rows))
                else:
                    left, answer = self._split(tree, node, split, allowed[node.number], bag)
                    owned.append(answer)
                if node.depth + 1 < self._settings.depth:
                    children.append((node.split(left, bag), (split.grow_left, split.grow_right)))
            pairs = pairs_of(children, self._settings.min_leaf_rows)

    def _receive_gradients(self, link: Link, bag: npt.NDArray[np.int64], report: Report, tree: int) -> None:
        self._sums.begin(bag, self._used)
        for start in range(0, len(bag), messages.ROWS_AT_ONCE):
            n_rows = min(messages.ROWS_AT_ONCE, len(bag) - start)
            self._sums.add(receive_bytes(link, messages.GRADIENTS, n_rows, self._cipher.width))
            report({"phase": "gradients", "tree": tree + 1, "done": start + n_rows, "of": len(bag)})

    def _counts(
        self, pairs: Sequence[Pair], bag: Mask, above: dict[int, npt.NDArray[np.int64]]
    ) -> dict[int, npt.NDArray[np.int64]]:
        """Return how many rows each candidate has on its inner side, of all nodes of a level."""
        found = {}
        sums = plain_sums(self._rows, self.candidates, self._used, slots_of(pairs, bag), len(pairs), [])
        for pair, of_pair in zip(pairs, sums, strict=True):
            inner = self.candidates.accumulate(of_pair, np.zeros((1, 1), np.int64), np.add)[:, 0]
            found[pair.summed.number] = inner
            if pair.derived:
                found[pair.derived.number] = above[pair.derived.number // 2] - inner
        return found

    def _allowed(self, node: Node, inner: npt.NDArray[np.int64]) -> Mask:
        least = self._settings.min_leaf_rows
        return (inner >= least) & (node.n_bag - inner >= least) & self._drawn

    def _answer(
        self, link: Link, pairs: Sequence[Pair], bag: Mask, owned: Sequence[OwnedSplit], allowed: dict[int, Mask]
    ) -> None:
        """Send the own splits of the level above and the sums of this one."""
        sent = [
            self._order[np.logical_or.reduce([allowed[node.number] for node in pair.growing])[self._order]]
            for pair in pairs
        ]
        ranges = at_once(len(pairs), self.candidates.n_sums)
        link.send(
            messages.SUMS,
            LevelSums(
                splits=owned,
                allowed=[to_bits(allowed[node.number][self._order]) for pair in pairs for node in pair.growing],
                sums=[sum(len(sent[place]) for place in places) for places in ranges],
            ),
        )
        for places in ranges:
            here = [pairs[place] for place in places]
            # A copy is laid out so that one addition takes all nodes' sums of a bin.
            raw = np.moveaxis(self._sums.of(slots_of(here, bag), len(here)), 0, 1).copy()
            inner = self.candidates.accumulate(raw, np.repeat(self._cipher.zero, len(here), 0)[np.newaxis], self._add)
            chosen = [inner[sent[place], number] for number, place in enumerate(places)]
            link.send(messages.SEALED, self._cipher.seal(np.concatenate(chosen)))

    def _add(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        width = a.shape[-1]
        return self._cipher.add(a.reshape(-1, width), b.reshape(-1, width)).reshape(a.shape)

    def _split(self, tree: int, node: Node, split: NodeSplit, allowed: Mask, bag: Mask) -> tuple[Mask, OwnedSplit]:
        """Carry out an own split that the leader chose."""
        places = np.array(split.candidates.places, dtype=np.int64)
        if not len(places) or places.max() >= len(self._order):
            raise ProtocolViolated("a split that was not offered")
        number = int(self._order[places].min())  # the leader cannot tell them apart; we take the first
        if not allowed[self._order[places]].all():
            raise ProtocolViolated("a split that was not offered")
        found = self.candidates.splits[number]
        column = self._columns[found.column]
        left = left_bins(found, column)[self._rows.numbers[found.column][node.rows]]
        condition = Condition.of(found, column, left[bag[node.rows]])
        self.splits.append(FollowerSplit(tree, node.number, condition))
        return left, OwnedSplit(left_rows=to_bits(left), feature=self._feature_numbers[found.column])
