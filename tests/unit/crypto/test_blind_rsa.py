from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtasks.crypto import blind_rsa
from fedtasks.crypto.keys import PrivateKey, PublicKey
from fedtasks.crypto.modular import Ring
from fedtasks.crypto.tags import make_tags
from fedtasks.errors import KeyInvalid, ProtocolViolated, SignatureWrong


def _load_vector() -> ModuleType:
    path = Path(__file__).parents[2] / "vectors" / "rfc9474.py"
    spec = importlib.util.spec_from_file_location("rfc9474", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


RFC = _load_vector()
MESSAGES = st.lists(st.binary(max_size=40), max_size=12)


def row(value: bytes) -> np.ndarray:
    return np.frombuffer(value, dtype=np.uint8).reshape(1, -1)


@pytest.fixture(scope="module")
def key() -> PrivateKey:
    numbers = rsa.generate_private_key(65537, 2048).private_numbers()
    return PrivateKey(numbers.p, numbers.q)


@pytest.fixture(scope="module")
def rfc_key() -> PrivateKey:
    return PrivateKey(int.from_bytes(RFC.P), int.from_bytes(RFC.Q))


def test_encoding_of_rfc9474_vector_matches(rfc_key: PrivateKey) -> None:
    assert rfc_key.public.n == int.from_bytes(RFC.N)
    assert blind_rsa.prepare(rfc_key.public, [RFC.MESSAGE]).tobytes() == RFC.ENCODED


def test_blind_signature_of_rfc9474_vector_matches(rfc_key: PrivateKey) -> None:
    assert blind_rsa.blind_sign(rfc_key, row(RFC.BLINDED)).tobytes() == RFC.BLIND_SIGNATURE


def test_finalize_of_rfc9474_vector_matches(rfc_key: PrivateKey) -> None:
    encoded = blind_rsa.prepare(rfc_key.public, [RFC.MESSAGE])

    signature = blind_rsa.finalize(rfc_key.public, encoded, row(RFC.BLIND_SIGNATURE), row(RFC.INVERSE))

    assert signature.tobytes() == RFC.SIGNATURE
    assert blind_rsa.sign(rfc_key, [RFC.MESSAGE]).tobytes() == RFC.SIGNATURE


def test_blinding_of_rfc9474_vector_is_undone_by_its_inverse(
    rfc_key: PrivateKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    blind = pow(int.from_bytes(RFC.INVERSE), -1, rfc_key.public.n)
    monkeypatch.setattr(Ring, "random", lambda ring, n_rows: ring.number(blind))

    blinded, inverses = blind_rsa.blind(rfc_key.public, row(RFC.ENCODED))

    assert blinded.tobytes() == RFC.BLINDED
    assert inverses.tobytes() == RFC.INVERSE


@settings(max_examples=15, deadline=None)
@given(messages=MESSAGES)
def test_blinded_signatures_of_any_batch_equal_direct_ones(key: PrivateKey, messages: list[bytes]) -> None:
    encoded = blind_rsa.prepare(key.public, messages)
    blinded, inverses = blind_rsa.blind(key.public, encoded)
    signatures = blind_rsa.finalize(key.public, encoded, blind_rsa.blind_sign(key, blinded), inverses)

    assert signatures.tobytes() == blind_rsa.sign(key, messages).tobytes()


@pytest.mark.parametrize("bits", [2048, 2049, 2050, 2055, 2056, 3072])
def test_signatures_verify_with_another_library(bits: int) -> None:
    numbers = rsa.generate_private_key(65537, bits).private_numbers()
    key = PrivateKey(numbers.p, numbers.q)
    other = rsa.RSAPublicNumbers(65537, key.public.n).public_key()
    pss = padding.PSS(padding.MGF1(hashes.SHA384()), salt_length=0)
    messages = [b"", b"alice", "Zoë".encode()]

    for message, signature in zip(messages, blind_rsa.sign(key, messages), strict=True):
        other.verify(signature.tobytes(), message, pss, hashes.SHA384())
        with pytest.raises(InvalidSignature):
            other.verify(signature.tobytes(), message + b"!", pss, hashes.SHA384())


def test_blinding_the_same_id_twice_never_repeats(key: PrivateKey) -> None:
    encoded = blind_rsa.prepare(key.public, [b"alice"] * 50)

    blinded, inverses = blind_rsa.blind(key.public, encoded)

    assert len({each.tobytes() for each in blinded}) == 50
    assert len({each.tobytes() for each in inverses}) == 50


def test_finalize_with_one_wrong_answer_names_its_row(key: PrivateKey) -> None:
    encoded = blind_rsa.prepare(key.public, [b"a", b"b", b"c"])
    blinded, inverses = blind_rsa.blind(key.public, encoded)
    answers = blind_rsa.blind_sign(key, blinded).copy()
    answers[1, -1] ^= 1

    with pytest.raises(SignatureWrong, match="row 1 of 3"):
        blind_rsa.finalize(key.public, encoded, answers, inverses)


def test_finalize_with_an_answer_missing_is_refused(key: PrivateKey) -> None:
    encoded = blind_rsa.prepare(key.public, [b"a", b"b"])
    blinded, inverses = blind_rsa.blind(key.public, encoded)

    with pytest.raises(ProtocolViolated):
        blind_rsa.finalize(key.public, encoded, blind_rsa.blind_sign(key, blinded)[:1], inverses)


def test_blind_sign_with_a_fault_in_one_prime_lets_nothing_out(key: PrivateKey) -> None:
    faulty = PrivateKey(key.p, key.q)
    faulty.__dict__["exponents"] = (key.exponents[0] ^ 1, key.exponents[1])

    with pytest.raises(SignatureWrong, match="row 0"):
        blind_rsa.blind_sign(faulty, blind_rsa.prepare(key.public, [b"a"]))


def test_blind_sign_of_a_number_above_the_modulus_is_refused(key: PrivateKey) -> None:
    with pytest.raises(ProtocolViolated):
        blind_rsa.blind_sign(key, row(b"\xff" * key.public.key_bytes))


def test_blind_with_a_message_that_shares_a_factor_is_refused(key: PrivateKey) -> None:
    encoded = row((key.p * 12345).to_bytes(key.public.key_bytes))

    with pytest.raises(KeyInvalid):
        blind_rsa.blind(key.public, encoded)


def test_blind_that_meets_a_factor_of_the_key_is_refused(key: PrivateKey, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = blind_rsa.prepare(key.public, [b"a", b"b"])
    monkeypatch.setattr(Ring, "random", lambda ring, n_rows: np.repeat(ring.number(key.p), n_rows, axis=0))
    with pytest.raises(KeyInvalid, match="a blind is not invertible"):
        blind_rsa.blind(key.public, encoded)


def test_tags_are_the_hash_of_length_prefixed_fields(key: PrivateKey) -> None:
    messages = [b"alice", b""]
    signatures = blind_rsa.sign(key, messages)

    tags = make_tags(key.public.key_id, messages, signatures)

    assert tags.shape == (2, 16)
    for message, signature, tag in zip(messages, signatures, tags, strict=True):
        fields = [b"fedtasks-psi-tag-v1", bytes.fromhex(key.public.key_id), message, signature.tobytes()]
        whole = b"".join(len(each).to_bytes(4, "big") + each for each in fields)
        assert tag.tobytes() == hashlib.sha256(whole).digest()[:16]


def test_tags_of_another_key_differ(key: PrivateKey) -> None:
    signatures = blind_rsa.sign(key, [b"alice"])
    other = dataclasses.replace(key.public, n=PublicKey(key.public.n + 2).n)

    tags = [make_tags(public.key_id, [b"alice"], signatures).tobytes() for public in (key.public, other)]

    assert tags[0] != tags[1]
