"""What both sides of an intersection, and of an alignment, agree on."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from fedtasks.crypto.schemes import Scheme
from fedtasks.errors import ConfigError

_MAX_SHARDS = 10_000


class Learns(enum.Enum):
    """Who learns which people are shared; how many they are, both sides learn."""

    BOTH = "both"
    CLIENT = "client"
    SIZE = "size"


@dataclass(frozen=True)
class PsiSettings:
    """How the intersection is found; equal on both sides.

    Parameters
    ----------
    scheme
        How ids become tags: ``blind_rsa``, or ``oprf``, which costs less computing and far less traffic.
    signer
        The party that signs; by default the follower.
    learns
        Who learns which people are shared: ``both``, the ``client`` alone, or with ``size`` nobody: both learn how many
        they are. The ticket says how far this may go; alignment needs ``both``, ``size`` needs scheme ``oprf``.
    key_bits_min
        The shortest RSA key that the client accepts.
    shards
        Into how many files ids are cut: at least as many as a side has cores.
    pad_rows
        Sizes that the peer sees are rounded up to a multiple of this; 1 shows them as they are.
    min_intersection
        With fewer people in common, both halves fail.
    """

    scheme: Scheme = Scheme.BLIND_RSA
    signer: str = ""
    learns: Learns = Learns.BOTH
    key_bits_min: int = 2048
    shards: int = 2
    pad_rows: int = 1
    min_intersection: int = 1

    def __post_init__(self) -> None:
        for name, low, high in (
            ("key_bits_min", 2048, 8192),
            ("shards", 1, _MAX_SHARDS),
            ("pad_rows", 1, 2**40),
            ("min_intersection", 0, 2**62),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(f"{value} is not between {low} and {high}", field=name)
        if self.learns is Learns.SIZE and self.scheme is not Scheme.OPRF:
            raise ConfigError("`size` cannot be learnt alone with RSA; set `scheme: oprf`", field="learns")


@dataclass(frozen=True)
class AlignSettings:
    """How aligned rows are cut; equal on both sides.

    Parameters
    ----------
    test_fraction
        Share of the people who are kept for the test.
    seed
        Which people those are.
    rows_per_block
        About how many rows one block holds; a worker holds one block in memory.
    psi_task
        The task that found the people.
    """

    test_fraction: float = 0.25
    seed: int = 0
    rows_per_block: int = 100_000
    psi_task: str = "psi"

    def __post_init__(self) -> None:
        if not 0 <= self.test_fraction < 1:
            raise ConfigError(f"{self.test_fraction} is not between 0 and 1 (1 excluded)", field="test_fraction")
        if self.rows_per_block < 1:
            raise ConfigError(f"{self.rows_per_block} is less than 1", field="rows_per_block")
        if not -(2**63) <= self.seed < 2**63:
            raise ConfigError(f"{self.seed} does not fit into 64 bits", field="seed")
