"""The follower's side of training: it adds up what it cannot read, and splits where the leader chooses."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence

import numpy as np

from fedtasks.dataclass_io import build, to_plain
from fedtasks.encrypted.cipher import SumCipher
from fedtasks.encrypted.histograms import BinnedRows, EncryptedHistograms
from fedtasks.errors import ProtocolViolated
from fedtasks.exchange.message import SMALL
from fedtasks.link.link import Link
from fedtasks.models.checkpoint import Checkpoints, agree
from fedtasks.models.progress import Report
from fedtasks.models.secureboost import messages, sampling
from fedtasks.models.secureboost.follower_tree import FollowerTree
from fedtasks.models.secureboost.frontier import Mask, from_bits
from fedtasks.models.secureboost.settings import TrainSettings
from fedtasks.models.secureboost.trees import FollowerSplit
from fedtasks.wire.v1.encrypted_pb2 import EncryptionKey
from fedtasks.wire.v1.secureboost_pb2 import SplitOffer, TreeStart

log = logging.getLogger(__name__)


class Follower:
    """Grows trees with a leader.

    Parameters
    ----------
    rows
        This party's train rows.
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
    Reveals: to the leader, for each node that may be split, the encrypted gradients' sums on one side of each of this
    party's candidate splits that leaves `min_leaf_rows` on both sides, each with noise of `noise_rows`, in an order
    drawn anew for each tree, which of them are over the same rows, and how many candidates there are; of a split that
    it chooses, which rows go where and the number of the feature. Never a threshold or a value.
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
        self._settings = settings
        self._feature_numbers = feature_numbers
        self.candidates = rows.candidates()
        self._first_tree = first_tree
        self.splits = list(splits)

    def train(
        self,
        link: Link,
        make_cipher: Callable[[EncryptionKey], SumCipher],
        make_sums: Callable[[SumCipher], EncryptedHistograms],
        checkpoints: Checkpoints,
        report: Report,
    ) -> int:
        """Grow trees until the leader ends it; return how many trees the model has.

        Raises
        ------
        ProtocolViolated
            The leader sent what it must not, or asks for more than the settings say: trees, rows of a tree, splits.
        KeyWeak, KeyInvalid, ConfigDiffers
            The leader's key cannot be used.
        """
        grown = agree(link, checkpoints)
        if grown:
            (state,) = checkpoints.load(grown)
            self.splits = [build(FollowerSplit, each) for each in json.loads(state.tobytes())]
            log.info("going on after %d trees, of which both halves hold a checkpoint", grown)
        cipher = make_cipher(messages.KEY.receive(link))
        sums = make_sums(cipher)
        messages.OFFER.send(link, SplitOffer(candidates=len(self.candidates)))
        while True:
            start = messages.START.receive(link, SMALL + self._rows.n_rows // 8)
            if start.end:
                if not self._first_tree <= start.tree <= self._first_tree + grown:
                    raise ProtocolViolated(f"the leader ends with {start.tree} trees, which it has not grown")
                self.splits = [split for split in self.splits if split.tree < start.tree]
                return start.tree
            if start.tree != self._first_tree + grown:
                raise ProtocolViolated(f"tree {start.tree} cannot follow {self._first_tree + grown} trees")
            if grown >= self._settings.n_trees:
                raise ProtocolViolated(f"the leader begins tree {grown + 1} of {self._settings.n_trees}")
            if start.federated:
                if self._settings.is_alone(start.tree) and not start.label_alone:
                    raise ProtocolViolated(f"tree {start.tree + 1} of the first round is the leader's alone")
                bag = self._bag(start)
                columns = sampling.columns(start.tree, len(self._feature_numbers), sampling.FOLLOWER, self._settings)
                tree = FollowerTree(
                    start.tree,
                    self._rows,
                    self.candidates,
                    columns,
                    bag,
                    self._feature_numbers,
                    cipher,
                    sums,
                    self._settings,
                )
                tree.receive_gradients(link, report)
                tree.grow(link, report)
                self.splits += tree.splits
            grown += 1
            state = np.frombuffer(json.dumps(to_plain(self.splits)).encode(), dtype=np.uint8)
            checkpoints.save(grown, [state])

    def _bag(self, start: TreeStart) -> Mask:
        """Return which rows a tree is grown from; raise `ProtocolViolated` unless settings allow that."""
        n_rows = self._rows.n_rows
        found = from_bits(start.bag, n_rows) if start.bag else np.ones(n_rows, dtype=bool)
        allowed = ~sampling.validation_rows(n_rows, self._settings)
        drawn, _ = sampling.bag(start.tree, np.zeros(n_rows), allowed, self._settings)
        # Which rows have the largest gradients only the leader knows; how many there are, both do.
        differs = found.sum() != drawn.sum() or (found & ~allowed).any() if self._settings.goss_top else found != drawn
        if np.any(differs):
            raise ProtocolViolated(f"tree {start.tree + 1} is not grown from the rows that its settings draw")
        return found
