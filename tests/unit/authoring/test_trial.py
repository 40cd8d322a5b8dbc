"""Both halves at one desk: what they exchange, what they end with, and how they fail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from fedtasks.authoring import trial
from fedtasks.authoring.plan import plan_of
from fedtasks.authoring.sample import Pair, sample_pair
from fedtasks.authoring.trial import Tried, try_out
from fedtasks.config import Dataset, FeatureType, Format, IdType, LabelKind
from fedtasks.errors import ConfigError, DataMissing, DeadlinePassed, ProcessFailed, ReceiptsDiffer
from fedtasks.pipeline.catalogue import train_split_nn
from fedtasks.pipeline.step import Step
from tests.support.dag_files import Write

MEANS = """
@fed.task(rounds=1)
def means(link, config, data):
    import numpy as np
    import pyarrow.compute as pc

    ours = np.array([pc.mean(column).as_py() for column in data.table(*data.numeric).columns])
    for _ in range(config.settings["rounds"]):
        link.send("means", ours)
        theirs = link.receive("means")
    config.report(step=1, total=float(ours.sum()))
    return {config.party: ours.tolist(), config.peer: theirs.tolist(), "leader": config.leader, "day": config.partition}
"""


def step_of(file: Path, name: str, **settings: Any) -> Step:
    return Step(name, f"{file}:{name}", settings=settings)


def tried(steps: list[Step], pair: Pair, folder: Path, **params: Any) -> list[Tried]:
    return list(try_out(steps, pair, folder, params=params, partition="2026-11-21"))


def test_function_of_ones_own_ends_with_what_the_tables_say(write: Write, tmp_path: Path) -> None:
    pair = sample_pair(tmp_path)
    (found,) = tried([step_of(write(MEANS), "means", rounds=1)], pair, tmp_path, means={"rounds": 3})
    expected = {}
    for name, party in pair.parties.items():
        table = pq.read_table(party.datasets[0].uri.removeprefix("file://"))
        numeric = [column for column, kind in party.datasets[0].features.items() if kind is FeatureType.NUMERIC]
        expected[name] = [pytest.approx(pc.mean(table[column]).as_py()) for column in numeric]
    for name in pair.parties:
        side = found.sides[name]
        assert side.outcome["values"] == {**expected, "leader": "bank", "day": "2026-11-21"}
        assert (side.sent["means"].messages, side.sent["means"].items) == (3, 6)
        assert side.metrics == {"total": pytest.approx(sum(value.expected for value in expected[name]))}


def test_plan_lists_each_message_and_what_the_other_learns(write: Write, tmp_path: Path) -> None:
    plan = plan_of(tried([step_of(write(MEANS), "means", rounds=2)], sample_pair(tmp_path), tmp_path))
    for party in ("bank", "shop"):
        (entry,) = plan.leaves[party]
        assert (entry.task, entry.name, entry.messages, entry.items) == ("means", "means", 2, 4)
        assert entry.learns == "what the pipeline's authors sent there"
    assert plan.spends == {}


@pytest.mark.parametrize(
    ("body", "error", "text"),
    [
        ("raise ValueError('too few')", ProcessFailed, "ValueError: too few"),
        ("return {'party': config.party}", ReceiptsDiffer, "both halves must end with the same"),
        ("return {'mean': float('nan')}", ConfigError, "without NaN"),
        ("return data.blocks", DataMissing, "align"),
        ("data.table('unknown')", ConfigError, "`unknown` is not a column"),
        (
            "if config.party == 'shop':\n        raise ValueError('shop only')\n    link.receive('x')",
            ProcessFailed,
            "shop only",
        ),
    ],
)
def test_failure_of_a_half_is_named(write: Write, tmp_path: Path, body: str, error: type[Exception], text: str) -> None:
    file = write(f"\n@fed.task\ndef broken(link, config, data):\n    {body}\n")
    with pytest.raises(error, match=text) as caught:
        tried([step_of(file, "broken")], sample_pair(tmp_path), tmp_path)
    assert "broken" in caught.value.where or "runs/trial" in caught.value.where  # type: ignore[attr-defined]


def test_halves_that_wait_for_each_other_are_ended(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "DEADLINE_S", 1.0)
    file = write("\n@fed.task\ndef stuck(link, config, data):\n    link.receive(config.party)\n")
    with pytest.raises(DeadlinePassed, match="does each receive what the other sends"):
        tried([step_of(file, "stuck")], sample_pair(tmp_path), tmp_path)


def test_settings_that_do_not_fit_are_refused_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="epochs"):
        tried([train_split_nn()], sample_pair(tmp_path), tmp_path, train={"epochs": 0})


def test_pair_as_declared_in_another_format_has_dates_and_columns_of_other_names(tmp_path: Path) -> None:
    from fedtasks.authoring.sample import pair_as_declared
    from fedtasks.data.tables import list_parts, read_rows

    own = Dataset(
        name="accounts",
        uri="hdfs://warehouse/day={partition}",
        format=Format.CSV,
        delimiter=";",
        encoding="cp1252",
        endings=("",),
        id="account",
        features={"opened": FeatureType.DAYS, "weekday": FeatureType.WEEKDAY, "a.b": FeatureType.NUMERIC},
        columns={"weekday": "opened"},
        null=("-999",),
        label="label",
    )
    pair = pair_as_declared(tmp_path, own, "acme", "globex", shared=50)
    dataset = pair.parties["acme"].datasets[0]
    rows = [row for part in list_parts(dataset) for batch in read_rows(dataset, part) for row in batch.to_pylist()]
    days = [row["opened"] for row in rows if row["opened"] is not None]
    assert len(set(days)) > 10
    assert {"Monday", "Sunday"} <= {row["weekday"] for row in rows} - {None}


def test_pair_as_declared_has_the_declared_columns(tmp_path: Path) -> None:
    from fedtasks.authoring.sample import pair_as_declared
    from fedtasks.data.tables import ID, LABEL, list_parts, read_rows

    own = Dataset(
        name="accounts",
        uri="hdfs://nowhere/data",
        id="branch, number",
        id_type=IdType.INTEGER,
        features={"balance": FeatureType.NUMERIC, "kind": FeatureType.CATEGORICAL},
        label="defaulted",
        label_positive="1",
    )
    pair = pair_as_declared(tmp_path, own, "acme", "globex", shared=50)
    assert pair.leader == "acme"
    assert pair.parties["globex"].datasets[0].label is None
    rows = {
        name: [row for part in list_parts(dataset) for batch in read_rows(dataset, part) for row in batch.to_pylist()]
        for name, party in pair.parties.items()
        for dataset in party.datasets
    }
    ids = {name: {row[ID] for row in of_party} for name, of_party in rows.items()}
    assert len(ids["acme"]) == len(ids["globex"]) == 110
    assert len(ids["acme"] & ids["globex"]) == 50
    assert {row[LABEL] for row in rows["acme"]} == {0, 1}


@pytest.mark.parametrize(("kind", "classes"), [(LabelKind.CLASSES, ("a", "b", "c")), (LabelKind.NUMBER, ())])
def test_pair_as_declared_has_labels_of_the_declared_kind_and_weights(
    tmp_path: Path, kind: LabelKind, classes: tuple[str, ...]
) -> None:
    from fedtasks.authoring.sample import pair_as_declared
    from fedtasks.data.tables import LABEL, WEIGHT, list_parts, read_rows

    features = {"balance": FeatureType.NUMERIC}
    declared: dict[str, Any] = {"label": "grade", "label_kind": kind, "label_classes": classes, "weight": "exposure"}
    own = Dataset(name="accounts", uri="hdfs://nowhere/data", id="number", features=features, **declared)
    (made,) = pair_as_declared(tmp_path, own, "acme", "globex", shared=50).parties["acme"].datasets
    rows = [row for part in list_parts(made) for batch in read_rows(made, part) for row in batch.to_pylist()]
    found = {row[LABEL] for row in rows}
    assert found == {0, 1, 2} if classes else len(found) > 50
    assert len({row[WEIGHT] for row in rows}) > 10
