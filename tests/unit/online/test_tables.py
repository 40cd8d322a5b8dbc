"""Tags of an intersection loaded into a store, with and without the values of columns."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fedtasks.config import Dataset, FeatureType, Format, IdType
from fedtasks.data.versioned import Versioned
from fedtasks.errors import ColumnType, ConfigError, DataMissing
from fedtasks.online.tables import load_tags
from fedtasks.store import Store
from tests.support.stores import make_empty_store

FEATURES = {"age": FeatureType.NUMERIC, "home": FeatureType.CATEGORICAL}
CSV = 'id,age,home\n007,1.5,"a,b"\n8,,\n007,2,later\n,3,nobody\n9,4,"é""\nx"\n'


def tag_of(text: str) -> bytes:
    return text.encode().rjust(16, b"\0")[-16:]


def write_generation(root: Path, name: str, ids: list[str], key_id: str = "k") -> None:
    """Make `ids` the tag table of dataset `people`."""
    folder = root / "tags" / "people" / key_id
    (folder / name).mkdir(parents=True)
    tags = pa.array([tag_of(text) for text in ids], pa.binary(16))
    pq.write_table(pa.table({"id": pa.array(ids, pa.string()), "tag": tags}), folder / name / "bucket.parquet")
    plain = {"name": name, "rows": len(ids), "files": ["bucket.parquet"]}
    Versioned(f"file://{folder}").change(lambda _: {"generations": [plain]})


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    make_empty_store(tmp_path / "store.db")
    with Store.open(f"sqlite:///{tmp_path}/store.db") as opened:
        yield opened


@pytest.fixture
def party(tmp_path: Path) -> Any:
    return SimpleNamespace(storage=f"file://{tmp_path}")


def dataset(tmp_path: Path, text: str = CSV, **fields: Any) -> Dataset:
    path = tmp_path / "people.csv"
    path.write_text(text)
    plain = {"name": "people", "uri": f"file://{path}", "id": "id", "features": FEATURES, "format": Format.CSV}
    return Dataset(**(plain | fields))


def values(store: Store, *ids: str) -> dict[str, Any]:
    """The values that are kept beside the tags of these ids."""
    found = store.tags.matches_of("people", "k", [tag_of(text) for text in ids])
    return {text: json.loads(answer) if answer else None for text, answer in found.values()}


def test_load_tags_loads_the_newest_generation_once(tmp_path: Path, store: Store, party: Any) -> None:
    people = dataset(tmp_path)
    write_generation(tmp_path, "g1", ["007", "8"])

    first = load_tags(party, people, store)

    assert (first.dataset, first.key_id, first.generation, first.rows, first.columns) == ("people", "k", "g1", 2, ())
    assert load_tags(party, people, store) == first
    assert store.tags.tags_of("people", "k", ["007", "7", "8"]) == {"007": tag_of("007"), "8": tag_of("8")}

    write_generation(tmp_path, "g2", ["8", "9"])
    assert load_tags(party, people, store).generation == "g2"
    assert set(store.tags.tags_of("people", "k", ["007", "8", "9"])) == {"8", "9"}


def test_load_tags_without_columns_does_not_read_the_dataset(tmp_path: Path, store: Store, party: Any) -> None:
    people = dataset(tmp_path)
    (tmp_path / "people.csv").unlink()
    write_generation(tmp_path, "g1", ["8"])
    assert load_tags(party, people, store).rows == 1
    with pytest.raises(DataMissing):
        load_tags(party, people, store, columns=["age"])


def test_load_tags_leaves_out_padding_and_ids_with_nul(tmp_path: Path, store: Store, party: Any) -> None:
    write_generation(tmp_path, "g1", ["8", "\x00padding\x00bank\x001", "a\x00b"])
    people = dataset(tmp_path, "id,age,home\n8,1,x\na\0b,2,y\n")
    assert load_tags(party, people, store).rows == 1
    assert load_tags(party, people, store, columns=["age"]).rows == 1
    assert values(store, "8") == {"8": {"age": 1.0}}


def test_load_tags_keeps_the_values_of_columns_of_the_first_row(tmp_path: Path, store: Store, party: Any) -> None:
    write_generation(tmp_path, "g1", ["007", "8", "9", "gone"])

    loaded = load_tags(party, dataset(tmp_path), store, columns=["home", "age"])

    assert (loaded.rows, loaded.columns) == (4, ("home", "age"))
    assert values(store, "007", "8", "9", "gone") == {
        "007": {"home": "a,b", "age": 1.5},
        "8": {"home": None, "age": None},
        "9": {"home": 'é"\nx', "age": 4.0},
        "gone": None,
    }


def test_load_tags_finds_values_by_the_normalised_id(tmp_path: Path, store: Store, party: Any) -> None:
    write_generation(tmp_path, "g1", ["7", "8", "9"])
    text = "id,age,home\n007,1.5,x\n+8,2,y\n 9 ,3,z\n"
    load_tags(party, dataset(tmp_path, text, id_type=IdType.INTEGER), store, columns=["age"])
    assert values(store, "7", "8", "9") == {"7": {"age": 1.5}, "8": {"age": 2.0}, "9": {"age": 3.0}}


def test_load_tags_finds_values_by_ids_of_several_columns(tmp_path: Path, store: Store, party: Any) -> None:
    write_generation(tmp_path, "g1", ["a\x1fx"])
    people = dataset(tmp_path, "id,town,age,home\na,x,1,h\na,y,2,h\n", id="id,town")
    load_tags(party, people, store, columns=["age"])
    assert values(store, "a\x1fx") == {"a\x1fx": {"age": 1.0}}


def test_load_tags_loads_anew_when_the_dataset_or_the_columns_change(tmp_path: Path, store: Store, party: Any) -> None:
    write_generation(tmp_path, "g1", ["8"])
    people = dataset(tmp_path, "id,age,home\n8,1,x\n")
    first = load_tags(party, people, store, columns=["age"])
    assert load_tags(party, people, store, columns=["age"]) == first

    dataset(tmp_path, "id,age,home\n8,2,x\n")  # as long as before: only its time tells
    later = (tmp_path / "people.csv").stat().st_mtime + 1
    os.utime(tmp_path / "people.csv", (later, later))
    second = load_tags(party, people, store, columns=["age"])

    assert second.generation != first.generation
    assert values(store, "8") == {"8": {"age": 2.0}}
    load_tags(party, people, store, columns=["home"])
    assert values(store, "8") == {"8": {"home": "x"}}
    assert load_tags(party, people, store).columns == ()
    assert values(store, "8") == {"8": None}


def test_load_tags_of_a_dataset_that_is_not_as_declared_leaves_the_old(
    tmp_path: Path, store: Store, party: Any
) -> None:
    write_generation(tmp_path, "g1", ["8"])
    first = load_tags(party, dataset(tmp_path), store)
    broken = dataset(tmp_path, "id,age,home\n8,old,x\n")
    with pytest.raises(ColumnType, match="row 1"):
        load_tags(party, broken, store, columns=["age"])
    assert store.tags.get("people", "k") == first


def test_load_tags_under_several_keys_needs_one_named(tmp_path: Path, store: Store, party: Any) -> None:
    people = dataset(tmp_path)
    with pytest.raises(DataMissing, match="offline_psi"):
        load_tags(party, people, store)
    write_generation(tmp_path, "g1", ["8"], key_id="k1")
    write_generation(tmp_path, "g1", ["8", "9"], key_id="k2")
    with pytest.raises(ConfigError, match="k1, k2"):
        load_tags(party, people, store)
    assert load_tags(party, people, store, "k2").rows == 2
