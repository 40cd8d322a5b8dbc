"""A cut close to the label, the leader's half: one layer joins both sides' summaries."""

import keras

from fedtasks import Receive


def network(features, settings):
    summary = Receive("summary", 4)
    rows = features.matrix()
    for width in (32, 16):
        rows = keras.layers.Dense(width, "relu", kernel_regularizer=keras.regularizers.L2(settings.l2))(rows)
    own = keras.layers.Dense(4)(rows)
    logit = keras.layers.Dense(1)(keras.layers.Concatenate()([own, summary]))
    model = keras.Model([*features.inputs, summary], logit)
    model.compile(
        optimizer=keras.optimizers.Adam(settings.learning_rate),
        loss=keras.losses.BinaryCrossentropy(from_logits=True),
    )
    return model
