"""Both halves at one desk: what they exchange, what they end with, and how they fail."""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from fedtasks.authoring import trial
from fedtasks.authoring.plan import plan_of
from fedtasks.authoring.sample import Pair, pair_as_declared, sample_pair
from fedtasks.authoring.trial import Tried, try_out
from fedtasks.config import Dataset, EventTime, Feature, FeatureType, Format, IdType, LabelKind
from fedtasks.errors import ConfigError, DataMissing, DeadlinePassed, NetworkInvalid, ProcessFailed, ReceiptsDiffer
from fedtasks.label_budget import auc_of
from fedtasks.logs import About, JsonLines
from fedtasks.pipeline.catalogue import align, evaluate, intersect, join, joined, train_split_nn
from fedtasks.pipeline.step import Step
from fedtasks.runtime.context import Outcome, TaskContext
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


def test_pipeline_of_streams_is_tried_with_logs_that_have_ended(tmp_path: Path) -> None:
    pair = sample_pair(tmp_path, shared=90, streams=True)
    steps = [join("clicks", shards=2), joined("clicks")]
    ours, theirs = tried(steps, pair, tmp_path)
    assert (ours.step, theirs.step) == ("join", "joined")
    for side in theirs.sides.values():
        assert side.outcome["counts"]["rows"] == 90
        assert side.outcome["values"] == {"joined": "clicks@1.1"}


def test_what_another_pipeline_joins_is_joined_before_it_is_taken_and_not_shown(tmp_path: Path) -> None:
    pair = sample_pair(tmp_path, shared=90, streams=True)
    (found,) = tried([joined("clicks")], pair, tmp_path)
    assert found.step == "joined"
    assert found.sides["bank"].outcome["counts"]["rows"] == 90


def test_columns_of_further_keys_are_made_up_too(tmp_path: Path) -> None:
    own = Dataset(
        name="log",
        uri="file:///nowhere",
        id="request",
        features={"price": FeatureType.NUMERIC},
        label="bought",
        event_keys=("request", "user, @minute"),
        event_time=EventTime("at"),
        shard_by="",
    )
    pair = pair_as_declared(tmp_path, own, "bank", "shop", streams=True)
    for party in pair.parties.values():
        (dataset,) = party.datasets
        table = pq.read_table(dataset.uri.removeprefix("file://"))
        assert {"request", "user", dataset.event_time.column} <= set(table.column_names)  # type: ignore[union-attr]


def test_plan_lists_each_message_and_what_the_other_learns(write: Write, tmp_path: Path) -> None:
    plan = plan_of(tried([step_of(write(MEANS), "means", rounds=2)], sample_pair(tmp_path), tmp_path))
    for party in ("bank", "shop"):
        (entry,) = plan.leaves[party]
        assert (entry.task, entry.name, entry.messages, entry.items) == ("means", "means", 2, 4)
        assert entry.learns == "what the pipeline's authors sent there"
    assert plan.spends == {}
    assert plan.labels == {}


def tell(context: TaskContext) -> Outcome:
    """Tell two parts of labels, and another once."""
    if context.is_leader:
        for epsilon, item in ((0.005, ""), (0.005, ""), (0.02, "label_dp"), (0.02, "label_dp")):
            context.spend_label_leak(epsilon, item)
    return Outcome()


def test_plan_says_how_well_labels_can_be_read_after_all_steps(tmp_path: Path) -> None:
    steps = [Step(name, f"{__name__}:tell") for name in ("first", "second")]
    plan = plan_of(tried(steps, sample_pair(tmp_path), tmp_path))
    # Four parts of .005 add up; what is told once is told once.
    assert plan.labels == {"bank": round(100 * auc_of(4 * 0.005 + 0.02), 1)}


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


def test_pair_with_lists_goes_from_its_files_through_alignment_to_a_network(tmp_path: Path) -> None:
    from fedtasks.authoring.sample import pair_as_declared

    features: dict[str, FeatureType | Feature] = {
        "visits": FeatureType.NUMERIC,
        "device": Feature(FeatureType.CATEGORICAL, hash_buckets=5),
        "seen": Feature(FeatureType.SEQUENCE, length=3),
        "query": Feature(FeatureType.VECTOR, width=4),
    }
    own = Dataset(name="visits", uri="hdfs://nowhere/data", id="person", features=features)
    pair = pair_as_declared(tmp_path, own, "acme", "globex", shared=200)
    steps = [
        intersect(scheme="oprf", min_intersection=10),
        align(),
        train_split_nn(epochs=8, batch_size=32),
        evaluate(),
    ]
    *_, measured = tried(steps, pair, tmp_path)
    assert measured.sides[pair.leader].metrics["auc"] > 0.7


# ------------------------------------------------------------------------------------------------------ networks
OWN = """
import keras
from fedtasks import Receive, Send


def network(features, settings):
    asked = Receive("asked", 6)
    hidden = keras.layers.Dense(8, "relu")(keras.layers.Concatenate()([features.matrix(), asked]))
    first = Send("first")(keras.layers.Dense(3)(features.matrix()))
    second = Send("second")(keras.layers.Reshape((2, 2))(keras.layers.Dense(4)(hidden)))
    model = keras.Model([*features.inputs, asked], [first, second])
    model.compile(optimizer="adam")
    return model
"""


def pair_with(folder: Path, own: str, text: str) -> Pair:
    """Return a bank that leads and a shop, one of which has a model file."""
    pair = sample_pair(folder)
    file = folder / "own.py"
    file.write_text(text, encoding="utf-8")
    return replace(pair, parties={**pair.parties, own: replace(pair.parties[own], networks={"own": file})})


def trained(pair: Pair, folder: Path, **settings: Any) -> Tried:
    steps = [
        intersect(),
        align(),
        train_split_nn(network="own", epochs=2, label_protection="none", max_label_leak=100, **settings),
    ]
    return tried(steps, pair, folder)[-1]


@pytest.mark.usefixtures("no_saved_models")
@pytest.mark.parametrize("own", ["shop", "bank"])
def test_network_is_tried_with_a_counterpart_made_up_of_its_cuts(tmp_path: Path, own: str) -> None:
    text = OWN
    if own == "bank":  # which holds the label
        text = OWN.replace("[first, second]", "[keras.layers.Dense(1)(hidden), first, second]")
        text = text.replace("Dense(4)(hidden)", "Dense(4)(features.matrix())")
        text = text.replace('optimizer="adam"', 'optimizer="adam", loss="mse"')
    found = trained(pair_with(tmp_path, own, text), tmp_path)
    peer = "bank" if own == "shop" else "shop"
    sent = {name: side.sent for name, side in found.sides.items()}
    assert set(sent[own]) >= {"activation first", "activation second", "gradient asked"}
    assert set(sent[peer]) >= {"activation asked", "gradient first", "gradient second"}
    ours, theirs = found.networks[own], found.networks[peer]
    assert (ours.sends, theirs.sends) == ({"first": "float32 3", "second": "float32 2×2"}, {"asked": "float32 6"})
    assert ours.bytes_a_row == theirs.bytes_a_row == 4 * (3 + 4 + 6)
    assert (Path(ours.file).name, theirs.file) == ("own.py", "")
    # What was really sent: two epochs of as many rows.
    n_rows = found.sides[own].outcome["counts"]["rows_train"]
    for name, each in sent.items():
        tensors = [amount.bytes for key, amount in each.items() if key.startswith(("activation", "gradient"))]
        assert sum(tensors) == pytest.approx(2 * n_rows * found.networks[name].bytes_a_row, rel=0.1)


def test_network_that_sends_what_nobody_can_use_any_more_is_refused(tmp_path: Path) -> None:
    text = OWN.replace("[first, second]", "[keras.layers.Dense(1)(hidden), first, second]")
    pair = pair_with(tmp_path, "bank", text.replace('optimizer="adam"', 'optimizer="adam", loss="mse"'))
    with pytest.raises(NetworkInvalid, match="sends `second` after it has received all"):
        trained(pair, tmp_path)


def test_network_of_which_the_peers_file_is_given_is_tried_with_that(tmp_path: Path) -> None:
    pair = pair_with(tmp_path, "shop", OWN)
    file = tmp_path / "peer.py"
    file.write_text(OWN.replace("Send", "Refuse"), encoding="utf-8")
    pair = replace(pair, parties={**pair.parties, "bank": replace(pair.parties["bank"], networks={"own": file})})
    with pytest.raises(NetworkInvalid, match="line 3: ImportError") as caught:
        trained(pair, tmp_path)
    assert caught.value.where == str(file)


def test_network_that_neither_party_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="`own` is no network of"):
        trained(sample_pair(tmp_path), tmp_path)


def test_no_log_of_an_intersection_holds_an_id(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pair = sample_pair(tmp_path)
    with caplog.at_level(logging.DEBUG):
        tried([intersect(), align()], pair, tmp_path)
    said = "\n".join(JsonLines(About("bank")).format(record) for record in caplog.records)
    assert said
    for party in pair.parties.values():
        dataset = party.datasets[0]
        ids = pq.read_table(dataset.uri.removeprefix("file://"))[dataset.id].to_pylist()
        assert len(ids) > 10
        assert [each for each in map(str, ids) if re.search(rf"\b{re.escape(each)}\b", said)] == []
