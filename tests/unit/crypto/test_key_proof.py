from __future__ import annotations

import random

import gmpy2
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from fedtasks.crypto import key_proof
from fedtasks.crypto.key_proof import N_ROOTS, prove_key, verify_key_proof
from fedtasks.crypto.keys import PUBLIC_EXPONENT, PrivateKey, PublicKey
from fedtasks.errors import KeyInvalid


def make_key() -> PrivateKey:
    numbers = rsa.generate_private_key(65537, 2048).private_numbers()
    return PrivateKey(numbers.p, numbers.q)


@pytest.fixture(scope="module")
def key() -> PrivateKey:
    return make_key()


def test_key_proof_of_an_honest_key_holds(key: PrivateKey) -> None:
    verify_key_proof(key.public, prove_key(key))


def leaking_primes() -> tuple[int, int]:
    """Primes p with e | p - 1, and q without."""
    rng = random.Random(9474)
    p = 4
    while not gmpy2.is_prime(p):
        p = 2 * PUBLIC_EXPONENT * rng.randrange(3 << 1005, 1 << 1007) + 1
    q = 4
    while not gmpy2.is_prime(q) or (q - 1) % PUBLIC_EXPONENT == 0:
        q = rng.randrange(3 << 1022, 1 << 1024)
    return p, q


def test_key_with_e_dividing_p_minus_1_is_refused() -> None:
    p, q = leaking_primes()
    public = PublicKey(p * q)
    # The best that such a signer can do: right roots where there are any, and there are for one element in 65537.
    order = (p - 1) * (q - 1)
    while order % PUBLIC_EXPONENT == 0:
        order //= PUBLIC_EXPONENT
    exponent = pow(PUBLIC_EXPONENT, -1, order)
    roots = [pow(int.from_bytes(each.tobytes()), exponent, public.n) for each in key_proof._challenges(public)]
    a_power = pow(12345, PUBLIC_EXPONENT, public.n)
    assert pow(pow(a_power, exponent, public.n), PUBLIC_EXPONENT, public.n) == a_power

    with pytest.raises(KeyInvalid, match="does not hold"):
        verify_key_proof(public, b"".join(root.to_bytes(public.key_bytes) for root in roots))
    with pytest.raises(KeyInvalid, match="no inverse"):
        PrivateKey(p, q)


def test_key_proof_of_another_key_is_refused(key: PrivateKey) -> None:
    with pytest.raises(KeyInvalid):
        verify_key_proof(key.public, prove_key(make_key()))


@pytest.mark.parametrize("place", range(N_ROOTS))
def test_key_proof_with_one_wrong_root_is_refused(key: PrivateKey, place: int) -> None:
    proof = bytearray(prove_key(key))
    proof[(place + 1) * key.public.key_bytes - 1] ^= 1

    with pytest.raises(KeyInvalid, match="does not hold"):
        verify_key_proof(key.public, bytes(proof))


def test_key_proof_cut_short_is_refused(key: PrivateKey) -> None:
    with pytest.raises(KeyInvalid, match="bytes instead of"):
        verify_key_proof(key.public, prove_key(key)[:-1])


def test_key_proof_with_a_root_above_the_modulus_is_refused(key: PrivateKey) -> None:
    proof = prove_key(key)
    first = int.from_bytes(proof[: key.public.key_bytes]) + key.public.n
    if first.bit_length() > 8 * key.public.key_bytes:
        first = 2 ** (8 * key.public.key_bytes) - 1

    with pytest.raises(KeyInvalid, match="does not hold"):
        verify_key_proof(key.public, first.to_bytes(key.public.key_bytes) + proof[key.public.key_bytes :])


@pytest.mark.parametrize("factor", [3, 65521])
def test_key_with_a_small_factor_is_refused(key: PrivateKey, factor: int) -> None:
    public = PublicKey(key.p * key.q * factor)

    with pytest.raises(KeyInvalid, match="small factor"):
        verify_key_proof(public, bytes(N_ROOTS * public.key_bytes))
