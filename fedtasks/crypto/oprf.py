"""A verifiable oblivious pseudo-random function, OPRF(ristretto255, SHA-512) of RFC 9497 in mode VOPRF, over batches.

A client blinds by adding a multiple of the generator, not by multiplying as the RFC does: outputs, answers and proofs
are the same, and what is added is taken off again by a multiple of the signer's public key. That is sound only because
`finalize` verifies, before anything else, that all answers were made with that key.

Every array is ``uint8`` of shape ``(n, 32)``. The steps::

    client                          signer
    blinded, removers = blind(ids)
                    ── blinded ──►
                                    answers, proof = evaluate(blinded)
                    ◄── answers, proof ──
    outputs = finalize(answers)     outputs = evaluate_own(ids)   equal for equal ids
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from fedtasks.crypto import ristretto
from fedtasks.crypto.hashing import Length, Messages, Texts, expand_rows, hash_rows
from fedtasks.crypto.ristretto import ORDER, WIDTH
from fedtasks.errors import KeyInvalid, ProtocolViolated, SignatureWrong

Bytes = npt.NDArray[np.uint8]

PROOF_BYTES = 2 * WIDTH
OUTPUT_BYTES = 64
MAX_ROWS = 2**16 - 1
"""The longest batch that one proof covers: rows are numbered in two bytes."""

_CONTEXT = b"OPRFV1-\x01-ristretto255-SHA512"
_GROUP_DOMAIN = b"HashToGroup-" + _CONTEXT
_SCALAR_DOMAIN = b"HashToScalar-" + _CONTEXT


def derive_key(seed: bytes, info: bytes) -> int:
    """Return the private key that a seed of 32 bytes determines.

    Notes
    -----
    Source: RFC 9497 section 3.2.1.
    """
    for counter in range(256):
        message = seed + _field(info) + bytes([counter])
        key = ristretto.hash_to_scalar(message, b"DeriveKeyPair" + _CONTEXT)
        if key:
            return key
    raise KeyInvalid("the seed gives no key")  # with probability 2**-64000


def public_key(private: int) -> bytes:
    """Return the public key of a private one."""
    return ristretto.multiply_base(ristretto.scalars([private])).tobytes()


def blind(messages: Messages) -> tuple[Bytes, Bytes]:
    """Hide messages from the signer.

    Returns
    -------
    blinded, removers
        What goes to the signer, and the scalars that stay here for `finalize`.

    Notes
    -----
    Reveals: nothing to the signer but the number of rows: every blinded message is uniform in the group.
    Cost: a hash to the group and a multiple of the generator per row, a third of a multiplication.
    Source: Jarecki, Krawczyk and Xu, "On the (in)security of the Diffie-Hellman oblivious PRF with multiplicative
    blinding", 2021, whose multiplicative notation makes a product of what is a sum here.
    """
    removers = ristretto.random_scalars(len(messages))
    blinds = ristretto.negated(removers)
    return ristretto.hash_and_add(messages, _GROUP_DOMAIN, ristretto.GENERATOR, blinds), removers


def evaluate(private: int, blinded: Bytes, nonce: int | None = None) -> tuple[Bytes, bytes]:
    """Answer what a client blinded, with a proof that all answers were made with the announced key.

    Parameters
    ----------
    nonce
        The proof's randomness; by default new.

    Raises
    ------
    ProtocolViolated
        A row is no element of the group, or its identity.

    Notes
    -----
    Reveals: the function's value at one message per row; count rows before calling.
    Cost: one multiplication per row, and one row of a weighted sum.
    Source: RFC 9497 sections 3.3.2 and 2.2.1.
    """
    answers = ristretto.multiply(blinded, ristretto.scalars([private]))
    return answers, _prove(private, blinded, answers, nonce)


def finalize(public: bytes, messages: Messages, blinded: Bytes, answers: Bytes, proof: bytes, removers: Bytes) -> Bytes:
    """Verify the signer's answers and turn them into the function's outputs.

    Parameters
    ----------
    public
        The signer's key, known to be its own before anything was blinded: see `verify_key`.
    blinded, removers
        From `blind`, row by row what was sent.
    answers, proof
        What the signer returned.

    Returns
    -------
    ndarray
        ``uint8``, shape ``(n, 64)``.

    Raises
    ------
    ProtocolViolated
        There are more or fewer answers than questions, or one is no element of the group.
    SignatureWrong
        The proof does not hold: an answer was not made with the signer's key.

    Notes
    -----
    Cost: two rows of a weighted sum and a multiple of the public key per row, a third of a multiplication.
    Source: RFC 9497 section 2.2.2 for the proof and 3.3.1, Finalize, for the outputs; as `blind` for what is taken off.
    """
    if answers.shape != (len(messages), WIDTH) or removers.shape != answers.shape:
        raise ProtocolViolated(f"expected {len(messages)} answers of {WIDTH} bytes, got {answers.shape}")
    # First of all: an answer by another key would leave a multiple of the generator that the signer can recognise.
    verify(public, blinded, answers, proof)
    return outputs(messages, ristretto.add_multiples(answers, _row(public), removers))


def verify(public: bytes, blinded: Bytes, answers: Bytes, proof: bytes) -> None:
    """Check that all answers were made with the signer's key.

    Raises
    ------
    ProtocolViolated
        An answer is no element of the group, or the proof is malformed.
    SignatureWrong
        The proof does not hold.

    Notes
    -----
    Source: RFC 9497 section 2.2.2.
    """
    if len(proof) != PROOF_BYTES:
        raise ProtocolViolated(f"expected a proof of {PROOF_BYTES} bytes, got {len(proof)}")
    challenge, answer = _pair(proof)
    weights = _weights(public, blinded, answers)
    sum_blinded, sum_answers = (ristretto.weighted_sum(each, weights).tobytes() for each in (blinded, answers))
    commitments = (_combine(answer, None, challenge, public), _combine(answer, sum_blinded, challenge, sum_answers))
    if challenge != _challenge(public, sum_blinded, sum_answers, *commitments):
        raise SignatureWrong(f"the proof of {len(answers)} answers does not hold: one was made with another key")


def evaluate_own(private: int, messages: Messages) -> Bytes:
    """Return the function's outputs for own messages: the same as a client gets by blinding.

    Notes
    -----
    Cost: one multiplication and one hash to the group per row.
    Source: RFC 9497 section 3.3.1, Evaluate.
    """
    key = ristretto.scalars([private])
    return outputs(messages, ristretto.hash_and_multiply(messages, _GROUP_DOMAIN, key))


def prove_key(private: int) -> bytes:
    """Prove that the private key is known: a signature by it on its own public key.

    Notes
    -----
    Source: Schnorr's proof of knowledge, made non-interactive after Fiat and Shamir.
    """
    public = public_key(private)
    nonce = ristretto.random_scalars(1)
    challenge = _key_challenge(public, ristretto.multiply_base(nonce).tobytes())
    answer = (int.from_bytes(nonce.tobytes(), "little") - challenge * private) % ORDER
    return ristretto.scalars([challenge, answer]).tobytes()


def verify_key(public: bytes, proof: bytes) -> None:
    """Check a signer's public key and the proof that it knows the private one.

    Raises
    ------
    KeyInvalid
        The key is no element of the group or its identity, or the proof does not hold.
    """
    if len(public) != WIDTH or len(proof) != PROOF_BYTES:
        raise KeyInvalid("the signer's key or its proof has a wrong length")
    try:
        challenge, answer = _pair(proof)
        commitment = _combine(answer, None, challenge, public)
    except ProtocolViolated as error:
        raise KeyInvalid(f"the signer's key or its proof is malformed: {error.detail}") from None
    if challenge != _key_challenge(public, commitment):
        raise KeyInvalid("the key's proof does not hold: the signer does not know the private key")


def hash_to_group(messages: Messages) -> Bytes:
    """Return the elements that the function multiplies by its key.

    Notes
    -----
    Source: RFC 9497 section 4.1.
    """
    return ristretto.hash_to_group(messages, _GROUP_DOMAIN)


def outputs(messages: Messages, elements: Bytes) -> Bytes:
    """Return the function's outputs, given the products of its key and the messages' elements.

    Notes
    -----
    Source: RFC 9497 section 3.3.1, Finalize.
    """
    texts = Texts.of(messages)
    return hash_rows("sha512", Length(texts, 2), texts, _length(WIDTH), elements, b"Finalize")


def _prove(private: int, blinded: Bytes, answers: Bytes, nonce: int | None) -> bytes:
    public = public_key(private)
    sum_blinded = ristretto.weighted_sum(blinded, _weights(public, blinded, answers))
    key = ristretto.scalars([private])
    sum_answers = ristretto.multiply(sum_blinded, key)
    random = ristretto.random_scalars(1) if nonce is None else ristretto.scalars([nonce])
    commitments = (ristretto.multiply_base(random).tobytes(), ristretto.multiply(sum_blinded, random).tobytes())
    challenge = _challenge(public, sum_blinded.tobytes(), sum_answers.tobytes(), *commitments)
    answer = (int.from_bytes(random.tobytes(), "little") - challenge * private) % ORDER
    return ristretto.scalars([challenge, answer]).tobytes()


def _weights(public: bytes, blinded: Bytes, answers: Bytes) -> Bytes:
    """Return the weight that each row has in the sums, of which the proof speaks."""
    if not 0 < len(blinded) <= MAX_ROWS:
        raise ProtocolViolated(f"a proof covers 1 to {MAX_ROWS} rows, not {len(blinded)}")
    seed = hashlib.sha512(_field(public) + _field(b"Seed-" + _CONTEXT)).digest()
    numbers = np.arange(len(blinded), dtype=">u2").view(np.uint8).reshape(-1, 2)
    length = _length(WIDTH)
    parts = (_field(seed), numbers, length, blinded, length, answers, b"Composite")
    return ristretto.reduced_scalars(expand_rows(_SCALAR_DOMAIN, *parts))


def _challenge(*elements: bytes) -> int:
    text = b"".join([_field(element) for element in elements]) + b"Challenge"
    return ristretto.hash_to_scalar(text, _SCALAR_DOMAIN)


def _key_challenge(public: bytes, commitment: bytes) -> int:
    return ristretto.hash_to_scalar(public + commitment, b"fedtasks-psi-oprf-key-proof-v1")


def _combine(first: int, element: bytes | None, second: int, other: bytes) -> bytes:
    """Return ``first * element + second * other``; without an element, the generator."""
    parts = []
    for number, factor in ((first, element), (second, other)):
        if number == 0:
            raise ProtocolViolated("a proof holds a zero")
        by = ristretto.scalars([number])
        parts.append(ristretto.multiply_base(by) if factor is None else ristretto.multiply(_row(factor), by))
    return ristretto.total(np.concatenate(parts)).tobytes()


def _pair(proof: bytes) -> tuple[int, int]:
    numbers = int.from_bytes(proof[:WIDTH], "little"), int.from_bytes(proof[WIDTH:], "little")
    if max(numbers) >= ORDER:
        raise ProtocolViolated("a proof holds a number that is no scalar")
    return numbers


def _row(element: bytes) -> Bytes:
    return np.frombuffer(element, dtype=np.uint8).reshape(1, WIDTH)


def _field(value: bytes) -> bytes:
    return _length(len(value)) + value


def _length(n_bytes: int) -> bytes:
    return n_bytes.to_bytes(2, "big")
