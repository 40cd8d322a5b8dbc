"""Blind RSA signatures, RSABSSA-SHA384-PSSZERO-Deterministic of RFC 9474, over batches.

Every array is ``uint8`` of shape ``(n, key_bytes)``, C-contiguous, one big-endian number per row. The steps::

    client                          signer
    encoded = prepare(ids)
    blinded, inverses = blind(encoded)
                    ── blinded ──►
                                    answers = blind_sign(blinded)
                    ◄── answers ──
    signatures = finalize(answers)  signatures = sign(ids)        equal for equal ids
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence

import gmpy2
import numpy as np
import numpy.typing as npt

from fedtasks.crypto.keys import PrivateKey, PublicKey
from fedtasks.crypto.modular import inverses
from fedtasks.errors import KeyInvalid, ProtocolViolated, SignatureWrong

Bytes = npt.NDArray[np.uint8]

_HASH_BYTES = 48


def prepare(public: PublicKey, messages: Sequence[bytes]) -> Bytes:
    """Encode messages for signing: EMSA-PSS with SHA-384, MGF1-SHA-384 and an empty salt.

    Parameters
    ----------
    messages
        The ids, normalised and in UTF-8.

    Returns
    -------
    ndarray
        One encoded message per row.

    Notes
    -----
    Source: RFC 9474 sections 4.1 (PrepareIdentity) and 4.2; RFC 8017 section 9.1.1, with ``bit_len(n) - 1`` bits.
    """
    em_bits = public.bits - 1
    em_bytes = (em_bits + 7) // 8
    db_bytes = em_bytes - _HASH_BYTES - 1
    rounds = [count.to_bytes(4, "big") for count in range(-(-db_bytes // _HASH_BYTES))]
    rows = bytearray()
    for message in messages:
        digest = hashlib.sha384(bytes(8) + hashlib.sha384(message).digest()).digest()
        mask = b"".join([hashlib.sha384(digest + count).digest() for count in rounds])
        rows += bytes(public.key_bytes - em_bytes) + mask[:db_bytes] + digest + b"\xbc"
    encoded = np.frombuffer(rows, dtype=np.uint8).reshape(len(messages), public.key_bytes)
    first = public.key_bytes - em_bytes
    # The data block is zeros and a final one, so masking it changes just that byte.
    encoded[:, first + db_bytes - 1] ^= 1
    encoded[:, first] &= 0xFF >> (8 * em_bytes - em_bits)
    return encoded


def blind(public: PublicKey, encoded: Bytes) -> tuple[Bytes, Bytes]:
    """Hide encoded messages from the signer.

    Parameters
    ----------
    encoded
        From `prepare`.

    Returns
    -------
    blinded, inverses
        What goes to the signer, and what stays here for `finalize`.

    Raises
    ------
    KeyInvalid
        A message shares a factor with the modulus: the key was made to leak.

    Notes
    -----
    Reveals: nothing to the signer but the number of rows, since each blind is uniform in Z*_n and used once, and the
    key's proof says that raising to e is a permutation of Z*_n.
    Cost: one public operation and about six multiplications per row.
    Source: RFC 9474 section 4.2; batched inversion after Montgomery.
    """
    n = gmpy2.mpz(public.n)
    messages = _numbers(encoded, n)
    if gmpy2.gcd(_product(messages, n), n) != 1:
        raise KeyInvalid("a message is not invertible modulo the key, which has a factor that it must not have")
    blinded, inverses = _blind(messages, public, n)
    return _rows(blinded, public.key_bytes), _rows(inverses, public.key_bytes)


def blind_sign(private: PrivateKey, blinded: Bytes) -> Bytes:
    """Sign what a client blinded, and check every answer against a fault.

    Raises
    ------
    ProtocolViolated
        A row is not a number below the modulus.
    SignatureWrong
        An answer is not right: this machine computed wrongly, and letting it out would give the key away.

    Notes
    -----
    Reveals: one signature per row; count rows before calling.
    Cost: two exponentiations of half the key's length per row. Time does not depend on what the client chose: each row
    is blinded once more before the private exponent touches it.
    Source: RFC 9474 sections 4.3 and 7.1.
    """
    public = private.public
    n = gmpy2.mpz(public.n)
    messages = _numbers(blinded, n)
    hidden, inverses = _blind(messages, public, n)
    signatures = [root * inverse % n for root, inverse in zip(_roots(private, hidden), inverses, strict=True)]
    wrong = _first_wrong(signatures, messages, public, n)
    if wrong is not None:
        raise SignatureWrong(f"the signature of row {wrong} came out wrong on this machine; nothing was sent")
    return _rows(signatures, public.key_bytes)


def finalize(public: PublicKey, encoded: Bytes, answers: Bytes, inverses: Bytes) -> Bytes:
    """Turn the signer's answers into signatures, and verify every one.

    Parameters
    ----------
    encoded, inverses
        From `prepare` and `blind`, row by row what was sent.
    answers
        What the signer returned.

    Raises
    ------
    ProtocolViolated
        There are more or fewer answers than questions, or one is not a number below the modulus.
    SignatureWrong
        A signature does not verify; names the row.

    Notes
    -----
    Source: RFC 9474 section 4.4. With an empty salt, verification is equality with the encoded message.
    """
    if answers.shape != encoded.shape:
        raise ProtocolViolated(f"expected {len(encoded)} signatures of {public.key_bytes} bytes, got {answers.shape}")
    n = gmpy2.mpz(public.n)
    pairs = zip(_numbers(answers, n), _numbers(inverses, n), strict=True)
    signatures = [answer * inverse % n for answer, inverse in pairs]
    wrong = _first_wrong(signatures, _numbers(encoded, n), public, n)
    if wrong is not None:
        raise SignatureWrong(f"the peer's signature of row {wrong} of {len(encoded)} does not verify")
    return _rows(signatures, public.key_bytes)


def sign(private: PrivateKey, messages: Sequence[bytes]) -> Bytes:
    """Sign own messages: the same signatures as a client gets by blinding. Raises as `blind_sign` does."""
    return blind_sign(private, prepare(private.public, messages))


def _numbers(rows: Bytes, n: gmpy2.mpz) -> list[gmpy2.mpz]:
    width = rows.shape[1]
    raw = rows.tobytes()
    numbers = [gmpy2.mpz.from_bytes(raw[start : start + width]) for start in range(0, len(raw), width)]
    if any(number >= n for number in numbers):
        raise ProtocolViolated("a row is not a number below the modulus")
    return numbers


def _rows(numbers: Sequence[gmpy2.mpz], width: int) -> Bytes:
    raw = b"".join([number.to_bytes(width) for number in numbers])
    return np.frombuffer(raw, dtype=np.uint8).reshape(len(numbers), width)


def _blind(messages: Sequence[gmpy2.mpz], public: PublicKey, n: gmpy2.mpz) -> tuple[list[gmpy2.mpz], list[gmpy2.mpz]]:
    blinds = [_unit(public.n) for _ in messages]
    powers = gmpy2.powmod_base_list(blinds, public.e, n)
    return [m * power % n for m, power in zip(messages, powers, strict=True)], inverses(blinds, n)


def _unit(n: int) -> gmpy2.mpz:
    # Uniform in Z*_n; a number that shares a factor with an honest modulus never turns up.
    while gmpy2.gcd(candidate := gmpy2.mpz(1 + secrets.randbelow(n - 1)), n) != 1:
        pass
    return candidate


def _product(numbers: Sequence[gmpy2.mpz], n: gmpy2.mpz) -> gmpy2.mpz:
    product = gmpy2.mpz(1)
    for number in numbers:
        product = product * number % n
    return product


def _roots(private: PrivateKey, numbers: Sequence[gmpy2.mpz]) -> list[gmpy2.mpz]:
    """Raise to the private exponent by the Chinese remainder theorem."""
    p, q = gmpy2.mpz(private.p), gmpy2.mpz(private.q)
    exponent_p, exponent_q = private.exponents
    modulo_p = gmpy2.powmod_base_list([number % p for number in numbers], exponent_p, p)
    modulo_q = gmpy2.powmod_base_list([number % q for number in numbers], exponent_q, q)
    return [
        root_q + (root_p - root_q) * private.coefficient % p * q
        for root_p, root_q in zip(modulo_p, modulo_q, strict=True)
    ]


def _first_wrong(
    signatures: Sequence[gmpy2.mpz], messages: Sequence[gmpy2.mpz], public: PublicKey, n: gmpy2.mpz
) -> int | None:
    """Return the first row whose signature, raised to e, is not the message."""
    powers = gmpy2.powmod_base_list(list(signatures), public.e, n)
    return next((row for row, (power, m) in enumerate(zip(powers, messages, strict=True)) if power != m), None)
