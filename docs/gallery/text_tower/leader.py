"""A text tower, the leader's half: one of several classes, such as what was bought after a search.

The dataset's label is of kind `classes`; there must be as many outputs as it has classes.
"""

import keras

from fedtasks import Receive

CLASSES = 3


def network(features, settings):
    text = Receive("text", 16)
    both = keras.layers.Concatenate()([text, features.matrix()])
    hidden = keras.layers.Dense(32, "relu")(both)
    model = keras.Model([*features.inputs, text], keras.layers.Dense(CLASSES)(hidden))
    # The rate falls smoothly to nothing over a thousand steps; where training resumes, it goes on where it was.
    rate = keras.optimizers.schedules.CosineDecay(settings.learning_rate, 1000)
    model.compile(
        optimizer=keras.optimizers.Adam(rate),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.SparseTopKCategoricalAccuracy(2, name="top_2")],
    )
    return model
