"""Negatives are sampled by their ids, and weights make up for those that are left out."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from fedtasks.crypto.hashing import Texts
from fedtasks.errors import ConfigError
from fedtasks.join.sampling import kept

N_ROWS = 200_000
RNG = np.random.default_rng(3)
TAGS = RNG.integers(0, 256, (N_ROWS, 16), dtype=np.uint8)
LABELS = (RNG.random(N_ROWS) < 0.05).astype(np.int8)
WEIGHTS = RNG.random(N_ROWS) + 0.5


def test_sample_keeps_all_positives_and_the_share_of_negatives_within_noise() -> None:
    found = kept(TAGS, LABELS, 0.1, 7)
    assert found.mask[LABELS == 1].all()
    negatives = int((LABELS == 0).sum())
    noise = 5 * np.sqrt(negatives * 0.1 * 0.9)
    assert abs(int(found.mask[LABELS == 0].sum()) - 0.1 * negatives) < noise


def test_sample_of_a_seed_is_that_of_each_row_alone() -> None:
    whole = kept(TAGS, LABELS, 0.1, 7).mask
    order = RNG.permutation(N_ROWS)
    assert (kept(TAGS[order], LABELS[order], 0.1, 7).mask == whole[order]).all()
    assert (kept(TAGS[:1000], LABELS[:1000], 0.1, 7).mask == whole[:1000]).all()


def test_sample_of_another_seed_is_another() -> None:
    negatives = LABELS == 0
    one, other = (kept(TAGS, LABELS, 0.5, seed).mask[negatives] for seed in (7, -7))
    assert 0.49 < (one == other).mean() < 0.51


def test_sample_of_a_smaller_share_is_within_that_of_a_greater() -> None:
    less, more = (kept(TAGS, LABELS, share, 7).mask for share in (0.1, 0.3))
    assert more[less].all()
    assert more.sum() > less.sum()


def test_weights_make_up_for_what_is_left_out() -> None:
    found = kept(TAGS, LABELS, 0.1, 7, WEIGHTS)
    labels = LABELS[found.mask]
    assert (found.weights[labels == 1] == WEIGHTS[LABELS == 1]).all()
    assert np.allclose(found.weights[labels == 0], 10 * WEIGHTS[found.mask][labels == 0])
    full = np.average(LABELS, weights=WEIGHTS)
    assert np.average(labels, weights=found.weights) == pytest.approx(full, rel=0.05)


def test_weighted_auc_of_a_sample_is_that_of_all_rows_within_noise() -> None:
    scores = LABELS + RNG.normal(size=N_ROWS)
    found = kept(TAGS, LABELS, 0.1, 7, WEIGHTS)
    full = roc_auc_score(LABELS, scores, sample_weight=WEIGHTS)
    sampled = roc_auc_score(LABELS[found.mask], scores[found.mask], sample_weight=found.weights)
    assert sampled == pytest.approx(full, abs=0.01)


def test_sample_of_all_keeps_weights_as_they_are() -> None:
    found = kept(TAGS, LABELS, 1.0, 7, WEIGHTS)
    assert found.mask.all()
    assert (found.weights == WEIGHTS).all()
    assert (kept(TAGS, LABELS, 1.0, 7).weights == 1).all()


def test_sample_by_texts_of_ids_goes_by_the_text() -> None:
    texts = [f"event-{number}".encode() for number in range(1000)]
    none = np.zeros(1000, np.int8)
    whole = kept(Texts.of(texts), none, 0.5, 1).mask
    assert (kept(Texts.of(texts[::-1]), none, 0.5, 1).mask == whole[::-1]).all()
    assert 400 < whole.sum() < 600


@pytest.mark.parametrize("labels", [[0, 1, 2], [0.0, 1.0, float("nan")], [0, -1, 1]])
def test_sample_of_labels_that_are_not_binary_is_refused(labels: list[float]) -> None:
    with pytest.raises(ConfigError, match="labels must be 0 or 1"):
        kept(TAGS[:3], np.array(labels), 0.5, 7)


@pytest.mark.parametrize("share", [0.0, -0.1, 1.5, float("nan")])
def test_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(ConfigError, match="above 0 and at most 1"):
        kept(TAGS, LABELS, share, 7)
