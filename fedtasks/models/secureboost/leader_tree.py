"""One tree, level by level, at the leader."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from fedtasks.encrypted.bins import Candidates, left_bins
from fedtasks.encrypted.histograms import BinnedRows
from fedtasks.errors import ProtocolViolated
from fedtasks.models.secureboost.candidates import Choice, LocalCandidates, PeerCandidates, choose
from fedtasks.models.secureboost.frontier import ROOT, Mask, Node, Pair, from_bits, pairs_of, to_bits
from fedtasks.models.secureboost.gain import Floats, Gradients, gains, weight
from fedtasks.models.secureboost.settings import TrainSettings
from fedtasks.models.secureboost.trees import Condition, LeaderNode
from fedtasks.wire.v1 import secureboost_pb2
from fedtasks.wire.v1.secureboost_pb2 import NodeSplit, OwnedSplit


@dataclass(frozen=True)
class _Decision:
    """How a node is split; which rows go left is not known yet of one of the follower's."""

    node: Node
    choice: Choice
    left: Mask | None
    grow: tuple[bool, bool]


class LeaderTree:
    """Grows one tree.

    Parameters
    ----------
    rows, candidates, columns
        The leader's, and which of its columns this tree may use.
    gradients, bag
        Of all rows, and which of them the tree is grown from.
    settings
        As for the whole training.
    n_peer_splits
        How many splits the follower has already.

    Attributes
    ----------
    nodes
        Those that are done.
    values
        What the tree adds to each row's raw score.
    """

    def __init__(
        self,
        rows: BinnedRows,
        candidates: Candidates,
        columns: Sequence[int],
        gradients: Gradients,
        bag: Mask,
        settings: TrainSettings,
        n_peer_splits: int,
    ) -> None:
        self._rows, self._candidates = rows, candidates
        self._gradients, self._bag, self._settings = gradients, bag, settings
        self._own = LocalCandidates(rows, candidates, columns, gradients, bag, settings.min_leaf_rows)
        self.n_peer_splits = n_peer_splits
        self.nodes: list[LeaderNode] = []
        self.values: Floats = np.zeros(len(bag))

    def grow(self, peer: PeerCandidates | None) -> None:
        """Grow the whole tree; without `peer` from this party's columns alone."""
        root = Node.of(ROOT, np.arange(len(self._bag)), self._bag)
        pairs = [Pair(root)] if root.n_bag >= 2 * self._settings.min_leaf_rows else []
        if not pairs:
            self._leaf(root)
        decided: list[_Decision] = []
        while True:
            answer = peer.receive(len(self._bag), max(1, 2 * len(decided))) if peer else None
            if decided:
                pairs = self._carry_out(decided, peer, iter(answer.splits if answer else ()))
            frontier = [node for pair in pairs for node in pair.growing]
            own = self._own.of(pairs)
            theirs = peer.of(pairs, answer) if peer and answer else {}
            if not frontier:
                return
            decided, splits = [], []
            for node in frontier:
                choice = choose(own[node.number], theirs.get(node.number), self._settings)
                if choice is None:
                    self._leaf(node)
                    splits.append(NodeSplit())
                else:
                    decision, split = self._decide(node, choice)
                    decided.append(decision)
                    splits.append(split)
            if peer:
                peer.send(splits)
            if not decided:
                pairs = []

    def _total(self, node: Node) -> tuple[int, int]:
        # Rows that the tree is not grown from have gradients of zero.
        return self._gradients.total(node.rows)

    def _gain(self, node: Node, side: tuple[int, int]) -> float:
        """Return what a split has gained whose rows are known: the sums by which it was chosen may have had noise."""
        first, second = (np.array([each]) for each in side)
        return max(0.0, float(gains((first, second), self._total(node), self._gradients.units, self._settings)[0]))

    def _decide(self, node: Node, choice: Choice) -> tuple[_Decision, NodeSplit]:
        may_grow = node.depth + 1 < self._settings.depth
        if choice.own is None:
            candidates = secureboost_pb2.Candidates(places=choice.places)
            split = NodeSplit(candidates=candidates, grow_left=may_grow, grow_right=may_grow)
            return _Decision(node, choice, None, (may_grow, may_grow)), split
        found = self._candidates.splits[choice.own]
        left = left_bins(found, self._rows.binner.columns[found.column])[self._rows.numbers[found.column][node.rows]]
        # A side whose second derivatives do not suffice for two leaves is one.
        least = 2 * self._settings.min_child_weight
        sides = (node.rows[left], node.rows[~left])
        grow = [may_grow and self._gradients.total(rows)[1] * self._gradients.units[1] >= least for rows in sides]
        split = NodeSplit(left_rows=to_bits(left), grow_left=grow[0], grow_right=grow[1]) if any(grow) else NodeSplit()
        return _Decision(node, choice, left, (grow[0], grow[1])), split

    def _carry_out(
        self, decided: Sequence[_Decision], peer: PeerCandidates | None, answers: Iterator[OwnedSplit]
    ) -> list[Pair]:
        """Split the nodes of a level; return what is to be summed for the next one."""
        children = []
        for decision in decided:
            node, choice, left = decision.node, decision.choice, decision.left
            if left is None:
                answer = next(answers, None)
                if answer is None or peer is None:
                    raise ProtocolViolated("the follower did not say how its split divides a node")
                left = from_bits(answer.left_rows, len(node.rows))
                peer.check(node, choice, left)
                gain = self._gain(node, self._gradients.total(node.rows[left]))
                done = LeaderNode(node.number, node.n_bag, None, None, self.n_peer_splits, answer.feature, gain)
                self.n_peer_splits += 1
            else:
                condition = self._condition(node, choice, left)
                done = LeaderNode(node.number, node.n_bag, condition=condition, gain=choice.gain)
            self.nodes.append(done)
            children.append((node.split(left, self._bag), decision.grow))
        if next(answers, None) is not None:
            raise ProtocolViolated("the follower speaks of splits that were not chosen")
        pairs = pairs_of(children, self._settings.min_leaf_rows)
        growing = {node.number for pair in pairs for node in pair.growing}
        for sides, _ in children:
            for side in sides:
                if side.number not in growing:
                    self._leaf(side)
        return pairs

    def _condition(self, node: Node, choice: Choice, left: Mask) -> Condition:
        split = self._candidates.splits[choice.own or 0]
        return Condition.of(split, self._rows.binner.columns[split.column], left[self._bag[node.rows]])

    def _leaf(self, node: Node) -> None:
        value = weight(self._total(node), self._gradients.units, self._settings)
        self.nodes.append(LeaderNode(node.number, node.n_bag, leaf=value))
        self.values[node.rows] = value
