"""A cut close to the follower's features, the leader's half: three layers between the cut and the logit."""

import keras

from fedtasks import Receive


def network(features, settings):
    first = Receive("first", 32)
    penalty = keras.regularizers.L2(settings.l2)
    own = keras.layers.Dense(32, "relu", kernel_regularizer=penalty)(features.matrix())
    both = keras.layers.Concatenate()([own, first])
    for width in (32, 16):
        both = keras.layers.Dense(width, "relu", kernel_regularizer=penalty)(both)
    logit = keras.layers.Dense(1, kernel_regularizer=penalty)(both)
    model = keras.Model([*features.inputs, first], logit)
    model.compile(
        optimizer=keras.optimizers.Adam(settings.learning_rate),
        loss=keras.losses.BinaryCrossentropy(from_logits=True),
    )
    return model
