"""One spelling of a value, and its digest: what two parties compare."""

from __future__ import annotations

import hashlib
import json

from fedtasks.dataclass_io import to_plain


def canonical(value: object) -> str:
    """Write a value as canonical JSON: sorted keys, no spaces, no escapes but JSON's own."""
    return json.dumps(to_plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(value: object) -> str:
    """SHA-256 (hex) of a value's canonical JSON."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()
