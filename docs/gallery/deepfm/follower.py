"""DeepFM, the follower's half: a vector for each of its fields, and a deep tower on them.

A factorisation machine adds up the products of all pairs of fields. Of pairs within this party one number a row is
enough; for pairs of one field here and one there, the sum of the vectors is.
"""

import keras

from fedtasks import Send


def network(features, settings):
    ids = [features.category(name) for name in features.categorical]
    vectors = [keras.layers.Embedding(each.size, 8)(each.ids) for each in ids]
    weights = [keras.layers.Embedding(each.size, 1)(each.ids) for each in ids]
    numbers = features.numbers()
    vectors.append(keras.layers.Dense(8, use_bias=False)(numbers))
    weights.append(keras.layers.Dense(1, use_bias=False)(numbers))

    total = keras.layers.Add()(vectors)
    # Σ over pairs of ⟨v, w⟩ = ½ (|Σ v|² − Σ |v|²)
    squares = keras.layers.Add()([keras.ops.square(vector) for vector in vectors])
    pairs = keras.ops.sum(keras.ops.square(total) - squares, axis=1, keepdims=True) / 2
    own = keras.layers.Add()([pairs, *weights])

    deep = keras.layers.Dense(32, "relu")(keras.layers.Concatenate()(vectors))
    deep = keras.layers.Dense(8)(deep)
    model = keras.Model(features.inputs, [Send("total")(total), Send("pairs")(own), Send("deep")(deep)])
    model.compile(optimizer=keras.optimizers.Adam(settings.learning_rate))
    return model
