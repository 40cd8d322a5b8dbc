"""The contract of an algorithm: what it declares, which labels it takes, and whose halves are of one training."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fedtasks.config import LabelKind
from fedtasks.errors import ConfigError, LabelInvalid
from fedtasks.models.contract import Card, algorithm, algorithms

CARD = Card("any", "run", "leader", "order", {}, "a", "b")


def test_algorithms_of_fedtasks_are_there_by_name() -> None:
    assert {"split_nn", "secureboost"} <= algorithms().keys()


def test_algorithm_that_is_not_installed_is_refused_with_those_that_are() -> None:
    with pytest.raises(ConfigError, match=r"`forest` is none of: .*secureboost"):
        algorithm("forest")


def test_label_of_another_kind_is_refused_with_the_algorithms_that_predict_it() -> None:
    algorithm("secureboost").check_label(LabelKind.NUMBER)
    of_two = replace(algorithm("split_nn"), name="of_two", labels=(LabelKind.BINARY,))
    with pytest.raises(LabelInvalid, match=r"`of_two` predicts a label of kind binary, .* number; .*: .*secureboost"):
        of_two.check_label(LabelKind.NUMBER)


def test_pairing_is_equal_on_both_sides_and_differs_between_trainings() -> None:
    follower = replace(CARD, role="follower", digest="b", peer_digest="a")
    assert CARD.pairing == follower.pairing != replace(follower, digest="c").pairing
