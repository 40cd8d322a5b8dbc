"""Ratings, the leader's half: matrix factorisation, where one party knows the users and the other what they liked.

The label says whether a user liked a movie: their vectors point the same way, or both lean to good ratings anyhow.

Source: Koren et al., Matrix Factorization Techniques for Recommender Systems, 2009.
"""

import keras

from fedtasks import Receive


def network(features, settings):
    taste, leaning = Receive("taste", 16), Receive("leaning", 1)
    movie = features.category("movie")
    penalty = keras.regularizers.L2(1e-4)
    kind = keras.layers.Embedding(movie.size, 16, embeddings_regularizer=penalty)(movie.ids)
    quality = keras.layers.Embedding(movie.size, 1)(movie.ids)
    fit = keras.layers.Dot(axes=1)([taste, kind])
    level = keras.layers.Dense(1, kernel_initializer="ones")(keras.layers.Add()([fit, leaning, quality]))
    model = keras.Model([*features.inputs, taste, leaning], level)
    model.compile(
        optimizer=keras.optimizers.Adam(settings.learning_rate),
        loss=keras.losses.BinaryCrossentropy(from_logits=True),
    )
    return model
