"""What every engine promises: not only how many rows come, but which ones, where, and in which order."""

from __future__ import annotations

import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedtasks.config import Duckdb, Spark
from fedtasks.engines import open_engine
from fedtasks.engines.engine import Batches, Engine, Frame, How
from fedtasks.errors import KeyWeak
from tests.integration.psi_halves import make_party

SECTIONS: dict[str, Any] = {"duckdb": Duckdb("64MB", 2), "spark": Spark("local[2]", "512m")}
KEYED = pa.schema([("key", pa.string()), ("one", pa.int64())])
OTHER = pa.schema([("key", pa.string()), ("other", pa.int64())])
few = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
keyed = st.lists(st.tuples(st.one_of(st.none(), st.sampled_from(["", "a", "A", "é", "\x00"])), st.integers(0, 9)))


@pytest.fixture(scope="module", params=["duckdb", pytest.param("spark", marks=pytest.mark.cluster)])
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    folder = tmp_path_factory.mktemp("engine")
    party = replace(make_party("bank", folder, ()), **{request.param: SECTIONS[request.param]})
    with open_engine(party, "contract", f"file://{folder}") as opened:
        assert opened.name == request.param
        yield opened


def frame_of(engine: Engine, rows: list[Any], schema: pa.Schema, n_items: int = 3) -> Frame:
    """Make a frame of rows that come from several items."""

    def read(item: list[Any]) -> Batches:
        columns = list(zip(*item, strict=True)) or [[]] * len(schema)
        yield pa.RecordBatch.from_pydict(dict(zip(schema.names, map(list, columns), strict=True)), schema=schema)

    return engine.each([rows[start::n_items] for start in range(n_items)], read, schema)


def rows_of(engine: Engine, frame: Frame) -> Counter[tuple[Any, ...]]:
    return Counter(tuple(row[name] for name in frame.schema.names) for row in engine.collect(frame))


def test_each_item_gives_its_rows_once(engine: Engine) -> None:
    schema = pa.schema([("item", pa.int32()), ("row", pa.int64())])

    def count(item: int) -> Batches:
        for start in range(0, item * 1000, 1000):
            rows = {"item": [item] * 1000, "row": list(range(start, start + 1000))}
            yield pa.RecordBatch.from_pydict(rows, schema=schema)

    found = engine.each(range(12), count, schema)
    assert found.schema == schema
    assert engine.count(found) == sum(range(12)) * 1000
    assert rows_of(engine, found) == Counter((item, row) for item in range(12) for row in range(item * 1000))


def test_no_item_gives_an_empty_frame(engine: Engine) -> None:
    nothing = frame_of(engine, [], KEYED)
    empty = engine.each([], lambda _: iter(()), KEYED)
    for frame in (nothing, empty, engine.join(empty, frame_of(engine, [], OTHER), "key")):
        assert engine.count(frame) == 0
        assert engine.collect(frame) == []


def numbered(item: int) -> Batches:
    yield pa.RecordBatch.from_pydict({"key": [str(item)] * item, "one": list(range(item))}, schema=KEYED)


def test_rows_of_items_are_streamed_in_their_order(engine: Engine) -> None:
    found = list(engine.stream([3, 0, 2, 1], numbered, KEYED))
    assert found == [[{"key": str(item), "one": one} for one in range(item)] for item in (3, 0, 2, 1)]
    assert list(engine.stream([], numbered, KEYED)) == []


def test_stream_that_nobody_reads_to_its_end_leaves_the_engine_usable(engine: Engine) -> None:
    stream = engine.stream(range(1, 20), numbered, KEYED)
    assert next(stream) == [{"key": "1", "one": 0}]
    stream.close()  # type: ignore[attr-defined]
    assert engine.count(engine.each([5], numbered, KEYED)) == 5


def test_items_may_come_one_after_another(engine: Engine) -> None:
    assert engine.count(engine.each((item for item in (1, 2, 3)), numbered, KEYED)) == 6


def test_map_takes_each_row_once_and_may_give_more_or_fewer(engine: Engine) -> None:
    def doubled_if_even(batches: Batches) -> Batches:
        for batch in batches:
            even = np.repeat(batch.column("one").to_numpy()[batch.column("one").to_numpy() % 2 == 0], 2)
            yield pa.RecordBatch.from_pydict({"key": [str(n) for n in even], "one": even}, schema=KEYED)

    rows = frame_of(engine, [(None, n) for n in range(30_000)], KEYED)
    for frame in (rows, engine.spread(rows)):
        found = rows_of(engine, engine.map(frame, doubled_if_even, KEYED))
        assert found == Counter({(str(n), n): 2 for n in range(0, 30_000, 2)})


def ordered_by(engine: Engine, rows: list[Any], kind: pa.DataType, n_shards: int) -> dict[int, list[list[Any]]]:
    """Return shard → what each call saw, in its order."""
    schema = pa.schema([("value", kind), ("shard", pa.int32())])
    seen = pa.schema([("shard", pa.int32()), ("call", pa.string()), ("place", pa.int64()), ("value", kind)])

    def see(shard: int, batches: Batches) -> Batches:
        call, place = uuid.uuid4().hex, 0
        for batch in batches:
            assert batch.schema == schema
            assert set(batch.column("shard").to_pylist()) <= {shard}
            places = range(place, place + batch.num_rows)
            columns = {"shard": [shard] * len(places), "call": [call] * len(places), "place": list(places)}
            yield pa.RecordBatch.from_pydict({**columns, "value": batch.column("value")}, schema=seen)
            place += batch.num_rows

    frame = engine.by_shard(frame_of(engine, rows, schema), "shard", n_shards, ["value"], see, seen)
    calls: dict[int, dict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))
    for row in sorted(engine.collect(frame), key=lambda row: row["place"]):
        calls[row["shard"]][row["call"]].append(row["value"])
    return {shard: list(of_shard.values()) for shard, of_shard in calls.items()}


def test_rows_come_by_shard_in_order_to_one_call_each(engine: Engine) -> None:
    rng = np.random.default_rng(1)
    rows = [
        (int(value), int(shard))
        for value, shard in zip(rng.integers(-(2**62), 2**62, 60_000), rng.integers(0, 5, 60_000), strict=True)
    ]
    rows = [(value, shard + (shard >= 2)) for value, shard in rows]  # the third shard has no row
    found = ordered_by(engine, rows, pa.int64(), 7)
    assert found == {shard: [sorted(value for value, of in rows if of == shard)] for shard in (0, 1, 3, 4, 5)}


def test_binaries_of_sixteen_bytes_ascend_by_their_bytes(engine: Engine) -> None:
    values = [bytes(np.random.default_rng(n).bytes(16)) for n in range(200)]
    values += [b"\0" * 16, b"\xff" * 16, b"\x7f" + b"\xff" * 15, b"\x80" + b"\0" * 15, b"\0" * 15 + b"\1"]
    found = ordered_by(engine, [(value, 0) for value in values], pa.binary(16), 1)
    assert found == {0: [sorted(values)]}


@pytest.mark.parametrize("kind", [pa.string(), pa.binary()], ids=str)
def test_texts_and_binaries_ascend_by_their_bytes(engine: Engine, kind: pa.DataType) -> None:
    texts = ["", "\x00", "\x00\x00", "a", "a\x00", "B", "b", "é", "z", "ÿ", "ß", "𝄞", "10", "9", "a" * 300]
    values: list[Any] = texts if pa.types.is_string(kind) else [*(text.encode() for text in texts), b"\x80", b"\xff"]
    found = ordered_by(engine, [(value, 0) for value in reversed(values)], kind, 1)
    assert found == {0: [sorted(values, key=lambda value: value.encode() if isinstance(value, str) else value)]}


@given(rows=keyed)
@few
def test_first_of_each_key_is_the_least_by_the_order(engine: Engine, rows: list[tuple[str | None, int]]) -> None:
    schema = pa.schema([("note", pa.string()), ("key", pa.string()), ("file", pa.int32()), ("row", pa.int64())])
    placed = [(f"{key}-{n}", key, file, n) for n, (key, file) in enumerate(rows)]
    first: dict[str | None, tuple[Any, ...]] = {}
    for each in sorted(placed, key=lambda each: each[2:]):
        first.setdefault(each[1], each)
    frame = engine.first_of_each(frame_of(engine, placed, schema), "key", ["file", "row"])
    assert frame.schema == schema
    assert rows_of(engine, frame) == Counter(first.values())


@given(left=keyed, right=keyed)
@few
def test_joins_equal_plain_ones(
    engine: Engine, left: list[tuple[str | None, int]], right: list[tuple[str | None, int]]
) -> None:
    one, other = frame_of(engine, left, KEYED), frame_of(engine, right, OTHER)
    there = {key for key, _ in right if key is not None}
    pairs = Counter((key, a, b) for key, a in left for of, b in right if key == of and key is not None)
    assert rows_of(engine, engine.join(one, other, "key")) == pairs
    assert rows_of(engine, engine.join(one, other, "key", How.SEMI)) == Counter(row for row in left if row[0] in there)
    assert rows_of(engine, engine.join(one, other, "key", How.ANTI)) == Counter(
        row for row in left if row[0] not in there
    )


def test_frames_are_put_together_by_names(engine: Engine) -> None:
    turned = pa.schema([KEYED.field("one"), KEYED.field("key")])
    both = engine.concat(frame_of(engine, [("a", 1)], KEYED), frame_of(engine, [(2, "b"), (2, "b")], turned))
    assert both.schema == KEYED
    assert rows_of(engine, both) == Counter({("a", 1): 1, ("b", 2): 2})
    only = engine.select(both, ["one"])
    assert only.schema.names == ["one"]
    assert rows_of(engine, only) == Counter({(1,): 1, (2,): 2})


def test_names_of_columns_may_be_anything(engine: Engine) -> None:
    names = ["a", "A", 'a"b', "a`b", "a b", "select", "é", "a.b", "`x`", "c61", "first", "x" * 300]
    schema = pa.schema([("key", pa.string()), *((name, pa.int64()) for name in names)])
    rows = [("k", *range(len(names))), ("l", *range(10, 10 + len(names)))]
    frame = engine.join(frame_of(engine, rows, schema), frame_of(engine, [("k", 7)], OTHER), "key")
    assert rows_of(engine, engine.select(frame, ["A", "a", "other"])) == Counter([(1, 0, 7)])
    assert rows_of(engine, engine.select(frame, names)) == Counter([tuple(range(len(names)))])
    firsts = engine.first_of_each(frame_of(engine, rows, schema), "key", ["A", 'a"b'])
    assert rows_of(engine, firsts) == Counter(rows)


def test_all_types_come_back_as_they_went(engine: Engine) -> None:
    kinds = [pa.bool_(), pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.float64(), pa.string(), pa.binary()]
    kinds.append(pa.binary(16))
    schema = pa.schema([(str(kind), kind) for kind in kinds])
    rows = [
        (True, -128, -(2**15), -(2**31), -(2**63), -0.1, "", b"", b"\0" * 16),
        (False, 127, 2**15 - 1, 2**31 - 1, 2**63 - 1, 1e308, "\x00é", bytes(range(256)), b"\xff" * 16),
        (None,) * len(kinds),
    ]
    frame = frame_of(engine, rows, schema)
    assert rows_of(engine, frame) == Counter(rows)
    assert rows_of(engine, engine.map(frame, lambda batches: batches, schema)) == Counter(rows)


def test_lists_come_back_as_they_went_and_through_joins(engine: Engine) -> None:
    lists = pa.schema([("key", pa.string()), ("ids", pa.list_(pa.string())), ("numbers", pa.list_(pa.float64()))])
    rows = [("a", ["7", "é"], [0.1, None, -1e308]), ("b", None, None), ("c", ["x"] * 300, [2.0])]
    frame = frame_of(engine, rows, lists)
    one = frame_of(engine, [(key, number) for number, (key, _, _) in enumerate(rows)], KEYED)
    joined = engine.select(engine.join(one, frame, "key"), lists.names)
    first = engine.first_of_each(engine.concat(frame, joined), "key", ["key"])
    for found in (frame, engine.map(frame, lambda batches: batches, lists), joined, first):
        seen = [tuple(row[name] for name in lists.names) for row in engine.collect(found)]
        assert sorted(seen, key=lambda row: row[0]) == rows


def test_what_is_kept_is_worked_out_once(engine: Engine, tmp_path: Path) -> None:
    def read(item: int) -> Batches:
        (tmp_path / uuid.uuid4().hex).touch()
        yield pa.RecordBatch.from_pydict({"key": [str(item)], "one": [item]}, schema=KEYED)

    with engine.keep(engine.select(engine.each([1, 2], read, KEYED), ["key", "one"])) as kept:
        assert engine.count(kept) == 2
        assert rows_of(engine, engine.concat(kept, kept)) == Counter({("1", 1): 2, ("2", 2): 2})
    assert len(list(tmp_path.iterdir())) == 2


def raise_weak(*_: Any) -> Batches:
    raise KeyWeak("the key has 7 bits", where="key.pem", key_bits=7)
    yield


@pytest.mark.parametrize(
    "job",
    [
        lambda engine, frame: engine.each([1, 2, 3], raise_weak, KEYED),
        lambda engine, frame: next(engine.stream([1, 2, 3], raise_weak, KEYED)),
        lambda engine, frame: engine.map(frame, raise_weak, KEYED),
        lambda engine, frame: engine.by_shard(frame, "one", 2, ["key"], raise_weak, KEYED),
    ],
    ids=["each", "stream", "map", "by_shard"],
)
def test_error_of_a_worker_is_raised_as_what_it_was(engine: Engine, job: Callable[[Engine, Frame], Frame]) -> None:
    frame = frame_of(engine, [("a", 0), ("b", 1)], KEYED)
    with pytest.raises(KeyWeak, match="the key has 7 bits") as caught:
        engine.collect(job(engine, frame))
    assert (caught.value.where, caught.value.fields) == ("key.pem", {"key_bits": "7"})
    assert engine.count(frame) == 2  # the engine goes on
