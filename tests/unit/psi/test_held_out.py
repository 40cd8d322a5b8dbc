"""What the follower is told of the rows that are held out."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from fedtasks.errors import ProtocolViolated
from fedtasks.link.memory import memory_pair
from fedtasks.psi import held_out

TABLE = pa.table({"x": range(19)})


def test_follower_reads_what_the_leader_tells_of_each_block() -> None:
    masks = {0: np.arange(19) % 3 == 0, 2: np.ones(8, dtype=bool)}
    leader, follower = memory_pair()
    held_out.tell(leader, {number: held_out.packed(mask) for number, mask in masks.items()}, 3)

    choice = held_out.listen(follower, 3, 27)

    assert choice(0, TABLE).tolist() == masks[0].tolist()
    assert choice(2, TABLE.slice(0, 8)).all()
    for half in (leader, follower):
        half.abort()


@pytest.mark.parametrize("n_bits", [8, 16, 24 + 1])
def test_follower_that_is_told_of_another_number_of_rows_refuses(n_bits: int) -> None:
    leader, follower = memory_pair()
    held_out.tell(leader, {0: bytes(-(-n_bits // 8))}, 1)
    choice = held_out.listen(follower, 1, 100)
    with pytest.raises(ProtocolViolated, match="held out"):
        choice(0, TABLE)
    for half in (leader, follower):
        half.abort()


def test_follower_that_is_told_of_more_rows_than_there_are_people_refuses() -> None:
    leader, follower = memory_pair()
    held_out.tell(leader, {0: bytes(100)}, 1)
    with pytest.raises(ProtocolViolated):
        held_out.listen(follower, 1, 19)
    for half in (leader, follower):
        half.abort()
