"""Which schemes there are; apart from what they compute, so that a DAG file parses without NumPy."""

from __future__ import annotations

import enum


class Scheme(enum.Enum):
    """By which function, known to the signer alone, ids become tags."""

    BLIND_RSA = "blind_rsa"
    OPRF = "oprf"
