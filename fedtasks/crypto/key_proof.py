"""Proof that a signer's public key cannot leak what clients blind.

Ids are guessable and signatures deterministic, so a signer who chose e with e | φ(n) could read from a blinded id
in which class of Z*_n modulo e-th powers it lies, and so tell guesses apart. The proof shows that e is invertible
modulo φ(n), hence that raising to e permutes Z*_n and a uniform blind hides everything.
"""

from __future__ import annotations

import hashlib
from functools import cache

import gmpy2
import numpy as np

from fedtasks.crypto.blind_rsa import blind_sign
from fedtasks.crypto.kernels import Bytes
from fedtasks.crypto.keys import PrivateKey, PublicKey
from fedtasks.errors import KeyInvalid

N_ROOTS = 8
"""Of 65537 elements at most one has an e-th root when e | φ(n): eight roots leave a chance below 2**-128."""

_SMALL_PRIMES_BELOW = 1 << 16
_DOMAIN = b"fedtasks-psi-key-proof-v1"


def prove_key(key: PrivateKey) -> bytes:
    """Return the e-th roots of elements that the key itself determines.

    Raises
    ------
    SignatureWrong
        This machine computed wrongly.

    Notes
    -----
    Reveals: signatures of numbers that are no encoded id. What it shows does not depend on how many primes there are.
    Source: Goldberg, Reyzin, Sagga, Baldimtsi, "Efficient Noninteractive Certification of RSA Moduli and Beyond", 2019.
    """
    return blind_sign(key, _challenges(key.public)).tobytes()


def verify_key_proof(public: PublicKey, proof: bytes) -> None:
    """Check a key and its proof before anything is blinded with it.

    Raises
    ------
    KeyInvalid
        The modulus has a factor below 2**16, or the proof does not hold.

    Notes
    -----
    Cost: eight public operations and one greatest common divisor.
    Source: as `prove_key`.
    """
    n = gmpy2.mpz(public.n)
    if has_small_factor(public.n):
        raise KeyInvalid("the modulus has a small factor")
    if len(proof) != N_ROOTS * public.key_bytes:
        raise KeyInvalid(f"the key's proof has {len(proof)} bytes instead of {N_ROOTS * public.key_bytes}")
    roots = np.frombuffer(proof, dtype=np.uint8).reshape(N_ROOTS, public.key_bytes)
    for root, challenge in zip(roots, _challenges(public), strict=True):
        expected = gmpy2.mpz.from_bytes(challenge.tobytes())
        found = gmpy2.mpz.from_bytes(root.tobytes())
        if found >= n or gmpy2.gcd(expected, n) != 1 or gmpy2.powmod(found, public.e, n) != expected:
            raise KeyInvalid("the key's proof does not hold: the key may have been made to leak ids")


def has_small_factor(n: int) -> bool:
    """Whether a prime below 2**16 divides `n`."""
    return bool(gmpy2.gcd(n, _small_primes()) != 1)


def _challenges(public: PublicKey) -> Bytes:
    return challenges(_DOMAIN, public.der, public.n, N_ROOTS)


def challenges(domain: bytes, key: bytes, n: int, count: int) -> Bytes:
    """Return numbers modulo `n` that a key itself determines, one big-endian row each."""
    width = (n.bit_length() + 7) // 8
    # 16 bytes more than the modulus make the reduction uniform.
    rows = [
        int.from_bytes(hashlib.shake_256(domain + bytes([index]) + key).digest(width + 16)) % n
        for index in range(count)
    ]
    raw = b"".join(row.to_bytes(width) for row in rows)
    return np.frombuffer(raw, dtype=np.uint8).reshape(count, width)


@cache
def _small_primes() -> gmpy2.mpz:
    return gmpy2.primorial(_SMALL_PRIMES_BELOW)
