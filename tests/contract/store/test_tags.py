"""Tag tables of a store, on SQLite and on a real PostgreSQL."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg2 import sql

from fedtasks.errors import DataCorrupt, StoreUnavailable
from fedtasks.store import Store
from tests.support.postgres import PostgresServer
from tests.support.stores import Database

ODD = ["007", "7", 'quo"te', "com,ma", "new\nline", "back\\slash", "\\N", "é", "😀", "a\x1fb", " spaced ", "\t", "\r\n"]


def tag_of(text: str, salt: str = "") -> bytes:
    return (salt + text).encode().hex().encode().rjust(16, b"\0")[-16:]


def batches(ids: Sequence[str], salt: str = "", size: int = 3) -> Iterator[pa.RecordBatch]:
    for start in range(0, len(ids), size):
        part = list(ids[start : start + size])
        tags = pa.array([tag_of(text, salt) for text in part], pa.binary())
        yield pa.RecordBatch.from_arrays([tags, pa.array(part)], ["tag", "id"])


def answers(rows: Sequence[tuple[str, object]]) -> Iterator[pa.RecordBatch]:
    for text, value in rows:
        yield pa.RecordBatch.from_pydict({"id": [text], "answer": [json.dumps(value)]})


def test_tags_loaded_are_found_by_id_and_by_tag_whatever_the_ids_hold(store: Store) -> None:
    loaded = store.tags.load("people", "k", "g1", batches(ODD))
    assert (loaded.rows, loaded.generation, loaded.columns) == (len(ODD), "g1", ())
    assert store.tags.get("people", "k") == loaded

    assert store.tags.tags_of("people", "k", [*ODD, "nobody"]) == {text: tag_of(text) for text in ODD}
    tags = [tag_of(text) for text in ODD]
    assert store.tags.matches_of("people", "k", [*tags, bytes(16)]) == {tag_of(text): (text, None) for text in ODD}


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(ids=st.sets(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)))
def test_tags_of_any_text_come_back_as_they_went_in(store: Store, ids: set[str]) -> None:
    numbered = dict(enumerate(sorted(ids)))
    source = pa.RecordBatch.from_pydict(
        {"id": list(numbered.values()), "tag": pa.array([n.to_bytes(16) for n in numbered], pa.binary())}
    )
    store.tags.load("people", "any", repr(ids), [source])
    found = store.tags.tags_of("people", "any", list(numbered.values()))
    assert found == {text: n.to_bytes(16) for n, text in numbered.items()}


def test_tags_of_other_datasets_and_keys_are_not_found(store: Store) -> None:
    store.tags.load("people", "k1", "g1", batches(["a"]))
    store.tags.load("people", "k2", "g1", batches(["b"]))
    store.tags.load("others", "k1", "g1", batches(["c"]))
    assert store.tags.tags_of("people", "k1", ["a", "b", "c"]) == {"a": tag_of("a")}
    assert store.tags.matches_of("people", "k2", [tag_of("a"), tag_of("b")]) == {tag_of("b"): ("b", None)}
    assert store.tags.tags_of("people", "k3", ["a"]) == {}
    assert store.tags.tags_of("people", "k1", []) == {}


def test_tags_of_many_ids_at_once(store: Store) -> None:
    ids = [f"{number}" for number in range(2500)]
    store.tags.load("people", "k", "g1", batches(ids, size=1000))
    assert len(store.tags.tags_of("people", "k", ids)) == 2500
    assert len(store.tags.matches_of("people", "k", [tag_of(text) for text in ids])) == 2500


def test_tags_of_a_newer_generation_replace_the_older_and_the_same_is_not_read(store: Store) -> None:
    first = store.tags.load("people", "k", "g1", batches(["a", "b"]))
    assert store.tags.load("people", "k", "g1", iter([])) == first

    second = store.tags.load("people", "k", "g2", batches(["b", "c"]))

    assert second.table_id != first.table_id
    assert set(store.tags.tags_of("people", "k", ["a", "b", "c"])) == {"b", "c"}
    store.tags.remove("people", "k")
    assert store.tags.get("people", "k") is None
    assert store.tags.tags_of("people", "k", ["b"]) == {}


def test_tags_loaded_in_part_are_never_seen_and_the_readers_error_is_told(store: Store, database: Database) -> None:
    store.tags.load("people", "k", "g1", batches(["a", "b"]))

    def breaks() -> Iterator[pa.RecordBatch]:
        yield from batches(["c", "d"])
        # A reader beside it, in a transaction of its own.
        with Store.open(database.url, database.password_file, migrate=False) as other:
            assert set(other.tags.tags_of("people", "k", ["a", "b", "c"])) == {"a", "b"}
        raise DataCorrupt("half a file")

    with pytest.raises(DataCorrupt, match="half a file"):
        store.tags.load("people", "k", "g2", breaks())

    table = store.tags.get("people", "k")
    assert table is not None
    assert table.generation == "g1"
    assert set(store.tags.tags_of("people", "k", ["a", "b", "c"])) == {"a", "b"}


def test_two_loaders_at_once_load_once(store: Store, database: Database) -> None:
    begun, go_on = threading.Event(), threading.Event()
    read: list[str] = []

    def slow() -> Iterator[pa.RecordBatch]:
        begun.set()
        assert go_on.wait(20)
        read.append("slow")
        yield from batches(["a"])

    def quick() -> Iterator[pa.RecordBatch]:
        read.append("quick")
        yield from batches(["a"])

    def load(source: Iterator[pa.RecordBatch]) -> None:
        with Store.open(database.url, database.password_file, migrate=False) as own:
            own.tags.load("people", "k", "g1", source)

    threads = [threading.Thread(target=load, args=(source(),)) for source in (slow, quick)]
    threads[0].start()
    assert begun.wait(20)
    threads[1].start()
    go_on.set()
    for thread in threads:
        thread.join(30)
    assert read == ["slow"]
    assert set(store.tags.tags_of("people", "k", ["a"])) == {"a"}


def test_table_that_is_loaded_does_not_wait_for_another_load(store: Store, database: Database) -> None:
    first = store.tags.load("people", "k", "g1", batches(["a"]))

    def beside() -> Iterator[pa.RecordBatch]:
        with Store.open(database.url, database.password_file, migrate=False) as other:
            assert other.tags.load("people", "k", "g1", iter([])) == first
        yield from batches(["b"])

    store.tags.load("others", "k", "g1", beside())

    assert store.tags.tags_of("others", "k", ["b"]) == {"b": tag_of("b")}


def test_load_that_the_database_breaks_off_is_an_error_of_the_registry(
    postgres: PostgresServer, postgres_database: Database
) -> None:
    with Store.open(postgres_database.url, postgres_database.password_file) as store:
        first = store.tags.load("people", "k", "g1", batches(["a"]))

        def cancelled() -> Iterator[pa.RecordBatch]:
            yield from batches(["b"])
            cancel = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE 'COPY tags %'"
            postgres.execute(sql.SQL(cancel))
            yield from batches(["c"])

        with pytest.raises(StoreUnavailable, match="cancel"):
            store.tags.load("people", "k", "g2", cancelled())
        assert store.tags.get("people", "k") == first


def test_tags_just_loaded_are_looked_up_in_the_index(postgres_database: Database) -> None:
    ids = [f"person-{number}" for number in range(20_000)]
    with Store.open(postgres_database.url, postgres_database.password_file) as store:
        loaded = store.tags.load("people", "k", "g1", batches(ids, size=10_000))
        query = "EXPLAIN SELECT tag FROM tags WHERE table_id = %s AND id = ANY(%s)"
        with store._engine.connect() as connection:
            plan = connection.exec_driver_sql(query, (loaded.table_id, ids[:100])).scalars().all()
    assert any("Index Cond: ((table_id" in line and "ANY" in line for line in plan), [line[:80] for line in plan]


@pytest.mark.parametrize("kind", [pa.binary(), pa.binary(16)], ids=str)
def test_tags_of_either_binary_type_are_loaded(store: Store, kind: pa.DataType) -> None:
    source = pa.RecordBatch.from_arrays([pa.array(["a"]), pa.array([tag_of("a")], kind)], ["id", "tag"])
    store.tags.load("people", "k", "g1", [source.slice(0, 0), source])
    assert store.tags.tags_of("people", "k", ["a"]) == {"a": tag_of("a")}


def test_tags_of_repeated_and_impossible_ids(store: Store) -> None:
    store.tags.load("people", "k", "g1", batches(["a", "b"]))
    assert store.tags.tags_of("people", "k", ["a", "a\0b", "a", "\0", "b"]) == {
        "a": tag_of("a"),
        "b": tag_of("b"),
    }
    assert store.tags.matches_of("people", "k", [tag_of("a")] * 3 + [b""]) == {tag_of("a"): ("a", None)}


def test_tags_with_answers_take_the_first_of_a_repeated_id(store: Store) -> None:
    rows = [("b", {"x": 1}), ("nobody", {"x": 2}), ("b", {"x": 3}), ("c", {"x": 'é,"\n'})]
    loaded = store.tags.load("people", "k", "g1", batches(["a", "b", "c"]), columns=["x"], answers=answers(rows))
    assert (loaded.rows, loaded.columns) == (3, ("x",))
    found = store.tags.matches_of("people", "k", [tag_of(text) for text in "abc"])
    values = {text: json.loads(answer) if answer else None for text, answer in found.values()}
    assert values == {"a": None, "b": {"x": 1}, "c": {"x": 'é,"\n'}}
    # Other columns are other content.
    again = store.tags.load("people", "k", "g1", batches(["a"]))
    assert (again.rows, again.columns) == (1, ())
