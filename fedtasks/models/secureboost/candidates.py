"""What the leader knows of a node's possible splits, its own and the follower's, and which one is best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedtasks.encrypted.bins import Candidates
from fedtasks.encrypted.cipher import OwnerCipher
from fedtasks.encrypted.histograms import BinnedRows, plain_histograms
from fedtasks.errors import ProtocolViolated
from fedtasks.exchange.message import SMALL
from fedtasks.link.inbox import MAX_BYTES
from fedtasks.link.link import Link
from fedtasks.models.secureboost import messages
from fedtasks.models.secureboost.frontier import Mask, Node, Pair, from_bits, rows_in_sums_of, slots_of
from fedtasks.models.secureboost.gain import Gradients, Integers, gains
from fedtasks.models.secureboost.noise import most_noise
from fedtasks.models.secureboost.settings import TrainSettings
from fedtasks.wire.v1.secureboost_pb2 import LevelSplits, LevelSums, NodeSplit


@dataclass(frozen=True)
class Offer:
    """Splits of a node.

    Parameters
    ----------
    first, second
        Sums of first and second derivatives on one side of each split, shape ``(n,)``.
    allowed
        Which of them may be chosen; sums of others mean nothing.
    total, units
        Sums over all rows of the node, and what one stands for in either.
    noise
        How far from the truth the sums may be.
    """

    first: Integers
    second: Integers
    allowed: Mask
    total: tuple[int, int]
    units: tuple[float, float]
    noise: int = 0


@dataclass(frozen=True)
class Choice:
    """The best split of a node.

    Parameters
    ----------
    gain
        What it gains.
    own
        Number of a local candidate; None if the follower's gain more.
    places
        All of the follower's candidates that gain as much: which of them it is, is for the follower to say.
    """

    gain: float
    own: int | None = None
    places: tuple[int, ...] = ()


def choose(own: Offer, peer: Offer | None, settings: TrainSettings) -> Choice | None:
    """Return the best split, a local one if the follower's best gains no more; None if none gains anything."""
    best = _gains(own, settings)
    place = int(best.argmax()) if best.size else -1
    own_gain = float(best[place]) if best.size else -np.inf
    if peer is not None and peer.allowed.size:
        theirs = _gains(peer, settings)
        if (peer_gain := float(theirs.max())) > own_gain:
            return Choice(peer_gain, places=tuple(np.flatnonzero(theirs == peer_gain).tolist()))
    return Choice(own_gain, own=place) if own_gain > -np.inf else None


def _gains(offer: Offer, settings: TrainSettings) -> npt.NDArray[np.float64]:
    found = gains((offer.first, offer.second), offer.total, offer.units, settings)
    return np.where(offer.allowed, found, -np.inf)


class LocalCandidates:
    """The leader's splits of one tree's nodes.

    Parameters
    ----------
    rows, candidates
        The leader's.
    columns
        Which of them this tree may use.
    gradients, bag
        Of this tree.
    min_leaf_rows
        See `TrainSettings`.
    """

    def __init__(
        self,
        rows: BinnedRows,
        candidates: Candidates,
        columns: Sequence[int],
        gradients: Gradients,
        bag: Mask,
        min_leaf_rows: int,
    ) -> None:
        self._rows, self._candidates, self._columns = rows, candidates, columns
        self._gradients, self._bag, self._least = gradients, bag, min_leaf_rows
        self._drawn = np.isin(candidates.columns, columns)
        self._inner: dict[int, Integers] = {}

    def of(self, pairs: Sequence[Pair]) -> dict[int, Offer]:
        """Return the offers of the next level's nodes, by their numbers."""
        added = (self._gradients.first, self._gradients.second)
        slots = slots_of(pairs, self._bag)
        sums = plain_histograms(self._rows, self._candidates, self._columns, slots, len(pairs), added)
        inner, found = {}, {}
        for pair, of_pair in zip(pairs, sums, strict=True):
            here = self._candidates.accumulate(of_pair, np.zeros((1, 3), np.int64), np.add)
            inner[pair.summed.number] = here
            if pair.derived:
                inner[pair.derived.number] = self._inner[pair.derived.number // 2] - here
            for node in pair.growing:
                first, second, counts = inner[node.number].T
                enough = (counts >= self._least) & (node.n_bag - counts >= self._least)
                total = self._gradients.total(node.rows)
                found[node.number] = Offer(first, second, enough & self._drawn, total, self._gradients.units)
        self._inner = inner
        return found


class PeerCandidates:
    """The follower's splits of one tree's nodes, and the conversation about them.

    Parameters
    ----------
    link, cipher
        To the follower, and what decrypts its sums.
    n_candidates
        How many splits it offers.
    gradients
        As they are encrypted.
    settings
        As for the whole training.
    """

    def __init__(
        self, link: Link, cipher: OwnerCipher, n_candidates: int, gradients: Gradients, settings: TrainSettings
    ) -> None:
        self._link, self._cipher, self._n = link, cipher, n_candidates
        self._gradients, self._settings = gradients, settings
        self._noise = most_noise(settings.noise_rows, cipher.precision)
        self._above: dict[int, Offer] = {}

    def receive(self, n_rows: int, n_nodes: int) -> LevelSums:
        """Return what the follower says of its splits of the level above, and which sums follow.

        Parameters
        ----------
        n_rows, n_nodes
            Rows of the whole tree, and the most nodes that the level can have.
        """
        # A bit for each row, for each node and for each pair a bit for each candidate, and candidates' numbers.
        n_repeats = min(n_nodes * self._n, messages.MOST_REPEATS)
        bits = n_rows + 2 * n_nodes * self._n
        return messages.SUMS.receive(self._link, min(MAX_BYTES, SMALL + bits // 8 + 5 * n_repeats))

    def of(self, pairs: Sequence[Pair], answer: LevelSums) -> dict[int, Offer]:
        """Decrypt and return the offers of the next level's nodes, by their numbers."""
        growing = [node for pair in pairs for node in pair.growing]
        if len(answer.allowed) != len(growing):
            raise ProtocolViolated(f"sums of {len(answer.allowed)} nodes for {len(growing)}")
        allowed = {node.number: from_bits(bits, self._n) for node, bits in zip(growing, answer.allowed, strict=True)}
        sent = [np.logical_or.reduce([allowed[node.number] for node in pair.growing]) for pair in pairs]
        which, n_distinct = _which_sums(sent, answer)
        if sum(answer.sums) != n_distinct:
            raise ProtocolViolated(f"{sum(answer.sums)} sums for {n_distinct} splits")
        n_rows = rows_in_sums_of(pairs, self._settings)
        sums = [self._decrypt(n_sums, n_rows) for n_sums in answer.sums]
        first, second = (np.concatenate([np.empty(0, np.int64), *(each[part] for each in sums)]) for part in (0, 1))
        found = {}
        for pair, mask, places in zip(pairs, sent, which, strict=True):
            summed = (_spread(first[places], mask), _spread(second[places], mask))
            for node in pair.growing:
                here, noise = summed, self._noise
                if node is pair.derived:
                    above = self._above[node.number // 2]
                    here, noise = (above.first - summed[0], above.second - summed[1]), above.noise + noise
                total = self._gradients.total(node.rows)
                found[node.number] = Offer(*here, allowed[node.number], total, self._gradients.units, noise)
        self._above = found
        return found

    def send(self, splits: Sequence[NodeSplit]) -> None:
        """Say how the level's nodes are split."""
        messages.SPLITS.send(self._link, LevelSplits(nodes=splits))

    def check(self, node: Node, choice: Choice, left: Mask) -> None:
        """Compare the rows that the follower sends left with the sums that it gave of them.

        Raises
        ------
        ProtocolViolated
            They differ by more than noise: one of the two is wrong.
        """
        offer = self._above[node.number]
        sides = [self._gradients.total(node.rows[rows]) for rows in (left, ~left)]
        for place in choice.places:
            said = (int(offer.first[place]), int(offer.second[place]))
            for side in sides:
                if max(abs(said[0] - side[0]), abs(said[1] - side[1])) <= offer.noise:
                    return
        raise ProtocolViolated("the follower's sums are not those of the rows that it sends left")

    def _decrypt(self, n_sums: int, n_rows: int) -> tuple[Integers, Integers]:
        sealed = messages.SEALED.receive(self._link)
        first, second = self._cipher.decrypt(sealed, n_sums, n_rows)
        if len(first) != n_sums:
            raise ProtocolViolated(f"{len(first)} sums instead of {n_sums}")
        return first - self._noise, second - self._noise


def _which_sums(sent: Sequence[Mask], answer: LevelSums) -> tuple[list[Integers], int]:
    """Return for each candidate of each pair that a sum belongs to which one, and how many sums there are."""
    if len(answer.distinct) != len(sent):
        raise ProtocolViolated(f"distinct sums of {len(answer.distinct)} pairs for {len(sent)}")
    found = []
    n_distinct = n_repeats = 0
    repeats = np.array(answer.repeats, dtype=np.int64)
    for mask, bits in zip(sent, answer.distinct, strict=True):
        is_distinct = from_bits(bits, int(mask.sum()))
        here = repeats[n_repeats : n_repeats + int((~is_distinct).sum())]
        n_here = int(is_distinct.sum())
        if len(here) != len(is_distinct) - n_here or (here >= n_here).any():
            raise ProtocolViolated("splits share a sum that there is none of")
        places = np.cumsum(is_distinct) - 1
        places[~is_distinct] = here
        found.append(n_distinct + places)
        n_distinct += n_here
        n_repeats += len(here)
    if n_repeats != len(repeats):
        raise ProtocolViolated(f"{len(repeats)} splits share sums where {n_repeats} may")
    return found, n_distinct


def _spread(values: Integers, mask: Mask) -> Integers:
    found = np.zeros(len(mask), dtype=np.int64)
    found[mask] = values
    return found
