"""Paillier over batches against `phe`."""

from __future__ import annotations

import math

import gmpy2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from phe import paillier

from fedtasks.crypto.modular import Ring
from fedtasks.crypto.paillier import Masks, PrivateKey, PublicKey, generate_key, verify_proof
from fedtasks.errors import KeyInvalid, KeyWeak

KEY = generate_key(2048)
PUBLIC = KEY.public
# As `phe` makes them: of any residue modulo 4.
OF_PHE = paillier.generate_paillier_keypair(n_length=2048)[1]


def rows(*numbers: int, width: int = 16) -> np.ndarray:
    return np.frombuffer(b"".join(number.to_bytes(width, "big") for number in numbers), np.uint8).reshape(-1, width)


def ints(residues: np.ndarray, public: PublicKey = PUBLIC) -> list[int]:
    return [int.from_bytes(row.tobytes(), "big") for row in public.ring.leave(residues)]


def signed(number: int, n: int) -> int:
    return number - n if number > n // 2 else number


@pytest.mark.parametrize("key", [KEY, PrivateKey(OF_PHE.p, OF_PHE.q)], ids=["generated", "of phe"])
def test_what_is_encrypted_here_decrypts_with_phe(key: PrivateKey) -> None:
    numbers = [0, 1, -1, 2**100, -(2**100)]
    public = key.public
    plain = public.plain(rows(*map(abs, numbers)), np.array([number < 0 for number in numbers]))
    ciphertexts = public.ring.multiply(plain, key.masks()(len(numbers)))
    found = [signed(key.phe.raw_decrypt(each), public.n) for each in ints(ciphertexts, public)]
    assert found == numbers
    back = [int.from_bytes(row.tobytes(), "big") for row in key.decrypt(ciphertexts)]
    assert [signed(each, public.n) for each in back] == numbers


def test_what_phe_encrypts_is_decrypted_here() -> None:
    numbers = [0, 1, 12345678901234567890, PUBLIC.n - 1]
    theirs = rows(*(PUBLIC.phe.raw_encrypt(number) for number in numbers), width=PUBLIC.width)
    found = [int.from_bytes(row.tobytes(), "big") for row in KEY.decrypt(PUBLIC.ring.enter(theirs))]
    assert found == numbers


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(-(2**120), 2**120), min_size=1, max_size=9))
def test_a_product_is_the_sum_that_phe_adds_up(numbers: list[int]) -> None:
    plain = PUBLIC.plain(rows(*map(abs, numbers)), np.array([number < 0 for number in numbers]))
    ciphertexts = PUBLIC.ring.multiply(plain, KEY.masks()(len(numbers)))
    own = PUBLIC.ring.product(ciphertexts)
    theirs = math.prod(ints(ciphertexts)) % PUBLIC.n**2
    assert ints(own) == [theirs]
    assert signed(KEY.phe.raw_decrypt(theirs), PUBLIC.n) == sum(numbers)


@pytest.mark.parametrize("make", [KEY.masks, PUBLIC.masks], ids=["owner", "stranger"])
def test_masks_encrypt_zero_and_differ(make: object) -> None:
    found = ints(make()(50))  # type: ignore[operator]
    assert len(set(found)) == 50
    assert {KEY.phe.raw_decrypt(each) for each in found} == {0}
    assert all(math.gcd(each, PUBLIC.n) == 1 for each in found)


def test_a_strangers_masks_lie_where_the_keys_owner_cannot_tell_them_from_random() -> None:
    # Half as many exponents as numbers modulo n would leave a trace that whoever factors n might follow.
    exponents: list[int] = []
    original = type(PUBLIC.ring.fixed_base(3, 8)).power

    def spy(self: object, digits: np.ndarray) -> np.ndarray:
        exponents.append(8 * digits.shape[1])
        return original(self, digits)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fedtasks.crypto.modular.FixedBase.power", spy)
        PUBLIC.masks()(1)
    assert exponents[0] >= PUBLIC.bits + 64


@pytest.mark.parametrize(("key_bits", "longest"), [(2048, 225), (2064, 275), (3072, 275), (4096, 325)])
def test_the_owners_exponents_are_as_long_as_the_key_deserves(
    key_bits: int, longest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def fixed_base(ring: Ring, base: int, bits: int) -> None:
        asked.append(bits)

    monkeypatch.setattr(Ring, "fixed_base", fixed_base)
    half = key_bits // 2
    p, q = (int(gmpy2.next_prime(3 << (half - 2) | each)) for each in (1, 1 << 99))
    PrivateKey(p, q).masks()

    assert asked == [longest, longest]


@pytest.mark.parametrize("counts", [[1], [0, 5], [3000, 1, 2047, 2049]])
def test_prepared_masks_are_used_once(counts: list[int]) -> None:
    made = 0

    def make() -> object:
        def batch(n_rows: int) -> np.ndarray:
            nonlocal made
            made += n_rows
            return np.arange(made - n_rows, made, dtype=np.uint64).reshape(-1, 1)

        return batch

    with Masks(make) as masks:  # type: ignore[arg-type]
        masks.prepare(100)
        taken = [masks.take(count) for count in counts]
    assert [len(each) for each in taken] == counts
    numbers = np.concatenate(taken).ravel().tolist()
    assert len(set(numbers)) == len(numbers)


def test_masks_that_cannot_be_made_say_why() -> None:
    def make() -> object:
        raise KeyInvalid("broken")

    with Masks(make) as masks, pytest.raises(KeyInvalid, match="broken"):  # type: ignore[arg-type]
        masks.take(1)


def test_a_keys_proof_holds_for_this_key_only() -> None:
    proof = KEY.prove()
    verify_proof(PUBLIC, proof)
    other = PrivateKey(OF_PHE.p, OF_PHE.q)
    verify_proof(other.public, other.prove())
    for wrong in (other.prove(), proof[:-1], proof[:-1] + bytes([proof[-1] ^ 1])):
        with pytest.raises(KeyInvalid):
            verify_proof(PUBLIC, wrong)


def test_a_key_whose_nth_powers_are_few_is_refused() -> None:
    # p divides q - 1, so raising to n is no permutation.
    p = KEY.p
    q = next(2 * k * p + 1 for k in range(1, 10**5) if pow(3, 2 * k * p, 2 * k * p + 1) == 1)
    public = PublicKey(p * q)
    with pytest.raises(KeyInvalid):
        verify_proof(public, bytes(10 * ((public.bits + 7) // 8)))
    with pytest.raises(KeyInvalid, match="small factor"):
        verify_proof(PublicKey(KEY.p * KEY.q * 3), b"")


def test_keys_of_another_length_are_refused() -> None:
    with pytest.raises(KeyWeak):
        generate_key(1024)
    with pytest.raises(KeyWeak):
        PublicKey(KEY.p)
    for bits in (8192, 2050):
        with pytest.raises(KeyInvalid):
            generate_key(bits)
    with pytest.raises(KeyInvalid):
        PublicKey(1 << 2048)
    assert generate_key(3072).public.bits == 3072


def test_a_private_key_is_never_shown() -> None:
    assert str(KEY.p) not in repr(KEY)
