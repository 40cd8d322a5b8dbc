"""What a trained half computes as ONNX, for whoever serves it without TensorFlow.

Texts have no look-up and no FarmHash64 in ONNX, so a file takes categories and sequences as the ids that the half's
encoder gives them; numbers and vectors are raw. `docs/split-network.md` says how ids follow from ``model.json``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedtasks.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    import tensorflow as tf

    from fedtasks.models.split_nn.model import Document

OPSET = 18
"""Of the operations that files may use; the converter is tested up to it."""

SENT = "_sent"
"""What stands behind the name of an output that is called as an input: in ONNX the two would be one."""

_MOST_BYTES = 2**31 - 2**24
"""Of weights: a file of ONNX has less than 2 GiB."""


def write(folder: Path, document: Document, weights: Sequence[np.ndarray]) -> None:
    """Write a half as ``model.onnx``, or one that computes several pieces as ``round_0.onnx`` and so on.

    Parameters
    ----------
    folder
        Of this machine.

    Raises
    ------
    ConfigError
        An operation of the half has no counterpart, which is named; it is too large; or the extra ``onnx`` is not
        installed.
    """
    try:
        import tf2onnx
    except ModuleNotFoundError as error:
        text = f"ONNX needs `{error.name}`, which is not installed: `pip install 'fedtasks[onnx]'`"
        raise ConfigError(text, field="format") from error
    import tensorflow as tf  # takes seconds: only where something is written

    from fedtasks.models.split_nn import serving

    if sum(weight.nbytes for weight in weights) > _MOST_BYTES:
        raise ConfigError("the half has more weights than a file of ONNX can hold; take savedmodel", field="format")
    served = serving.taking_ids(document, weights)
    for name, function in served.signatures().items():
        specs = function.structured_input_signature[1]
        with _refusals() as refused:
            proto, _ = tf2onnx.convert.from_function(
                tf.function(_by_place(function, specs), autograph=False), list(specs.values()), opset=OPSET
            )
        _check(proto, refused)
        _name_rows(proto)
        file = "model.onnx" if name == serving.DEFAULT else f"{name}.onnx"
        (folder / file).write_bytes(proto.SerializeToString())


@contextmanager
def _refusals() -> Iterator[list[str]]:
    """Collect what the converter cannot do: it goes on, and only logs that; nothing of its log is shown."""
    refused: list[str] = []
    log, handler = logging.getLogger("tf2onnx"), logging.Handler(logging.ERROR)
    handler.emit = lambda record: refused.append(record.getMessage())  # type: ignore[method-assign]
    log.addHandler(handler)
    shown, log.propagate = log.propagate, False
    try:
        yield refused
    finally:
        log.propagate = shown
        log.removeHandler(handler)


def _by_place(function: Any, specs: Mapping[str, tf.TensorSpec]) -> Callable[..., dict[str, tf.Tensor]]:
    """Return a function that takes by place what another one takes by name, and puts out nothing that it takes."""

    def compute(*given: tf.Tensor) -> dict[str, tf.Tensor]:
        found = function(**dict(zip(specs, given, strict=True)))
        return {f"{name}{SENT}" if name in specs else name: value for name, value in found.items()}

    return compute


def _check(proto: Any, refused: Sequence[str]) -> None:
    """Raise `ConfigError` if the converter has left an operation of TensorFlow, or could not do something else."""
    import onnx

    unknown = {node.op_type for node in proto.graph.node if not onnx.defs.has(node.op_type, node.domain)}
    if unknown:
        text = f"ONNX has no operation for: {', '.join(sorted(unknown))}; take savedmodel, or change the model file"
        raise ConfigError(text, field="format")
    if refused:
        reason = refused[0].partition("\n")[0]
        raise ConfigError(f"the half cannot be written as ONNX: {reason}; take savedmodel", field="format")
    onnx.checker.check_model(proto)


def _name_rows(proto: Any) -> None:
    """Say that all that goes in and comes out has as many rows."""
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "rows"
