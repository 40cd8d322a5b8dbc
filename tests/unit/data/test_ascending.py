"""Walking ascending sources side by side, and what is decided by keys."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from fedtasks.data.ascending import KEY, are_in, are_last, as_keys, as_rows, clip, keys_of, walk

SCHEMA = pa.schema([("key", KEY), ("source", pa.int64())])
# Few keys, so that they meet; some end in zeros, which numpy's own texts would drop.
keys = st.sampled_from([b"", b"\0\1", b"a", b"a\0\0", b"a\0\0\1", b"b", b"\xff", b"\xff\xff"]).map(
    lambda text: text.ljust(16, b"\0")
)
many = st.lists(st.one_of(keys, st.binary(min_size=16, max_size=16)), max_size=30).map(sorted)
once = many.map(lambda values: sorted(set(values)))
sizes = st.integers(1, 7)


def batches_of(values: Sequence[bytes], size: int, source: int = 0) -> Iterator[pa.RecordBatch]:
    for start in range(0, len(values), size):
        part = values[start : start + size]
        yield pa.RecordBatch.from_pydict({"key": part, "source": [source] * len(part)}, schema=SCHEMA)


def array_of(values: Sequence[bytes]) -> np.ndarray:
    return as_keys(np.frombuffer(b"".join(values), dtype=np.uint8).reshape(-1, 16))


@given(st.lists(once, min_size=1, max_size=4), sizes)
def test_each_step_has_all_rows_of_its_part_of_the_keys(sources: list[list[bytes]], size: int) -> None:
    steps = list(walk(*((SCHEMA, batches_of(values, size + n, n)) for n, values in enumerate(sources))))

    for number, values in enumerate(sources):
        taken = pa.Table.from_batches([step[number] for step in steps], SCHEMA)
        assert taken.column("key").to_pylist() == values
        assert set(taken.column("source").to_pylist()) <= {number}
    ranges = [[row for batch in step for row in batch.column("key").to_pylist()] for step in steps]
    assert all(ranges)
    assert all(max(before) < min(after) for before, after in pairwise(ranges))


@given(many, many)
def test_keys_are_found_among_others(some: list[bytes], others: list[bytes]) -> None:
    assert are_in(array_of(some), array_of(others)).tolist() == [key in others for key in some]


@given(many)
def test_the_last_of_equal_keys_is_found(values: list[bytes]) -> None:
    last = {key: place for place, key in enumerate(values)}
    assert np.flatnonzero(are_last(array_of(values))).tolist() == sorted(last.values())


@given(many)
def test_keys_keep_every_byte(values: list[bytes]) -> None:
    assert as_rows(array_of(values)).tobytes() == b"".join(values)
    assert all(keys_of(batch).tobytes() == b"".join(values) for batch in batches_of(values, 1000))


@given(many, st.integers(1, 6), sizes)
def test_shards_in_their_order_are_all_rows_in_order(values: list[bytes], n_shards: int, size: int) -> None:
    parts = [list(clip(batches_of(values, size), shard, n_shards)) for shard in range(n_shards)]
    found = [row for part in parts for batch in part for row in batch.column("key").to_pylist()]
    assert found == values
    heads = [
        [int.from_bytes(key[:4]) * n_shards >> 32 for batch in part for key in batch.column("key").to_pylist()]
        for part in parts
    ]
    assert all(set(of) <= {shard} for shard, of in enumerate(heads))
