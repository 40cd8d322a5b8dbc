"""Keys, a grant and texts signed by hand, for tests of tickets."""

from __future__ import annotations

import base64
import json
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedtasks.config import Dataset, FeatureType
from fedtasks.tickets import DatasetScope, Grant

GRANTOR = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
HOLDER = Ed25519PrivateKey.from_private_bytes(bytes(range(32, 64)))
SCHEMA = Dataset("loans", "loans.parquet", "id", {"age": FeatureType.NUMERIC}).schema_digest

GRANT = Grant(
    ticket_id="t-1",
    grantor="bank",
    holder="shop",
    datasets=(DatasetScope("loans", SCHEMA, ("age", "amount")), DatasetScope("cards", "0" * 64, ("limit",))),
    pipelines=("credit_retrain",),
    roles=("follower", "client"),
    not_before_s=1000,
    expires_s=2000,
    limits={"runs": 3, "epochs": 10, "trees": 20},
    floor={"key_bits": 3072, "min_intersection": 50, "pad_rows": 100, "min_leaf_rows": 30, "first_tree": "leader"},
)

HEADER = {"alg": "EdDSA", "typ": "fedtasks-ticket"}


def b64(content: bytes) -> str:
    """Return base64 as JWS has it."""
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def unb64(text: str) -> bytes:
    """Return what `b64` was given."""
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def signed(header: dict[str, Any], payload: bytes, key: Ed25519PrivateKey = GRANTOR) -> str:
    """Sign by hand, so that no library's own checks stand between the test and the module."""
    text = f"{b64(json.dumps(header).encode())}.{b64(payload)}"
    return f"{text}.{b64(key.sign(text.encode()))}"


def claims_of(token: str) -> dict[str, Any]:
    """Return what a signed text says, unverified."""
    claims: dict[str, Any] = json.loads(unb64(token.split(".")[1]))
    return claims
