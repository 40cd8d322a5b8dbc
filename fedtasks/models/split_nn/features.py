"""What a model file is given: this party's features as inputs of a Keras model, encoded as they were fitted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import pyarrow as pa

from fedtasks.errors import NetworkInvalid
from fedtasks.models.split_nn.columns import Encoded
from fedtasks.models.split_nn.encoder import Encoder
from fedtasks.models.split_nn.settings import check_places

MATRIX, NUMBERS = "matrix", "numbers"


@dataclass(frozen=True)
class Category:
    """A categorical feature as an input.

    Parameters
    ----------
    ids
        The input, int32 of shape ``(n,)``: values of 0 to `size` - 1. The last one stands for no value; with a
        vocabulary, the last but one for a value that is not in it.
    size
        How many ids there are.
    """

    ids: Any
    size: int


@dataclass(frozen=True)
class Sequence:
    """A feature that is a list of ids as an input.

    Parameters
    ----------
    ids
        The input, int32 of shape ``(n, length)``: values of 0 to `size` - 1 in the order of the list, the last `length`
        of them. 0 fills rows up from behind, as ``keras.layers.Embedding(…, mask_zero=True)`` expects. In the first
        place of a row without ids stands `size` - 1; with a vocabulary, `size` - 2 is an id that is not in it.
    size
        How many ids there are, with 0.
    length
        How many of a row count.
    """

    ids: Any
    size: int
    length: int


class Features:
    """The features of one party, each of which becomes an input of the model when it is asked for.

    Parameters
    ----------
    encoder
        How columns become numbers.
    may_be_wide
        Whether `matrix` takes columns of more than `MAX_ONE_HOT` places, as those of an earlier release may have.

    Attributes
    ----------
    inputs
        The inputs that were asked for, in that order: what `keras.Model` must be given beside what it receives.
    """

    def __init__(self, encoder: Encoder, *, may_be_wide: bool = False) -> None:
        self._encoder, self._may_be_wide = encoder, may_be_wide
        self._made: dict[str, Any] = {}
        self._parts: dict[str, Encoded] = {}

    @property
    def inputs(self) -> list[Any]:
        """See the class."""
        return list(self._made.values())

    @property
    def numeric(self) -> list[str]:
        """Names of the numeric features."""
        return [column.name for column in self._encoder.numeric]

    @property
    def categorical(self) -> list[str]:
        """Names of the categorical features."""
        return [column.name for column in self._encoder.categorical]

    @property
    def sequences(self) -> list[str]:
        """Names of the features that are lists of ids."""
        return [column.name for column in self._encoder.sequences]

    @property
    def vectors(self) -> list[str]:
        """Names of the features that are vectors."""
        return [column.name for column in self._encoder.vectors]

    def matrix(self) -> Any:
        """Return all features as one input, float32 of shape ``(n, width)``.

        Numbers and vectors are scaled, categories one-hot, and of a sequence there is the share of each of its ids.

        Raises
        ------
        ColumnType
            A feature has too many places to have a column for each.
        """
        for name, places in self._encoder.one_hot.items():
            if not self._may_be_wide:
                check_places(name, places)
        return self._input(MATRIX, self._encoder, (self._encoder.width,), "float32")

    def numbers(self) -> Any:
        """Return the numeric features as one input, float32 of shape ``(n, width)``, scaled."""
        part = Encoder(self._encoder.numeric, ())
        return self._input(NUMBERS, part, (part.width,), "float32")

    def number(self, name: str) -> Any:
        """Return one numeric feature as an input, float32 of shape ``(n, width)``: scaled, then its indicators."""
        column = self._column(name, self._encoder.numeric, "numeric")
        return self._input(self._name(name), column, (column.width,), "float32")

    def category(self, name: str) -> Category:
        """Return one categorical feature as an input."""
        column = self._column(name, self._encoder.categorical, "categorical")
        return Category(self._input(self._name(name), column, (), "int32"), column.size)

    def sequence(self, name: str) -> Sequence:
        """Return one feature that is a list of ids as an input."""
        column = self._column(name, self._encoder.sequences, "sequence")
        ids = self._input(self._name(name), column, (column.length,), "int32")
        return Sequence(ids, column.size, column.length)

    def vector(self, name: str) -> Any:
        """Return one vector as an input, float32 of shape ``(n, width)``, scaled; all 0 where a row has none."""
        column = self._column(name, self._encoder.vectors, "vector")
        return self._input(self._name(name), column, (column.width,), "float32")

    def parts(self) -> dict[str, Encoded]:
        """Return the inputs that were asked for, each with what encodes its columns."""
        return dict(self._parts)

    def arrays(self, rows: pa.Table | pa.RecordBatch) -> dict[str, np.ndarray]:
        """Return the values of the inputs that were asked for, by input.

        Raises
        ------
        ColumnMissing, ColumnType
            Names the column.
        """
        return {name: part.values(rows) for name, part in self._parts.items()}

    def _input(self, name: str, part: Encoded, shape: tuple[int, ...], dtype: str) -> Any:
        if name not in self._made:
            self._made[name] = keras.Input(shape, dtype=dtype, name=name)
            self._parts[name] = part
        return self._made[name]

    def _name(self, column: str) -> str:
        return f"feature_{[each.name for each in self._encoder.columns].index(column)}"

    def _column(self, name: str, columns: Any, kind: str) -> Any:
        found = next((column for column in columns if column.name == name), None)
        if found is None:
            known = ", ".join(column.name for column in columns) or "none"
            raise NetworkInvalid(
                f"there is no {kind} feature `{name}` with a value in any train row; there are: {known}"
            )
        return found
