"""Attention on a sequence, the leader's half: sends what is shown, and receives what the user's history says of it.

Source: Zhou et al., Deep Interest Network for Click-Through Rate Prediction, 2018.
"""

import keras

from fedtasks import Receive, Send


def network(features, settings):
    interest = Receive("interest", 16)
    item = features.category("item")
    shown = keras.layers.Embedding(item.size, 8)(item.ids)
    both = keras.layers.Concatenate()([shown, interest, features.numbers()])
    logit = keras.layers.Dense(1)(keras.layers.Dense(32, "relu")(both))
    # What is sent is used further on this side too, and is an output beside the prediction.
    model = keras.Model([*features.inputs, interest], [logit, Send("item")(shown)])
    model.compile(
        optimizer=keras.optimizers.Adam(settings.learning_rate),
        loss=keras.losses.BinaryCrossentropy(from_logits=True),
    )
    return model
