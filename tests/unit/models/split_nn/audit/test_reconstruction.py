"""How well features are rebuilt from what is sent, and that a penalty makes it harder."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from sklearn.linear_model import Ridge

from fedtasks.config import FeatureType
from fedtasks.models.split_nn.audit.reconstruction import metrics_of, rebuild
from fedtasks.models.split_nn.columns import NumericColumn
from fedtasks.models.split_nn.encoder import Encoder
from fedtasks.models.split_nn.features import Features
from fedtasks.models.split_nn.half import Half
from fedtasks.models.split_nn.joint import Joint
from fedtasks.models.split_nn.networks import perceptron
from fedtasks.models.split_nn.rows import Rows
from fedtasks.models.split_nn.settings import TrainSettings
from fedtasks.models.split_nn.targets import Targets

N = 2000
RNG = np.random.default_rng(3)
AGE, INCOME = RNG.normal(40, 9, N), RNG.gamma(2, 900, N)
CITY = np.array(["bern", "oslo", "rome"])[RNG.integers(0, 3, N)]
ROWS = pa.table({"age": AGE, "income": INCOME, "city": CITY})
KINDS = {"age": FeatureType.NUMERIC, "income": FeatureType.NUMERIC, "city": FeatureType.CATEGORICAL}
ENCODER = Encoder.fit(ROWS, KINDS)
NOISE = RNG.normal(size=(N, 3)).astype(np.float32)


def scaled(name: str) -> np.ndarray:
    column = next(each for each in ENCODER.numeric if each.name == name)
    return Encoder((column,), ()).matrix(ROWS)[:, 0]


def test_feature_that_is_sent_as_it_is_is_rebuilt_and_others_are_not() -> None:
    sent = np.concatenate([3 * scaled("age")[:, np.newaxis] - 1, NOISE], axis=1)
    found = rebuild(sent, ROWS, ENCODER)
    assert found[0].feature == "age"
    by_name = {each.feature: each for each in found}
    assert by_name["age"].ridge > 0.99
    assert by_name["income"].best < 0.05
    assert by_name["city"].figure == "auc"
    assert by_name["city"].best < 0.6


def test_ridge_explains_as_much_as_that_of_another_library() -> None:
    sent = NOISE + 0.7 * scaled("age")[:, np.newaxis]
    found = next(each for each in rebuild(sent, ROWS, ENCODER) if each.feature == "age")
    other = Ridge(1e-3 * N / 2).fit(sent[::2], scaled("age")[::2]).score(sent[1::2], scaled("age")[1::2])
    assert found.ridge == pytest.approx(other, abs=0.01)


def test_network_rebuilds_what_no_linear_map_does() -> None:
    sent = np.concatenate([np.abs(scaled("age"))[:, np.newaxis], np.sign(scaled("age"))[:, np.newaxis]], axis=1)
    found = next(each for each in rebuild(sent, ROWS, ENCODER) if each.feature == "age")
    assert found.network > found.ridge + 0.1
    assert found.network > 0.9
    assert found.best == found.network


def test_category_of_which_one_value_is_told_counts_as_told() -> None:
    sent = NOISE.copy()
    sent[CITY == "oslo", 0] += 9
    found = next(each for each in rebuild(sent, ROWS, ENCODER) if each.feature == "city")
    assert found.best > 0.99


@pytest.mark.parametrize("sent", [np.zeros((N, 4), np.float32), np.full((N, 4), 1e9, np.float32)])
def test_constant_embedding_rebuilds_nothing(sent: np.ndarray) -> None:
    assert {each.share for each in rebuild(sent, ROWS, ENCODER)} == {0}


def test_too_few_rows_and_no_features_say_nothing() -> None:
    assert rebuild(NOISE[:30], ROWS.slice(0, 30), ENCODER) == []
    assert rebuild(NOISE, ROWS, Encoder((), ())) == []


def test_metrics_name_the_feature_and_its_figure() -> None:
    found = rebuild(np.stack([scaled("age"), scaled("income")], axis=1), ROWS, ENCODER)
    metrics = metrics_of(found)
    assert set(metrics) == {"reconstruction.r2.age", "reconstruction.r2.income", "reconstruction.auc.city"}
    assert metrics["reconstruction.r2.income"] > 0.99


def test_embedding_that_is_penalised_gives_less_of_the_features_away() -> None:
    shares = []
    for weight in (0.0, 0.3):
        settings = TrainSettings(
            batch_size=200, embedding=4, hidden=(8,), top=(4,), learning_rate=0.01, embedding_privacy=weight
        )
        features, own = Features(ENCODER), Features(Encoder((NumericColumn("nothing"),), ()))
        leader = Half(perceptron.leader(own, settings, 1), has_label=True)
        follower = Half(perceptron.follower(features, settings, 2), has_label=False)
        joint, rows = Joint(leader, follower), Rows(features.arrays(ROWS))
        labels = (AGE > 40).astype(np.float32)[:, np.newaxis]
        nothing = np.zeros((N, 1), np.float32)
        for epoch in range(15):
            for batch in rows.batches(epoch, settings):
                joint.step({"matrix": nothing[batch.places]}, batch.features, Targets(labels[batch.places]))
        found = rebuild(follower.infer(0, rows.features)["activation"].numpy(), ROWS, ENCODER)
        shares.append({each.feature: each.share for each in found})
    plain, penalised = shares
    # What the label does not depend on goes; what it does depend on stays, or nothing would be learnt.
    assert penalised["income"] < plain["income"] - 0.3
    assert penalised["age"] > penalised["income"] + 0.2
