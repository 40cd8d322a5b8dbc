"""A model in the pieces that are computed between two messages.

After how many crossings a cut is sent follows from what it is computed from: one that needs nothing of the other half
is sent in round 0, one that needs what came in round 0 in round 1, and so on. A half computes one piece for each round
in which it sends, and the label's holder a last one for the loss.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from fedtasks.errors import NetworkInvalid

KEPT = "kept"
"""How names of results begin that a piece carries on for a later one."""


@dataclass(frozen=True)
class Piece:
    """What a half computes between two messages.

    Parameters
    ----------
    network
        From `takes` to `gives`.
    takes
        Names of features, received cuts and earlier results, in the order of the network's inputs.
    gives
        Names of sent cuts, results for later pieces and predictions, in the order of its outputs.
    receives, sends
        The cuts that it waits for, and that it sends.
    """

    network: keras.Model
    takes: tuple[str, ...]
    gives: tuple[str, ...]
    receives: tuple[str, ...]
    sends: tuple[str, ...]


def rounds_of(*needs: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """Return in which round each cut is sent.

    Parameters
    ----------
    needs
        Of both halves: a cut that it sends → the cuts that it is computed from, which the other half sends.

    Raises
    ------
    NetworkInvalid
        Cuts wait for one another, or for one that nobody sends.
    """
    waiting = {name: set(of) for each in needs for name, of in each.items()}
    rounds: dict[str, int] = {}
    while waiting:
        ready = {
            name: 1 + max((rounds[each] for each in of), default=-1)
            for name, of in waiting.items()
            if of <= rounds.keys()
        }
        if not ready:
            raise NetworkInvalid(
                f"no order of messages serves the cuts {', '.join(sorted(waiting))}: they wait in vain"
            )
        rounds |= ready
        waiting = {name: of for name, of in waiting.items() if name not in ready}
    return rounds


class Graph:
    """What is computed from what in a functional model.

    Parameters
    ----------
    model
        The model.
    sent, received
        Cut name → symbolic tensor.
    """

    def __init__(self, model: keras.Model, sent: Mapping[str, Any], received: Mapping[str, Any]) -> None:
        self._sent = dict(sent)
        names = {id(tensor): name for name, tensor in received.items()}
        self._given = {id(tensor): names.get(id(tensor), tensor.name) for tensor in model.inputs}
        self._needs = {key: frozenset([names[key]] if key in names else []) for key in self._given}
        self._edges: list[tuple[Any, Any]] = []
        self._made_of: dict[int, list[Any]] = {}
        for node in _nodes(model):
            needs = frozenset[str]().union(*(self._needs[id(tensor)] for tensor in node.input_tensors))
            for tensor in node.output_tensors:
                if node.input_tensors:
                    self._needs[id(tensor)] = needs
                    self._made_of[id(tensor)] = node.input_tensors
                    self._edges += [(source, tensor) for source in node.input_tensors]

    def needs(self, tensor: Any) -> tuple[str, ...]:
        """Return the received cuts that a tensor is computed from."""
        return tuple(sorted(self._needs[id(tensor)]))

    def pieces(self, predictions: Mapping[str, Any], rounds: Mapping[str, int]) -> tuple[Piece, ...]:
        """Return the pieces in the order in which they are computed.

        Parameters
        ----------
        predictions
            Name → symbolic tensor that the model predicts.
        rounds
            As of `rounds_of`.
        """
        received = frozenset().union(*self._needs.values())
        ends: list[int | None] = [*sorted({rounds[name] for name in self._sent})]
        if predictions or not ends:
            ends.append(None)
        known = [frozenset(name for name in received if end is None or rounds[name] < end) for end in ends]
        level = {
            key: next((place for place, names in enumerate(known) if needs <= names), len(known))
            for key, needs in self._needs.items()
        }
        kept: dict[int, Any] = {}
        for source, target in self._edges:
            if id(source) not in self._given and level[id(source)] < level[id(target)]:
                kept[id(source)] = source
        names = self._given | {key: f"{KEPT} {number}" for number, key in enumerate(kept)}
        pieces = []
        for place, end in enumerate(ends):
            sends = {name: tensor for name, tensor in self._sent.items() if rounds[name] == end}
            carried = {names[key]: tensor for key, tensor in kept.items() if level[key] == place}
            gives = {**sends, **carried, **(predictions if end is None else {})}
            is_given = {key for key in kept if level[key] < place} | self._given.keys()
            takes = {names[id(tensor)]: tensor for tensor in self._sources(gives, is_given)}
            network = keras.Model(list(takes.values()), list(gives.values()))
            before = known[place - 1] if place else frozenset()
            receives = tuple(sorted(known[place] - before))
            pieces.append(Piece(network, tuple(takes), tuple(gives), receives, tuple(sends)))
        return tuple(pieces)

    def _sources(self, targets: Mapping[str, Any], is_given: set[int]) -> Iterator[Any]:
        """Yield what is given of the tensors that others are computed from."""
        waiting, seen = list(targets.values()), set()
        while waiting:
            tensor = waiting.pop()
            if id(tensor) in seen:
                continue
            seen.add(id(tensor))
            if id(tensor) in is_given:
                yield tensor
            else:
                waiting += self._made_of[id(tensor)]


def _nodes(model: keras.Model) -> Iterator[Any]:
    """Yield what a functional model computes, each after what it is computed from."""
    for depth in sorted(model._nodes_by_depth, reverse=True):
        yield from model._nodes_by_depth[depth]
