"""The other half of a network, made up: for trials, since the real one is the peer's own."""

from __future__ import annotations

from collections.abc import Mapping

from fedtasks.errors import NetworkInvalid
from fedtasks.models.split_nn.cut import Cut
from fedtasks.models.split_nn.half import Half

_HEAD = '''"""A counterpart made up for a trial: dense layers that receive what is sent, and send what is received."""

import keras

from fedtasks import Receive, Send


def network(features, settings):
    rows = features.matrix()
    received, outputs = {}, []
'''


def counterpart(half: Half) -> str:
    """Return the text of a model file that fits a half: a dense tower for each cut.

    Raises
    ------
    NetworkInvalid
        No half fits: this one has the label and receives nothing, or sends what nobody could use any more.
    """
    if not half.receives and half.has_label:
        raise NetworkInvalid("the half with the label receives nothing, so no follower can take part: add a `Receive`")
    takes = _takes(half)
    useless = half.sends.keys() - {sent for of_cut in takes.values() for sent in of_cut}
    if half.has_label and useless:
        raise NetworkInvalid(
            f"the half with the label sends `{min(useless)}` after it has received all that it receives, so nothing "
            "can come of it: send it earlier, or leave it out"
        )
    lines = [
        f"    received[{name!r}] = Receive({name!r}, {cut.shape}, dtype={cut.dtype!r})"
        for name, cut in half.sends.items()
    ]
    for name, of_cut in takes.items():
        lines += _sent(half.receives[name], of_cut)
    loss = ""
    if not half.has_label:
        parts = ["rows", *(_flat(name) for name in half.sends)]
        lines.append(f"    outputs.insert(0, keras.layers.Dense(1)({_hidden(parts)}))")
        loss = ", loss=keras.losses.BinaryCrossentropy(from_logits=True)"
    lines += [
        "    model = keras.Model([*features.inputs, *received.values()], outputs)",
        f"    model.compile(optimizer=keras.optimizers.Adam(settings.learning_rate){loss})",
        "    return model",
    ]
    return _HEAD + "\n".join(lines) + "\n"


def _takes(half: Half) -> Mapping[str, list[str]]:
    """Return each cut that a half receives → those that it may be computed from, so that no cuts wait in a circle."""
    takes: dict[str, list[str]] = {name: [] for name in half.receives}

    def waits_for(sent: str) -> set[str]:
        found = set(half.needs[sent])
        for name in half.needs[sent]:
            for other in takes[name]:
                found |= waits_for(other)
        return found

    for sent in sorted(half.sends, key=lambda name: len(half.needs[name])):
        for name in set(takes) - waits_for(sent):
            takes[name].append(sent)
    return takes


def _sent(cut: Cut, takes: list[str]) -> list[str]:
    tensor = f"keras.layers.Dense({cut.width})({_hidden(['rows', *map(_flat, takes)])})"
    if len(cut.shape) > 1:
        tensor = f"keras.layers.Reshape({cut.shape})({tensor})"
    if cut.dtype != "float32":
        tensor = f"keras.ops.cast({tensor}, {cut.dtype!r})"
    return [f"    outputs.append(Send({cut.name!r})({tensor}))"]


def _hidden(parts: list[str]) -> str:
    joined = f"keras.layers.Concatenate()([{', '.join(parts)}])" if len(parts) > 1 else parts[0]
    return f'keras.layers.Dense(32, "relu")({joined})'


def _flat(name: str) -> str:
    return f'keras.ops.cast(keras.layers.Flatten()(received[{name!r}]), "float32")'
