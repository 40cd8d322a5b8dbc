"""Local steps: how a half trains between two exchanges, on what has crossed in the last ones, without a message.

One half is trained while what comes from the other one stands still, as in FedBCD: the label's holder sees activations
that it has received before, the other half gradients that have come back before. Several exchanges are cached, and
trained on in turn, as in CELU-VFL, so that no batch is trained on many times in a row.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from fedtasks.models.split_nn.half import Arrays, Half
from fedtasks.models.split_nn.rows import Rows


@dataclass(frozen=True, eq=False)
class Exchange:
    """What has crossed of a batch, as this half has it.

    Parameters
    ----------
    batch
        Its rows.
    received
        The activations that came, by cut.
    returned
        The gradients that came back, by cut.
    """

    batch: Rows
    received: Arrays
    returned: Arrays


class LocalSteps:
    """Caches the last exchanges of a half and trains it on them.

    Parameters
    ----------
    half
        What is trained: by `Half.apply` or `Half.catch_up`, as after an exchange.
    n_steps
        After each exchange; by default none, and nothing is cached.
    n_cached
        How many exchanges are.

    Notes
    -----
    A step is that of the exchange with today's weights of this half, penalties, dropout, statistics and optimizer
    included: only what has crossed is of an earlier moment. It is the same for every half, whatever it sends and
    receives, and in however many rounds.
    Reveals: nothing by itself, since nothing is sent, and a gradient that is used again was told once. What is sent
    later is of weights that have seen each label so many times more.
    Cost: the time of `n_steps` steps after each exchange; the memory of `n_cached` batches with what crossed of them.
    Source: Liu et al., FedBCD, IEEE Transactions on Signal Processing 70 (2022), algorithm 1 (in parallel); Fu et al.,
    Towards Communication-efficient Vertical Federated Learning Training via Cache-enabled Local Updates, PVLDB 15
    (2022), section 3: its workset and round robin, without its weights of instances.
    """

    def __init__(self, half: Half, n_steps: int = 0, n_cached: int = 1) -> None:
        self._half, self._n_steps, self._n_cached = half, n_steps, n_cached
        self._by_age: deque[Exchange] = deque()
        self._by_turn: deque[Exchange] = deque()
        """Those that are cached, the one that was trained on longest ago first."""

    def cache(self, exchange: Exchange) -> None:
        """Take in the newest exchange, after the weights were changed by it."""
        if not self._n_steps:
            return
        self._by_age.append(exchange)
        self._by_turn.append(exchange)
        if len(self._by_age) > self._n_cached:
            self._by_turn.remove(self._by_age.popleft())

    def train(self) -> None:
        """Do the steps that follow an exchange; none if nothing is cached."""
        for _ in range(self._n_steps if self._by_turn else 0):
            self._train(self._by_turn[0])
            self._by_turn.rotate(-1)

    def clear(self) -> None:
        """Forget what is cached."""
        self._by_age.clear()
        self._by_turn.clear()

    def _train(self, exchange: Exchange) -> None:
        half, batch = self._half, exchange.batch
        if half.is_at_once:
            half.step_at_once(batch.features, exchange.received, batch.known_targets)
            half.catch_up()
            return
        step = half.begin(batch.features)
        for place, piece in enumerate(half.pieces):
            half.forward(step, place, {name: exchange.received[name] for name in piece.receives}, batch.targets)
        half.apply(step, exchange.returned)
