"""A trained half made again from what was kept of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fedtasks.errors import DataCorrupt
from fedtasks.models.split_nn.cut import BUILT_IN
from fedtasks.models.split_nn.features import Features
from fedtasks.models.split_nn.half import Half
from fedtasks.models.split_nn.model_files import ModelFile
from fedtasks.models.split_nn.sources import Source
from fedtasks.names import LEADER

if TYPE_CHECKING:
    from fedtasks.models.split_nn.model import Document

MODEL_FILE = "model file of the version"


def remade(document: Document, weights: Sequence[np.ndarray]) -> tuple[Half, Features]:
    """Return the half with its weights, ready to score, and the features that it takes.

    Raises
    ------
    DataCorrupt
        The weights are not those of the model.
    NetworkInvalid
        The model file makes no half any more, as with another release of Keras.
    """
    source = Source(ModelFile(MODEL_FILE, document.network) if document.network else None)
    features = Features(document.encoder, may_be_wide=True)
    half = source.half(features, document.settings, 0, has_label=document.role == LEADER)
    try:
        half.assign(weights)
    except ValueError:
        raise DataCorrupt("the weights are not those of the model file") from None
    half.plan(document.rounds or {BUILT_IN: 0})
    return half, features
