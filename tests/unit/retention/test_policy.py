"""The policy as a whole: what no age removes, what is in use, and that a dry run tells the truth."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from fedtasks.clock import DAY_MS
from fedtasks.config import Keep
from fedtasks.data.storage import write_json
from fedtasks.data.tag_files import TagFiles
from fedtasks.errors import ConfigError, ModelRemoved, StoreReplaced
from fedtasks.store import DisclosureRow, Labels, LabelSpendRow, MetricRow, RefusalRow
from fedtasks.tickets import generate_ticket_key, save_ticket_key
from tests.support.aged import Aged
from tests.support.report_rows import make_half, put_ticket

SHORT = Keep().at_most(1)


def test_what_bounds_or_proves_something_outlives_everything(aged: Aged) -> None:
    run = aged.add_run(1, 5000, receipt="ours", peer_receipt="theirs", initiated=False)
    put_ticket(aged.store, granted=True)
    aged.store.uses.count("t-1", run.run_id, "runs", 1, None)
    labels = Labels("follower", "people", "y")
    aged.store.label_spends.spend(LabelSpendRow(labels, "item", 7, run.run_id, "train"), None)
    aged.store.halves.put(make_half("train", "succeeded", run_id=run.run_id))
    aged.store.disclosures.put([DisclosureRow(run.run_id, "train", 1, "activations", 1, 2, 3)])
    aged.store.metrics.put([MetricRow(run.run_id, "train", "loss", step, 0.5, 1) for step in range(9)])
    aged.store.refusals.put(RefusalRow("credit", "old", "credit", "2026-01-01", "follower", {}, aged.before(100)))
    aged.publish(run, "train")

    found = {each.what: (each.n_bytes > 0, each.n_rows) for each in aged.remove(SHORT)}

    assert found == {
        run.run_id: (True, 0),
        f"metrics of {run.run_id}": (False, 9),
        "DAG runs that came to no run": (False, 1),
    }
    assert aged.store.metrics.list(run.run_id) == []
    assert aged.store.refusals.list() == []
    kept = aged.store.runs.get(run.run_id)
    assert kept == replace(run, removed_ms=aged.now_ms)
    assert aged.store.uses.total("t-1") == {"runs": 1}
    assert aged.store.label_spends.total(labels) == 7
    assert len(aged.store.halves.list(run.run_id)) == len(aged.store.disclosures.list(run.run_id)) == 1
    assert aged.store.runs.total_with("follower") == 1  # else the peer would think that the store was restored
    actions = {(row.action, row.detail["kind"], row.detail["rows"]) for row in aged.store.audit.list()}
    assert actions == {("keep.remove", "runs", 1), ("keep.remove", "curves", 9)}


def test_dry_run_says_what_goes_and_changes_nothing(aged: Aged) -> None:
    run = aged.add_run(1, 400)
    aged.publish(run, "align")
    aged.store.metrics.put([MetricRow(run.run_id, "train", "loss", 1, 0.5, 1)])
    before = aged.files(), aged.store.runs.list(), aged.store.audit.list()
    said = [(each.kind, each.what, each.why, each.n_bytes, each.n_rows) for each in aged.plan()]
    assert (aged.files(), aged.store.runs.list(), aged.store.audit.list()) == before
    assert [(each.kind, each.what, each.why, each.n_bytes, each.n_rows) for each in aged.remove()] == said
    assert len(said) == 2


def test_version_in_use_or_of_a_model_that_a_run_is_about_is_never_given_up(aged: Aged) -> None:
    first, second = aged.add_run(1, 500), aged.add_run(2, 500)
    aged.add_version(first, 1, 500)
    aged.add_version(second, 2, 500)
    about = aged.add_run(
        3, None, pipeline="scoring", config_json=json.dumps({"steps": {"predict": {"model": "credit"}}})
    )
    assert aged.plan() == []
    aged.store.runs.change(about.run_id, state="failed", closed_ms=aged.now_ms)
    assert [each.what for each in aged.remove()] == ["credit version 1"]
    with pytest.raises(ModelRemoved):
        aged.store.models.make_champion("credit", 1)
    assert not aged.store.models.mark_removed("credit", 2)
    assert aged.store.models.champion("credit").version == 2  # type: ignore[union-attr]


def test_tags_that_no_intersection_has_used_go_but_not_of_a_dataset_that_a_run_reads(aged: Aged) -> None:
    tables = [TagFiles(aged.party.storage, dataset, "k" * 16) for dataset in ("people", "gone")]
    for table in tables:
        write_json(f"{table.uri}/manifest-00000001.json", {"writer": "", "content": {"items": [], "readers": {}}})
    later = replace(aged, now_ms=aged.now_ms + 181 * DAY_MS)
    run = aged.add_run(1, None, config_json=json.dumps({"datasets": {"leader": "people"}}))
    assert aged.plan() == []
    assert [each.what for each in later.remove()] == [f"gone under key {'k' * 16}"]
    aged.store.runs.change(run.run_id, state="failed", closed_ms=aged.now_ms)
    assert f"people under key {'k' * 16}" in [each.what for each in later.remove()]
    assert [file for file in aged.files() if file.startswith("tags/")] == []


def test_nothing_goes_while_the_store_is_another_than_the_one_before(aged: Aged) -> None:
    run = aged.add_run(1, 400)
    aged.publish(run, "align")
    write_json(f"{aged.party.storage}/store-of-leader.json", {"store_id": "another"})
    with pytest.raises(StoreReplaced):
        aged.remove()
    assert any(run.run_id in file for file in aged.files())


def test_audit_stays_unless_the_policy_names_its_days(aged: Aged, tmp_path: Path) -> None:
    for _ in range(3):
        aged.store.audit.add("leader", "run.start", "allowed")
    later = replace(aged, now_ms=aged.now_ms + 365 * DAY_MS)
    assert later.plan(SHORT) == []
    save_ticket_key(key := generate_ticket_key(), tmp_path / "ticket.key")
    party = replace(aged.party, gateway=replace(aged.party.gateway, ticket_key=tmp_path / "ticket.key"))
    (removal,) = replace(later, party=party).remove(Keep(audit_days=90))
    assert (removal.kind, removal.n_rows) == ("audit", 2)
    aged.store.audit.verify(key.public_key())
    assert [row.action for row in aged.store.audit.list()] == ["run.start", "audit.cut", "keep.remove"]


def test_days_are_bounded_and_may_be_cut_for_one_time() -> None:
    assert Keep(runs_days=10).at_most(30) == replace(Keep().at_most(30), runs_days=10)
    with pytest.raises(ConfigError, match="1 to 36500 days, not 0"):
        Keep(joined_days=0)
    with pytest.raises(ConfigError, match="90 to 36500 days, not 30"):
        Keep(audit_days=30)
