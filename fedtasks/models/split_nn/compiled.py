"""What an author has compiled a model with, as far as it says what comes of predictions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import keras

from fedtasks.errors import NetworkInvalid
from fedtasks.names import BIN, CHAMPION, IMPORTANCE, LABEL_LEAK, REMARK

MAX_METRICS = 32
"""How many metrics of the author's become curves."""

VALIDATION = "validation_"
"""What figures of validation rows begin with."""

_NAME = re.compile("[a-z][a-z0-9_]{0,63}")
_TAKEN = (BIN, CHAMPION, IMPORTANCE, LABEL_LEAK, REMARK, VALIDATION, "loss")


def takes_logits(model: keras.Model, output: str | None = None) -> bool:
    """Whether the loss takes logits, by its attribute ``from_logits``.

    Parameters
    ----------
    output
        Of which output, where there are several by name.
    """
    loss = model.loss
    if isinstance(loss, Mapping):
        loss = loss.get(output)
    return bool(getattr(loss, "from_logits", False))


def metrics_of(model: keras.Model, labels: Any, predictions: Any) -> Any:
    """Return the metrics that a model is compiled with, ready to take rows; None without any.

    Parameters
    ----------
    labels, predictions
        Some rows, by which metrics are made that were named by a text or a function.

    Raises
    ------
    NetworkInvalid
        They do not take such rows, are too many, or one has a name that means something else.
    """
    compiled = getattr(model, "_compile_metrics", None)
    if compiled is None:
        return None
    try:
        compiled.build(labels, predictions)
        compiled.update_state(labels, predictions)
        names = list(compiled.result())
        compiled.reset_state()
    except Exception as error:
        raise NetworkInvalid(f"the metrics of model.compile(…) do not fit: {type(error).__name__}: {error}") from error
    if len(names) > MAX_METRICS:
        raise NetworkInvalid(f"model.compile(…) names {len(names)} metrics, and there may be {MAX_METRICS}")
    for name in names:
        if not _NAME.fullmatch(name) or name.startswith(_TAKEN):
            raise NetworkInvalid(
                f"a metric of model.compile(…) is called `{name}`: give it a `name` of up to 64 lower-case letters, "
                f"digits and underscores that does not begin with: {', '.join(_TAKEN)}"
            )
    return compiled if names else None
