"""A compiled computation in two parts: what somebody waits for, and what comes after it.

TensorFlow compiles a step as one graph. What the first results are computed from is the first part; of what it computes
the second one is handed just what it takes. So a gradient that comes back is applied without computing anything twice,
and without the tape that would have to remember the way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

_READS = frozenset({"ReadVariableOp", "ResourceGather", "ResourceGatherNd", "VariableShape"})
_FREE = frozenset({"Const", "Placeholder"})


@dataclass(frozen=True)
class TwoParts:
    """Both parts, compiled.

    Parameters
    ----------
    first
        Takes what is known at once, as arrays; returns the first results and what is kept for `second`.
    second
        Takes what was kept, then the arrays that have come since; returns what `finish` does, in one list.

    Notes
    -----
    Arrays may be shared with tensors: nobody may change them afterwards.
    """

    first: Callable[..., tuple[list[tf.Tensor], list[tf.Tensor]]]
    second: Callable[..., list[tf.Tensor]]


def in_two_parts(
    function: Callable[..., tuple[list[tf.Tensor], list[tf.Tensor]]],
    finish: Callable[[list[tf.Tensor]], Any],
    now: Sequence[tf.TensorSpec],
    later: Sequence[tf.TensorSpec],
) -> TwoParts | None:
    """Cut a function's graph behind its first results.

    Parameters
    ----------
    function
        Takes the tensors of `now` and of `later`; returns results that depend on the former alone, and others.
    finish
        What the second part does with the second results.
    now, later
        What the arguments are.

    Returns
    -------
    TwoParts or None
        None if `function` does more than to read variables: in which order other effects happen would be lost.

    Notes
    -----
    Variables are read in the first part only, so that the second one computes with their values of that moment, however
    often they have been changed since.
    Cost: memory for what is kept, such as the activations of hidden layers and the weights. None of it is copied, but a
    weight that is changed while it is kept.
    """
    whole = tf.compat.v1.wrap_function(function, [*now, *later])
    arguments = whole.inputs[: len(now) + len(later)]
    effects = {operation.type for operation in whole.graph.get_operations() if operation.op_def.is_stateful}
    if not effects <= _READS | _FREE:
        return None
    first_results, second_results = whole.structured_outputs
    reads = [each for each in whole.graph.get_operations() if each.type in _READS]
    early = _ancestors([*(tensor.op for tensor in first_results), *reads])
    kept: dict[int, tf.Tensor] = {}
    for operation in _ancestors([tensor.op for tensor in second_results]) - early:
        for tensor in operation.inputs:
            # Constants are cheaper to have twice than to carry, and handles of variables carry nothing.
            is_free = tensor.op.type == "Const" or tensor.dtype == tf.resource
            if tensor.op in early and not is_free:
                kept[id(tensor)] = tensor
    kept |= {id(tensor): tensor for tensor in second_results if tensor.op in early}
    # `prune` looks at some operations before those that it is fed, which may take an output that nothing else takes.
    kept |= {id(tensor): tensor for source in [*kept.values()] for tensor in source.op.outputs}
    order = {operation: place for place, operation in enumerate(whole.graph.get_operations())}
    carried = sorted(kept.values(), key=lambda tensor: (order[tensor.op], tensor.value_index))
    first = whole.prune(arguments[: len(now)], [first_results, carried])
    second = whole.prune([*carried, *arguments[len(now) :]], second_results)
    kept_specs = [tf.TensorSpec.from_tensor(tensor) for tensor in carried]
    run_first = _compiled(lambda *known: first(*known), now)
    run_second = _compiled(lambda *known: finish(second(*known)), [*kept_specs, *later])
    n_results = len(first_results)

    def call_first(*known: Any) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        found = run_first(*known)
        return found[:n_results], found[n_results:]

    return TwoParts(call_first, run_second)


def _compiled(function: Callable[..., Any], specs: Sequence[tf.TensorSpec]) -> Callable[..., list[tf.Tensor]]:
    """Compile a function of tensors; what is returned takes arrays too, and returns all results in one list.

    Called as TensorFlow's functions are, it would look for the right graph and compare each argument with what it was
    compiled for, which takes longer than a small step itself; and an array would be copied twice.
    """
    concrete = tf.function(function, autograph=False).get_concrete_function(*specs)
    call, captured = concrete.inference_fn.call_flat, concrete.captured_inputs

    def run(*known: Any) -> list[tf.Tensor]:
        tensors = [tensor_of(each) if isinstance(each, np.ndarray) else each for each in known]
        return list(call(*tensors, *captured) or ())

    return run


def tensor_of(array: np.ndarray) -> tf.Tensor:
    """Return an array as a tensor, which may share its memory: nobody may change it afterwards."""
    return tf.raw_ops.Identity(input=array)  # `tf.constant` copies it once or twice


def _ancestors(operations: Sequence[tf.Operation]) -> set[tf.Operation]:
    """Return operations with all that they are computed from."""
    found: set[tf.Operation] = set()
    waiting = list(operations)
    while waiting:
        operation = waiting.pop()
        if operation not in found:
            found.add(operation)
            waiting += [tensor.op for tensor in operation.inputs]
    return found
