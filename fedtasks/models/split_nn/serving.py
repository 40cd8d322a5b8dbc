"""What a trained half computes of columns, for whoever serves it without fedtasks, and as a SavedModel on raw ones."""

from __future__ import annotations

import abc
import functools
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from fedtasks.data.storage import filesystem
from fedtasks.models.split_nn.columns import (
    CLIP,
    LARGEST,
    CategoricalColumn,
    Encoded,
    NumericColumn,
    SequenceColumn,
    VectorColumn,
)
from fedtasks.models.split_nn.encoder import Encoder
from fedtasks.models.split_nn.features import Features
from fedtasks.models.split_nn.half import Half
from fedtasks.models.split_nn.pieces import KEPT, Piece
from fedtasks.models.split_nn.remade import remade

if TYPE_CHECKING:
    from fedtasks.models.split_nn.model import Document

EMBEDDING, PROBABILITY = "embedding", "probability"
SCORE = "score"
DEFAULT = "serving_default"


def write(folder: str, document: Document, weights: Sequence[np.ndarray]) -> None:
    """Write a half as a SavedModel into a folder of any file system.

    A half that computes several pieces has a signature for each, ``round_0`` and so on; what one carries on for a later
    one is among its outputs.
    """
    half, features = remade(document, weights)
    module = Served(document, half, features, _Tables(document.encoder))
    with tempfile.TemporaryDirectory() as place:
        # TensorFlow writes to local disks only; fsspec takes it from there.
        tf.saved_model.save(module, place, signatures=module.signatures())
        fs, target = filesystem(folder)
        for file in sorted(Path(place).rglob("*")):
            if file.is_file():
                name = f"{target}/{file.relative_to(place).as_posix()}"
                fs.makedirs(name.rpartition("/")[0], exist_ok=True)
                fs.pipe_file(name, file.read_bytes())


def taking_ids(document: Document, weights: Sequence[np.ndarray]) -> Served:
    """Return a half that takes ids in place of texts.

    Numbers and vectors are raw as in the SavedModel; a category is int32 ``(n,)`` and a sequence int32 ``(n, length)``,
    as `CategoricalColumn.values` and `SequenceColumn.values` number them.
    """
    half, features = remade(document, weights)
    return Served(document, half, features, _Ids())


class Served(tf.Module):  # type: ignore[misc]
    """A half whose pieces take columns by name, beside what they receive."""

    def __init__(self, document: Document, half: Half, features: Features, columns: _Columns) -> None:
        super().__init__()
        self._document, self._half, self._features = document, half, features
        self.model = half.model
        self.columns = columns

    def signatures(self) -> dict[str, Any]:
        """Return concrete functions by name; they compute as long as this object is there."""
        pieces = self._half.pieces
        names = [DEFAULT] if len(pieces) == 1 else [f"round_{place}" for place in range(len(pieces))]
        return {name: self._serve(piece) for name, piece in zip(names, pieces, strict=True)}

    def _serve(self, piece: Piece) -> Any:
        encoder, parts = self._document.encoder, self._features.parts()
        taken = {name: parts[name] for name in piece.takes if name in parts}
        columns = {name for part in taken.values() for name in part.features}
        signature: dict[str, Any] = {
            encoder.input_names[column]: spec
            for column, spec in self.columns.signature(encoder).items()
            if column in columns
        }
        others = [name for name in piece.takes if name not in parts]
        for name in others:
            tensor = piece.network.inputs[piece.takes.index(name)]
            signature[self._called(name)] = tf.TensorSpec(tensor.shape, tensor.dtype, self._called(name))

        def serve(**given: tf.Tensor) -> dict[str, tf.Tensor]:
            known = {name: given[self._called(name)] for name in others}
            n_rows = tf.shape(next(iter(given.values())))[0]
            for name, part in taken.items():
                columns = {column: given[encoder.input_names[column]] for column in part.features}
                known[name] = self.columns.values(part, columns, n_rows)
            found, _ = self._half.compute(piece, [known[name] for name in piece.takes], training=False)
            results = dict(zip(piece.gives, found, strict=True))
            return self._outputs(piece, results)

        return tf.function(serve, autograph=False).get_concrete_function(**signature)

    def _outputs(self, piece: Piece, results: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        half, names = self._half, [*piece.sends, *(name for name in results if name.startswith(KEPT))]
        found = {self._called(name): results[name] for name in names}
        if half.has_label and piece is half.pieces[-1]:
            score = half.scored(half.predictions_of(results), self._document.label)
            found[SCORE if self._document.network else PROBABILITY] = score
        return found

    def _called(self, name: str) -> str:
        """Return what a cut or what is carried on is called in a signature."""
        return name.replace(" ", "_") if self._document.network else EMBEDDING


class _Columns(tf.Module, abc.ABC):  # type: ignore[misc]
    """Does in TensorFlow what an encoder does."""

    @abc.abstractmethod
    def signature(self, encoder: Encoder) -> dict[str, tf.TensorSpec]:
        """Return what is taken of each column: float64, NaN if missing, ``(n,)``, or ``(n, width)`` of a vector."""
        shapes: dict[str, list[int | None]] = {column.name: [None] for column in encoder.numeric}
        shapes |= {column.name: [None, column.width] for column in encoder.vectors}
        return {
            column: tf.TensorSpec(shape, tf.float64, encoder.input_names[column]) for column, shape in shapes.items()
        }

    @abc.abstractmethod
    def _places(self, category: CategoricalColumn, given: tf.Tensor) -> tf.Tensor:
        """Return what `CategoricalColumn.values` does."""

    @abc.abstractmethod
    def _ids(self, sequence: SequenceColumn, given: tf.Tensor) -> tf.Tensor:
        """Return what `SequenceColumn.values` does."""

    @tf.autograph.experimental.do_not_convert  # type: ignore[untyped-decorator]  # it decides by types, not by tensors
    def values(self, part: Encoded, columns: Mapping[str, tf.Tensor], n_rows: tf.Tensor) -> tf.Tensor:
        """Return what `Encoded.values` of a part does, of raw columns by name."""
        match part:
            case NumericColumn():
                return tf.cast(tf.stack(_number(part, columns[part.name]), axis=1), tf.float32)
            case CategoricalColumn():
                return self._places(part, columns[part.name])
            case SequenceColumn():
                return self._ids(part, columns[part.name])
            case VectorColumn():
                return tf.cast(_vector(part, columns[part.name]), tf.float32)
            case Encoder() if part.width:
                return tf.cast(tf.concat(list(self._matrix(part, columns)), axis=1), tf.float32)
        return tf.zeros([n_rows, 0])  # a leader may have the label alone

    def _matrix(self, part: Encoder, columns: Mapping[str, tf.Tensor]) -> Iterator[tf.Tensor]:
        for number in part.numeric:
            yield tf.stack(_number(number, columns[number.name]), axis=1)
        for category in part.categorical:
            places = self._places(category, columns[category.name])
            yield tf.cast(tf.one_hot(places, category.size), tf.float64)
        for sequence in part.sequences:
            ids, size = self._ids(sequence, columns[sequence.name]), sequence.size
            counts = _counts(ids, size)[:, 1:]
            yield counts / tf.reduce_sum(counts, axis=1, keepdims=True)
        for vector in part.vectors:
            yield _vector(vector, columns[vector.name])


class _Ids(_Columns):
    """Takes texts as ids."""

    def signature(self, encoder: Encoder) -> dict[str, tf.TensorSpec]:
        shapes: dict[str, list[int | None]] = {column.name: [None] for column in encoder.categorical}
        shapes |= {column.name: [None, column.length] for column in encoder.sequences}
        specs = {
            column: tf.TensorSpec(shape, tf.int32, encoder.input_names[column]) for column, shape in shapes.items()
        }
        return {**super().signature(encoder), **specs}

    def _places(self, category: CategoricalColumn, given: tf.Tensor) -> tf.Tensor:
        return given

    def _ids(self, sequence: SequenceColumn, given: tf.Tensor) -> tf.Tensor:
        return given


class _Tables(_Columns):
    """Takes texts, "" if missing; known ones are looked up in tables that a SavedModel keeps."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.by_column = {column.name: _table(column) for column in encoder.worded if column.codes}

    def signature(self, encoder: Encoder) -> dict[str, tf.TensorSpec]:
        shapes: dict[str, list[None]] = {column.name: [None] for column in encoder.categorical}
        shapes |= {column.name: [None, None] for column in encoder.sequences}
        specs = {
            column: tf.TensorSpec(shape, tf.string, encoder.input_names[column]) for column, shape in shapes.items()
        }
        return {**super().signature(encoder), **specs}

    def _places(self, category: CategoricalColumn, texts: tf.Tensor) -> tf.Tensor:
        return tf.where(tf.equal(texts, ""), category.n_codes, self._codes(category, texts))

    def _ids(self, sequence: SequenceColumn, texts: tf.Tensor) -> tf.Tensor:
        ids = tf.ragged.boolean_mask(texts, tf.not_equal(texts, ""))[:, -sequence.length :]
        codes = ids.with_flat_values(self._codes(sequence, ids.flat_values) + 1).to_tensor(
            shape=[None, sequence.length]
        )
        has_none = tf.equal(ids.row_lengths(), 0)[:, tf.newaxis] & (tf.range(sequence.length) == 0)
        return tf.where(has_none, sequence.size - 1, codes)

    def _codes(self, column: CategoricalColumn | SequenceColumn, texts: tf.Tensor) -> tf.Tensor:
        if column.hash_buckets:
            return tf.cast(tf.strings.to_hash_bucket_fast(texts, column.hash_buckets), tf.int32)
        if column.name not in self.by_column:
            return tf.zeros(tf.shape(texts), tf.int32)  # no value is known
        return self.by_column[column.name].lookup(texts)


def _table(column: CategoricalColumn | SequenceColumn) -> tf.lookup.StaticHashTable:
    known = tf.lookup.KeyValueTensorInitializer(list(column.codes), list(column.codes.values()), tf.string, tf.int32)
    return tf.lookup.StaticHashTable(known, len(column.vocabulary))


def _counts(ids: tf.Tensor, size: int) -> tf.Tensor:
    """Return how often each id stands in each row, float64 of shape ``(n, size)``."""
    n_rows, length = tf.unstack(tf.shape(ids))
    rows = tf.tile(tf.range(n_rows)[:, tf.newaxis], [1, length])
    places = tf.stack([tf.reshape(rows, [-1]), tf.reshape(ids, [-1])], axis=1)
    ones = tf.ones([n_rows * length], tf.float64)
    return tf.tensor_scatter_nd_add(tf.zeros([n_rows, size], tf.float64), places, ones)


def _number(number: NumericColumn, value: tf.Tensor) -> list[tf.Tensor]:
    """Return the scaled values and the indicators."""
    missing = tf.math.is_nan(value)
    value = tf.where(missing, tf.zeros_like(value), value)
    if number.mean is None:
        value = tf.clip_by_value(value, tf.constant(-LARGEST, tf.float64), tf.constant(LARGEST, tf.float64))
    indicators = [~missing & tf.equal(value, tf.constant(each, tf.float64)) for each in number.apart]
    is_no_value = functools.reduce(tf.logical_or, indicators, missing)
    shown = [*indicators, missing] if number.has_missing else indicators
    scaled = tf.where(is_no_value, tf.zeros_like(value), _scaled(number, value))
    return [scaled, *(tf.cast(each, tf.float64) for each in shown)]


def _scaled(number: NumericColumn, value: tf.Tensor) -> tf.Tensor:
    if number.mean is not None:
        return tf.clip_by_value((value - number.mean) / number.scale, -CLIP, CLIP)
    if len(number.knots) < 2:
        return tf.zeros_like(value)
    knots, scores, slopes = (tf.constant(each, tf.float64) for each in (number.knots, number.scores, number.slopes))
    inside = tf.clip_by_value(value, knots[0], knots[-1])
    # A count of those passed, not a search: that has no counterpart in ONNX.
    before = tf.reduce_sum(tf.cast(inside[:, tf.newaxis] >= knots[1:-1], tf.int32), axis=1)
    return tf.gather(scores, before) + tf.gather(slopes, before) * (inside - tf.gather(knots, before))


def _vector(vector: VectorColumn, values: tf.Tensor) -> tf.Tensor:
    missing = tf.math.is_nan(values)
    values = tf.where(missing, tf.zeros_like(values), values)
    values = tf.clip_by_value(values, tf.constant(-LARGEST, tf.float64), tf.constant(LARGEST, tf.float64))
    middles, scales = (tf.constant(each, tf.float64) for each in (vector.middles, vector.scales))
    return tf.where(missing, tf.zeros_like(values), tf.clip_by_value((values - middles) / scales, -CLIP, CLIP))
