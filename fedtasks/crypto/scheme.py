"""What a signer and a client compute, behind one interface for every scheme."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from fedtasks.crypto import blind_rsa, oprf, ristretto
from fedtasks.crypto.hashing import Messages
from fedtasks.crypto.key_proof import prove_key, verify_key_proof
from fedtasks.crypto.keys import (
    DEFAULT_BITS,
    OprfKey,
    PrivateKey,
    PublicKey,
    generate_oprf_key,
    generate_psi_key,
    load_oprf_key,
    load_psi_key,
)
from fedtasks.crypto.schemes import Scheme
from fedtasks.crypto.tags import make_tags
from fedtasks.errors import ConfigError

Bytes = npt.NDArray[np.uint8]


class Client(Protocol):
    """What a client computes under a signer's key; can be sent to other processes.

    Attributes
    ----------
    key_id
        First 16 bytes (hex) of SHA-256 over the public key.
    element_bytes, secret_bytes, proof_bytes
        Width of a blinded id and of an answer; of what undoes a blind; of the proof behind a batch of answers.
    """

    @property
    def key_id(self) -> str:
        """Which key this is."""

    @property
    def element_bytes(self) -> int:
        """Width of an element."""

    @property
    def secret_bytes(self) -> int:
        """Width of a secret."""

    @property
    def proof_bytes(self) -> int:
        """Width of a proof, or 0."""

    def blind(self, ids: Messages) -> tuple[Bytes, Bytes]:
        """Return blinded ids, and the secrets that undo it."""

    def finalize(self, ids: Messages, blinded: Bytes, answers: Bytes, proof: bytes, secrets: Bytes) -> Bytes:
        """Verify answers and return tags, shape ``(n, 16)``; raises `ProtocolViolated` or `SignatureWrong`."""


class Signer(Protocol):
    """What a signer computes; `public` and `key_proof` are what clients are shown first."""

    @property
    def client(self) -> Client:
        """What clients compute under this key."""

    @property
    def public(self) -> bytes:
        """The public key."""

    @property
    def key_proof(self) -> bytes:
        """What shows that the key cannot leak."""

    def evaluate(self, blinded: Bytes) -> tuple[Bytes, bytes]:
        """Return answers and their proof; raises `ProtocolViolated` for what is no blinded id."""

    def tag(self, ids: Messages) -> Bytes:
        """Return the tags of own ids."""


@dataclass(frozen=True)
class RsaClient:
    """See `Client`; blind RSA signatures, each verified by itself."""

    key: PublicKey
    proof_bytes: int = 0

    @property
    def key_id(self) -> str:
        """See `Client`."""
        return self.key.key_id

    @property
    def element_bytes(self) -> int:
        """See `Client`."""
        return self.key.key_bytes

    @property
    def secret_bytes(self) -> int:
        """See `Client`."""
        return self.key.key_bytes

    def blind(self, ids: Messages) -> tuple[Bytes, Bytes]:
        """See `Client` and `blind_rsa.blind`."""
        return blind_rsa.blind(self.key, blind_rsa.prepare(self.key, ids))

    def finalize(self, ids: Messages, blinded: Bytes, answers: Bytes, proof: bytes, secrets: Bytes) -> Bytes:
        """See `Client` and `blind_rsa.finalize`."""
        signatures = blind_rsa.finalize(self.key, blind_rsa.prepare(self.key, ids), answers, secrets)
        return make_tags(self.key_id, ids, signatures)


@dataclass(frozen=True)
class RsaSigner:
    """See `Signer`."""

    key: PrivateKey

    @property
    def client(self) -> RsaClient:
        """See `Signer`."""
        return RsaClient(self.key.public)

    @property
    def public(self) -> bytes:
        """See `Signer`; SubjectPublicKeyInfo."""
        return self.key.public.der

    @property
    def key_proof(self) -> bytes:
        """See `Signer` and `key_proof.prove_key`."""
        return prove_key(self.key)

    def evaluate(self, blinded: Bytes) -> tuple[Bytes, bytes]:
        """See `Signer` and `blind_rsa.blind_sign`."""
        return blind_rsa.blind_sign(self.key, blinded), b""

    def tag(self, ids: Messages) -> Bytes:
        """See `Signer`."""
        return make_tags(self.key.public.key_id, ids, blind_rsa.sign(self.key, ids))


@dataclass(frozen=True)
class OprfClient:
    """See `Client`; outputs of a verifiable pseudo-random function, with a proof for each batch."""

    public: bytes
    element_bytes: int = ristretto.WIDTH
    secret_bytes: int = ristretto.WIDTH
    proof_bytes: int = oprf.PROOF_BYTES

    @property
    def key_id(self) -> str:
        """See `Client`."""
        return hashlib.sha256(self.public).hexdigest()[:32]

    def blind(self, ids: Messages) -> tuple[Bytes, Bytes]:
        """See `Client` and `oprf.blind`."""
        return oprf.blind(ids)

    def finalize(self, ids: Messages, blinded: Bytes, answers: Bytes, proof: bytes, secrets: Bytes) -> Bytes:
        """See `Client` and `oprf.finalize`."""
        return make_tags(self.key_id, ids, oprf.finalize(self.public, ids, blinded, answers, proof, secrets))


@dataclass(frozen=True)
class OprfSigner:
    """See `Signer`; the key is never shown by ``repr``."""

    key: OprfKey

    @cached_property
    def client(self) -> OprfClient:
        """See `Signer`."""
        return OprfClient(self.public)

    @cached_property
    def public(self) -> bytes:
        """See `Signer`; the encoding of an element."""
        return oprf.public_key(self.key.scalar)

    @property
    def key_proof(self) -> bytes:
        """See `Signer` and `oprf.prove_key`."""
        return oprf.prove_key(self.key.scalar)

    def evaluate(self, blinded: Bytes) -> tuple[Bytes, bytes]:
        """See `Signer` and `oprf.evaluate`."""
        return oprf.evaluate(self.key.scalar, blinded)

    def tag(self, ids: Messages) -> Bytes:
        """See `Signer`."""
        return make_tags(self.client.key_id, ids, oprf.evaluate_own(self.key.scalar, ids))


def open_client(scheme: Scheme, public: bytes, key_proof: bytes) -> Client:
    """Make the client of a signer's key, after checking the key and its proof.

    Raises
    ------
    KeyInvalid, KeyWeak
        The key or its proof is not what the scheme asks; nothing may be blinded with it.
    """
    if scheme is Scheme.OPRF:
        oprf.verify_key(public, key_proof)
        return OprfClient(public)
    key = PublicKey.from_der(public)
    verify_key_proof(key, key_proof)
    return RsaClient(key)


def load_signer(scheme: Scheme, path: Path) -> Signer:
    """Make the signer whose key is in a file.

    Raises
    ------
    KeyInvalid, KeyWeak
        The file cannot be read, others may read it, or it holds no key of the scheme.
    """
    return OprfSigner(load_oprf_key(path)) if scheme is Scheme.OPRF else RsaSigner(load_psi_key(path))


def generate_key(scheme: Scheme, path: Path, bits: int | None = None, primes: int | None = None) -> str:
    """Make a key in a file that only its owner may read, and return its id.

    Raises
    ------
    KeyWeak
        Fewer than 2048 bits are asked for, or fewer than 3072 in three primes.
    KeyInvalid
        The file exists already.
    ConfigError
        A length or a number of primes is asked for that the scheme does not have.
    """
    if scheme is Scheme.BLIND_RSA:
        return generate_psi_key(path, DEFAULT_BITS if bits is None else bits, primes or 2).key_id
    for name, asked in (("bits", bits), ("primes", primes)):
        if asked is not None:
            raise ConfigError("only keys of scheme blind_rsa have a length and primes to choose", field=name)
    return OprfSigner(generate_oprf_key(path)).client.key_id
