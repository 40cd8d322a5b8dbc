"""DeepFM, the leader's half: pairs within each party, pairs across both, and a deep network.

Source: Guo et al., DeepFM: A Factorization-Machine based Neural Network for CTR Prediction, 2017.
"""

import keras

from fedtasks import Receive


def network(features, settings):
    their_total, their_pairs, their_deep = Receive("total", 8), Receive("pairs", 1), Receive("deep", 8)
    ids = [features.category(name) for name in features.categorical]
    vectors = [keras.layers.Embedding(each.size, 8)(each.ids) for each in ids]
    weights = [keras.layers.Embedding(each.size, 1)(each.ids) for each in ids]
    numbers = features.numbers()
    vectors.append(keras.layers.Dense(8, use_bias=False)(numbers))
    weights.append(keras.layers.Dense(1)(numbers))

    total = keras.layers.Add()(vectors)
    squares = keras.layers.Add()([keras.ops.square(vector) for vector in vectors])
    within = keras.ops.sum(keras.ops.square(total) - squares, axis=1, keepdims=True) / 2
    across = keras.layers.Dot(axes=1)([total, their_total])

    deep = keras.layers.Dense(32, "relu")(keras.layers.Concatenate()([*vectors, their_deep]))
    logit = keras.layers.Add()([within, across, their_pairs, *weights, keras.layers.Dense(1)(deep)])
    model = keras.Model([*features.inputs, their_total, their_pairs, their_deep], logit)
    model.compile(
        optimizer=keras.optimizers.Adam(settings.learning_rate),
        loss=keras.losses.BinaryCrossentropy(from_logits=True),
    )
    return model
