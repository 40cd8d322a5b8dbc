"""Halves that lie, and messages that are none: the other half notices."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedtasks.encrypted.cipher import PaillierOwner, PaillierSums
from fedtasks.errors import ConfigDiffers, KeyInvalid, KeyWeak, ProtocolViolated
from fedtasks.models.secureboost import messages
from fedtasks.models.secureboost.settings import TrainSettings
from fedtasks.wire.v1.encrypted_pb2 import EncryptionKey
from tests.unit.models.secureboost.boosting import Problem, problem, train_both

SETTINGS = TrainSettings(trees=2, depth=3, bins=6, min_leaf_rows=4, noise_rows=0, first_tree="both")
N_ROWS = 90


class Tampering:
    """Changes the messages of one name, from the one that is the first to be changed on."""

    def __init__(self, link: Any, name: str, change: Callable[[Any], Any]) -> None:
        self._link, self._name, self._change = link, name, change

    def send(self, name: str, payload: Any) -> None:
        self._link.send(name, self._change(copy.deepcopy(payload)) if name == self._name else payload)

    def receive(self, name: str, **expected: Any) -> Any:
        return self._link.receive(name, **expected)


def train(folder: Path, name: str, change: Callable[[Any], Any], case: Problem | None = None, **options: Any) -> None:
    case = case or problem(3, (["normal"], ["normal", "few", "text"]), N_ROWS)
    train_both(case, SETTINGS, folder, wrap=lambda link: Tampering(link, name, change), **options)


def changed(**fields: Any) -> Callable[[Any], Any]:
    """Return a change that sets fields of a message."""

    def change(message: Any) -> Any:
        for name, value in fields.items():
            if isinstance(value, list):
                del getattr(message, name)[:]
                getattr(message, name).extend(value)
            else:
                setattr(message, name, value)
        return message

    return change


def where(has: Callable[[Any], bool], change: Callable[[Any], None]) -> Callable[[Any], Any]:
    """Return a change of the messages of which something holds."""

    def changing(message: Any) -> Any:
        if has(message):
            change(message)
        return message

    return changing


def flip_a_row(message: Any) -> None:
    bits = bytearray(message.splits[0].left_rows)
    bits[0] ^= 0x80
    message.splits[0].left_rows = bytes(bits)


def own_splits(message: Any) -> list[Any]:
    return [node for node in message.nodes if node.WhichOneof("split") == "left_rows"]


def peer_splits(message: Any) -> list[Any]:
    return [node for node in message.nodes if node.WhichOneof("split") == "candidates"]


def of_peer(places: list[int]) -> Callable[[Any], Any]:
    """Let the leader choose these candidates where it has chosen some."""

    def change(message: Any) -> None:
        del peer_splits(message)[0].candidates.places[:]
        peer_splits(message)[0].candidates.places.extend(places)

    return where(lambda message: bool(peer_splits(message)), change)


FOLLOWER_GARBAGE = {
    "checkpoints that are no numbers": ("checkpoints", lambda _: b"none", "`checkpoints` is not int64 array"),
    "no offer": (messages.OFFER.name, lambda _: b"\xff\xff", "not protobuf `SplitOffer`"),
    "an offer that is an array": (messages.OFFER.name, lambda _: np.zeros(3), "not protobuf `SplitOffer`"),
    "fewer candidates": (messages.OFFER.name, changed(candidates=1), "expected 1 bits"),
    "more candidates than there are bits": (
        messages.OFFER.name,
        changed(candidates=2**32 - 1),
        "expected 4294967295 bits",
    ),
    "no sums": (messages.SUMS.name, lambda _: b"\xff\xff", "not protobuf `LevelSums`"),
    "a node too few": (messages.SUMS.name, changed(allowed=[]), "sums of 0 nodes for 1"),
    "a node too many": (messages.SUMS.name, lambda m: changed(allowed=[*m.allowed, b"\0"])(m), "sums of 2 nodes for 1"),
    "bits too many": (messages.SUMS.name, lambda m: changed(allowed=[m.allowed[0] + b"\0"])(m), "expected .* bits"),
    "bits behind the last": (
        messages.SUMS.name,
        lambda m: changed(allowed=[b"\xff" * len(m.allowed[0])])(m),
        "more than .* bits",
    ),
    "other candidates": (
        messages.SUMS.name,
        lambda m: changed(allowed=[b"\0" * len(m.allowed[0])])(m),
        "expected 0 bits",
    ),
    "more sums than candidates": (messages.SUMS.name, lambda m: changed(sums=[*m.sums, 1])(m), "sums for .* splits"),
    "sums of a pair too few": (messages.SUMS.name, changed(distinct=[]), "distinct sums of 0 pairs for 1"),
    "only sums of others": (
        messages.SUMS.name,
        lambda m: changed(distinct=[b"\0" * len(m.distinct[0])])(m),
        "share a sum that there is none of",
    ),
    "a sum shared by nobody": (messages.SUMS.name, changed(repeats=[0]), "1 splits share sums where 0 may"),
    "a sum too few": (messages.SEALED.name, lambda rows: rows[:-1], "sums instead of"),
    "sums in a line": (messages.SEALED.name, lambda rows: rows.ravel(), "not uint8 array"),
    "sums of another type": (messages.SEALED.name, lambda rows: rows.astype(np.int64), "not uint8 array"),
    "sums in bytes": (messages.SEALED.name, lambda rows: rows.tobytes(), "not uint8 array"),
    "no rows of its split": (
        messages.SUMS.name,
        where(lambda m: bool(m.splits), lambda m: m.ClearField("splits")),
        "did not say how its split divides",
    ),
    "a split more than was chosen": (
        messages.SUMS.name,
        where(lambda m: bool(m.splits), lambda m: m.splits.append(m.splits[0])),
        "splits that were not chosen",
    ),
    "too few rows of its split": (
        messages.SUMS.name,
        where(lambda m: bool(m.splits), lambda m: m.splits[0].ClearField("left_rows")),
        "expected .* bits, found 0 bytes",
    ),
    "too many rows of its split": (
        messages.SUMS.name,
        where(lambda m: bool(m.splits), lambda m: setattr(m.splits[0], "left_rows", b"\xff" * 12)),
        "expected .* bits, found 12 bytes",
    ),
    "a row on the other side": (
        messages.SUMS.name,
        where(lambda m: bool(m.splits), flip_a_row),
        "sums are not those of the rows that it sends left",
    ),
}


@pytest.mark.parametrize("kind", FOLLOWER_GARBAGE)
def test_leader_refuses_what_a_follower_must_not_send(tmp_path: Path, kind: str) -> None:
    name, change, message = FOLLOWER_GARBAGE[kind]
    with pytest.raises(ProtocolViolated, match=message):
        train(tmp_path, name, change)


LEADER_GARBAGE = {
    "no key": (messages.KEY.name, lambda _: b"\xff\xff", "not protobuf `EncryptionKey`"),
    "no tree": (messages.START.name, lambda _: b"\xff\xff", "not protobuf `TreeStart`"),
    "another tree": (messages.START.name, changed(tree=1), "tree 1 cannot follow 0 trees"),
    "an end with trees that were not grown": (messages.START.name, changed(end=True, tree=1), "which it has not grown"),
    "too few rows of the tree": (messages.START.name, changed(bag=b"\xff"), "expected 90 bits, found 1 bytes"),
    "too many rows of the tree": (messages.START.name, changed(bag=b"\xff" * 12), "more than 90 bits"),
    "a gradient too few": (messages.GRADIENTS.name, lambda rows: rows[:-1], "not uint8 array \\(90, 16\\)"),
    "narrow gradients": (messages.GRADIENTS.name, lambda rows: rows[:, :8], "not uint8 array \\(90, 16\\)"),
    "gradients of another type": (messages.GRADIENTS.name, lambda rows: rows.astype(float), "not uint8 array"),
    "no splits": (messages.SPLITS.name, lambda _: b"\xff\xff", "not protobuf `LevelSplits`"),
    "a split too few": (messages.SPLITS.name, changed(nodes=[]), "0 splits for 1 nodes"),
    "too few rows of a split": (
        messages.SPLITS.name,
        where(lambda m: bool(own_splits(m)), lambda m: setattr(own_splits(m)[0], "left_rows", b"")),
        "expected .* bits",
    ),
    "too many rows of a split": (
        messages.SPLITS.name,
        where(
            lambda m: bool(own_splits(m)),
            lambda m: setattr(own_splits(m)[0], "left_rows", own_splits(m)[0].left_rows + b"\xff"),
        ),
        "expected .* bits",
    ),
    "no candidate": (messages.SPLITS.name, of_peer([]), "not offered"),
    "a candidate beyond the last": (messages.SPLITS.name, of_peer([2**32 - 1]), "not offered"),
}


@pytest.mark.parametrize("kind", LEADER_GARBAGE)
def test_follower_refuses_what_a_leader_must_not_send(tmp_path: Path, kind: str) -> None:
    name, change, message = LEADER_GARBAGE[kind]
    with pytest.raises(ProtocolViolated, match=message):
        train(tmp_path, name, change)


def test_leader_that_asks_for_a_split_of_too_few_rows_is_refused(tmp_path: Path) -> None:
    case = problem(3, (["constant"], ["normal"]), N_ROWS)
    one_row = (np.arange(N_ROWS) == 7).astype(float)
    case = replace(case, follower=case.follower.append_column("x1", [one_row]))
    n_candidates = SETTINGS.bins
    offered = []

    def note(message: Any) -> Any:
        offered.append(np.unpackbits(np.frombuffer(message.allowed[0], np.uint8))[:n_candidates])
        return message

    def choose(message: Any) -> Any:
        assert offered[0].sum() == n_candidates - 1
        return of_peer([int(offered[0].argmin())])(message)

    def wrap(link: Any) -> Any:
        return Tampering(Tampering(link, messages.SUMS.name, note), messages.SPLITS.name, choose)

    with pytest.raises(ProtocolViolated, match="not offered"):
        train_both(case, SETTINGS, tmp_path, wrap=wrap)


def test_leader_that_chooses_all_candidates_is_refused(tmp_path: Path) -> None:
    case = problem(3, (["constant"], ["normal"]), N_ROWS)
    one_row = (np.arange(N_ROWS) == 7).astype(float)
    case = replace(case, follower=case.follower.append_column("x1", [one_row]))
    with pytest.raises(ProtocolViolated, match="not offered"):
        train(tmp_path, messages.SPLITS.name, of_peer(list(range(SETTINGS.bins))), case)


FOLLOWER_CIPHERTEXTS = {
    "numbers above the modulus": lambda rows: np.full_like(rows, 255),
    "narrow": lambda rows: rows[:, 1:],
    "wide": lambda rows: np.concatenate([rows, rows[:, :1]], axis=1),
    "too few": lambda rows: rows[:-1],
    "random numbers": lambda rows: np.random.default_rng(0).integers(0, 64, rows.shape, np.uint8),
}


@pytest.mark.parametrize("kind", FOLLOWER_CIPHERTEXTS)
def test_leader_refuses_sums_that_are_no_ciphertexts_of_gradients(tmp_path: Path, kind: str) -> None:
    with pytest.raises(ProtocolViolated):
        train(tmp_path, messages.SEALED.name, FOLLOWER_CIPHERTEXTS[kind], encrypted=True)


@pytest.mark.parametrize("kind", ["numbers above the modulus", "narrow", "too few"])
def test_follower_refuses_gradients_that_are_no_ciphertexts(tmp_path: Path, kind: str) -> None:
    with pytest.raises(ProtocolViolated):
        train(tmp_path, messages.GRADIENTS.name, FOLLOWER_CIPHERTEXTS[kind], encrypted=True)


def test_follower_that_adds_up_other_rows_is_caught_under_a_real_key(tmp_path: Path) -> None:
    change = where(lambda message: bool(message.splits), flip_a_row)
    with pytest.raises(ProtocolViolated, match="not those of the rows"):
        train(tmp_path, messages.SUMS.name, change, encrypted=True)


def test_leader_that_takes_trees_of_the_version_away_is_refused(tmp_path: Path) -> None:
    case = problem(3, (["normal"], ["normal", "few"]), N_ROWS)
    before = train_both(case, SETTINGS, tmp_path / "before")
    assert before.follower.splits

    def end_below(link: Any) -> Any:
        return Tampering(link, messages.START.name, where(lambda m: m.end, lambda m: setattr(m, "tree", 0)))

    with pytest.raises(ProtocolViolated, match="ends with 0 trees"):
        train_both(case, SETTINGS, tmp_path / "after", before=before, wrap=end_below)


def test_more_ciphertexts_than_their_sums_need_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ProtocolViolated, match="packed ciphertexts for"):
        train(tmp_path, messages.SEALED.name, lambda rows: np.concatenate([rows, rows]), encrypted=True)


@pytest.fixture(scope="module")
def key() -> EncryptionKey:
    owner = PaillierOwner(N_ROWS, 2048)
    try:
        return owner.key()
    finally:
        owner.close()


@pytest.mark.parametrize(
    ("changes", "settings", "error"),
    [
        ({}, {"key_bits": 3072}, ConfigDiffers),
        ({"proof": b""}, {}, KeyInvalid),
        ({"proof": bytes(256)}, {}, KeyInvalid),
        ({"modulus": b"\x0f"}, {}, KeyWeak),
        ({"modulus": b""}, {}, KeyWeak),
        ({"modulus": bytes(256)}, {}, KeyWeak),
        ({"modulus": b"\xff" * 255 + b"\xfe"}, {}, KeyInvalid),
    ],
)
def test_key_that_cannot_be_trusted_is_refused(
    key: EncryptionKey, changes: dict[str, bytes], settings: dict[str, int], error: type[Exception]
) -> None:
    other = EncryptionKey(modulus=changes.get("modulus", key.modulus), proof=changes.get("proof", key.proof))
    with pytest.raises(error):
        PaillierSums.of(other, N_ROWS, replace(SETTINGS, **settings).key_bits)


def test_proof_whose_roots_are_in_another_order_is_refused(key: EncryptionKey) -> None:
    with pytest.raises(KeyInvalid):
        PaillierSums.of(
            EncryptionKey(modulus=key.modulus, proof=key.proof[256:] + key.proof[:256]), N_ROWS, SETTINGS.key_bits
        )


# ----------------------------------------------------------------------------------------------------------- prediction
@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, np.ndarray]:
    """A leader's half, its rows, and which leaves the follower's half allows to them."""
    case = problem(3, (["normal"], ["normal", "few", "text"]), N_ROWS)
    trained = train_both(case, SETTINGS, tmp_path_factory.mktemp("scored"))
    allowed = trained.follower.allowed(trained.follower.columns(case.follower))
    assert allowed.any(axis=1).all()
    assert trained.leader.raw(trained.leader.columns(case.leader), allowed).shape == (N_ROWS, 1)
    return trained.leader, trained.leader.columns(case.leader), allowed


LEAVES = {
    "none": lambda allowed: np.zeros_like(allowed),
    "all": lambda allowed: np.full_like(allowed, 255),
    "none in one row": lambda allowed: np.where(np.arange(N_ROWS)[:, np.newaxis] == 5, 0, allowed).astype(np.uint8),
    "one too many in one tree": lambda allowed: np.concatenate(
        [np.full((N_ROWS, 1), 255, np.uint8), allowed[:, 1:]], 1
    ),
    "of too few rows": lambda allowed: allowed[:-1],
    "of too few trees": lambda allowed: allowed[:, :-1],
    "of too many trees": lambda allowed: np.concatenate([allowed, allowed], axis=1),
    "in no tree": lambda allowed: allowed[:, :0],
}


@pytest.mark.parametrize("kind", LEAVES)
def test_leaves_on_which_the_halves_do_not_agree_are_refused(scored: tuple[Any, Any, np.ndarray], kind: str) -> None:
    leader, rows, allowed = scored
    with pytest.raises(ProtocolViolated):
        leader.raw(rows, LEAVES[kind](allowed))


def test_leader_receives_as_many_bytes_of_leaves_as_its_trees_ask_for(scored: tuple[Any, Any, np.ndarray]) -> None:
    leader, _, allowed = scored
    assert leader.answers.shape == (None, allowed.shape[1])


def test_half_of_a_leaf_is_refused(scored: tuple[Any, Any, np.ndarray]) -> None:
    leader, rows, allowed = scored
    n_refused = 0
    for bit in range(8):
        try:
            leader.raw(rows, allowed & np.uint8(~(1 << bit) & 255))
        except ProtocolViolated:
            n_refused += 1
    assert n_refused == 8
