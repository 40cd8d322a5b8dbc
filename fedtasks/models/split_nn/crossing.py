"""What crosses of a batch at the cuts of a half."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any

import numpy as np
import pyarrow as pa

from fedtasks.config import LabelKind
from fedtasks.data.blocks import LABEL, WEIGHT
from fedtasks.data.columns import numbers_of
from fedtasks.errors import LabelInvalid
from fedtasks.link.link import Link
from fedtasks.models.split_nn.coding import Coding
from fedtasks.models.split_nn.cut import Cut
from fedtasks.models.split_nn.half import Arrays, Half
from fedtasks.models.split_nn.messages import ACTIVATION, GRADIENT, CutMessage
from fedtasks.models.split_nn.targets import LABEL as OUTPUT
from fedtasks.models.split_nn.targets import Targets

_UNDER_WAY, _BYTES_UNDER_WAY = 8, 8 << 20
"""So many batches are scored at once, unless they are large: both directions must fit into the link's window."""


class Crossing:
    """Carries what crosses at the cuts of a half.

    Parameters
    ----------
    link
        The conversation with the other half.
    half
        Whose cuts.
    activation
        Which message carries what is sent forth: another one where rows are scored.
    coding
        How float32 is written, the same on both sides; by default as it is.

    Notes
    -----
    What int8 cuts off the gradients of a batch is added to those of the next one, on average over the rows: so the
    follower's last biases miss nothing in the long run, and its other weights little.
    """

    def __init__(
        self, link: Link, half: Half, activation: CutMessage = ACTIVATION, coding: Coding | None = None
    ) -> None:
        self._link, self._half, self._activation, self._coding = link, half, activation, coding

    def score(self, features: Arrays, n_rows: int, *, of: str) -> Any:
        """Pass rows through both halves without training; returns what the label's holder predicts, else None."""
        return next(self.score_each([(features, n_rows, of)]))

    def score_each(self, batches: Iterable[tuple[Arrays, int, str]]) -> Iterator[Any]:
        """Do as `score` does with each batch; several are under way at a time.

        Parameters
        ----------
        batches
            Of each its features, how many rows it has, and what it is called in errors; the same on both sides.
        """
        rest = iter(batches)
        while first := next(rest, None):
            found = [first, *islice(rest, self._most_under_way(first[1]) - 1)]
            known = [dict[str, Any](features) for features, _, _ in found]
            for place, piece in enumerate(self._half.pieces):
                for values, (_, n_rows, of) in zip(known, found, strict=True):
                    values |= self.receive(piece.receives, n_rows, of=of)
                    values |= self._half.infer(place, values)
                    self.send({name: np.asarray(values[name]) for name in piece.sends}, of=of)
            yield from map(self._half.predictions_of, known)

    def _most_under_way(self, n_rows: int) -> int:
        """Return how many batches of so many rows may be; both halves know the cuts of both directions."""
        cuts = chain(self._half.sends.values(), self._half.receives.values())
        n_bytes = n_rows * sum(cut.n_bytes for cut in cuts)
        return max(1, min(_UNDER_WAY, _BYTES_UNDER_WAY // max(n_bytes, 1)))

    def send(self, values: Arrays, *, of: str) -> None:
        """Send activations."""
        for name, value in values.items():
            self._send(self._activation, self._half.sends[name], value, of)

    def receive(self, names: Iterable[str], n_rows: int, *, of: str) -> dict[str, np.ndarray]:
        """Receive activations of so many rows."""
        return {name: self._receive(self._activation, self._half.receives[name], n_rows, of) for name in names}

    def send_gradients(self, gradients: Arrays, *, of: str) -> None:
        """Send gradients of what was received."""
        for name, value in gradients.items():
            cut = self._half.receives[name]
            if not self._coding or not self._coding.carries or name not in self._half.carried:
                self._send(GRADIENT, cut, value, of)
                continue
            cut_off = self._half.carried[name]
            asked = value + cut_off.numpy()
            read = GRADIENT.send_coded(self._link, asked, cut, self._coding, of=of)
            cut_off.assign((asked - read).mean(axis=0))

    def receive_gradients(self, names: Iterable[str], n_rows: int, *, of: str) -> dict[str, np.ndarray]:
        """Receive gradients of what was sent."""
        return {name: self._receive(GRADIENT, self._half.sends[name], n_rows, of) for name in names}

    def _send(self, message: CutMessage, cut: Cut, values: np.ndarray, of: str) -> None:
        if self._coding and cut.dtype == "float32":
            message.send_coded(self._link, values, cut, self._coding, of=of)
        else:
            message.at(cut).send(self._link, values, of=of)

    def _receive(self, message: CutMessage, cut: Cut, n_rows: int, of: str) -> np.ndarray:
        if self._coding and cut.dtype == "float32":
            return message.receive_coded(self._link, n_rows, cut, self._coding, of=of)
        return message.at(cut).receive(self._link, n_rows, *cut.shape, of=of)


def targets_of(
    rows: pa.Table | pa.RecordBatch, kind: LabelKind = LabelKind.BINARY, outputs: Sequence[str] = ()
) -> Targets:
    """Return the labels of rows, and their weights if they have such.

    Parameters
    ----------
    rows
        Columns as in a block.
    kind
        Of which kind the label is.
    outputs
        Names of a model's outputs, where there are several: the label's, and columns of further labels.

    Raises
    ------
    LabelInvalid
        A row has no value of a further label.

    Notes
    -----
    Shapes and dtypes: see `Targets`.
    """
    if kind is LabelKind.CLASSES:
        label = rows[LABEL].to_numpy().astype(np.int32)
    else:
        label = rows[LABEL].to_numpy().astype(np.float32)[:, np.newaxis]
    further = {name: _further(rows, name) for name in outputs if name != OUTPUT}
    weights = rows[WEIGHT].to_numpy() if WEIGHT in rows.schema.names else None
    return Targets({OUTPUT: label, **further} if outputs else label, weights)


def _further(rows: pa.Table | pa.RecordBatch, name: str) -> np.ndarray:
    values = numbers_of(rows, name)
    missing = int(np.isnan(values).sum())
    if missing:
        text = (
            f"{missing} of {len(values)} rows have no `{name}`, which the model predicts; fill them in, or leave the "
        )
        text += "output out"
        raise LabelInvalid(text, where=name)
    return values.astype(np.float32)[:, np.newaxis]
