"""A trained half as files: a SavedModel on raw columns, its weights, and ``model.json`` with what belongs to it."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from fedtasks.config import FeatureType
from fedtasks.data.columns import texts_of
from fedtasks.data.run_storage import Manifest
from fedtasks.data.storage import read_bytes, read_json, write_atomically, write_json
from fedtasks.dataclass_io import build, to_plain
from fedtasks.digests import digest
from fedtasks.errors import ConfigError, DataCorrupt, ProtocolViolated
from fedtasks.exchange.message import ArrayMessage
from fedtasks.kinds import remark_metric
from fedtasks.models.contract import CARD, Card, HalfModel
from fedtasks.models.split_nn import forward, messages
from fedtasks.models.split_nn.encoder import Encoder
from fedtasks.models.split_nn.leakage import Leak
from fedtasks.models.split_nn.settings import TrainSettings

if TYPE_CHECKING:
    from fedtasks.models.split_nn.network import Half

MODEL, WEIGHTS = "model", "weights.npz"

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
    release
        The release that wrote it; empty of one that did not say.
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
    release: str = ""


def half_digest(encoder: Encoder, weights: Sequence[np.ndarray]) -> str:
    """Return SHA-256 (hex) over what decides a half's output: its encoder and its weights."""
    return digest([encoder, forward.digest_of(weights)])


class SplitNnHalf(HalfModel):
    """One party's half of a split network.

    Parameters
    ----------
    document
        What it says about itself.
    weights
        Kernel and bias of each layer, float32, the bottom's first.
    """

    def __init__(self, document: Document, weights: Sequence[np.ndarray]) -> None:
        self.document = document
        self.weights = tuple(weights)

    @property
    def answers(self) -> ArrayMessage:
        """See `HalfModel.answers`; of the width that both halves were trained with."""
        return replace(messages.EMBEDDING, shape=(None, self.document.settings.embedding))

    @property
    def card(self) -> Card:
        """See `HalfModel.card`."""
        return Card.of(self.document)

    @property
    def needs(self) -> Mapping[str, FeatureType]:
        """See `HalfModel.needs`."""
        return self.document.encoder.features

    def remarks(self) -> dict[str, int]:
        """Say so if all weights have come to nothing."""
        largest = max(float(np.abs(weight).max(initial=0)) for weight in self.weights if weight.ndim > 1)
        return {remark_metric("collapsed"): 1} if largest < _NOTHING else {}

    takes_unknown = True

    def usual_share(self, feature: str) -> float:
        """See `HalfModel.usual_share`: that of rare values."""
        shares = {column.name: column.rare_share for column in self.document.encoder.categorical}
        return shares[feature] or 0.0

    def unknown_rows(self, rows: pa.Table | pa.RecordBatch) -> dict[str, np.ndarray]:
        """See `HalfModel.unknown_rows`; rare values of train rows have no place of their own either."""
        columns = self.document.encoder.categorical
        places = {column.name: column.places(texts_of(rows, column.name)) for column in columns}
        return {column.name: np.flatnonzero(places[column.name] == len(column.vocabulary)) for column in columns}

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

    def save(self, folder: str) -> None:
        """Write the SavedModel, its weights and ``model.json``."""
        from fedtasks.models.split_nn import serving  # TensorFlow: only where a half is written

        document = self.document
        serving.write(f"{folder}/{MODEL}", document.encoder, document.settings, document.role, self.weights)
        weights = io.BytesIO()
        arrays = {f"w{index:03d}": weight for index, weight in enumerate(self.weights)}
        np.savez(weights, allow_pickle=False, **arrays)
        write_atomically(f"{folder}/{WEIGHTS}", weights.getvalue())
        write_json(f"{folder}/{CARD}", to_plain(document))

    def hand_on(self, network: Half) -> None:
        """Give a new network these weights to go on from.

        Raises
        ------
        ConfigError
            The new network is of another shape.
        """
        try:
            network.assign(self.weights)
        except ValueError:
            raise ConfigError(
                "`embedding`, `hidden` or `top` differ from those of the version", field="start_from"
            ) from None


def load(manifest: Manifest, role: str) -> SplitNnHalf:
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
        weights = [arrays[name] for name in sorted(arrays.files)]
    if [weight.shape for weight in weights] != forward.shapes_of(document.encoder.width, document.settings, role):
        raise DataCorrupt("the weights are not those of this model", where=place)
    return SplitNnHalf(document, [weight.astype(np.float32, copy=False) for weight in weights])
