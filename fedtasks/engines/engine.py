"""What a job asks of an engine: few verbs, which mean the same on one machine and on a cluster.

A job is written once. Where a row goes and in which order rows come is decided by columns that the job's own functions
have filled, never by a hash or an order of the engine's: so the two halves of a task may run on different engines.

What runs in workers are functions of batches. They write files under names of their own and yield rows that describe
them. An engine keeps the rows of one successful try of each function, so a file that a repeated or doubled try left
behind is never looked at.
"""

from __future__ import annotations

import enum
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeAlias, TypeVar

import pyarrow as pa

T = TypeVar("T")

Batches: TypeAlias = Iterator[pa.RecordBatch]


class How(enum.Enum):
    """Which rows a join gives: pairs, or the left rows that have a partner or have none."""

    INNER = "inner"
    SEMI = "semi"
    ANTI = "anti"


class Frame(Protocol):
    """Rows in no order, as an engine knows them; only its own engine can use it."""

    @property
    def schema(self) -> pa.Schema:
        """Names and types of the columns."""


class Engine(Protocol):
    """Runs jobs.

    A function that fails ends the job; the error of the registry that it raised is raised again, by the verb or by the
    `collect` or `count` that follows. Nothing is kept behind the block in which the engine was opened.

    Attributes
    ----------
    name
        How party.yaml calls it.
    share
        Which part of the work that goes on now is done, from 0 to 1; as far as the engine knows.
    """

    name: str

    @property
    def share(self) -> float:
        """See above."""

    def each(self, items: Iterable[T], function: Callable[[T], Batches], schema: pa.Schema) -> Frame:
        """Make a frame of what `function` yields for each item; items are worked on side by side.

        Those that come one after another are worked on as they come, as far as the engine can.
        """

    def stream(
        self, items: Sequence[T], function: Callable[[T], Batches], schema: pa.Schema
    ) -> Iterator[list[dict[str, Any]]]:
        """Yield the few rows that `function` gives for each item, in the order of items, as soon as they are there."""

    def map(self, frame: Frame, function: Callable[[Batches], Batches], schema: pa.Schema) -> Frame:
        """Make a frame of what `function` yields for some of the rows; each row goes to one call.

        Parameters
        ----------
        function
            Costs little for a row, unless the frame comes from `spread`.
        """

    def spread(self, frame: Frame) -> Frame:
        """Share rows out, so that all workers have some when they are mapped."""

    def by_shard(
        self,
        frame: Frame,
        shard: str,
        n_shards: int,
        order: Sequence[str],
        function: Callable[[int, Batches], Batches],
        schema: pa.Schema,
    ) -> Frame:
        """Give all rows of a shard to one call of `function`, ascending by the columns of `order`.

        Parameters
        ----------
        shard
            The column that says to which shard a row belongs: a whole number from 0 to `n_shards`, excluded.
        order
            Rows that are alike in these come in any order; texts and binaries ascend by their bytes.
        function
            Is not called for a shard without rows.
        """

    def first_of_each(self, frame: Frame, key: str, order: Sequence[str]) -> Frame:
        """Keep one row for each key: the first by the columns of `order`, which are whole numbers."""

    def join(self, left: Frame, right: Frame, key: str, how: How = How.INNER) -> Frame:
        """Bring rows together that have the same key; null is no key. Other columns must have different names.

        An inner join gives one row for each pair, with the columns of both; the others give rows of `left`.
        """

    def concat(self, one: Frame, other: Frame) -> Frame:
        """Return the rows of both, by the names of columns."""

    def select(self, frame: Frame, columns: Sequence[str]) -> Frame:
        """Keep some of the columns, in this order."""

    def keep(self, frame: Frame) -> AbstractContextManager[Frame]:
        """Work a frame out once, for whoever needs it twice; on disk, until the block ends."""

    def collect(self, frame: Frame) -> list[dict[str, Any]]:
        """Return rows, which must be few."""

    def count(self, frame: Frame) -> int:
        """Return how many rows there are."""


def engine_name(column: str) -> str:
    """Return what an engine calls a column inside.

    Whoever owns the data has chosen the name, and engines do not tell upper from lower case, or read dots as a path.
    """
    return f"c{column.encode().hex()}"


def new_file(folder: str, kind: str, shard: int) -> str:
    """Return a URI in `folder` that no other try of the same function uses."""
    return f"{folder}/{kind}-{shard:05d}-{uuid.uuid4().hex}"
