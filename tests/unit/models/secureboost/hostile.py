"""A leader that sends what it likes, against a real follower."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from fedtasks.encrypted.bins import Binner, left_bins
from fedtasks.encrypted.cipher import OwnerCipher, PaillierOwner, PaillierSums, SumCipher
from fedtasks.encrypted.histograms import BinnedRows, LocalHistograms, Scratch
from fedtasks.link.memory import memory_pair
from fedtasks.models.checkpoint import Checkpoints, agree
from fedtasks.models.secureboost import messages
from fedtasks.models.secureboost.follower import Follower
from fedtasks.models.secureboost.settings import TrainSettings
from fedtasks.wire.v1.encrypted_pb2 import EncryptionKey
from fedtasks.wire.v1.secureboost_pb2 import LevelSplits, NodeSplit, TreeStart
from tests.unit.models.secureboost.boosting import NullOwner, NullSums, Rows

Pair = tuple[np.ndarray, np.ndarray]


class HostileLeader:
    """Speaks to a follower message by message.

    Parameters
    ----------
    link
        To the follower.
    cipher
        What it encrypts with.
    folder
        For checkpoints, of which it has none.
    n_rows
        Over how many rows the sums of a root have room.
    """

    def __init__(self, link: Any, cipher: OwnerCipher, folder: Path, n_rows: int) -> None:
        self.link, self.cipher, self.n_rows = link, cipher, n_rows
        agree(link, Checkpoints(f"file://{folder}/leader", "x"))
        messages.KEY.send(link, self.cipher.key())
        messages.OFFER.receive(link)

    def begin(self, tree: int, pair: Pair | None, bag: bytes = b"") -> None:
        """Begin a tree with any numbers in the place of gradients, or without the follower."""
        messages.START.send(self.link, TreeStart(tree=tree, federated=pair is not None, bag=bag))
        if pair is not None:
            messages.GRADIENTS.send(self.link, self.cipher.encrypt(*pair))

    def read(self) -> Pair:
        """Return the sums of a level."""
        answer = messages.SUMS.receive(self.link)
        parts = [self.cipher.decrypt(messages.SEALED.receive(self.link), n_sums, self.n_rows) for n_sums in answer.sums]
        empty = np.empty(0, np.int64)
        first, second = (np.concatenate([empty, *(part[place] for part in parts)]) for place in (0, 1))
        return first, second

    def split(self, nodes: Sequence[NodeSplit]) -> Pair:
        """Say how a level's nodes are split; return the sums of the next one."""
        messages.SPLITS.send(self.link, LevelSplits(nodes=nodes))
        return self.read()

    def sums_of(self, tree: int, pair: Pair) -> Pair:
        """Return the sums of a tree's root, and leave the tree at that."""
        self.begin(tree, pair)
        found = self.read()
        self.split([NodeSplit()] * bool(len(found[0])))
        return found

    def end(self, trees: int) -> None:
        """End the training."""
        messages.START.send(self.link, TreeStart(tree=trees, end=True))


@contextmanager
def binned(table: pa.Table, settings: TrainSettings) -> Iterator[tuple[BinnedRows, Scratch]]:
    """Give the follower's rows their bins."""
    with Scratch() as scratch:
        binner = Binner.fit(Rows(table), "train", settings.bins)  # type: ignore[arg-type]
        yield BinnedRows.of(Rows(table), "train", binner, scratch), scratch  # type: ignore[arg-type]


def attack(
    table: pa.Table, settings: TrainSettings, script: Callable[[HostileLeader], None], *, encrypted: bool = False
) -> int:
    """Let a script speak as the leader; return how many trees the follower has grown, or raise why it refused."""
    n_in_sums = settings.rows_in_sums(table.num_rows)

    def make_sums(key: EncryptionKey) -> SumCipher:
        return PaillierSums.of(key, n_in_sums, settings.key_bits, settings.precision) if encrypted else NullSums()

    links = memory_pair()
    with tempfile.TemporaryDirectory() as name, binned(table, settings) as (rows, scratch):
        folder = Path(name)

        def lead() -> None:
            with links[0]:
                cipher = PaillierOwner(n_in_sums, settings.key_bits, settings.precision) if encrypted else NullOwner()
                try:
                    script(HostileLeader(links[0], cipher, folder, n_in_sums))
                finally:
                    cipher.close()

        def follow() -> int:
            with links[1]:
                follower = Follower(rows, settings, list(range(len(rows.binner.columns))))
                return follower.train(
                    links[1],
                    make_sums,
                    lambda cipher: LocalHistograms(rows, follower.candidates, cipher, scratch),
                    Checkpoints(f"file://{folder}/follower", "x"),
                    lambda *_, **__: None,
                )

        with ThreadPoolExecutor(2) as pool:
            leading, following = pool.submit(lead), pool.submit(follow)
            for half in (following, leading):
                error = half.exception()
                if error is not None and type(error).__name__ != "PeerFailed":
                    raise error
            return following.result()


def inner_rows(table: pa.Table, settings: TrainSettings) -> np.ndarray:
    """Return which rows each candidate of the follower's sums up, shape ``(candidates, n)``, where it may choose it."""
    with binned(table, settings) as (rows, _):
        found = []
        for split in rows.candidates().splits:
            numbers, column = rows.numbers[split.column], rows.binner.columns[split.column]
            left = left_bins(split, column)
            most = int(np.bincount(numbers, minlength=column.n_bins).argmax())
            found.append((left != left[most])[numbers])
        inner = np.array(found)
    counts = inner.sum(axis=1)
    return inner[(counts >= settings.min_leaf_rows) & (rows.n_rows - counts >= settings.min_leaf_rows)]
