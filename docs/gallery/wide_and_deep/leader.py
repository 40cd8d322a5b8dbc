"""Wide and deep, the leader's half: adds up both sides' wide parts, and a deep network on both sides' embeddings.

Source: Cheng et al., Wide & Deep Learning for Recommender Systems, 2016.
"""

import keras

from fedtasks import Receive


def network(features, settings):
    rote, general = Receive("wide", 1), Receive("deep", 16)
    wide, deep = [rote], [general, features.numbers()]
    for name in features.categorical:
        category = features.category(name)
        wide.append(keras.layers.Embedding(category.size, 1)(category.ids))
        deep.append(keras.layers.Embedding(category.size, 8)(category.ids))
    hidden = keras.layers.Dense(32, "relu")(keras.layers.Concatenate()(deep))
    logit = keras.layers.Add()([*wide, keras.layers.Dense(1)(hidden)])
    model = keras.Model([*features.inputs, rote, general], logit)
    model.compile(
        optimizer=keras.optimizers.Adam(settings.learning_rate),
        loss=keras.losses.BinaryCrossentropy(from_logits=True),
        metrics=[keras.metrics.BinaryAccuracy(threshold=0.0)],  # of logits
    )
    return model
