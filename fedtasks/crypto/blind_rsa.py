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

import gmpy2
import numpy as np
import numpy.typing as npt

from fedtasks.crypto.hashing import Messages, Texts, hash_rows
from fedtasks.crypto.kernels import Words
from fedtasks.crypto.keys import PrivateKey, PublicKey
from fedtasks.crypto.modular import CrtRing, Ring
from fedtasks.errors import KeyInvalid, ProtocolViolated, SignatureWrong

Bytes = npt.NDArray[np.uint8]

_HASH_BYTES = 48


def prepare(public: PublicKey, messages: Messages) -> Bytes:
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
    digests = hash_rows("sha384", bytes(8), hash_rows("sha384", Texts.of(messages)))
    encoded = np.zeros((len(messages), public.key_bytes), dtype=np.uint8)
    first = public.key_bytes - em_bytes
    mask = encoded[:, first : first + db_bytes]
    for count, start in enumerate(range(0, db_bytes, _HASH_BYTES)):
        piece = mask[:, start : start + _HASH_BYTES]
        piece[:] = hash_rows("sha384", digests, count.to_bytes(4, "big"))[:, : piece.shape[1]]
    # The data block is zeros and a final one, so masking it changes just that byte.
    mask[:, -1] ^= 1
    mask[:, 0] &= 0xFF >> (8 * em_bytes - em_bits)
    encoded[:, first + db_bytes : -1] = digests
    encoded[:, -1] = 0xBC
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
        A message or a blind shares a factor with the modulus: the key was made to leak.

    Notes
    -----
    Reveals: nothing to the signer but the number of rows, since each blind is uniform in Z*_n and used once, and the
    key's proof says that raising to e is a permutation of Z*_n.
    Cost: one public operation and about ten multiplications per row.
    Source: RFC 9474 section 4.2; batched inversion after Montgomery.
    """
    ring = Ring(public.n)
    messages = ring.enter(encoded)
    if gmpy2.gcd(int.from_bytes(ring.leave(ring.product(messages)).tobytes()), public.n) != 1:
        raise KeyInvalid("a message is not invertible modulo the key, which has a factor that it must not have")
    try:
        blinded, inverses = _blind(ring, public.e, messages)
    except ZeroDivisionError:
        raise KeyInvalid("a blind is not invertible modulo the key, which has a factor that it must not have") from None
    return ring.leave(blinded), ring.leave(inverses)


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
    Cost: for each prime of the key an exponentiation of its length, per row. Time does not depend on what the client
    chose: each row is blinded once more before the private exponent touches it.
    Source: RFC 9474 sections 4.3 and 7.1.
    """
    ring, public = CrtRing(*private.primes), private.public
    hidden, inverses = _blind(ring, public.e, ring.enter(blinded))
    signatures = ring.multiply(ring.crt_power(hidden, private.exponents), inverses)
    wrong = _first_wrong(ring, public.e, signatures, blinded)
    if wrong is not None:
        raise SignatureWrong(f"the signature of row {wrong} came out wrong on this machine; nothing was sent")
    return ring.leave(signatures)


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
    ring = Ring(public.n)
    signatures = ring.multiply(ring.enter(answers), ring.enter(inverses))
    wrong = _first_wrong(ring, public.e, signatures, encoded)
    if wrong is not None:
        raise SignatureWrong(f"the peer's signature of row {wrong} of {len(encoded)} does not verify")
    return ring.leave(signatures)


def sign(private: PrivateKey, messages: Messages) -> Bytes:
    """Sign own messages: the same signatures as a client gets by blinding. Raises as `blind_sign` does."""
    return blind_sign(private, prepare(private.public, messages))


def _blind(ring: Ring, e: int, messages: Words) -> tuple[Words, Words]:
    blinds = ring.random(len(messages))
    return ring.multiply(messages, ring.power(blinds, e)), ring.invert(blinds)


def _first_wrong(ring: Ring, e: int, signatures: Words, messages: Bytes) -> int | None:
    """Return the first row whose signature, raised to e, is not the message."""
    right = (ring.leave(ring.power(signatures, e)) == messages).all(axis=1)
    return None if right.all() else int(right.argmin())
