from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtasks.crypto import oprf, ristretto
from fedtasks.errors import KeyInvalid, ProtocolViolated, SignatureWrong

_spec = importlib.util.spec_from_file_location("rfc9497", Path(__file__).parents[2] / "vectors" / "rfc9497.py")
assert _spec is not None
assert _spec.loader is not None
rfc: Any = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(rfc)

KEY = oprf.derive_key(bytes(range(32)), b"test")
PUBLIC = oprf.public_key(KEY)
# Order is that of RFC 9496, section 4.
ORDER = 7237005577332262213973186563042994240857116359379907606001950938285454250989


def rows(texts: list[str]) -> np.ndarray:
    return np.frombuffer(bytes.fromhex("".join(texts)), dtype=np.uint8).reshape(len(texts), -1)


def number(text: str) -> int:
    return int.from_bytes(bytes.fromhex(text), "little")


def blind_as_rfc9497(messages: list[bytes], blinds: np.ndarray) -> np.ndarray:
    return ristretto.multiply(oprf.hash_to_group(messages), blinds)


def finalize_as_rfc9497(messages: list[bytes], answers: np.ndarray, blinds: np.ndarray) -> np.ndarray:
    return oprf.outputs(messages, ristretto.multiply(answers, ristretto.inverted(blinds)))


def batch(n: int = 5) -> tuple[list[bytes], np.ndarray, np.ndarray, np.ndarray, bytes]:
    messages = [f"person {index}".encode() for index in range(n)]
    blinded, removers = oprf.blind(messages)
    answers, proof = oprf.evaluate(KEY, blinded)
    return messages, blinded, removers, answers, proof


def test_key_of_rfc9497_vector_is_derived() -> None:
    private = oprf.derive_key(rfc.SEED, rfc.KEY_INFO)
    assert private == int.from_bytes(rfc.PRIVATE_KEY, "little")
    assert oprf.public_key(private) == rfc.PUBLIC_KEY
    assert ristretto.ORDER == ORDER


@pytest.mark.parametrize("vector", rfc.VECTORS, ids=range(len(rfc.VECTORS)))
def test_rfc9497_vector_matches_in_every_step(vector: Any) -> None:
    private = int.from_bytes(rfc.PRIVATE_KEY, "little")
    messages = [bytes.fromhex(text) for text in vector.inputs]

    blinded = blind_as_rfc9497(messages, rows(vector.blinds))
    assert blinded.tolist() == rows(vector.blinded).tolist()
    answers, proof = oprf.evaluate(private, blinded, number(vector.nonce))
    assert answers.tolist() == rows(vector.answers).tolist()
    assert proof.hex() == vector.proof
    oprf.verify(rfc.PUBLIC_KEY, blinded, answers, proof)
    found = finalize_as_rfc9497(messages, answers, rows(vector.blinds))
    assert found.tolist() == rows(vector.outputs).tolist()
    assert oprf.evaluate_own(private, messages).tolist() == rows(vector.outputs).tolist()


@pytest.mark.parametrize("vector", rfc.VECTORS, ids=range(len(rfc.VECTORS)))
def test_outputs_of_rfc9497_come_out_of_blinds_that_are_added(vector: Any) -> None:
    private = int.from_bytes(rfc.PRIVATE_KEY, "little")
    messages = [bytes.fromhex(text) for text in vector.inputs]

    blinded, removers = oprf.blind(messages)
    answers, proof = oprf.evaluate(private, blinded)
    found = oprf.finalize(rfc.PUBLIC_KEY, messages, blinded, answers, proof, removers)

    assert found.tolist() == rows(vector.outputs).tolist()


@settings(max_examples=20, deadline=None)
@given(messages=st.lists(st.binary(max_size=40), min_size=1, max_size=12))
def test_outputs_of_both_blindings_equal_the_signers_own(messages: list[bytes]) -> None:
    blinded, removers = oprf.blind(messages)
    answers, proof = oprf.evaluate(KEY, blinded)
    added = oprf.finalize(PUBLIC, messages, blinded, answers, proof, removers)
    blinds = ristretto.random_scalars(len(messages))
    answers, _ = oprf.evaluate(KEY, blind_as_rfc9497(messages, blinds))
    multiplied = finalize_as_rfc9497(messages, answers, blinds)
    own = oprf.evaluate_own(KEY, messages)
    assert added.tolist() == multiplied.tolist() == own.tolist()
    # A batch is nothing but its rows.
    assert own[-1:].tolist() == oprf.evaluate_own(KEY, messages[-1:]).tolist()


def test_blinding_the_same_id_twice_never_repeats() -> None:
    blinded, _ = oprf.blind([b"alice", b"alice"])
    assert blinded[0].tolist() != blinded[1].tolist()


def test_answers_of_another_key_are_refused() -> None:
    messages, blinded, removers, answers, proof = batch()
    other, other_proof = oprf.evaluate(KEY + 1, blinded)
    with pytest.raises(SignatureWrong):
        oprf.finalize(PUBLIC, messages, blinded, other, other_proof, removers)
    # One wrong row among right ones, as a signer would mark a client by.
    mixed = answers.copy()
    mixed[2] = other[2]
    with pytest.raises(SignatureWrong):
        oprf.finalize(PUBLIC, messages, blinded, mixed, proof, removers)


@pytest.mark.parametrize("kind", ["key", "row", "proof"])
def test_answers_that_are_refused_are_never_unblinded(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    messages, blinded, removers, answers, proof = batch()
    other, other_proof = oprf.evaluate(KEY + 1, blinded)
    if kind == "key":
        answers, proof = other, other_proof
    elif kind == "row":
        answers = np.concatenate([answers[:-1], other[-1:]])
    else:
        proof = other_proof

    def unblind(*_: object) -> None:
        raise AssertionError("unblinded before the proof was verified")

    monkeypatch.setattr(ristretto, "add_multiples", unblind)
    with pytest.raises(SignatureWrong):
        oprf.finalize(PUBLIC, messages, blinded, answers, proof, removers)


def test_answers_proven_with_another_key_than_was_pinned_are_refused() -> None:
    messages, blinded, removers, answers, proof = batch()
    with pytest.raises(SignatureWrong):
        oprf.finalize(oprf.public_key(KEY + 1), messages, blinded, answers, proof, removers)


def test_removers_that_are_fewer_than_answers_are_refused() -> None:
    messages, blinded, removers, answers, proof = batch()
    with pytest.raises(ProtocolViolated):
        oprf.finalize(PUBLIC, messages, blinded, answers, proof, removers[:-1])


def test_answers_in_another_order_are_refused() -> None:
    messages, blinded, removers, answers, proof = batch()
    with pytest.raises(SignatureWrong):
        oprf.finalize(PUBLIC, messages, blinded, answers[::-1], proof, removers)


@pytest.mark.parametrize("place", [0, 31, 32, 63])
def test_altered_proof_is_refused(place: int) -> None:
    messages, blinded, removers, answers, proof = batch()
    altered = bytearray(proof)
    altered[place] ^= 1
    with pytest.raises((SignatureWrong, ProtocolViolated)):
        oprf.finalize(PUBLIC, messages, blinded, answers, bytes(altered), removers)


@pytest.mark.parametrize("proof", [b"", bytes(64), b"\xff" * 64, bytes(63)])
def test_hostile_proof_is_refused(proof: bytes) -> None:
    messages, blinded, removers, answers, _ = batch()
    with pytest.raises((SignatureWrong, ProtocolViolated)):
        oprf.finalize(PUBLIC, messages, blinded, answers, proof, removers)


def test_answer_missing_is_refused() -> None:
    messages, blinded, removers, answers, proof = batch()
    with pytest.raises(ProtocolViolated, match="expected 5 answers"):
        oprf.finalize(PUBLIC, messages, blinded, answers[:-1], proof, removers)


@pytest.mark.parametrize(
    "row",
    [
        bytes(32),  # the identity
        b"\xff" * 32,  # no field element
        (2**255 - 19 + 8).to_bytes(32, "little"),  # not canonical
        b"\x01" + bytes(31),  # negative
        b"\x02" + bytes(31),  # not on the curve
    ],
)
def test_evaluate_of_what_is_no_element_names_the_row(row: bytes) -> None:
    _, blinded, *_ = batch(3)
    blinded = blinded.copy()
    blinded[1] = np.frombuffer(row, dtype=np.uint8)
    with pytest.raises(ProtocolViolated, match="row 1 of 3"):
        oprf.evaluate(KEY, blinded)


@pytest.mark.parametrize("n", [0, oprf.MAX_ROWS + 1])
def test_batch_that_no_proof_covers_is_refused(n: int) -> None:
    one, _ = oprf.blind([b"x"])
    with pytest.raises(ProtocolViolated, match="a proof covers"):
        oprf._prove(KEY, np.repeat(one, n, axis=0), np.repeat(one, n, axis=0), None)


def test_key_proof_holds_for_its_key_alone() -> None:
    oprf.verify_key(PUBLIC, oprf.prove_key(KEY))
    for public, proof in [
        (PUBLIC, oprf.prove_key(KEY + 1)),
        (oprf.public_key(KEY + 1), oprf.prove_key(KEY)),
        (bytes(32), oprf.prove_key(KEY)),
        (b"\xff" * 32, oprf.prove_key(KEY)),
        (PUBLIC[:-1], oprf.prove_key(KEY)),
        (PUBLIC, bytes(64)),
        (PUBLIC, b"\xff" * 64),
        (PUBLIC, b""),
    ]:
        with pytest.raises(KeyInvalid):
            oprf.verify_key(public, proof)


@settings(max_examples=20, deadline=None)
@given(numbers=st.lists(st.integers(1, ORDER - 1), min_size=1, max_size=8))
def test_scalars_times_their_inverses_are_one(numbers: list[int]) -> None:
    inverses = ristretto.inverted(ristretto.scalars(numbers))
    found = [int.from_bytes(row.tobytes(), "little") for row in inverses]
    assert [a * b % ORDER for a, b in zip(numbers, found, strict=True)] == [1] * len(numbers)


@settings(max_examples=20, deadline=None)
@given(numbers=st.lists(st.integers(1, ORDER - 1), min_size=1, max_size=8))
def test_scalars_and_their_negatives_are_zero(numbers: list[int]) -> None:
    found = ristretto.negated(ristretto.scalars(numbers))
    assert found.tolist() == ristretto.scalars([ORDER - number for number in numbers]).tolist()


def test_sum_and_products_agree_with_each_other() -> None:
    numbers = [3, 5, ORDER - 7]
    parts = ristretto.multiply_base(ristretto.scalars(numbers))
    assert ristretto.total(parts).tolist() == ristretto.multiply_base(ristretto.scalars([1])).tolist()


def test_rows_of_another_width_never_reach_the_library() -> None:
    one = ristretto.scalars([1])
    for call in (lambda: ristretto.multiply(np.zeros((2, 16), np.uint8), one), lambda: ristretto.total(one[:, :16])):
        with pytest.raises(ProtocolViolated, match="rows of 32 bytes"):
            call()


def test_library_leaves_no_file_behind(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import fedtasks.crypto.ristretto"]
    subprocess.run(command, check=True, env=os.environ | {"TMPDIR": str(tmp_path)})
    assert not list(tmp_path.iterdir())
