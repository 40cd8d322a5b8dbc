"""Wide and deep, the follower's half: what this party knows of a user, once by rote and once in general.

The *wide* part learns one number for each category: what is true of just this user. The *deep* part learns an embedding
of each, from which dense layers generalise to users that are seldom seen.
"""

import keras

from fedtasks import Send


def network(features, settings):
    wide, deep = [], [features.numbers()]
    for name in features.categorical:
        category = features.category(name)
        wide.append(keras.layers.Embedding(category.size, 1)(category.ids))
        deep.append(keras.layers.Embedding(category.size, 8)(category.ids))
    rote = Send("wide")(keras.layers.Add()(wide))
    general = keras.layers.Dense(32, "relu")(keras.layers.Concatenate()(deep))
    general = Send("deep")(keras.layers.Dense(16)(general))
    model = keras.Model(features.inputs, [rote, general])
    model.compile(optimizer=keras.optimizers.Adam(settings.learning_rate))
    return model
