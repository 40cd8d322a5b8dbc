"""Attention on a sequence, the follower's half: what of this user's history matters for the item that is shown.

The leader sends a vector of the item first. So cuts go both ways here: the follower's answer depends on what it was
asked about, as in a deep interest network.
"""

import keras

from fedtasks import Receive, Send


def network(features, settings):
    item = Receive("item", 8)
    history = features.sequence("history")
    seen = keras.layers.Embedding(history.size, 8)(history.ids)  # (n, length, 8)

    # How well each item that was seen fits the one that is shown; 0, the padding, counts for nothing.
    asked = keras.layers.RepeatVector(history.length)(item)
    pairs = keras.layers.Concatenate()([seen, asked, seen * asked])
    fit = keras.layers.Dense(1)(keras.layers.Dense(16, "relu")(pairs))[:, :, 0]
    is_there = keras.ops.cast(history.ids > 0, "float32")
    interest = keras.layers.Dot(axes=1)([seen, fit * is_there])

    user = keras.layers.Concatenate()([interest, features.numbers()])
    model = keras.Model([*features.inputs, item], Send("interest")(keras.layers.Dense(16)(user)))
    model.compile(optimizer=keras.optimizers.Adam(settings.learning_rate))
    return model
