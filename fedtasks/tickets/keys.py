"""Ed25519 keys that sign tickets and receipts: made, kept, and named to other parties."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from fedtasks.config import read_secret
from fedtasks.errors import ConfigError


def generate_ticket_key() -> Ed25519PrivateKey:
    """Make a key that signs tickets and receipts."""
    return Ed25519PrivateKey.generate()


def save_ticket_key(key: Ed25519PrivateKey, path: Path) -> None:
    """Write a key as PEM that only its owner can read.

    Raises
    ------
    ConfigError
        The file exists already, or cannot be written.
    """
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    try:
        # The mode is set as the file comes to be: it is never readable by others.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise ConfigError("the file exists; a ticket key is never overwritten", where=str(path)) from None
    except OSError as error:
        raise ConfigError(f"the key cannot be written: {error.strerror}", where=str(path)) from error
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem)


def load_ticket_key(path: Path) -> Ed25519PrivateKey:
    """Read a key that `save_ticket_key` wrote.

    Raises
    ------
    ConfigError
        The file is missing, readable by others, or holds no Ed25519 key.
    """
    pem = read_secret(path)
    try:
        key = serialization.load_pem_private_key(pem.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError("not a private key in PEM without a password", where=str(path)) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError("not an Ed25519 key", where=str(path))
    return key


def public_text(key: Ed25519PrivateKey | Ed25519PublicKey) -> str:
    """Return the public key as base64 of its 32 bytes, as party.yaml pins it."""
    return base64.b64encode(_public_bytes(key)).decode()


def public_from_text(text: str) -> Ed25519PublicKey:
    """Read what `public_text` wrote.

    Raises
    ------
    ConfigError
        It is not base64 of 32 bytes.
    """
    try:
        return Ed25519PublicKey.from_public_bytes(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        raise ConfigError("expected the base64 of an Ed25519 public key (44 characters)", field="ticket_key") from None


def fingerprint(key: Ed25519PrivateKey | Ed25519PublicKey) -> str:
    """Return 128 bits of the public key's SHA-256 in groups of four hex digits, to be read out over the telephone."""
    text = hashlib.sha256(_public_bytes(key)).hexdigest()[:32]
    return " ".join(text[start : start + 4] for start in range(0, len(text), 4))


def _public_bytes(key: Ed25519PrivateKey | Ed25519PublicKey) -> bytes:
    public = key.public_key() if isinstance(key, Ed25519PrivateKey) else key
    return public.public_bytes_raw()
