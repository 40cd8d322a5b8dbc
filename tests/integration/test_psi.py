"""PSI and alignment by two processes against a plain inner join."""

from __future__ import annotations

import dataclasses
import itertools
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fedtasks.config import Dataset, FeatureType, Format, IdType, Normalisation, Party
from fedtasks.crypto.keys import generate_psi_key
from fedtasks.data.blocks import Blocks
from fedtasks.data.storage import RunStorage, local_path
from tests.integration.psi_halves import FOLLOWER, LEADER, Ended, Halves, make_party, two_halves

pytestmark = pytest.mark.timeout(120)

FEATURES = {LEADER: {"Amount": FeatureType.NUMERIC}, FOLLOWER: {"Job": FeatureType.CATEGORICAL}}
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("psi")


@pytest.fixture(scope="module")
def key(root: Path) -> Path:
    generate_psi_key(root / "psi.key", 2048)
    return root / "psi.key"


@pytest.fixture(scope="module")
def halves(root: Path) -> Iterator[Halves]:
    with two_halves(root) as started:
        yield started


@dataclasses.dataclass
class Case:
    """One run of two parties whose tables a test chooses."""

    halves: Halves
    root: Path
    key: Path
    run_id: str
    parties: dict[str, Party] = dataclasses.field(default_factory=dict)

    def give(self, name: str, table: pd.DataFrame | pa.Table, *, csv: bool = False, **declared: Any) -> None:
        """Write a party's dataset and declare it."""
        path = self.root / self.run_id / f"{name}.{'csv' if csv else 'parquet'}"
        path.parent.mkdir(exist_ok=True)
        if csv:
            table.to_csv(path, index=False)
        else:
            pq.write_table(
                table if isinstance(table, pa.Table) else pa.Table.from_pandas(table), path, row_group_size=64
            )
        fields: dict[str, Any] = {
            "name": "people",
            "uri": f"file://{path}",
            "id": "id",
            "features": FEATURES[name],
            "format": Format.CSV if csv else Format.PARQUET,
            "label": "Status" if name == LEADER else None,
            "label_positive": "good" if name == LEADER else None,
        }
        dataset = Dataset(**(fields | declared))
        self.parties[name] = make_party(name, self.root, (dataset,), self.key)

    def run(self, task: str, **settings: Any) -> dict[str, Ended]:
        return self.halves.run(task, self.run_id, self.parties, settings)

    def storage(self, name: str) -> RunStorage:
        return RunStorage(self.parties[name].storage, self.run_id)

    def people(self, name: str) -> dict[bytes, str]:
        """Tag → id, as a party published it."""
        manifest = self.storage(name).published("psi")
        manifest.verify()
        tables = [pq.read_table(local_path(manifest.path(entry.name))) for entry in manifest.files]
        rows = [row for table in tables for row in table.to_pylist()]
        assert manifest.rows == len(rows)
        return {row["tag"]: row["id"] for row in rows}


@pytest.fixture
def case(halves: Halves, root: Path, key: Path) -> Case:
    return Case(halves, root, key, f"credit.2026-11-21.{next(_numbers)}")


def bank(ids: list[Any], **columns: Any) -> pd.DataFrame:
    status = ["good" if index % 3 else "bad" for index in range(len(ids))]
    return pd.DataFrame({"id": ids, "Amount": np.arange(len(ids), dtype=float), "Status": status} | columns)


def shop(ids: list[Any]) -> pd.DataFrame:
    return pd.DataFrame({"id": ids, "Job": [f"job {index}" if index % 5 else None for index in range(len(ids))]})


def codes(ended: Mapping[str, Ended]) -> dict[str, str]:
    return {name: half.code for name, half in ended.items()}


def test_psi_and_align_with_overlap_equal_an_inner_join(case: Case) -> None:
    rng = np.random.default_rng(7)
    everyone = [f"{number:06d}" for number in rng.permutation(10_000)[:500]]
    bank_rows, shop_rows = bank(everyone[:350]), shop(everyone[150:])
    case.give(LEADER, bank_rows)
    case.give(FOLLOWER, shop_rows)
    expected = bank_rows.merge(shop_rows, on="id").set_index("id")

    ended = case.run("psi", shards=3)

    assert ended[LEADER].outcome == ended[FOLLOWER].outcome, ended
    assert ended[LEADER].outcome is not None
    assert ended[LEADER].outcome.counts == {"people_shared": len(expected), "ids_blinded": 350}
    people = {name: case.people(name) for name in (LEADER, FOLLOWER)}
    assert people[LEADER] == people[FOLLOWER]
    assert set(people[LEADER].values()) == set(expected.index)
    # Nothing private is left behind.
    assert not list((case.root / LEADER).rglob("*state*"))
    assert not list((case.root / FOLLOWER).rglob("*state*"))

    aligned = case.run("align", seed=3, rows_per_block=60)

    assert aligned[LEADER].outcome == aligned[FOLLOWER].outcome, aligned
    blocks = {name: Blocks.open(case.storage(name)) for name in (LEADER, FOLLOWER)}
    tables = {name: opened.table() for name, opened in blocks.items()}
    assert blocks[LEADER].order_digest == blocks[FOLLOWER].order_digest
    assert tables[LEADER]["tag"].equals(tables[FOLLOWER]["tag"])
    assert tables[LEADER]["split"].equals(tables[FOLLOWER]["split"])
    joined = expected.loc[[people[LEADER][tag] for tag in tables[LEADER]["tag"].to_pylist()]]
    assert tables[LEADER]["Amount"].to_pylist() == joined["Amount"].to_list()
    assert tables[LEADER]["label"].to_pylist() == [int(value == "good") for value in joined["Status"]]
    assert tables[FOLLOWER]["Job"].to_pylist() == joined["Job"].to_list()
    counts = aligned[LEADER].outcome.counts if aligned[LEADER].outcome else {}
    assert counts["rows"] == len(expected)
    assert counts["rows_test"] == blocks[LEADER].table("test").num_rows > 0
    assert counts["rows_train"] + counts["rows_test"] == counts["rows"]


def test_psi_with_the_leader_as_signer_finds_the_same(case: Case) -> None:
    case.give(LEADER, bank(["a", "b", "c"]))
    case.give(FOLLOWER, shop(["b", "c", "d", "e"]))

    ended = case.run("psi", signer=LEADER)

    assert ended[LEADER].outcome == ended[FOLLOWER].outcome, ended
    assert ended[LEADER].outcome is not None
    assert ended[LEADER].outcome.counts == {"people_shared": 2, "ids_blinded": 4}
    assert sorted(case.people(FOLLOWER).values()) == ["b", "c"]


def test_psi_with_text_ids_keeps_zeros_and_joins_unicode_forms(case: Case) -> None:
    steps = (Normalisation.TRIM, Normalisation.NFKC, Normalisation.LOWER)
    composed = unicodedata.normalize("NFC", "Zoë")
    case.give(LEADER, bank(["007", " ANNA ", composed, "null"]), csv=True, normalise=steps)
    decomposed = unicodedata.normalize("NFD", "zoë")
    case.give(FOLLOWER, shop(["7", "anna", decomposed, "null"]), normalise=steps)

    ended = case.run("psi")

    assert ended[LEADER].outcome == ended[FOLLOWER].outcome, ended
    assert sorted(case.people(LEADER).values()) == sorted(["anna", unicodedata.normalize("NFC", "zoë"), "null"])


def test_psi_with_integer_ids_ignores_how_they_are_written(case: Case) -> None:
    case.give(LEADER, bank(["007", "+8", "-0"]), csv=True, id_type=IdType.INTEGER)
    case.give(FOLLOWER, shop([7, 0, 80]), id_type=IdType.INTEGER)

    case.run("psi")

    assert sorted(case.people(LEADER).values()) == sorted(case.people(FOLLOWER).values()) == ["0", "7"]


@pytest.mark.parametrize(("shop_ids", "settings"), [(["x", "y"], {}), (["a", "y"], {"min_intersection": 2})])
def test_psi_with_too_few_in_common_fails_alike_on_both_sides(
    case: Case, shop_ids: list[str], settings: dict[str, Any]
) -> None:
    case.give(LEADER, bank(["a", "b", "c"]))
    case.give(FOLLOWER, shop(shop_ids))

    ended = case.run("psi", **settings)

    assert codes(ended) == {LEADER: "DATA_INTERSECTION_EMPTY", FOLLOWER: "DATA_INTERSECTION_EMPTY"}
    assert not list((case.root / LEADER).rglob(f"{case.run_id}/psi/manifest.json"))


def test_psi_with_null_ids_names_count_and_row(case: Case) -> None:
    case.give(LEADER, bank(["a"] * 0 + ["a", None, "c", " "]))
    case.give(FOLLOWER, shop(["a", "c"]))

    ended = case.run("psi")

    assert codes(ended) == {LEADER: "DATA_ID_NULL", FOLLOWER: "PEER_FAILED"}
    assert "2 of 4 rows have no `id`, the first is row 2 of file://" in ended[LEADER].detail


def test_psi_with_duplicate_ids_names_rows_and_never_the_id(case: Case) -> None:
    case.give(LEADER, bank(["alice", "b"]))
    ids = [f"p{number}" for number in range(100)]
    ids[70] = " p9"
    case.give(FOLLOWER, shop(ids))

    ended = case.run("psi")

    assert codes(ended) == {LEADER: "PEER_FAILED", FOLLOWER: "DATA_ID_DUPLICATE"}
    detail = ended[FOLLOWER].detail
    assert "2 of 100 rows" in detail
    assert "row 10 of file://" in detail
    assert "row 71 of file://" in detail
    assert "p9" not in detail


@pytest.mark.parametrize(
    ("declared", "csv", "code", "said"),
    [
        ({"uri": "file:///nowhere/people.csv"}, True, "DATA_MISSING", "does not exist"),
        ({"id": "passport"}, False, "DATA_COLUMN_MISSING", "`passport` is not in the file; it has: id, Amount, Status"),
        ({"features": {"Status": FeatureType.NUMERIC}, "label": None}, False, "DATA_COLUMN_TYPE", "`Status`: found"),
        ({"id_type": IdType.INTEGER}, True, "DATA_COLUMN_TYPE", "`id`: found text that is not a whole number"),
        ({"label_positive": "excellent"}, False, "DATA_LABEL_INVALID", "no row holds `excellent`"),
        ({"label": "id2"}, False, "DATA_LABEL_INVALID", "more than two values"),
    ],
)
def test_psi_with_a_wrong_dataset_says_what_and_where(
    case: Case, declared: dict[str, Any], csv: bool, code: str, said: str
) -> None:
    columns = {"id2": ["p", "q", "r"]} if "id2" in declared.values() else {}
    case.give(LEADER, bank(["a", "b", "c"], **columns), csv=csv, **declared)
    case.give(FOLLOWER, shop(["a", "c"]), id_type=declared.get("id_type", IdType.STRING))
    if "id_type" in declared:
        case.give(FOLLOWER, shop([1, 2]), **declared)

    ended = case.run("psi")

    assert codes(ended) == {LEADER: code, FOLLOWER: "PEER_FAILED"}
    assert said in ended[LEADER].detail


@pytest.mark.parametrize("leader_label", [None, "Status"])
def test_psi_with_labels_on_both_sides_or_none_fails_alike(case: Case, leader_label: str | None) -> None:
    case.give(LEADER, bank(["a", "b"]), label=leader_label)
    declared = {"label": "Status", "label_positive": "good", "features": {"Amount": FeatureType.NUMERIC}}
    case.give(FOLLOWER, bank(["a", "b"]), **declared)

    ended = case.run("psi")

    assert codes(ended) == {LEADER: "DATA_LABEL_INVALID", FOLLOWER: "DATA_LABEL_INVALID"}


def test_psi_with_different_normalisation_is_refused_naming_the_field(case: Case) -> None:
    case.give(LEADER, bank(["a", "b"]), normalise=(Normalisation.TRIM,))
    case.give(FOLLOWER, shop(["a"]), normalise=(Normalisation.LOWER,))

    ended = case.run("psi")

    assert set(codes(ended).values()) == {"CONFIG_DIFFERS"}
    assert "normalise" in ended[LEADER].public


def test_psi_with_a_shorter_key_than_agreed_is_refused(case: Case) -> None:
    case.give(LEADER, bank(["a", "b"]))
    case.give(FOLLOWER, shop(["a"]))

    ended = case.run("psi", key_bits_min=3072)

    assert codes(ended) == {LEADER: "PEER_FAILED", FOLLOWER: "KEY_WEAK"}


def test_align_with_one_class_in_training_fails_before_anything_is_published(case: Case) -> None:
    ids = [f"p{number}" for number in range(40)]
    status = ["good"] * 39 + ["bad"]
    case.give(LEADER, bank(ids, Status=status))
    case.give(FOLLOWER, shop(ids[:30]))
    case.run("psi")

    ended = case.run("align")

    assert codes(ended) == {LEADER: "DATA_LABEL_INVALID", FOLLOWER: "PEER_FAILED"}
    assert "rows for training are of one class" in ended[LEADER].detail
    assert not list((case.root / FOLLOWER).rglob(f"{case.run_id}/align/manifest.json"))


def test_align_after_the_dataset_has_changed_is_refused(case: Case) -> None:
    ids = [f"p{number}" for number in range(40)]
    case.give(LEADER, bank(ids))
    case.give(FOLLOWER, shop(ids[:30]))
    case.run("psi")
    case.give(FOLLOWER, shop(ids[1:30]))

    ended = case.run("align")

    assert codes(ended) == {LEADER: "PEER_FAILED", FOLLOWER: "DATA_CORRUPT"}
    assert "30 people are shared but the dataset now has 29 rows" in ended[FOLLOWER].detail
