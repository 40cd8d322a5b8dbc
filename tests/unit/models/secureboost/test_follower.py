"""A follower under a leader that breaks the rules: no more trees than agreed, and few rows' bins are told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from fedtasks.crypto.packing import Slots
from fedtasks.crypto.paillier import generate_key
from fedtasks.errors import ProtocolViolated
from fedtasks.models.secureboost import messages, sampling
from fedtasks.models.secureboost.follower_tree import _numbered
from fedtasks.models.secureboost.frontier import to_bits
from fedtasks.models.secureboost.noise import SumNoise
from fedtasks.models.secureboost.settings import TrainSettings
from fedtasks.wire.v1.secureboost_pb2 import Candidates, NodeSplit, TreeStart
from tests.unit.models.secureboost.boosting import PRECISION
from tests.unit.models.secureboost.hostile import HostileLeader, Pair, attack, inner_rows

N_ROWS = 320
KEY = generate_key(2048)
SETTINGS = TrainSettings(trees=5, depth=2, bins=16, first_tree="both", noise_rows=0)


@pytest.fixture(autouse=True)
def one_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make keys but once."""
    monkeypatch.setattr("fedtasks.encrypted.cipher.generate_key", lambda _: KEY)


def follower_rows(n: int = N_ROWS) -> pa.Table:
    rng = np.random.default_rng(5)
    return pa.table({"income": rng.normal(size=n), "visits": rng.integers(0, 9, n).astype(float)})


def honest(n: int = N_ROWS) -> Pair:
    """Return gradients as of a first tree."""
    return np.where(np.arange(n) % 3 == 0, -(1 << 21), 1 << 21), np.full(n, 1 << 20)


# ----------------------------------------------------------------------------------------------- crafted gradients
def powers(settings: TrainSettings, lowest: int) -> list[tuple[int, int]]:
    """Return pairs of which every sum says which of them it is made of: powers of two in one part or the other."""
    slots = slots_for(settings)
    first_bits = slots.bits(settings.rows_in_sums(N_ROWS)) - slots.second_bits
    # The highest bit of the first part is its sign.
    first = [(1 << bit if bit < first_bits - 1 else -(1 << bit), 0) for bit in range(lowest, first_bits)]
    return first + [(0, 1 << bit) for bit in range(lowest, slots.second_bits)]


def slots_for(settings: TrainSettings) -> Slots:
    return Slots.of(settings.rows_in_sums(N_ROWS), settings.key_bits, settings.precision)


def rows_read(settings: TrainSettings, *, lowest: int) -> int:
    """Return of how many rows a leader reads which sums they are in, by powers of two from `2**lowest` on.

    Sums are compared as sets of rows, as the leader does not know their order.
    """
    table = follower_rows()
    truth = inner_rows(table, settings)
    pairs = np.array(powers(settings, lowest))
    most = settings.noise_rows << slots_for(settings).precision
    n_read = 0

    def script(leader: HostileLeader) -> None:
        nonlocal n_read
        for tree in range(settings.trees):
            targets = np.arange(tree * len(pairs), min((tree + 1) * len(pairs), N_ROWS))
            crafted = np.zeros((N_ROWS, 2), np.int64)
            crafted[targets] = pairs[: len(targets)]
            sums = np.stack(leader.sums_of(tree, (crafted[:, 0], crafted[:, 1])), axis=1) - most
            # Rounded to the nearest number that they may be without noise.
            rounded = (sums + ((1 << lowest) >> 1)) >> lowest << lowest
            weights = pairs[: len(targets)]
            found = np.where(weights[:, 0] != 0, rounded[:, :1] & np.abs(weights[:, 0]), rounded[:, 1:] & weights[:, 1])
            n_read += n_columns_alike(found != 0, truth[:, targets])
        leader.end(settings.trees)

    attack(table, settings, script, encrypted=True)
    return n_read


def n_columns_alike(found: np.ndarray, truth: np.ndarray) -> int:
    """Return how many columns are equal once the lines of both matrices are sorted."""
    ours, theirs = (each[np.lexsort(each.T)] for each in (found, truth))
    return int((ours == theirs).all(axis=0).sum())


def test_crafted_gradients_without_noise_tell_the_bins_of_every_row() -> None:
    assert rows_read(SETTINGS, lowest=0) == N_ROWS


@pytest.mark.parametrize(("noise_rows", "per_tree"), [(1, 17), (16, 9)])
def test_crafted_gradients_above_noise_tell_no_more_rows_than_are_documented(noise_rows: int, per_tree: int) -> None:
    settings = replace(SETTINGS, trees=1, noise_rows=noise_rows)
    lowest = slots_for(settings).precision + noise_rows.bit_length()
    assert len(powers(settings, lowest)) == per_tree
    for each in (0, lowest):
        assert rows_read(settings, lowest=each) <= per_tree


def test_sums_over_the_same_rows_have_the_same_noise_and_others_another() -> None:
    settings = replace(SETTINGS, noise_rows=1)
    table = follower_rows()
    # The same column twice: each sum is asked for twice.
    table = table.append_column("again", table["income"])
    zeros = (np.zeros(N_ROWS, np.int64), np.zeros(N_ROWS, np.int64))
    seen: list[list[tuple[int, int]]] = []

    def script(leader: HostileLeader) -> None:
        seen.extend(list(zip(*map(np.ndarray.tolist, leader.sums_of(tree, zeros)), strict=True)) for tree in (0, 1))
        leader.end(2)

    attack(table, settings, script)
    n_different = len({row.tobytes() for row in inner_rows(table, settings)})
    assert [len(set(of_tree)) for of_tree in seen] == [n_different, n_different]
    assert len(inner_rows(table, settings)) > n_different
    # The second column's sums are those of the first one: each is sent once.
    assert [len(of_tree) for of_tree in seen] == [n_different, n_different]
    assert not set(seen[0]) & set(seen[1])


def test_sets_are_numbered_as_they_first_occur() -> None:
    number, is_distinct = _numbered(np.array([5, 7, 5, 0, 7, -1]))

    assert number.tolist() == [0, 1, 0, 2, 1, 3]
    assert is_distinct.tolist() == [True, True, False, True, False, True]


def test_sets_with_the_same_sum_of_one_mark_have_different_names() -> None:
    sums = np.array([0, 1, 2**51, 2**52 - 1])
    first, second = (each.ravel() for each in np.meshgrid(sums, sums))

    assert len(set(SumNoise.names(first, second).tolist())) == 16


def test_noise_is_spread_over_its_range() -> None:
    settings = replace(SETTINGS, noise_rows=3)
    most = 3 << PRECISION
    zeros = (np.zeros(N_ROWS, np.int64), np.zeros(N_ROWS, np.int64))
    seen: list[int] = []

    def script(leader: HostileLeader) -> None:
        for tree in range(5):
            seen.extend(np.concatenate(leader.sums_of(tree, zeros)).tolist())
        leader.end(5)

    attack(follower_rows(), settings, script)
    noise = np.array(seen) / most
    assert noise.min() >= 0
    assert noise.max() <= 2
    assert np.histogram(noise, bins=4, range=(0, 2))[0].min() > len(noise) / 8


# ------------------------------------------------------------------------------------------- more than was agreed on
def trees(count: int) -> Callable[[HostileLeader], None]:
    def script(leader: HostileLeader) -> None:
        for tree in range(count):
            leader.sums_of(tree, honest())
        leader.end(count)

    return script


@pytest.mark.parametrize(("rounds", "per_round"), [(1, 1), (2, 1), (1, 3), (2, 2)])
def test_follower_grows_no_more_trees_than_settings_say(rounds: int, per_round: int) -> None:
    settings = replace(SETTINGS, trees=rounds, trees_per_round=per_round)
    agreed = rounds * per_round
    assert attack(follower_rows(), settings, trees(agreed)) == agreed
    with pytest.raises(ProtocolViolated, match=f"begins tree {agreed + 1} of {agreed}"):
        attack(follower_rows(), settings, trees(agreed + 1))


def test_follower_counts_trees_in_which_it_takes_no_part() -> None:
    def script(leader: HostileLeader) -> None:
        for tree in range(SETTINGS.trees + 1):
            leader.begin(tree, None)

    with pytest.raises(ProtocolViolated, match="begins tree 6 of 5"):
        attack(follower_rows(), SETTINGS, script)


@pytest.mark.parametrize("per_round", [1, 2])
def test_follower_takes_no_part_in_a_first_round_that_is_the_leaders_alone(per_round: int) -> None:
    settings = replace(SETTINGS, first_tree="leader", trees_per_round=per_round)

    def script(leader: HostileLeader) -> None:
        for tree in range(per_round - 1):
            leader.begin(tree, None)
        leader.begin(per_round - 1, honest())

    with pytest.raises(ProtocolViolated, match="the leader's alone"):
        attack(follower_rows(), settings, script)


FEW = np.arange(N_ROWS) < 40
BAGS = {
    "few rows where all are used": ({}, FEW),
    "other rows than are drawn": ({"subsample": 0.125}, FEW),
    "held-out rows": ({"validation_fraction": 0.5, "early_stopping_rounds": 1}, np.arange(N_ROWS) < 160),
    "more rows than have the largest gradients": ({"goss_top": 0.1, "goss_other": 0.1}, np.arange(N_ROWS) < 65),
    "fewer rows than have the largest gradients": ({"goss_top": 0.1, "goss_other": 0.1}, FEW),
}


@pytest.mark.parametrize("kind", BAGS)
def test_follower_refuses_a_tree_of_rows_that_settings_do_not_draw(kind: str) -> None:
    changes, bag = BAGS[kind]
    settings = replace(SETTINGS, **changes)  # type: ignore[arg-type]

    def script(leader: HostileLeader) -> None:
        leader.begin(0, honest(int(bag.sum())), to_bits(bag))

    with pytest.raises(ProtocolViolated, match="not grown from the rows that its settings draw"):
        attack(follower_rows(), settings, script)


@pytest.mark.parametrize(
    "changes",
    [
        {"subsample": 0.5},
        {"goss_top": 0.25, "goss_other": 0.25},
        {"validation_fraction": 0.5, "early_stopping_rounds": 1},
    ],
)
def test_follower_takes_the_rows_that_settings_draw(changes: dict[str, float]) -> None:
    settings = replace(SETTINGS, **changes)  # type: ignore[arg-type]
    allowed = ~sampling.validation_rows(N_ROWS, settings)

    def script(leader: HostileLeader) -> None:
        bag, _ = sampling.bag(0, np.random.default_rng(0).random(N_ROWS), allowed, settings)
        leader.begin(0, honest(int(bag.sum())), to_bits(bag))
        assert len(leader.read()[0])
        leader.split([NodeSplit()])
        leader.end(1)

    assert attack(follower_rows(), settings, script) == 1


@pytest.mark.parametrize("aside", [0, 1, 19])
def test_follower_refuses_a_split_of_the_leaders_that_puts_few_rows_aside(aside: int) -> None:
    few = np.arange(N_ROWS) < aside

    def split_off(left: np.ndarray) -> Callable[[HostileLeader], None]:
        def script(leader: HostileLeader) -> None:
            leader.begin(0, honest())
            leader.read()
            leader.split([NodeSplit(left_rows=to_bits(left), grow_left=True, grow_right=True)])
            leader.split([NodeSplit()] * 2)
            leader.end(1)

        return script

    for left in (few, ~few):
        with pytest.raises(ProtocolViolated, match="fewer than 20 rows on one side"):
            attack(follower_rows(), SETTINGS, split_off(left))
    assert attack(follower_rows(), SETTINGS, split_off(np.arange(N_ROWS) < 40)) == 1


def test_follower_refuses_more_candidates_than_it_has() -> None:
    def script(leader: HostileLeader) -> None:
        leader.begin(0, honest())
        leader.read()
        leader.split([NodeSplit(candidates=Candidates(places=[0] * 1000))])

    with pytest.raises(ProtocolViolated, match="not offered"):
        attack(follower_rows(), SETTINGS, script)


# ------------------------------------------------------------------------------------------ ciphertexts without inverse
def test_follower_refuses_gradients_that_no_mask_would_hide() -> None:
    def script(leader: HostileLeader) -> None:
        sent = leader.cipher.encrypt(*honest())
        sent[17] = np.frombuffer((6 * KEY.p).to_bytes(KEY.public.width, "big"), np.uint8)
        messages.START.send(leader.link, TreeStart(tree=0, federated=True))
        messages.GRADIENTS.send(leader.link, sent)

    with pytest.raises(ProtocolViolated, match="row 17 of 320 has no inverse"):
        attack(follower_rows(), SETTINGS, script, encrypted=True)
