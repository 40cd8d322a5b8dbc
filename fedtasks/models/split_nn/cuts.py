"""`Send` and `Receive`: where an ordinary Keras model is cut, so that it is one half of a federated one.

Each side writes a functional model of its own. What `Send` passes on leaves the house, and comes out of the peer's
`Receive` of the same name; in training the gradient comes back the same way::

    # follower                                     # leader
    rows = features.matrix()                       user = Receive("user", 16)
    user = keras.layers.Dense(16)(rows)            own = keras.layers.Dense(16)(features.matrix())
    model = keras.Model(                           both = keras.layers.Concatenate()([own, user])
        features.inputs, Send("user")(user)        model = keras.Model(
    )                                                  [*features.inputs, user], keras.layers.Dense(1)(both)
                                                   )

There may be several cuts, in both directions. Nothing but the cuts' names, shapes and dtypes is known to the peer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from fedtasks.errors import ConfigError, NetworkInvalid
from fedtasks.models.split_nn.cut import Cut

MAX_CUTS = 64
"""How many tensors may cross in one step, each way."""

_NAME = re.compile(r"[a-z][a-z_]{0,39}")


class Send(keras.layers.Layer):  # type: ignore[misc]
    """Marks a tensor that is sent to the peer's `Receive` of the same name; in training its gradient comes back.

    Its output is its input, so what is sent may also be used further on this side. Where it is not, it must be an
    output of the model.

    Parameters
    ----------
    name
        As the peer's `Receive`: lower-case letters and underscores.

    Notes
    -----
    Reveals: its input to the peer, a row for each row that is trained or scored.
    """

    def __init__(self, name: str, **kwargs: Any) -> None:
        super().__init__(name=f"send_{_checked(name)}", **kwargs)
        self.cut_name = name

    def call(self, inputs: Any) -> Any:
        """Return `inputs`."""
        return inputs

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the shape of the input."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Return what makes such a layer again."""
        config: dict[str, Any] = {**super().get_config(), "name": self.cut_name}
        return config


class _Received(keras.layers.InputLayer):  # type: ignore[misc]
    """The input layer that stands for what the peer sends; `Receive` makes it."""


def Receive(name: str, width: int | Sequence[int], *, dtype: str = "float32") -> Any:  # noqa: N802 - beside `Send`
    """Return the tensor that the peer's `Send` of the same name sends, an input of this side's model.

    Parameters
    ----------
    name
        As the peer's `Send`: lower-case letters and underscores.
    width
        Items of one row, or the shape of one where it has several dimensions.
    dtype
        Of the items.

    Notes
    -----
    Reveals: in training, the loss's gradient with respect to it to the peer, row by row, which depends on the labels.
    """
    shape = (width,) if isinstance(width, int) else tuple(width)
    return _Received(shape=shape, dtype=dtype, name=f"receive_{_checked(name)}").output


def sends_of(model: keras.Model) -> dict[str, Any]:
    """Return cut name → the symbolic tensor that is sent."""
    found: dict[str, Any] = {}
    for layer in model.layers:
        if isinstance(layer, Send):
            if len(layer._inbound_nodes) != 1:
                raise NetworkInvalid(f"`Send` of `{layer.cut_name}` is called more than once; name each cut apart")
            _add(found, layer.cut_name, layer.output, "Send")
    return found


def receives_of(model: keras.Model) -> dict[str, Any]:
    """Return cut name → the symbolic tensor that is received."""
    found: dict[str, Any] = {}
    for layer in model.layers:
        if isinstance(layer, _Received):
            _add(found, layer.name.removeprefix("receive_"), layer.output, "Receive")
    return found


def cuts_of(tensors: Mapping[str, Any]) -> dict[str, Cut]:
    """Describe symbolic tensors by cut name.

    Raises
    ------
    NetworkInvalid
        One has a dimension of unknown size, or none at all.
    """
    cuts = {}
    for name, tensor in tensors.items():
        shape = tuple(tensor.shape[1:])
        if not shape or None in shape:
            raise NetworkInvalid(
                f"cut `{name}` has rows of shape {shape}; each row must have a known number of items, at least one"
            )
        cuts[name] = Cut(name, shape, str(tensor.dtype))
    return cuts


def _add(found: dict[str, Any], name: str, tensor: Any, what: str) -> None:
    if name in found:
        raise NetworkInvalid(f"two layers `{what}` are called `{name}`; name each cut apart")
    if len(found) >= MAX_CUTS:
        raise NetworkInvalid(f"more than {MAX_CUTS} layers `{what}`; concatenate what crosses together")
    found[name] = tensor


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        text = f"`{name}` is no name of a cut: up to 40 lower-case letters and underscores, a letter first"
        raise ConfigError(text, field="name")
    return name
