"""What a measured leak means, in words."""

from __future__ import annotations

import math

import pytest

from fedtasks.reports.leaks import leak_sentence
from fedtasks.store import MetricRow

EPOCHS = [
    {"norm_auc": 0.92, "direction_auc": 0.99, "spectral_auc": 0.995, "auc": 0.995, "accuracy": 0.98765},
    {"norm_auc": 0.90, "direction_auc": 1.0, "spectral_auc": 1.0, "auc": 1.0, "accuracy": 1.0},
    {"norm_auc": 0.87, "direction_auc": 1.0, "spectral_auc": 1.0, "auc": 1.0, "accuracy": 1.0},
]


def rows(*epochs: dict[str, float], task: str = "train") -> list[MetricRow]:
    return [
        MetricRow("r", task, f"label_leak_{name}", step, value, 0)
        for step, epoch in enumerate(epochs, start=1)
        for name, value in {**epoch, "guess_accuracy": 0.7788}.items()
    ]


def test_leak_names_share_attack_epoch_and_what_guessing_would_read() -> None:
    assert leak_sentence(rows(*EPOCHS), "shop") == (
        "shop can read 100 % of the labels of train rows from the gradients (spectral attack, epoch 2); "
        "guessing is right for 77.8 %"
    )


def test_share_is_rounded_down_so_that_all_is_said_of_all_only() -> None:
    assert "98.7 % of the labels" in leak_sentence(rows(EPOCHS[0]), "shop")
    assert "99.9 % of the labels" in leak_sentence(rows({**EPOCHS[1], "accuracy": 0.99999}), "shop")


def test_leak_of_an_earlier_training_is_told_as_such() -> None:
    now = {**EPOCHS[0], "auc": 1.0, "accuracy": 1.0}
    assert "(measured in a training that this one goes on from)" in leak_sentence(rows(now), "shop")


def test_of_several_trainings_the_worst_is_told() -> None:
    assert "epoch 2" in leak_sentence([*rows(EPOCHS[0], task="a"), *rows(*EPOCHS, task="b")], "shop")


@pytest.mark.parametrize("name", ["auc", "accuracy"])
def test_without_a_finite_figure_nothing_is_said(name: str) -> None:
    assert leak_sentence(rows({**EPOCHS[0], name: math.nan}), "shop") == ""
    assert leak_sentence([MetricRow("r", "train", "loss", 1, 0.5, 0)], "shop") == ""
