"""A trained half as files: a SavedModel on raw columns, its weights, and ``model.json`` with what belongs to it."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from fedtasks.config import Feature, FeatureType, LabelKind
from fedtasks.data.run_storage import Manifest
from fedtasks.data.storage import read_bytes, read_json, write_atomically, write_json
from fedtasks.dataclass_io import build, to_plain
from fedtasks.digests import digest
from fedtasks.errors import ConfigError, DataCorrupt, ProtocolViolated
from fedtasks.exchange.message import ArrayMessage
from fedtasks.kinds import remark_metric
from fedtasks.models.contract import CARD, SAVED_MODEL, Card, HalfModel
from fedtasks.models.split_nn import forward, messages, onnx_files
from fedtasks.models.split_nn.encoder import Encoder
from fedtasks.models.split_nn.leakage import Leak
from fedtasks.models.split_nn.settings import TrainSettings

if TYPE_CHECKING:
    from pathlib import Path

    from fedtasks.link.link import Link
    from fedtasks.models.split_nn.features import Features
    from fedtasks.models.split_nn.half import Half

WEIGHTS = "weights.npz"

_NOTHING = 0.01
"""Weights begin at some tenths; where none is larger than this, what goes in does not matter."""


@dataclass(frozen=True)
class Document:
    """Contents of ``model.json``.

    Parameters
    ----------
    run_id, role
        Which run trained it, and ``leader`` or ``follower``.
    settings, row_order
        What it was trained with.
    inputs, encoder
        Raw column → input of the SavedModel, and how it encodes them.
    digest, peer_digest
        Of this half (see `half_digest`) and of the one that it was trained with.
    format
        The algorithm's name.
    label_leak
        At the leader: the worst that was measured of what its training, and those that it went on from, have sent.
    label_leak_means
        The same in one sentence.
    release
        The release that wrote it; empty of one that did not say.
    network
        The text of the model file; empty for the network that comes with fedtasks.
    rounds
        Of a network of one's own, in which round each cut is sent.
    label, classes
        What the leader's half predicts: which kind of label, and the texts of its classes.
    """

    run_id: str
    role: str
    settings: TrainSettings
    row_order: str
    inputs: Mapping[str, str]
    encoder: Encoder
    digest: str
    peer_digest: str
    format: str = ""
    label_leak: Leak | None = None
    label_leak_means: str = ""
    release: str = ""
    network: str = ""
    rounds: Mapping[str, int] = field(default_factory=dict)
    label: LabelKind = LabelKind.BINARY
    classes: tuple[str, ...] = ()


def half_digest(encoder: Encoder, weights: Sequence[np.ndarray]) -> str:
    """Return SHA-256 (hex) over what decides a half's output: its encoder and its weights."""
    return digest([encoder, forward.digest_of(weights)])


class EncodedHalf(HalfModel):
    """One party's half of a network on encoded features.

    Parameters
    ----------
    document
        What it says about itself.
    weights
        What rows are scored with, in the model's order.
    """

    def __init__(self, document: Document, weights: Sequence[np.ndarray]) -> None:
        self.document = document
        self.weights = tuple(weights)

    @property
    def card(self) -> Card:
        """See `HalfModel.card`."""
        return Card.of(self.document)

    @property
    def label_kind(self) -> LabelKind:
        """See `HalfModel.label_kind`."""
        return self.document.label

    @property
    def classes(self) -> tuple[str, ...]:
        """See `HalfModel.classes`."""
        return self.document.classes

    @property
    def needs(self) -> Mapping[str, FeatureType]:
        """See `HalfModel.needs`."""
        return self.document.encoder.features

    def lacking(self, declared: Mapping[str, FeatureType], details: Mapping[str, Feature] | None = None) -> list[str]:
        """See `HalfModel.lacking`: vectors have the width that they were trained with."""
        missing, known = super().lacking(declared), details or {}
        of_another_width = [
            column.name
            for column in self.document.encoder.vectors
            if column.name in known and known[column.name].width not in (None, column.width)
        ]
        return [*missing, *(name for name in of_another_width if name not in missing)]

    def remarks(self) -> dict[str, int]:
        """Say so if all weights have come to nothing."""
        largest = max((float(np.abs(weight).max(initial=0)) for weight in self.weights if weight.ndim > 1), default=1.0)
        return {remark_metric("collapsed"): 1} if largest < _NOTHING else {}

    takes_unknown = True

    def usual_share(self, feature: str) -> float:
        """See `HalfModel.usual_share`: that of rare values."""
        return self.document.encoder.rare_shares[feature]

    def unknown_rows(self, rows: pa.Table | pa.RecordBatch) -> dict[str, np.ndarray]:
        """See `HalfModel.unknown_rows`; rare values of train rows have no place of their own either."""
        return self.document.encoder.unknown_rows(rows)

    def save(self, folder: str) -> None:
        """Write the SavedModel, its weights and ``model.json``."""
        from fedtasks.models.split_nn import serving  # TensorFlow: only where a half is written

        serving.write(f"{folder}/{SAVED_MODEL}", self.document, self.weights)
        weights = io.BytesIO()
        arrays = {f"w{index:03d}": weight for index, weight in enumerate(self.weights)}
        np.savez(weights, allow_pickle=False, **arrays)
        write_atomically(f"{folder}/{WEIGHTS}", weights.getvalue())
        write_json(f"{folder}/{CARD}", to_plain(self.document))

    def save_onnx(self, folder: Path) -> None:
        """See `HalfModel.save_onnx`."""
        onnx_files.write(folder, self.document, self.weights)

    def hand_on(self, half: Half) -> None:
        """Give a new half these weights to go on from.

        Raises
        ------
        ConfigError
            The new one is of another shape.
        """
        try:
            half.assign(self.weights)
        except ValueError:
            text = (
                "the network has other weights than the version: `embedding`, `hidden`, `top` or the model file differ"
            )
            raise ConfigError(text, field="start_from") from None


class SplitNnHalf(EncodedHalf):
    """One party's half of the network that comes with fedtasks; scores in NumPy."""

    @property
    def answers(self) -> ArrayMessage:
        """See `HalfModel.answers`; of the width that both halves were trained with."""
        return replace(messages.EMBEDDING, shape=(None, self.document.settings.embedding))

    def answer(self, rows: pa.Table | pa.RecordBatch, unknown: str = "") -> np.ndarray:
        """Return the follower's embedding, shape ``(n, embedding)``; the encoder has a place for unknown values."""
        del unknown
        document = self.document
        return forward.embedding(document.encoder.matrix(rows), self.weights, document.settings)

    def score(self, rows: pa.Table | pa.RecordBatch, answer: np.ndarray, unknown: str = "") -> np.ndarray:
        """Return the probability of label 1, shape ``(n,)``; the encoder has a place for unknown values."""
        del unknown
        document = self.document
        if answer.shape != (rows.num_rows, document.settings.embedding):
            raise ProtocolViolated(f"an embedding of shape {answer.shape} for {rows.num_rows} rows")
        return forward.probability(document.encoder.matrix(rows), answer, self.weights, document.settings)


class NetworkHalf(EncodedHalf):
    """One party's half of a network of the parties' own; scores in TensorFlow, by the model file that trained it.

    Notes
    -----
    The file's text is kept with the half, so a file that changes later changes no version.
    """

    @cached_property
    def _made(self) -> tuple[Half, Features]:
        from fedtasks.models.split_nn.remade import remade

        return remade(self.document, self.weights)

    def score_together(self, link: Link, rows: pa.RecordBatch, unknown: str, *, of: str) -> np.ndarray:
        """See `HalfModel.score_together`: both halves' pieces in the order of training; there is no gradient."""
        return next(self._score(link, [(rows, of)]))[0]

    def score_each(self, link: Link, batches: Iterable[pa.RecordBatch], unknown: str) -> Iterator[np.ndarray]:
        """See `HalfModel.score_each`; several batches are under way at a time."""
        return (scores for scores, _ in self.score_labels(link, batches, unknown))

    def score_labels(
        self, link: Link, batches: Iterable[pa.RecordBatch], unknown: str
    ) -> Iterator[tuple[np.ndarray, Mapping[str, np.ndarray]]]:
        """See `HalfModel.score_labels`: one for each output of the model."""
        del unknown
        return self._score(link, ((rows, f"batch {number}") for number, rows in enumerate(batches, start=1)))

    def _score(
        self, link: Link, batches: Iterable[tuple[pa.RecordBatch, str]]
    ) -> Iterator[tuple[np.ndarray, Mapping[str, np.ndarray]]]:
        from fedtasks.models.split_nn.crossing import Crossing

        half, features = self._made
        asked = ((features.arrays(rows), rows.num_rows, of) for rows, of in batches)
        for predictions in Crossing(link, half, messages.EMBEDDING).score_each(asked):
            if half.has_label:
                yield half.scores_of(predictions, self.document.label), half.further_scores(predictions)
            else:
                yield np.empty(0), {}


def half_of(document: Document, weights: Sequence[np.ndarray]) -> EncodedHalf:
    """Return the half that a document and weights are."""
    return (NetworkHalf if document.network else SplitNnHalf)(document, weights)


def load(manifest: Manifest, role: str) -> EncodedHalf:
    """Read a half that `train` has published.

    Raises
    ------
    DataCorrupt
        It is no split network.
    """
    place = manifest.path(CARD)
    try:
        document = build(Document, read_json(place))
    except ConfigError as error:
        raise DataCorrupt(f"not a model: {error.detail}", where=place) from error
    with np.load(io.BytesIO(read_bytes(manifest.path(WEIGHTS))), allow_pickle=False) as arrays:
        # By their number: of more than a thousand, `w1000` does not come between `w100` and `w101`.
        weights = [arrays[name] for name in sorted(arrays.files, key=lambda name: (len(name), name))]
    built_in = not document.network
    if built_in and [each.shape for each in weights] != forward.shapes_of(
        document.encoder.width, document.settings, role
    ):
        raise DataCorrupt("the weights are not those of this model", where=place)
    return half_of(document, [each.astype(np.float32, copy=False) if built_in else each for each in weights])
