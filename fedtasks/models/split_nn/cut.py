"""What both halves know of a cut of their networks; needs no TensorFlow."""

from __future__ import annotations

import math
from dataclasses import dataclass

BUILT_IN = "activation"
"""The one cut of the network that comes with fedtasks."""


@dataclass(frozen=True)
class Cut:
    """A tensor that crosses from one half to the other, a row of it for each row of a batch.

    Parameters
    ----------
    name
        As both halves call it.
    shape
        Of one row.
    dtype
        Of its items.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"

    @property
    def width(self) -> int:
        """Items of one row."""
        return math.prod(self.shape)

    @property
    def n_bytes(self) -> int:
        """Of one row."""
        import numpy as np  # a gateway reads declarations without it

        return self.width * np.dtype(self.dtype).itemsize

    def __str__(self) -> str:
        return f"{self.dtype} {'×'.join(map(str, self.shape))}"
