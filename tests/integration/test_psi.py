"""PSI and alignment by two processes against a plain inner join."""

from __future__ import annotations

import dataclasses
import json
import tempfile
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from fedtasks.config import FeatureType, IdType, LabelKind, Normalisation
from fedtasks.data.blocks import LABEL, SPLIT, TAG, WEIGHT, Blocks
from fedtasks.data.tag_files import PADDING
from tests.integration.psi_case import Case, bank, codes, numbers, shop
from tests.integration.psi_halves import FOLLOWER, LEADER, Ended

pytestmark = pytest.mark.timeout(120)


@pytest.mark.parametrize("scheme", ["blind_rsa", "oprf"])
def test_psi_and_align_with_overlap_equal_an_inner_join(case: Case, scheme: str) -> None:
    rng = np.random.default_rng(7)
    everyone = [f"{number:06d}" for number in rng.permutation(10_000)[:500]]
    bank_rows, shop_rows = bank(everyone[:350]), shop(everyone[150:])
    case.give(LEADER, bank_rows)
    case.give(FOLLOWER, shop_rows)
    expected = bank_rows.merge(shop_rows, on="id").set_index("id")

    ended = case.run("psi", shards=3, scheme=scheme)

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
    assert tables[LEADER][TAG].equals(tables[FOLLOWER][TAG])
    assert tables[LEADER][SPLIT].equals(tables[FOLLOWER][SPLIT])
    joined = expected.loc[[people[LEADER][tag] for tag in tables[LEADER][TAG].to_pylist()]]
    assert tables[LEADER]["Amount"].to_pylist() == joined["Amount"].to_list()
    assert tables[LEADER][LABEL].to_pylist() == [int(value == "good") for value in joined["Status"]]
    assert tables[FOLLOWER]["Job"].to_pylist() == joined["Job"].to_list()
    counts = aligned[LEADER].outcome.counts if aligned[LEADER].outcome else {}
    assert counts["rows"] == len(expected)
    assert counts["rows_test"] == blocks[LEADER].table("test").num_rows > 0
    assert counts["rows_train"] + counts["rows_test"] == counts["rows"]


written = st.tuples(st.integers(0, 25), st.sampled_from(["p{}", " p{}", "p{} "]))


# A failing example is said as it was found: making it smaller would take minutes.
@settings(max_examples=8, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
@given(
    rows=st.tuples(*[st.lists(written, min_size=2, max_size=40)] * 2),
    shards=st.sampled_from([1, 3, 30]),
    signer=st.sampled_from([LEADER, FOLLOWER]),
    pad_rows=st.sampled_from([1, 7]),
)
def test_psi_of_any_rows_equals_a_plain_join(
    case: Case, rows: tuple[list[tuple[int, str]], list[tuple[int, str]]], shards: int, signer: str, pad_rows: int
) -> None:
    ids = [[text.format(number) for number, text in side] for side in rows]
    tables = bank(ids[0]), shop(ids[1])
    plain = [table.assign(id=table["id"].str.strip()).drop_duplicates("id") for table in tables]
    case.root, case.run_id = Path(tempfile.mkdtemp(dir=case.root)), f"credit.any.{next(numbers)}"
    case.give(LEADER, tables[0], label=None)
    case.give(FOLLOWER, tables[1])

    ended = case.run("psi", scheme="oprf", shards=shards, signer=signer, pad_rows=pad_rows, min_intersection=0)

    assert ended[LEADER].outcome == ended[FOLLOWER].outcome is not None, ended
    people = case.people(LEADER)
    assert people == case.people(FOLLOWER)
    assert sorted(people.values()) == sorted(plain[0].merge(plain[1], on="id")["id"])


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
    assert sorted(case.people(LEADER).values()) == sorted(["anna", unicodedata.normalize("NFC", "zoë")])


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


def test_psi_leaves_out_rows_without_an_id_and_counts_them_here(case: Case) -> None:
    words = ["NULL", "nan", "None", "\\N", "<NA>", "#N/A", "", None]
    case.give(LEADER, bank(["a", None, "c", " ", *words, "keep"]), null=("nobody",))
    case.give(FOLLOWER, shop(["nobody", *words, "c", "a", "keep"]), csv=True, null=("nobody",))

    ended = case.run("psi")

    assert ended[LEADER].outcome == ended[FOLLOWER].outcome is not None, ended
    assert ended[LEADER].outcome.counts["people_shared"] == 3
    assert sorted(case.people(LEADER).values()) == ["a", "c", "keep"]
    facts = {name: case.storage(name).published("psi").facts for name in (LEADER, FOLLOWER)}
    assert [facts[name]["own_without_id"] for name in (LEADER, FOLLOWER)] == [10, 9]
    assert [facts[name]["own_duplicates"] for name in (LEADER, FOLLOWER)] == [0, 0]


def test_psi_of_rows_without_any_id_is_refused(case: Case) -> None:
    case.give(LEADER, bank([None, "NULL", " "]))
    case.give(FOLLOWER, shop(["a", "c"]))

    ended = case.run("psi")

    assert codes(ended) == {LEADER: "DATA_ID_NULL", FOLLOWER: "PEER_FAILED"}
    assert "none of 3 rows has a `id`, the first is row 1 of file://" in ended[LEADER].detail


NAMES = [
    *(
        "a.b",
        "a",
        "`x`",
        "shard",
        "__file__",
        "__row__",
        "__new__",
        "tag",
        "split",
        "label",
        "weight",
        "__id__",
        "Id",
        "ID",
    ),
    *("key", "row", "file", "order", 'say "x"', "select", "Größe 𝄞", " spaces ", "x" * 128),
]
"""What a feature may be called beside an id that is called ``id``."""


@pytest.mark.parametrize("csv", [False, True])
def test_columns_of_any_name_come_into_blocks(case: Case, csv: bool) -> None:
    ids = [f"p{number}" for number in range(20)]
    columns = {name: [float(100 * place + row) for row in range(20)] for place, name in enumerate(NAMES)}
    features = dict.fromkeys(NAMES, FeatureType.NUMERIC)
    case.give(LEADER, bank(ids, **columns), csv=csv, features=features, label="Status")
    case.give(FOLLOWER, shop(ids).rename(columns={"id": "a.id"}), csv=csv, id="a.id")
    for task in ("psi", "align"):
        ended = case.run(task)
        assert ended[LEADER].outcome == ended[FOLLOWER].outcome is not None, ended
    table, people = Blocks.open(case.storage(LEADER)).table(), case.people(LEADER)
    rows = [ids.index(people[tag]) for tag in table[TAG].to_pylist()]
    assert len(rows) == 20
    assert {name: table[name].to_pylist() for name in NAMES} == {
        name: [values[row] for row in rows] for name, values in columns.items()
    }


def test_psi_with_ids_of_two_columns_joins_on_both(case: Case) -> None:
    case.give(LEADER, bank(["a", "a", "ab"], city=["x", "y", "x"]), id="id,city")
    case.give(FOLLOWER, shop(["a", "b", "a"]).assign(town=["y", "x", "bx"]), id="id,town")

    ended = case.run("psi")

    assert ended[LEADER].outcome == ended[FOLLOWER].outcome is not None, ended
    assert list(case.people(LEADER).values()) == ["a\x1fy"]


def test_psi_with_ids_of_one_column_and_two_is_refused_naming_the_field(case: Case) -> None:
    case.give(LEADER, bank(["a", "b"], city=["x", "y"]), id="id,city")
    case.give(FOLLOWER, shop(["a"]))

    ended = case.run("psi")

    assert set(codes(ended).values()) == {"CONFIG_DIFFERS"}
    assert "id_columns" in ended[LEADER].public


def test_psi_with_duplicate_ids_counts_each_person_once(case: Case) -> None:
    ids = [f"p{number}" for number in range(90)] + [f" p{number} " for number in range(10)]
    case.give(LEADER, bank(["p3", "p50", "b"]))
    case.give(FOLLOWER, shop(ids))

    ended = case.run("psi")

    assert ended[LEADER].outcome == ended[FOLLOWER].outcome, ended
    assert sorted(case.people(FOLLOWER).values()) == ["p3", "p50"]
    facts = case.storage(FOLLOWER).published("psi").facts
    assert (facts["own_ids"], facts["own_duplicates"]) == (90, 10)

    aligned = case.run("align", test_fraction=0.0)

    assert aligned[LEADER].outcome == aligned[FOLLOWER].outcome is not None, aligned
    # Rows 3 and 50: of the two that are p3, the first.
    jobs = {"p3": "job 3", "p50": None}
    people = case.people(FOLLOWER)
    rows = Blocks.open(case.storage(FOLLOWER)).table().to_pylist()
    assert {people[row[TAG]]: row["Job"] for row in rows} == jobs


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


GRADES = ("low", "middle", "high")
KINDS: dict[LabelKind, dict[str, Any]] = {
    LabelKind.BINARY: {"label_positive": "high"},
    LabelKind.CLASSES: {"label_kind": LabelKind.CLASSES, "label_classes": GRADES, "label_positive": None},
    LabelKind.NUMBER: {"label_kind": LabelKind.NUMBER, "label_positive": None},
}


@pytest.mark.parametrize("kind", list(LabelKind))
def test_align_with_labels_of_any_kind_and_weights_brings_both_in_row_order(case: Case, kind: LabelKind) -> None:
    ids = [f"p{number}" for number in range(80)]
    values: dict[LabelKind, list[Any]] = {
        LabelKind.BINARY: [GRADES[number % 2 * 2] for number in range(80)],
        LabelKind.CLASSES: [GRADES[number * 7 % 3] for number in range(80)],
        LabelKind.NUMBER: [round(number * 0.7 - 20, 1) for number in range(80)],
    }
    expected = {
        LabelKind.BINARY: [number % 2 for number in range(80)],
        LabelKind.CLASSES: [number * 7 % 3 for number in range(80)],
        LabelKind.NUMBER: values[LabelKind.NUMBER],
    }
    weights = [0.5 + number for number in range(80)]
    # One row that repeats a person, whose label and weight must go with it.
    rows = bank([*ids, "p30"], Status=[*values[kind], values[kind][0]], exposure=[*weights, 999.0])
    case.give(LEADER, rows, weight="exposure", csv=kind is LabelKind.NUMBER, **KINDS[kind])
    case.give(FOLLOWER, shop(ids[20:]))

    for task in ("psi", "align"):
        ended = case.run(task, **({"rows_per_block": 25} if task == "align" else {}))
        assert codes(ended) == {LEADER: "", FOLLOWER: ""}, ended

    opened, theirs = Blocks.open(case.storage(LEADER)), Blocks.open(case.storage(FOLLOWER))
    assert (opened.label, opened.classes, opened.has_weight) == (kind, KINDS[kind].get("label_classes", ()), True)
    assert (theirs.label, theirs.classes, theirs.has_weight) == (None, (), False)
    table, people = opened.table(), case.people(LEADER)
    numbers = [ids.index(people[tag]) for tag in table[TAG].to_pylist()]
    assert len(numbers) == 60
    assert table[LABEL].to_pylist() == [expected[kind][number] for number in numbers]
    assert table[WEIGHT].to_pylist() == [weights[number] for number in numbers]


@pytest.mark.parametrize(
    ("kind", "columns", "code", "said", "row"),
    [
        (LabelKind.CLASSES, {"Status": ["low", "odd", "high"]}, "DATA_LABEL_INVALID", "none of the 3 declared", 2),
        (LabelKind.CLASSES, {"Status": ["low"] * 3}, "DATA_LABEL_INVALID", "`Status`: only one value found", 0),
        (LabelKind.NUMBER, {"Status": [1.0, 2.0, None]}, "DATA_LABEL_INVALID", "`Status`: found a row without", 3),
        (LabelKind.NUMBER, {"Status": [1.0] * 3}, "DATA_LABEL_INVALID", "`Status`: only one value found", 0),
        (LabelKind.NUMBER, {"Status": [1, 2, 3], "w": [1, 0, 2]}, "DATA_COLUMN_TYPE", "`w`: found a weight that", 2),
    ],
)
def test_psi_with_labels_or_weights_that_no_model_can_use_fails_before_ids_cross(
    case: Case, kind: LabelKind, columns: dict[str, list[Any]], code: str, said: str, row: int
) -> None:
    rows = bank(["a", "b", "c"], **{"w": [1, 1, 1], **columns})
    case.give(LEADER, rows, weight="w", **KINDS[kind])
    case.give(FOLLOWER, shop(["a", "c"]))

    ended = case.run("psi")

    assert codes(ended) == {LEADER: code, FOLLOWER: "PEER_FAILED"}
    assert said in ended[LEADER].detail
    assert ended[LEADER].where.startswith(f"row {row} of file://" if row else "file://")
    assert case.halves.accounts[FOLLOWER].uses == []


@pytest.mark.parametrize(
    ("kind", "common", "other", "said"),
    [
        (LabelKind.CLASSES, "middle", "low", "rows for training are of one class; share more people"),
        (LabelKind.NUMBER, 0.5, 7.0, "rows for training have one number; share more people"),
    ],
)
def test_align_with_one_label_in_training_names_column_and_remedy(
    case: Case, kind: LabelKind, common: Any, other: Any, said: str
) -> None:
    ids = [f"p{number}" for number in range(40)]
    case.give(LEADER, bank(ids, Status=[common] * 39 + [other]), **KINDS[kind])
    case.give(FOLLOWER, shop(ids[:30]))
    case.run("psi")

    ended = case.run("align")

    assert codes(ended) == {LEADER: "DATA_LABEL_INVALID", FOLLOWER: "PEER_FAILED"}
    assert "column `Status`: all" in ended[LEADER].detail
    assert said in ended[LEADER].detail


def test_psi_and_align_need_no_label(case: Case) -> None:
    case.give(LEADER, bank(["a", "b", "c"]), label=None)
    case.give(FOLLOWER, shop(["b", "c", "d"]))

    for task in ("psi", "align"):
        ended = case.run(task)
        assert codes(ended) == {LEADER: "", FOLLOWER: ""}

    opened = Blocks.open(case.storage(LEADER))
    assert not opened.has_label
    assert opened.table().num_rows == 2


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


DAYS = [
    # What each side holds day after day: all at first, some new and some gone, the same again, hardly anything.
    (range(200), range(120, 320)),
    (range(10, 206), range(126, 323)),
    (range(10, 206), range(126, 323)),
    (range(150, 152), range(126, 323)),
    (range(200), range(120, 320)),
]


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["blind_rsa", "oprf"])
def test_incremental_psi_day_by_day_equals_a_join_and_signs_only_what_is_new(case: Case, scheme: str) -> None:
    known: set[int] = set()
    for bank_ids, shop_ids in DAYS:
        ended = case.next_day(bank([f"{n}" for n in bank_ids]), shop([f"{n}" for n in shop_ids]), scheme=scheme)

        assert ended[LEADER].outcome == ended[FOLLOWER].outcome, ended
        assert ended[LEADER].outcome is not None
        common = {f"{n}" for n in set(bank_ids) & set(shop_ids)}
        for name in (LEADER, FOLLOWER):
            assert set(case.people(name).values()) == common
        new = set(bank_ids) - known
        assert ended[LEADER].outcome.counts == {"people_shared": len(common), "ids_blinded": len(new)}
        assert case.halves.accounts[FOLLOWER].uses == ([("ids_blinded", len(new))] if new else [])
        # What a party has forgotten is new again.
        known = set(bank_ids)


@pytest.mark.slow
@pytest.mark.timeout(300)
@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(days=st.lists(st.tuples(*[st.sets(st.integers(0, 40), min_size=2)] * 2), min_size=2, max_size=2))
def test_incremental_and_full_psi_give_the_same(case: Case, days: list[tuple[set[int], set[int]]]) -> None:
    shared = {"scheme": "oprf", "shards": 2, "min_intersection": 0}
    case.root = Path(tempfile.mkdtemp(dir=case.root))
    for bank_ids, shop_ids in days:
        tables = bank([f"{n}" for n in bank_ids]), shop([f"{n}" for n in shop_ids])
        incremental = case.next_day(*tables, **shared)
    full = dataclasses.replace(case, root=Path(tempfile.mkdtemp(dir=case.root)), parties={})

    anew = full.next_day(*tables, **shared)

    assert incremental[LEADER].outcome is not None
    assert anew[LEADER].outcome is not None
    assert incremental[LEADER].outcome.digests == anew[LEADER].outcome.digests == incremental[FOLLOWER].outcome.digests
    assert case.people(LEADER) == full.people(LEADER) == case.people(FOLLOWER)


def test_psi_the_next_day_sends_only_what_has_changed(case: Case) -> None:
    everyone = [f"{number}" for number in range(3000)]
    sent = []
    for new in (0, 30):
        tables = bank(everyone[new : 2000 + new]), shop(everyone[1000:])
        ended = case.next_day(*tables, scheme="oprf")
        assert ended[LEADER].outcome is not None, ended
        assert ended[LEADER].outcome.counts["people_shared"] == 1000 + new
        sent.append(sum(account.bytes_sent for account in case.halves.accounts.values()))
    # Beside two rows per new id, what both sides say at every run.
    assert sent[1] < 0.02 * 2000 * 64 + 20_000 < 0.25 * sent[0]


def test_psi_with_a_rotated_key_begins_anew_and_finds_the_same(case: Case) -> None:
    tables = bank(["a", "b", "c"]), shop(["b", "c", "d"])
    case.next_day(*tables)
    before = case.people(LEADER)
    case.keys = dataclasses.replace(case.keys, number=2)

    ended = case.next_day(*tables)

    assert ended[LEADER].outcome is not None, ended
    assert ended[LEADER].outcome.counts == {"people_shared": 2, "ids_blinded": 3}
    after = case.people(LEADER)
    assert sorted(after.values()) == sorted(before.values()) == ["b", "c"]
    assert not set(after) & set(before)


def test_psi_with_padding_rounds_what_the_peer_sees_and_finds_the_same(case: Case) -> None:
    ended = case.next_day(bank([f"{n}" for n in range(30)]), shop([f"{n}" for n in range(17, 60)]), pad_rows=50)

    assert ended[LEADER].outcome is not None, ended
    assert ended[LEADER].outcome.counts == {"people_shared": 13, "ids_blinded": 50}
    assert len(case.people(FOLLOWER)) == 13
    assert case.storage(LEADER).published("psi").facts["own_ids"] == 30

    ended = case.next_day(bank([f"{n}" for n in range(33)]), shop([f"{n}" for n in range(17, 60)]), pad_rows=50)

    assert ended[LEADER].outcome is not None, ended
    assert ended[LEADER].outcome.counts == {"people_shared": 16, "ids_blinded": 50}


def test_psi_with_ids_that_begin_like_padding_finds_them_and_forgets_them_when_they_are_gone(case: Case) -> None:
    alike = [f"{PADDING}{name}\x00people\x00{number}" for name in (LEADER, FOLLOWER) for number in range(3)]
    ended = case.next_day(bank(["a", "b", *alike]), shop(["b", "c", *alike]), pad_rows=50)

    assert ended[LEADER].outcome is not None, ended
    assert ended[LEADER].outcome.counts["people_shared"] == 1 + len(alike)

    ended = case.next_day(bank(["a", "b"]), shop(["b", "c", *alike]), pad_rows=50)

    assert ended[LEADER].outcome is not None, ended
    assert ended[LEADER].outcome.counts["people_shared"] == 1
    assert list(case.people(LEADER).values()) == ["b"]


def test_psi_for_the_client_alone_tells_the_signer_the_size_only(case: Case) -> None:
    ended = case.next_day(bank(["a", "b", "c"]), shop(["b", "c", "d"]), learns="client")

    assert ended[LEADER].outcome == ended[FOLLOWER].outcome, ended
    assert sorted(case.people(LEADER).values()) == ["b", "c"]
    assert case.people(FOLLOWER) == {}
    assert case.storage(FOLLOWER).published("psi").facts["people_shared"] == 2
    assert not list((case.root / FOLLOWER).rglob("common"))


def test_psi_cut_in_the_middle_goes_on_without_signing_again(case: Case) -> None:
    case.give(LEADER, bank([f"{n}" for n in range(400)]))
    case.give(FOLLOWER, shop([f"{n}" for n in range(200, 500)]))

    def attempt(number: int, **cut: int) -> dict[str, Ended]:
        return case.halves.run("psi", case.run_id, case.parties, {"shards": 4}, attempt=number, cut_after=cut)

    # 400 ids cross in either direction, 256 bytes each, in four shards: two or three of those that the client sends,
    # then half of what it is told.
    assert codes(attempt(1, bank=64_000)) == {LEADER: "PEER_FAILED", FOLLOWER: "PEER_FAILED"}
    uses = list(case.halves.accounts[FOLLOWER].uses)
    assert codes(attempt(2, shop=51_200)) == {LEADER: "PEER_FAILED", FOLLOWER: "PEER_FAILED"}
    assert case.halves.accounts[LEADER].bytes_sent < 0.75 * 400 * 256
    uses += case.halves.accounts[FOLLOWER].uses
    ended = attempt(3)

    assert ended[LEADER].outcome is not None, ended
    assert set(case.people(LEADER).values()) == set(case.people(FOLLOWER).values()) == {f"{n}" for n in range(200, 400)}
    # The amount is what the run uses in all, so the same amount again costs nothing.
    assert uses + case.halves.accounts[FOLLOWER].uses == [("ids_blinded", 400)] * 3
    assert not list(case.root.rglob("state"))


def test_psi_in_stages_equals_psi_at_once(case: Case) -> None:
    case.give(LEADER, bank([f"{n}" for n in range(40)]))
    case.give(FOLLOWER, shop([f"{n}" for n in range(30, 90)]))
    stages = [
        ("prepare", None),
        ("send", 0),
        ("send", 1),
        ("sign", None),
        ("answer", 1),
        ("answer", 0),
        ("match", None),
    ]

    for stage, shard in stages:
        ended = case.halves.run("psi", case.run_id, case.parties, {}, stage=stage, shard=shard)
        assert ended[LEADER].outcome == ended[FOLLOWER].outcome is not None, (stage, ended)

    assert case.people(LEADER) == case.people(FOLLOWER)
    assert set(case.people(LEADER).values()) == {f"{n}" for n in range(30, 40)}


def test_psi_stage_out_of_turn_says_what_to_clear(case: Case) -> None:
    case.give(LEADER, bank(["a", "b"]))
    case.give(FOLLOWER, shop(["a"]))

    ended = case.halves.run("psi", case.run_id, case.parties, {}, stage="send", shard=0)

    assert codes(ended) == {LEADER: "DATA_MISSING", FOLLOWER: "DATA_MISSING"}
    assert "clear the whole task" in ended[LEADER].detail


def test_psi_stage_after_an_upgrade_says_what_to_clear(case: Case) -> None:
    case.give(LEADER, bank(["a", "b"]))
    case.give(FOLLOWER, shop(["a"]))
    assert case.halves.run("psi", case.run_id, case.parties, {}, stage="prepare")[LEADER].outcome is not None
    for name in (LEADER, FOLLOWER):
        plan = Path(case.storage(name).uri.removeprefix("file://")) / "psi" / "state" / "plan.json"
        plan.write_text(json.dumps({**json.loads(plan.read_text()), "format": 1}))

    ended = case.halves.run("psi", case.run_id, case.parties, {}, stage="send", shard=0)

    assert codes(ended) == {LEADER: "DATA_MISSING", FOLLOWER: "DATA_MISSING"}
    assert "another release" in ended[LEADER].detail


@pytest.mark.parametrize("name", [LEADER, FOLLOWER])
@pytest.mark.parametrize("scheme", ["blind_rsa", "oprf"])
def test_longest_id_is_shared_and_a_longer_one_is_refused_before_anything_is_charged(
    case: Case, scheme: str, name: str
) -> None:
    longest = "x" * 65_535
    case.give(LEADER, bank(["a", longest, "b"]))
    case.give(FOLLOWER, shop([longest, "b"]))
    assert codes(case.run("psi", shards=1, scheme=scheme)) == {LEADER: "", FOLLOWER: ""}
    assert set(case.people(LEADER).values()) == {longest, "b"}
    case.run_id = f"credit.2026-11-22.{next(numbers)}"
    case.give(name, {LEADER: bank, FOLLOWER: shop}[name](["a", "b", longest + "x"]))
    ended = case.run("psi", shards=1, scheme=scheme)
    assert ended[name].code == "DATA_ID_LONG"
    assert "row 3 of" in ended[name].where
    assert all(not account.uses for account in case.halves.accounts.values())
