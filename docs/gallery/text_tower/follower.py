"""A text tower, the follower's half: what somebody searched for, as a sequence of token ids."""

import keras

from fedtasks import Send


def network(features, settings):
    query = features.sequence("query")
    tokens = keras.layers.Embedding(query.size, 16)(query.ids)  # (n, length, 16)
    # Neighbouring words together; then the strongest sign of each in the whole text, whatever its place.
    tokens = keras.layers.Conv1D(16, 3, padding="same", activation="relu")(tokens)
    text = keras.layers.GlobalMaxPooling1D()(tokens)
    text = keras.layers.Dropout(0.1)(text)
    model = keras.Model(features.inputs, Send("text")(keras.layers.Dense(16)(text)))
    model.compile(optimizer=keras.optimizers.AdamW(settings.learning_rate, weight_decay=1e-4))
    return model
