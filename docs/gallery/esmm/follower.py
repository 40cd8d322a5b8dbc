"""Two labels, the follower's half: one embedding of its features, from which the leader predicts both."""

import keras

from fedtasks import Send


def network(features, settings):
    parts = [features.numbers()]
    for name in features.categorical:
        category = features.category(name)
        parts.append(keras.layers.Embedding(category.size, 8)(category.ids))
    hidden = keras.layers.Dense(32, "relu")(keras.layers.Concatenate()(parts))
    model = keras.Model(features.inputs, Send("user")(keras.layers.Dense(16)(hidden)))
    model.compile(optimizer=keras.optimizers.Adam(settings.learning_rate))
    return model
