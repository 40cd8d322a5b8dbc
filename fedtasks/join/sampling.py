"""Which rows with label 0 take part, and how much rows then weigh."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fedtasks.crypto.hashing import Bytes, Texts, hash_rows
from fedtasks.errors import ConfigError

_DOMAIN = b"fedtasks-join-negatives-v1"
_WORD = 1 << 64


class Sample(NamedTuple):
    """What a sample keeps.

    Parameters
    ----------
    mask
        ``bool``, of each row whether it takes part.
    weights
        ``float64``, of each row that does.
    """

    mask: npt.NDArray[np.bool_]
    weights: npt.NDArray[np.float64]


def kept(
    ids: Bytes | Texts,
    labels: npt.NDArray[np.generic],
    share: float,
    seed: int,
    weights: npt.NDArray[np.float64] | None = None,
) -> Sample:
    """Keep all rows with label 1, and a share of those with label 0.

    Parameters
    ----------
    ids
        Of each row its id, or a hash of it as ``uint8`` of shape ``(n, width)``: by that alone it is decided whether a
        row with label 0 takes part, so it is the same wherever and however often the row is read.
    labels
        0 or 1.
    share
        Above 0; 1 keeps all.
    seed
        Which ones, of 64 bits with sign. What a greater share keeps under a seed contains what a smaller one keeps.
    weights
        How much rows weigh in the data, by default 1.

    Raises
    ------
    ConfigError
        A label is neither 0 nor 1, or the share is not above 0 and at most 1.

    Notes
    -----
    Reveals: nothing crosses; the other side sees the rows that take part only.
    Cost: one hash for each row.
    Source: importance weights of Horvitz and Thompson: a row that is kept with probability p stands for 1/p rows. That
    holds also for one whose label changes later: its weight stays.
    """
    if not 0 < share <= 1:
        raise ConfigError(f"{share:g} is not above 0 and at most 1", field="negatives")
    is_negative = labels == 0
    if not (is_negative | (labels == 1)).all():
        text = "labels must be 0 or 1 where only a share of those with label 0 takes part; leave it out"
        raise ConfigError(text, field="negatives")
    own = np.ones(len(labels)) if weights is None else weights
    if share == 1:
        return Sample(np.ones(len(labels), dtype=np.bool_), own.astype(np.float64))
    digests = hash_rows("sha256", _DOMAIN + seed.to_bytes(8, "big", signed=True), ids)
    drawn = np.ascontiguousarray(digests[:, :8]).view(">u8").ravel()
    mask = ~is_negative | (drawn < np.uint64(int(share * _WORD)))
    return Sample(mask, (own * np.where(is_negative, 1 / share, 1.0))[mask])
