"""Ratings, the follower's half: a vector and a leaning of each user."""

import keras

from fedtasks import Send


def network(features, settings):
    user = features.category("user")
    penalty = keras.regularizers.L2(1e-4)
    taste = keras.layers.Embedding(user.size, 16, embeddings_regularizer=penalty)(user.ids)
    leaning = keras.layers.Embedding(user.size, 1)(user.ids)
    model = keras.Model(features.inputs, [Send("taste")(taste), Send("leaning")(leaning)])
    model.compile(optimizer=keras.optimizers.Adam(settings.learning_rate))
    return model
