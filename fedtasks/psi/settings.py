"""What both sides of an intersection, and of an alignment, agree on."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from fedtasks.config import Dataset, LabelKind
from fedtasks.crypto.schemes import Scheme
from fedtasks.dataclass_io import check_limits, within
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
    learns: Learns = within(Learns.BOTH, privacy=True, clause="outputs.intersection")
    key_bits_min: int = within(2048, 2048, 8192, privacy=True, clause="floor.key_bits")
    shards: int = within(2, 1, _MAX_SHARDS)
    pad_rows: int = within(1, 1, 2**40, privacy=True, clause="floor.pad_rows")
    min_intersection: int = within(1, 0, 2**62, privacy=True, clause="floor.min_intersection")

    def __post_init__(self) -> None:
        check_limits(self)
        if self.learns is Learns.SIZE and self.scheme is not Scheme.OPRF:
            raise ConfigError("`size` cannot be learnt alone with RSA; set `scheme: oprf`", field="learns")


class Rows(enum.Enum):
    """Which people the rows for training are of; those for the test are of all that are shared."""

    ALL = "all"
    NEW = "new"


class HeldOutBy(enum.Enum):
    """What decides which rows are held out for the test."""

    PERSON = "person"
    """A hash of the id, which both sides know: the same people under every key."""
    LABEL = "label"
    """Drawn by the leader, the same share of every class of the label."""
    PARTITION = "partition"
    """The leader's rows of its newest partitions: a test out of time."""
    COLUMN = "column"
    """A column of the leader that its dataset declares as `held_out`."""


@dataclass(frozen=True)
class AlignSettings:
    """How aligned rows are cut; equal on both sides.

    Parameters
    ----------
    held_out_by
        What decides which rows are kept for the test: ``person``, so that it is the same people in every run, or what
        the leader tells the follower of each row: ``label``, ``partition`` or ``column``.
    test_fraction
        Share of the people who are kept for the test, by ``person`` or ``label``.
    test_partitions
        How many of the leader's newest partitions are, by ``partition``.
    seed
        Which people those are.
    rows_per_block
        About how many rows one block holds; a worker holds one block in memory.
    psi_task
        The task that found the people.
    rows
        Which people are trained on: ``all``, or with ``new`` those of whom either side has a row that the version of
        `model` in use has not learnt from. Datasets need partitions for that.
    model
        The model that is to go on learning.
    """

    held_out_by: HeldOutBy = within(HeldOutBy.PERSON, privacy=True, clause="outputs.held_out")
    test_fraction: float = 0.25
    test_partitions: int = within(1, 1, 10_000)
    seed: int = within(0, -(2**63), 2**63 - 1)
    rows_per_block: int = within(100_000, 1)
    psi_task: str = "psi"
    rows: Rows = Rows.ALL
    model: str = ""

    def __post_init__(self) -> None:
        if self.rows is Rows.NEW and not self.model:
            raise ConfigError("name the model whose version in use says what is new", field="model")
        if not 0 <= self.test_fraction < 1:
            raise ConfigError(f"{self.test_fraction} is not between 0 and 1 (1 excluded)", field="test_fraction")
        check_limits(self)

    def check_dataset(self, dataset: Dataset) -> None:
        """Refuse what the leader's dataset cannot decide.

        Raises
        ------
        ConfigError
            It has no such label, partitions or column as say what is held out.
        """
        match self.held_out_by:
            case HeldOutBy.LABEL if dataset.label is None or dataset.label_kind is LabelKind.NUMBER:
                problem = f"the leader's dataset `{dataset.name}` has no label of classes, of which each gets its share"
            case HeldOutBy.PARTITION if not dataset.is_partitioned:
                problem = f"the leader's dataset `{dataset.name}` has no partitions, so none of them is the newest"
            case HeldOutBy.COLUMN if dataset.held_out is None:
                problem = f"the leader's dataset `{dataset.name}` names no column in `held_out`"
            case _:
                return
        raise ConfigError(f"{problem}; choose another way, such as `{HeldOutBy.PERSON.value}`", field="held_out_by")
