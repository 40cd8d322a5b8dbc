"""`doctor --data` looks at every column whatever is wrong with another, and never shows an id."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fedtasks.checks import Finding, Verdict
from fedtasks.config import load_party
from fedtasks.data.tables import list_parts
from fedtasks.doctor import examine_data
from fedtasks.errors import ConfigError, DataNotLanded
from fedtasks.laptop import people
from tests.support.command_line import invoke

HEAD = """\
name: bank
gateway: {certificate: k, private_key: k, authority: k, ticket_key: k, worker_secret_file: k}
airflow: {url: "http://127.0.0.1:8080", user: fedtasks, password_file: k}
storage: storage
datasets:
"""
LOANS = """\
  - {name: loans, uri: loans.parquet, id: person, label: outcome, label_positive: bad, weight: exposure,
     features: {income: numeric, region: categorical}}
"""
N = 400

Found = dict[str, list[Finding]]
Look = Callable[..., Found]


def loans(**columns: Any) -> pd.DataFrame:
    plain = {
        "person": [f"{13_800_000_000 + number}" for number in range(N)],
        "income": 1000.0 + np.arange(N),
        "region": ["north", "south"] * (N // 2),
        "outcome": ["good", "bad"] * (N // 2),
        "exposure": 1.0 + np.arange(N) % 3,
    }
    return pd.DataFrame(plain | columns)


@pytest.fixture
def look(tmp_path: Path) -> Look:
    """Declare datasets, write the first as a table, and return what is said of each column."""

    def looked(table: pd.DataFrame, declared: str = LOANS, **asked: str) -> Found:
        (tmp_path / "party.yaml").write_text(HEAD + declared, encoding="utf-8")
        dataset = load_party(tmp_path / "party.yaml").datasets[0]
        path = dataset.uri.removeprefix("file://")
        table.to_csv(path, index=False) if path.endswith("csv") else table.to_parquet(path, index=False)
        found: Found = {}
        for each in examine_data(tmp_path / "party.yaml", **asked):
            found.setdefault(each.subject, []).append(each)
        return found

    return looked


def worst(found: Found) -> dict[str, str]:
    """Return subject → its worst verdict, of those that are not well."""
    order = list(Verdict)
    verdicts = {name: max((each.verdict for each in all_), key=order.index) for name, all_ in found.items()}
    return {name: verdict.value for name, verdict in verdicts.items() if verdict is not Verdict.OK}


def texts(found: Found, subject: str) -> str:
    return "\n".join(f"{each.text} {each.remedy}" for each in found[subject])


def test_data_that_is_well_is_said_to_be(look: Look) -> None:
    found = look(loans())
    assert worst(found) == {}
    assert texts(found, "loans: person") == "11 digits 100 % "
    assert texts(found, "loans: label") == "400 rows: 200 positive (50 %), 200 not "
    assert texts(found, "loans: income").startswith("400 rows, 0 % missing, 400 different values, 1,000 to 1,399")
    assert "loans: exposure" in found


def test_lists_are_said_and_looked_at_though_another_is_wrong(look: Look) -> None:
    declared = LOANS.replace(
        "region: categorical", "seen: {type: sequence, length: 9}, query: {type: vector, width: 2, separator: ;}"
    )
    seen = [["a", "b"], ["a"]] * (N // 2)
    found = look(loans(seen=seen, query=["1;2", "3;2"] * (N // 2)), declared)
    assert texts(found, "loans: seen").strip() == "400 rows, 0 % missing, 2 different ids, 1.5 a list and at most 2"
    assert "vectors of width 2, 1 to 3" in texts(found, "loans: query")
    assert "1 of the 2 numbers of a vector are the same in every row" in texts(found, "loans: query")
    found = look(loans(seen=seen, query=["1;2", "3"] * (N // 2)), declared)
    assert worst(found) == {"loans: query": "wrong"}
    assert "row 2 of" in texts(found, "loans: query")
    assert "at most 2" in texts(found, "loans: seen")


@pytest.mark.parametrize("declared", [LOANS, LOANS.replace("loans.parquet", "loans.csv, format: csv")])
def test_each_column_is_looked_at_whatever_is_wrong_with_another(look: Look, declared: str) -> None:
    table = loans(income=[np.inf, *range(N - 1)], outcome=["good"] * N, region=["north"] * N)
    found = look(table, declared)
    assert worst(found) == {"loans: income": "wrong", "loans: label": "wrong", "loans: region": "warning"}
    assert "found an infinite number [row 1 of" in texts(found, "loans: income")
    assert "LABEL_INVALID" in texts(found, "loans: label")


def test_all_else_is_looked_at_though_a_weight_is_wrong(look: Look) -> None:
    found = look(loans(exposure=[0.0] + [1.0] * (N - 1), person=[f"{number}.0" for number in range(N)]))
    assert worst(found) == {"loans: exposure": "wrong", "loans: person": "warning"}
    assert "found a weight that is not above 0" in texts(found, "loans: exposure")
    assert "200 positive" in texts(found, "loans: label")
    assert "digits ending in .0" in texts(found, "loans: person")


def test_ids_that_are_wrong_are_said_once(look: Look) -> None:
    table = loans(person=["1", "x"] * (N // 2))
    found = look(table, LOANS.replace("loans.parquet", "loans.csv, format: csv, id_type: integer"))
    assert worst(found) == {"loans: person": "wrong", "loans": "note"}
    assert "row 2 of" in texts(found, "loans: person")


def test_values_that_the_network_cannot_list_are_said_unless_they_are_hashed(look: Look) -> None:
    towns = [f"t{number % 1023}" for number in range(5 * 1023)]
    table = pd.DataFrame({"person": [f"{number:06d}" for number in range(len(towns))], "a": towns, "b": towns})
    declared = """\
  - {name: visits, uri: visits.parquet, id: person,
     features: {a: categorical, b: {type: categorical, hash_buckets: 100}}}
"""
    found = look(table, declared)
    assert worst(found) == {"visits: a": "warning"}
    assert "1,023 values stand there 5 times or more; if more than 1,022 still do" in texts(found, "visits: a")
    assert "Declare `hash_buckets` of at most 1,023" in texts(found, "visits: a")


def test_dataset_without_a_row_is_said_to_have_none(look: Look) -> None:
    found = look(loans().head(0))
    assert worst(found) == {"loans: id": "warning", "loans: label": "wrong"}
    assert texts(found, "loans: id").startswith("no rows")
    assert texts(found, "loans: income").startswith("0 rows, 0 % missing, 0 different values")


def test_rows_without_an_id_and_rows_that_repeat_one_are_counted(look: Look) -> None:
    ids = [f"p{number:05d}" for number in range(N)]
    found = look(loans(person=[*ids[: N - 60], *ids[:40], *[None] * 20]))
    said = texts(found, "loans: id")
    assert "20 of 400 rows (5.0 %) have no id" in said
    assert "about 11 % of the rows repeat the id of another" in said


def test_no_id_is_ever_said(look: Look) -> None:
    secrets = [f"secret-{number} of\u200b somebody" for number in range(N)]
    found = look(loans(person=secrets))
    said = "".join(texts(found, subject) for subject in found)
    assert "some invisible" in said
    assert "somebody" not in said
    assert "secret" not in said


@pytest.mark.parametrize(
    ("declared", "values", "words"),
    [
        ("label_kind: classes, label_classes: [a, b, c]", ["a", "b"], "400 rows: a 200, b 200, c 0"),
        ("label_kind: classes, label_classes: [a, b, c]", ["a", "a"], "LABEL_INVALID"),
        ("label_kind: classes, label_classes: [a, b, c]", ["a", "d"], "LABEL_INVALID"),
        ("label_kind: number", [1.5, 2.5], "400 rows, 0 % missing, 2 different values, 1.5 to 2.5"),
        ("label_kind: number", [1.5, 1.5], "LABEL_INVALID"),
        ("label_positive: bad", ["good", None], "LABEL_INVALID"),
        ("label_positive: worst", ["good", "bad"], "LABEL_INVALID"),
    ],
)
def test_label_of_every_kind_is_said_or_refused(look: Look, declared: str, values: list[Any], words: str) -> None:
    found = look(loans(outcome=values * (N // 2)), LOANS.replace("label_positive: bad", declared))
    assert words in texts(found, "loans: label")
    assert ("wrong" in worst(found).values()) == (words == "LABEL_INVALID")


@pytest.mark.parametrize(
    ("values", "verdict", "words"),
    [
        (["test", "train"], "ok", "400 rows, of which 200 may be held out (50 %)"),
        (["train", "train"], "warning", "of which 0 may be held out"),
        (["test", "perhaps"], "wrong", "column `part`: found none of"),
    ],
)
def test_column_of_what_is_held_out_is_counted_or_refused(
    look: Look, values: list[str], verdict: str, words: str
) -> None:
    found = look(loans(part=values * (N // 2)), LOANS.replace("weight:", "held_out: part, weight:"))
    assert words in texts(found, "loans: part")
    assert worst(found) == ({} if verdict == "ok" else {"loans: part": verdict})


def test_one_dataset_or_partition_is_looked_at_if_named(look: Look, tmp_path: Path) -> None:
    visits = "  - {name: visits, uri: 'visits/{partition}', id: person, features: {n: numeric}}\n"
    assert look(loans(), LOANS + visits, dataset="visits")["visits"][0].text == "no partition has landed yet"
    for day, rows in (("2026-11-20", 3), ("2026-11-21", 5)):
        folder = tmp_path / "visits" / day
        folder.mkdir(parents=True)
        table = pd.DataFrame({"person": [f"{n}" for n in range(rows)], "n": range(rows)})
        table.to_parquet(folder / "part.parquet", index=False)
        (folder / "_SUCCESS").touch()
    all_days = look(loans(), LOANS + visits, dataset="visits")
    assert set(all_days) == {"visits: id", "visits: person", "visits: n"}
    assert all_days["visits: n"][0].text.startswith("8 rows")
    assert all_days["visits: id"][0].verdict is Verdict.NOTE  # newer rows of the same people
    one_day = look(loans(), LOANS + visits, dataset="visits", partition="2026-11-20")
    assert one_day["visits: n"][0].text.startswith("3 rows")
    with pytest.raises(DataNotLanded):
        look(loans(), LOANS + visits, dataset="visits", partition="2026-11-22")
    with pytest.raises(ConfigError, match="`none` is not declared"):
        look(loans(), dataset="none")


@pytest.mark.parametrize("column", ["income", "outcome", "exposure"])
def test_column_that_is_missing_keeps_no_other_from_being_looked_at(look: Look, column: str) -> None:
    found = look(loans().drop(columns=column))
    subject = "loans: label" if column == "outcome" else f"loans: {column}"
    assert worst(found) == {subject: "wrong"}
    assert "DATA_COLUMN_MISSING" in texts(found, subject)
    assert "loans: region" in found


def test_dataset_of_which_nothing_is_right_is_said_to_be_wrong_and_no_more(look: Look) -> None:
    found = look(loans()[["person"]])
    assert worst(found) == {"loans: income": "wrong", "loans: region": "wrong", "loans": "note"}


def test_dataset_that_cannot_be_read_keeps_no_other_from_being_looked_at(
    look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(dataset: Any, *_: Any) -> Any:
        if dataset.name == "visits":
            raise PermissionError(13, "Permission denied")
        return list_parts(dataset)

    monkeypatch.setattr("fedtasks.doctor.datasets.list_parts", refuse)
    visits = "  - {name: visits, uri: visits.parquet, id: person, features: {n: numeric}}\n"
    found = look(loans(), LOANS + visits + visits.replace("visits", "gone"))
    assert worst(found) == {"visits": "wrong", "gone": "wrong"}
    assert "cannot be read: Permission denied" in texts(found, "visits")
    assert "DATA_MISSING" in texts(found, "gone")


def test_demo_s_data_is_well(look: Look) -> None:
    tables = people.load()
    for table, features in ((tables.bank, people.BANK_FEATURES), (tables.shop, people.SHOP_FEATURES)):
        listed = ", ".join(f"{name}: {kind}" for name, kind in features.items())
        label = f"label: {people.LABEL}, label_positive: {people.POSITIVE}, " if people.LABEL in table else ""
        declared = f"  - {{name: d, uri: d.parquet, id: {people.ID}, {label}features: {{{listed}}}}}\n"
        assert worst(look(table, declared)) == {}


def test_command_prints_findings_and_exits_with_1_if_something_is_wrong(look: Look, tmp_path: Path) -> None:
    party = str(tmp_path / "party.yaml")
    look(loans())
    shown = invoke("doctor", "--data", "loans", "--party", party)
    assert (shown.exit_code, "11 digits 100 %" in shown.stdout) == (0, True)
    look(loans(outcome="good"))
    found = invoke("doctor", "--data", "--json", "--party", party)
    assert found.exit_code == 1
    assert {"subject", "verdict", "text", "remedy"} == set(json.loads(found.stdout)[0])
    refused = invoke("doctor", "loans", "--party", party)
    assert (refused.exit_code, "only `--data` looks at a dataset" in refused.stderr) == (1, True)


CLICKS = """\
  - {name: clicks, uri: clicks.parquet, id: request, event_time: {column: at, unit: ms}, features: {price: numeric}}
"""


def clicks(at: list[int | None]) -> pd.DataFrame:
    ids = [f"r{number:05d}" for number in range(len(at))]
    return pd.DataFrame({"request": ids, "price": 1.0 + np.arange(len(at)), "at": pd.array(at, dtype="Int64")})


def test_stream_says_from_when_to_when_and_how_far_rows_come_behind(look: Look) -> None:
    start = 1_795_262_400_000
    at: list[int | None] = [start + 1000 * row for row in range(2000)]
    assert "in their order" in texts(look(clicks(at), CLICKS), "clicks: at")
    at[500], at[900], at[901] = start, start + 895_000, None
    found = look(clicks(at), CLICKS)
    said = texts(found, "clicks: at")
    assert "1,999 events from 2026-11-21 12:00:00 UTC to 2026-11-21 12:33:19 UTC" in said
    assert "99.9 % of all by at most 4.0" in said
    assert "the last by 8.32 min" in said
    assert "With `lateness_s: 5` at most one of a thousand is late" in said
    assert "1 of 2,000 rows (under 0.1 %) have no time" in said
    assert worst(found)["clicks: at"] == "warning"


def test_stream_whose_times_cannot_be_is_wrong_and_the_rest_is_looked_at(look: Look) -> None:
    found = look(clicks([1_795_262_400_000, 1_795_262_400]), CLICKS)
    assert worst(found)["clicks: at"] == "wrong"
    assert "set `unit: s`" in texts(found, "clicks: at")
    assert "row 2 of" in texts(found, "clicks: at")
    assert "clicks: price" in found
    found = look(clicks([None, None]), CLICKS)
    assert "no row has a time" in texts(found, "clicks: at")
    found = look(clicks([4_000_000_000_000]), CLICKS)
    assert "ahead of this machine's clock" in texts(found, "clicks: at")
    found = look(clicks([1_795_262_400_000]).rename(columns={"at": "when"}), CLICKS)
    assert "column `at` is not in the file" in texts(found, "clicks: at")
