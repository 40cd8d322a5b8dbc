"""The leader's side of training: it encrypts gradients, reads the sums, and chooses the splits."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from fedtasks.crypto.packing import exact_precision
from fedtasks.dataclass_io import build, to_plain
from fedtasks.encrypted.cipher import OwnerCipher
from fedtasks.encrypted.histograms import BinnedRows
from fedtasks.errors import TrainingDiverged
from fedtasks.link.link import Link
from fedtasks.models.checkpoint import Checkpoints, agree
from fedtasks.models.progress import Report
from fedtasks.models.secureboost import messages, sampling
from fedtasks.models.secureboost.candidates import PeerCandidates
from fedtasks.models.secureboost.frontier import Mask, to_bits
from fedtasks.models.secureboost.gain import Floats, Gradients
from fedtasks.models.secureboost.leader_tree import LeaderTree
from fedtasks.models.secureboost.objective import Objective
from fedtasks.models.secureboost.settings import TrainSettings
from fedtasks.models.secureboost.trees import Tree
from fedtasks.wire.v1.secureboost_pb2 import TreeStart

log = logging.getLogger(__name__)


class Leader:
    """Grows trees, with a follower or, as the first one by default, alone.

    Parameters
    ----------
    rows
        This party's train rows.
    labels, weights
        Of the same rows.
    objective
        What is predicted.
    settings
        As the follower's.
    raw
        Raw scores that training goes on from, shape ``(n, width)``.
    trees
        Those of the model that training goes on from.

    Attributes
    ----------
    trees
        Those of the model so far.

    Notes
    -----
    Reveals: to the follower, which rows are in which node that may be split further, and at its own splits which of its
    candidates were chosen; where rows are sampled, which. Gradients only encrypted; leaves and scores never.
    """

    def __init__(
        self,
        rows: BinnedRows,
        labels: np.ndarray,
        weights: Floats,
        objective: Objective,
        settings: TrainSettings,
        raw: Floats,
        trees: Sequence[Tree] = (),
    ) -> None:
        self._rows = rows
        self._columns = rows.binner.columns
        self._has_label_alone = not self._columns
        self._labels, self._weights = labels, weights
        self._objective = objective
        self._settings = settings
        self._candidates = rows.candidates()
        self._raw = raw
        self._first_tree = len(trees)
        self._n_peer_splits = sum(node.peer_split is not None for tree in trees for node in tree.nodes)
        # On rows that are held out, by the model that training goes on from: it competes with what is added to it.
        self._loss_before = np.inf
        self._is_held_out = sampling.validation_rows(rows.n_rows, settings)
        self.trees = list(trees)

    def train(
        self,
        link: Link,
        make_cipher: Callable[[], OwnerCipher],
        checkpoints: Checkpoints,
        report: Report,
    ) -> int:
        """Grow all trees; return how many rounds the model has gained.

        Raises
        ------
        TrainingDiverged
            The loss is not finite, from the beginning or after a round.
        ProtocolViolated
            The follower sent what it must not, or sums that are not those of its rows.
        """
        # What overflows shows in the loss.
        with np.errstate(over="ignore", invalid="ignore"):
            return self._train(link, make_cipher, checkpoints, report)

    def _train(
        self, link: Link, make_cipher: Callable[[], OwnerCipher], checkpoints: Checkpoints, report: Report
    ) -> int:
        before = self._losses(self._raw, 0)
        if self.trees and self._is_held_out.any():
            self._loss_before = self._mean(before, self._is_held_out)
        width = self._objective.width
        state = _State(self._raw.copy(), self._raw.copy(), [], [])
        grown = agree(link, checkpoints)
        if grown:
            state = _State.load(checkpoints.load(grown))
            self.trees += state.trees
            self._n_peer_splits += sum(node.peer_split is not None for tree in state.trees for node in tree.nodes)
            log.info("going on after %d trees, of which both halves hold a checkpoint", grown)
        cipher = make_cipher()
        try:
            messages.KEY.send(link, cipher.key())
            self._link, self._cipher = link, cipher
            self._n_offered = messages.OFFER.receive(link).candidates
            while grown < self._settings.n_trees and not self._is_enough(state.losses):
                if grown % width == 0:
                    state.start = state.raw.copy()
                tree, values = self._tree(self._first_tree + grown, state.start, grown % width, report)
                self.trees.append(tree)
                state.trees.append(tree)
                state.raw[:, tree.output] += values
                grown += 1
                if grown % width == 0:
                    self._finish_round(grown // width, state, report)
                checkpoints.save(grown, state.arrays())
            rounds = self._best(state.losses) if self._settings.early_stopping_rounds else grown // width
            del self.trees[self._first_tree + rounds * width :]
            messages.START.send(link, TreeStart(tree=len(self.trees), end=True))
            return rounds
        finally:
            cipher.close()

    # ------------------------------------------------------------------------------------------------ rounds
    def _finish_round(self, number: int, state: _State, report: Report) -> None:
        losses = self._losses(state.raw, number)
        found = {"loss": self._mean(losses, ~self._is_held_out)}
        if self._is_held_out.any():
            found["validation_loss"] = self._mean(losses, self._is_held_out)
            state.losses.append(found["validation_loss"])
        progress = {"phase": "train", "done": number, "of": self._settings.trees, "loss": found["loss"]}
        report(progress, step=number, **found)

    def _losses(self, raw: Floats, number: int) -> Floats:
        losses = self._objective.loss(self._labels, raw)
        if not (np.isfinite(raw).all() and np.isfinite(self._mean(losses, slice(None)))):
            raise TrainingDiverged(f"the loss is not finite after {number} rounds; are labels or weights too large?")
        return losses

    def _mean(self, losses: Floats, rows: Mask | slice) -> float:
        return float(np.average(losses[rows], weights=self._weights[rows]))

    def _best(self, losses: Sequence[float]) -> int:
        """Return the number of the best round, from 1; 0 if the model that training goes on from is better."""
        return int(np.argmin([self._loss_before, *losses]))

    def _is_enough(self, losses: Sequence[float]) -> bool:
        patience = self._settings.early_stopping_rounds
        return bool(patience and losses and len(losses) - self._best(losses) >= patience)

    def _tree(self, number: int, raw: Floats, output: int, report: Report) -> tuple[Tree, Floats]:
        """Grow one tree; return it and what it adds to each row's raw score."""
        first, second = (each[:, output] * self._weights for each in self._objective.derivatives(self._labels, raw))
        bag, counts = sampling.bag(number, np.abs(first), ~self._is_held_out, self._settings)
        counts = np.where(bag, counts, 0.0)
        first, second = first * counts, second * counts
        gradients = Gradients.of(first, second, exact_precision(self._settings.rows_in_sums(len(counts))))
        columns = sampling.columns(number, len(self._columns), sampling.LEADER, self._settings)
        grower = LeaderTree(self._rows, self._candidates, columns, gradients, bag, self._settings, self._n_peer_splits)
        # Without a feature of its own, the leader has nothing to grow the first trees from.
        alone = self._settings.is_alone(number) and not self._has_label_alone
        encrypted = None if alone else Gradients.of(first, second, self._cipher.precision)
        grower.grow(self._begin(number, encrypted, bag, report))
        self._n_peer_splits = grower.n_peer_splits
        return Tree(output, tuple(sorted(grower.nodes, key=lambda node: node.number))), grower.values

    def _begin(self, number: int, gradients: Gradients | None, bag: Mask, report: Report) -> PeerCandidates | None:
        """Tell the follower of a tree, and send it the gradients unless it takes no part."""
        bits = b"" if gradients is None or bag.all() else to_bits(bag)
        found = TreeStart(tree=number, federated=gradients is not None, bag=bits, label_alone=self._has_label_alone)
        messages.START.send(self._link, found)
        rows = np.flatnonzero(bag)
        if gradients is not None:
            for start in range(0, len(rows), messages.ROWS_AT_ONCE):
                some = rows[start : start + messages.ROWS_AT_ONCE]
                ciphertexts = self._cipher.encrypt(gradients.first[some], gradients.second[some])
                messages.GRADIENTS.send(self._link, ciphertexts)
                report({"phase": "gradients", "tree": number + 1, "done": start + len(some), "of": len(rows)})
        # While the follower adds up, there is time to draw what the next tree needs.
        if number + 1 < self._first_tree + self._settings.n_trees:
            self._cipher.prepare(len(rows))
        if gradients is None:
            return None
        return PeerCandidates(self._link, self._cipher, self._n_offered, gradients, self._settings)


@dataclass
class _State:
    """What a checkpoint holds: raw scores now and at the start of the round, new trees, losses on held-out rows."""

    raw: Floats
    start: Floats
    trees: list[Tree]
    losses: list[float]

    def arrays(self) -> list[np.ndarray]:
        plain = json.dumps({"trees": to_plain(self.trees), "losses": self.losses})
        return [self.raw, self.start, np.frombuffer(plain.encode(), dtype=np.uint8)]

    @classmethod
    def load(cls, arrays: Sequence[np.ndarray]) -> _State:
        raw, start, encoded = arrays
        plain = json.loads(encoded.tobytes())
        return cls(raw, start, [build(Tree, each) for each in plain["trees"]], plain["losses"])
