"""What a measured leak means, in words."""

from __future__ import annotations

import math

import pytest

from fedtasks.reports.leaks import leak_sentence, leak_text, rebuilt_sentence
from fedtasks.reports.ledger import ledger
from fedtasks.store import DisclosureRow, MetricRow

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


@pytest.mark.parametrize(
    ("attack", "place"),
    [
        ("averaging", "gradients summed over epochs 1 to 3"),
        ("completion", "model completion with 100 known labels, after epoch 3"),
        ("hint", "hint attack, epoch 3"),
    ],
)
def test_leak_by_an_attack_on_several_epochs_says_of_which(attack: str, place: str) -> None:
    now = {f"{attack}_auc": 0.99, "auc": 0.99, "accuracy": 0.98}
    assert f"({place});" in leak_sentence(rows({"norm_auc": 0.6, "auc": 0.6, "accuracy": 0.8}, {}, now), "shop")


def test_leak_of_several_classes_and_of_a_number_says_what_is_read() -> None:
    told = {"accuracy": 0.9, "guess": 0.5, "attack": "norm", "epoch": 1}
    assert "of 90 % of the train rows whether they are of one class" in leak_text("shop", **told, classes=4)
    assert "on which side of the median their label lies" in leak_text("shop", **told, classes=0)
    now = {**EPOCHS[0], "classes": 3.0}
    assert "whether they are of one class" in leak_sentence(rows(now), "shop")


def test_attack_that_reads_no_more_than_guessing_is_told_so() -> None:
    said = leak_sentence(rows({"norm_auc": 0.52, "auc": 0.52, "accuracy": 0.7789}), "shop")
    assert said == (
        "the best attack reads no more labels of train rows from the gradients than guessing does "
        "(norm attack, epoch 1), which is right for 77.8 %; what shop may learn by others is not measured"
    )


def test_ledger_says_what_was_measured_of_gradients_alone_at_every_cut() -> None:
    sent = [DisclosureRow("r", "train", 1, name, 1, 10, 99) for name in ("gradient", "gradient user", "activation")]
    entries = {entry.name: entry.learns for entry in ledger(sent, 0, measured={"label_leak_": "shop can read all"})}
    assert entries["gradient"].endswith(". Measured: shop can read all")
    assert entries["gradient user"].endswith(". Measured: shop can read all")
    assert "Measured" not in entries["activation"]
    unmeasured = ledger(sent, 0, measured={"label_leak_": ""})
    assert not any("Measured" in entry.learns for entry in unmeasured)


def test_features_that_are_rebuilt_best_are_named_numbers_and_categories_alike() -> None:
    figures = {"r2.age": 0.9, "auc.city": 0.97, "r2.visits.per_day": 0.1, "auc.sex": 0.5, "r2.a": 0.2, "r2.b": 0.3}
    metrics = [MetricRow("r", "train", f"reconstruction.{name}", 0, value, 0) for name, value in figures.items()]
    said = rebuilt_sentence([*metrics, MetricRow("r", "train", "loss", 1, 0.5, 0)], "bank")
    assert "from what bank has received" in said
    assert "city (AUC 0.97), age (R² 0.90), b (R² 0.30), a (R² 0.20), visits.per_day (R² 0.10);" in said
    assert "sex" not in said
    assert rebuilt_sentence([MetricRow("r", "train", "loss", 1, 0.5, 0)], "bank") == ""
