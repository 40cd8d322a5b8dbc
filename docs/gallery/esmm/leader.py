"""Two labels, the leader's half: clicks, and conversions, which only follow a click.

Who converts has clicked: P(conversion) = P(click) · P(conversion | click). So both are learnt from everybody who was
shown something, and the few conversions profit from the many clicks. In party.yaml the click is the `label`, and
`converted` is one of `further_labels`.

Source: Ma et al., Entire Space Multi-Task Model, 2018.
"""

import keras

from fedtasks import Receive


def network(features, settings):
    user = Receive("user", 16)
    parts = [user, features.numbers()]
    for name in features.categorical:
        category = features.category(name)
        parts.append(keras.layers.Embedding(category.size, 8)(category.ids))
    shared = keras.layers.Concatenate()(parts)
    click = keras.layers.Dense(1, "sigmoid")(keras.layers.Dense(32, "relu")(shared))
    after_click = keras.layers.Dense(1, "sigmoid")(keras.layers.Dense(32, "relu")(shared))
    converted = keras.layers.Multiply()([click, after_click])
    model = keras.Model([*features.inputs, user], {"label": click, "converted": converted})
    model.compile(
        optimizer=keras.optimizers.Adam(settings.learning_rate),
        loss={"label": "binary_crossentropy", "converted": "binary_crossentropy"},
        loss_weights={"label": 1.0, "converted": 2.0},
        metrics={"converted": [keras.metrics.AUC(name="auc")]},
    )
    return model
