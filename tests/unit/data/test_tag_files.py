"""Tag tables as they lie in a party's storage; read without an engine."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtasks.data.tag_files import KEYS, TAGS, Generation, Run, State, TagFiles, bucket_file, find_key
from fedtasks.dataclass_io import to_plain
from fedtasks.errors import ConfigError, DataCorrupt, DataMissing


def tag_of(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()[:16]


def write_run(root: Path, name: str, here: Sequence[str], gone: Sequence[str] = (), *, n_buckets: int = 2) -> Run:
    """Add a run to the tag table of dataset `people` under key `k`, as `TagTable` would."""
    folder = root / "tags" / "people" / "k" / name
    folder.mkdir(parents=True)
    rows = [(tag_of(text), text, State.HERE) for text in here] + [(tag_of(text), "", State.GONE) for text in gone]
    buckets: dict[int, list[tuple[bytes, str, State]]] = defaultdict(list)
    for row in sorted(rows):
        buckets[int.from_bytes(row[0][:4]) * n_buckets >> 32].append(row)
    for bucket, of in buckets.items():
        tags, ids, states = (list(column) for column in zip(*of, strict=True))
        whose = pa.table([tags, ids, [int(state) for state in states]], schema=TAGS)
        pq.write_table(whose, folder / bucket_file("tags", bucket))
        keys = pa.table([tags, tags, [int(state) for state in states]], schema=KEYS)
        pq.write_table(keys, folder / bucket_file("keys", bucket))
    return Run(name, len(rows), n_buckets, tuple(sorted(buckets)), tuple(sorted(buckets)))


def write_generation(root: Path, key_id: str, name: str, *buckets: list[str]) -> None:
    """Add a generation to the tag table of dataset `people`, a file for each bucket of ids."""
    folder = root / "tags" / "people" / key_id
    (folder / name).mkdir(parents=True)
    files = []
    for number, ids in enumerate(buckets):
        file = folder / name / f"bucket-{number}.parquet"
        tags = pa.array([tag_of(text) for text in ids], pa.binary(16))
        pq.write_table(pa.table({"id": pa.array(ids, pa.string()), "tag": tags}), file)
        files.append(file.name)
    manifest = folder / "manifest.json"
    kept = json.loads(manifest.read_text())["generations"] if manifest.exists() else []
    kept.append({"name": name, "rows": sum(map(len, buckets)), "files": files})
    manifest.write_text(json.dumps({"generations": kept}))


def test_tag_files_of_releases_before_runs_are_read_file_by_file(tmp_path: Path) -> None:
    write_generation(tmp_path, "k", "g1", ["a"])
    write_generation(tmp_path, "k", "g2", ["a", "b"], ["c"])
    files = TagFiles(f"file://{tmp_path}", "people", "k")

    newest = files.generation()

    assert newest == Generation("g2", 3, files=("bucket-0.parquet", "bucket-1.parquet"))
    found = pa.Table.from_batches(files.read(newest))
    assert found.schema == pa.schema([("tag", pa.binary(16)), ("id", pa.string())])
    assert found.to_pylist() == [{"tag": tag_of(text), "id": text} for text in "abc"]
    assert files.generation("g1").rows == 1


days_of_ids = st.lists(st.tuples(st.frozensets(st.integers(0, 40)), st.integers(1, 4)), max_size=5)


@given(days=days_of_ids, n_parts=st.integers(1, 5))
@settings(max_examples=40, deadline=None)
def test_runs_of_days_are_read_as_the_last_day_left_them(days: list[tuple[frozenset[int], int]], n_parts: int) -> None:
    with TemporaryDirectory() as place:
        runs, before = [], set[str]()
        for number, (ids, n_buckets) in enumerate(days):
            now = {f"{n:02d}" for n in ids}
            changed = sorted(now - before), sorted(before - now)
            runs.append(write_run(Path(place), f"r{number}", *changed, n_buckets=n_buckets))
            before = now
        files = TagFiles(f"file://{place}", "people", "k")

        found = [
            row for batch in files.read(Generation("g", len(before), runs=tuple(runs))) for row in batch.to_pylist()
        ]
        assert found == sorted(({"tag": tag_of(text), "id": text} for text in before), key=lambda row: row["tag"])
        parts = [pa.Table.from_batches(files.by_key(runs, part, n_parts), KEYS).to_pylist() for part in range(n_parts)]
        assert [row["key"] for part in parts for row in part] == sorted(tag_of(text) for text in before)
        for part, rows in enumerate(parts):
            assert all(int.from_bytes(row["key"][:4]) * n_parts >> 32 == part for row in rows)


def test_generation_of_runs_is_read_from_the_manifest(tmp_path: Path) -> None:
    run = write_run(tmp_path, "r1", ["a", "b"])
    generation = Generation("g1", 2, padding=1, runs=(run,), age=3)
    manifest = tmp_path / "tags" / "people" / "k" / "manifest.json"
    manifest.write_text(json.dumps({"generations": [to_plain(generation)]}))
    files = TagFiles(f"file://{tmp_path}", "people", "k")
    assert files.generation() == generation
    assert find_key(f"file://{tmp_path}", "people") == "k"


def test_tag_files_of_no_table_are_an_empty_generation(tmp_path: Path) -> None:
    files = TagFiles(f"file://{tmp_path}", "people", "k")
    assert files.generation() == Generation()
    assert list(files.read(Generation())) == []
    with pytest.raises(DataMissing, match="generation g1 of the tag table is gone"):
        files.generation("g1")


@pytest.mark.parametrize("content", ["[]", "{}", '{"generations": [{"name": "g"}]}', "no JSON"])
def test_tag_files_with_another_manifest_are_refused(tmp_path: Path, content: str) -> None:
    write_generation(tmp_path, "k", "g", ["a"])
    (tmp_path / "tags/people/k/manifest.json").write_text(content)
    with pytest.raises(DataCorrupt):
        TagFiles(f"file://{tmp_path}", "people", "k").generation()


def test_tag_files_that_were_replaced_meanwhile_are_missing(tmp_path: Path) -> None:
    write_generation(tmp_path, "k", "g", ["a"])
    files = TagFiles(f"file://{tmp_path}", "people", "k")
    newest = files.generation()
    (tmp_path / "tags/people/k/g/bucket-0.parquet").unlink()
    with pytest.raises(DataMissing, match="newer runs have replaced them"):
        list(files.read(newest))


def test_find_key_takes_the_only_one_and_asks_among_several(tmp_path: Path) -> None:
    root = f"file://{tmp_path}"
    write_generation(tmp_path, "k1", "g", ["a"])
    assert find_key(root, "people") == "k1"

    write_generation(tmp_path, "k2", "g", ["a"])
    with pytest.raises(ConfigError, match="k1, k2"):
        find_key(root, "people")
    assert find_key(root, "people", "k2") == "k2"


@pytest.mark.parametrize("key_id", ["", "k"])
def test_find_key_without_tags_says_what_to_run(tmp_path: Path, key_id: str) -> None:
    with pytest.raises(DataMissing, match="offline_psi"):
        find_key(f"file://{tmp_path}", "people", key_id)
    write_generation(tmp_path, "k", "empty")
    with pytest.raises(DataMissing, match="offline_psi"):
        find_key(f"file://{tmp_path}", "people", key_id)


def test_find_key_passes_over_what_is_no_table(tmp_path: Path) -> None:
    write_generation(tmp_path, "k", "g", ["a"])
    folder = tmp_path / "tags" / "people"
    (folder / "notes.txt").touch()
    (folder / "begun").mkdir()
    assert find_key(f"file://{tmp_path}", "people") == "k"


def test_find_key_that_is_named_does_not_mind_the_tables_of_others(tmp_path: Path) -> None:
    write_generation(tmp_path, "k", "g", ["a"])
    write_generation(tmp_path, "broken", "g", ["a"])
    (tmp_path / "tags/people/broken/manifest.json").write_text("no JSON")
    assert find_key(f"file://{tmp_path}", "people", "k") == "k"


def test_tag_files_and_online_tables_are_imported_without_an_engine() -> None:
    script = (
        "import sys, fedtasks.data.tag_files, fedtasks.online.tables; "
        "sys.exit(any(name.partition('.')[0] in ('pyspark', 'duckdb') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_generation_that_is_read_in_a_block_stays_until_its_end(tmp_path: Path) -> None:
    for name in ("g1", "g2"):
        write_generation(tmp_path, "k", name, ["a"])
    files, other = (TagFiles(f"file://{tmp_path}", "people", "k") for _ in range(2))
    first = files.generation("g1")
    with files.held(first):
        for name in ("g3", "g4", "g5"):
            (tmp_path / "tags" / "people" / "k" / name).mkdir()
            item = {"name": name, "rows": 1, "padding": 0, "runs": [], "age": 0, "files": ["none"]}
            other._shelf.add(name, [item])
            other.release(name)
        assert len(list(files.read(first))) == 1
    assert [each.name for each in files.kept()] == ["g4", "g5"]
    with pytest.raises(DataMissing, match="try again"), files.held(first):
        pass
