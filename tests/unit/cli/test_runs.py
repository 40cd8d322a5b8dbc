"""`runs` and `run`: what the store holds, as sentences, tables and JSON."""

from __future__ import annotations

import io
import json
import re
import threading
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from fedtasks.cli import run_view
from fedtasks.cli.output import size
from fedtasks.config import load_party
from fedtasks.errors import StoreUnavailable
from fedtasks.store import ApprovalRow, DisclosureRow, HalfRow, MetricRow, RefusalRow, RunRow, Store
from tests.support.command_line import Run
from tests.support.report_rows import make_run

STEPS = json.dumps([{"name": name} for name in ("psi", "train")])
HOUR_MS = 3_600_000


@pytest.fixture
def party_file(bank: Path) -> str:
    return str(bank / "party.yaml")


@pytest.fixture
def store(party_file: str) -> Any:
    with Store.open(load_party(party_file).store.url) as opened:
        yield opened


def enter(
    store: Store, day: int, pipeline: str = "retrain", peer: str = "shop", approval: Any = None, **more: Any
) -> str:
    run_id = f"{pipeline}.2026-11-{day:02}.1"
    values: dict[str, Any] = {"ticket_id": "t", "config_digest": "", "config_json": "{}", "steps_json": STEPS, **more}
    names = {"run_id": run_id, "pipeline": pipeline, "partition": f"2026-11-{day:02}", "number": 1, "peer": peer}
    row = RunRow(**names, initiated=True, dag_id=pipeline, dag_run_id=run_id, opened_ms=day * HOUR_MS, **values)
    assert store.runs.add(row, approval)
    return run_id


@pytest.fixture
def run_id(store: Store) -> str:
    """A run whose intersection is done and whose training goes on."""
    run_id = enter(store, 21, reason="nightly")
    done = {"counts": {"people_shared": 3000}}
    store.halves.put(HalfRow(run_id, "psi", True, 1, "succeeded", since_ms=HOUR_MS, outcome=done))
    store.halves.put(HalfRow(run_id, "psi", False, 1, "succeeded", since_ms=HOUR_MS))
    progress = {"phase": "epoch 3", "done": 1200, "of": 3000, "rows_per_s": 45000, "left_s": 95, "link": "tunnel"}
    store.halves.put(HalfRow(run_id, "train", True, 2, "running", since_ms=2 * HOUR_MS, progress=progress))
    store.halves.put(HalfRow(run_id, "train", False, 2, "running", since_ms=2 * HOUR_MS))
    store.metrics.put([MetricRow(run_id, "train", "auc", step, 0.5 + step / 10, 0) for step in (1, 2)])
    store.disclosures.put([DisclosureRow(run_id, "train", 2, "activation", 4, 1200, 614_400)])
    store.traffic.add(run_id, "train", 0, 2, 614_400, 2_500_000)
    return run_id


def test_runs_are_those_of_the_state_pipeline_and_peer(run: Run, store: Store, run_id: str, party_file: str) -> None:
    failed = enter(store, 1, state="failed", failure={"code": "TICKET_REVOKED", "text": "gone", "party": "shop"})
    done = enter(store, 2, state="succeeded", peer="mill")
    other = enter(store, 3, pipeline="score")

    def listed(*options: str) -> list[str]:
        return [row["run_id"] for row in run("runs", *options, "--json", "--party", party_file).json()]

    assert listed() == [run_id, other, done, failed]
    assert listed("--limit", "2") == [run_id, other]
    assert listed("--state", "running") == [run_id]
    assert listed("--state", "opened") == [other]
    assert listed("--state", "failed") == [failed]
    assert listed("--peer", "mill") == [done]
    assert listed("--pipeline", "score") == [other]
    assert listed("--pipeline", "score", "--state", "done") == []


def test_runs_say_how_each_stands_in_the_words_of_the_note(run: Run, run_id: str, party_file: str) -> None:
    shown = run("runs", "--party", party_file).out
    assert "▶ Running with shop · train · attempt 2 · since 02:00:00 UTC" in shown


def test_runs_of_an_unknown_state_names_those_there_are(run: Run, party_file: str) -> None:
    refused = run("runs", "--state", "lost", "--party", party_file, expect=1)
    assert "opened, waiting, running, retrying, done, failed, refused" in refused.err


def test_runs_without_any_name_the_next_act(run: Run, party_file: str) -> None:
    assert "trigger a federated DAG" in run("runs", "--party", party_file).out
    assert "see them all" in run("runs", "--peer", "shop", "--party", party_file).out


def test_run_show_tells_both_lanes_what_left_the_house_and_results(run: Run, run_id: str, party_file: str) -> None:
    shown = run("run", "show", run_id, "--party", party_file).out
    for words in (
        "bank → shop",
        "Reason nightly",
        "▶ running · attempt 2 · since 02:00:00 · epoch 3 1,200 of 3,000 · 45,000 rows/s, 0:01:35 left · link: tunnel",
        "✔ succeeded",
        "3,000",
        "Sent 614 kB, received 2.5 MB",
        "Left the house",
        "activations",
        "train.auc",
        "0.7000",
        "Receipts: own not yet signed, shop's not yet signed.",
    ):
        assert words in shown


def test_run_show_of_a_run_that_waits_for_approval_tells_all_that_is_asked(
    run: Run, store: Store, party_file: str
) -> None:
    config = {"leader": "bank", "datasets": {"bank": "loans"}, "steps": {"train": {"note": "y" * 900, "zz": 7}}}
    row = make_run(9, config_json=json.dumps(config), initiated=False)
    store.runs.add(row, ApprovalRow(row.run_id, "asked", "approval", row.opened_ms, 0))
    shown = run("run", "show", row.run_id, "--party", party_file).out
    for words in ("Approval (approval): asked", "Asked for", "datasets.bank", "train.zz"):
        assert words in shown
    assert shown.count("y") >= 900


def test_run_show_tells_the_ten_features_that_count_most_and_json_all(
    run: Run, store: Store, run_id: str, party_file: str
) -> None:
    assert "Features by" not in run("run", "show", run_id, "--party", party_file).out
    splits = {f"importance.f{number}": float(number) for number in range(1, 13)}
    store.metrics.put([MetricRow(run_id, "train", name, 0, value, 0) for name, value in splits.items()])
    shown = " ".join(run("run", "show", run_id, "--party", party_file).out.split())
    assert (
        "Features by splits: f12 12 · f11 11 · f10 10 · f9 9 · f8 8 · f7 7 · f6 6 · f5 5 · f4 4 · f3 3 · 2 more"
        in shown
    )
    assert "importance." not in shown
    report = run("run", "show", run_id, "--json", "--party", party_file).json()
    assert [each["splits"] for each in report["importance"]] == list(range(12, 0, -1))
    assert list(report["metrics"]) == ["train.auc"]


def test_run_show_tells_how_right_scores_are_by_groups_and_which_class_is_taken_for_which(
    run: Run, store: Store, run_id: str, party_file: str
) -> None:
    group = {"rows": 12.0, "lowest": 0.25, "mean_score": 0.375, "mean_label": 0.3125}
    cells = {(0, "0.low"): 7.0, (0, "1.high"): 1.0, (1, "0.low"): 0.0, (1, "1.high"): 4.0}
    store.metrics.put([MetricRow(run_id, "evaluate", f"group.{name}", 0, value, 0) for name, value in group.items()])
    store.metrics.put([MetricRow(run_id, "evaluate", f"confusion.{of}", step, n, 0) for (step, of), n in cells.items()])
    lines = [line.split() for line in run("run", "show", run_id, "--party", party_file).out.splitlines()]
    for expected in (["0.2500", "12", "0.3750", "0.3125"], ["low", "7", "1"], ["high", "0", "4"]):
        assert expected in lines
    report = run("run", "show", run_id, "--json", "--party", party_file).json()
    assert report["breakdown"] == {"groups": [group], "classes": ["low", "high"], "confusion": [[7, 1], [0, 4]]}


def test_run_show_says_how_many_labels_the_peer_can_read(run: Run, store: Store, run_id: str, party_file: str) -> None:
    figures = {"label_leak_spectral_auc": 1.0, "label_leak_auc": 1.0, "label_leak_accuracy": 1.0}
    store.metrics.put([MetricRow(run_id, "train", name, 2, value, 0) for name, value in figures.items()])
    shown = " ".join(run("run", "show", run_id, "--party", party_file).out.split())
    expected = "shop can read 100 % of the labels of train rows from the gradients (spectral attack, epoch 2)"
    assert expected in shown
    assert run("run", "show", run_id, "--json", "--party", party_file).json()["leak"] == expected


def test_run_show_says_which_features_can_be_rebuilt(run: Run, store: Store, run_id: str, party_file: str) -> None:
    store.metrics.put([MetricRow(run_id, "train", "reconstruction.r2.age", 0, 0.93, 0)])
    shown = " ".join(run("run", "show", run_id, "--party", party_file).out.split())
    assert "from what shop has received, best of all age (R² 0.93); reconstruction.json has every feature" in shown
    report = run("run", "show", run_id, "--json", "--party", party_file).json()
    assert "age (R² 0.93)" in report["rebuilt"]
    assert not any("reconstruction" in name for name in report["metrics"])


def test_run_show_says_what_this_partys_half_remarks(run: Run, store: Store, run_id: str, party_file: str) -> None:
    store.metrics.put([MetricRow(run_id, "train", "remark.no_split", step, 4.0, 0) for step in (1, 2)])
    shown = " ".join(run("run", "show", run_id, "--party", party_file).out.split())
    assert shown.count("⚠ train: no split was found in 4 trees") == 1  # of the attempt that counts
    report = run("run", "show", run_id, "--json", "--party", party_file).json()
    assert len(report["remarks"]) == 1
    assert "train.remark.no_split" not in report["metrics"]


def test_run_show_tells_rights_and_approval(run: Run, store: Store, met: tuple[str, str], ticket_id: str) -> None:
    run("ticket", "accept", "t", "--party", met[0])
    config = json.dumps({"leader": "bank", "steps": {}})
    asked = ApprovalRow("retrain.2026-11-07.1", "approved", "approval", 1, 2, 3, "ann", "as agreed")
    run_id = enter(store, 7, approval=asked, ticket_id=ticket_id, config_json=config)
    shown = run("run", "show", run_id, "--party", met[0]).out
    assert "Approval (approval): approved by ann: as agreed" in shown
    assert re.search(rf"metrics +✔ yes +bank \(ticket {ticket_id}, outputs.metrics\)", shown)


def test_runs_refused_tells_why_and_what_to_do(run: Run, store: Store, party_file: str) -> None:
    failure = {"code": "FLOOR_VIOLATED", "text": "asked=1, allowed=10", "party": "shop", "task": "", "at_ms": 1}
    store.refusals.put(RefusalRow("retrain", "manual__1", "retrain", "2026-11-21", "shop", failure, 1000))
    (row,) = run("runs", "--state", "refused", "--json", "--party", party_file).json()
    assert (row["dag_run_id"], row["code"], row["party"]) == ("manual__1", "FLOOR_VIOLATED", "shop")
    assert row["sentence"].startswith(
        "⛔ bank must act · Refused by shop · FLOOR_VIOLATED · asked=1, allowed=10 · Raise the named setting"
    )
    assert row["sentence"] in run("runs", "--state", "refused", "--party", party_file).out
    for pipeline, found in (("retrain", 1), ("retrain.trees", 0)):
        listed = run("runs", "--state", "refused", "--pipeline", pipeline, "--json", "--party", party_file).json()
        assert len(listed) == found


def test_run_show_prints_words_of_the_peer_as_they_are(run: Run, store: Store, party_file: str) -> None:
    text = "[red]<img src=x onerror=alert(1)>[/red]"
    run_id = enter(store, 5, state="failed", failure={"code": "PEER_CANCELLED", "text": text, "party": "shop"})
    assert text in run("run", "show", run_id, "--party", party_file).out


def test_run_show_of_an_unknown_run_is_one_line_of_the_registry(run: Run, party_file: str) -> None:
    assert run("run", "show", "none", "--party", party_file, expect=1).err.startswith("RUN_UNKNOWN · ")


def test_run_watch_of_an_ended_run_says_how_and_exits_with_it(run: Run, store: Store, party_file: str) -> None:
    done = enter(store, 1, state="succeeded")
    failed = enter(store, 2, state="failed", failure={"code": "RUN_CANCELLED"})
    assert run("run", "watch", done, "--party", party_file).out.startswith("✅ Done with shop")
    assert run("run", "watch", failed, "--party", party_file, expect=1).out.startswith(
        "❌ Failed at bank · RUN_CANCELLED"
    )


def test_run_watch_prints_a_json_line_for_each_change(
    run: Run, store: Store, run_id: str, party_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_view, "LOOK_EVERY_S", 0.01)
    metric = MetricRow(run_id, "train", "auc", 3, 0.9, 0)
    later = [lambda: store.metrics.put([metric]), lambda: store.runs.change(run_id, state="succeeded", closed_ms=1)]
    report = run_view.run_report

    def report_and_go_on(*arguments: Any) -> dict[str, Any]:
        found = report(*arguments)
        if later:
            later.pop(0)()
        return found

    monkeypatch.setattr(run_view, "run_report", report_and_go_on)
    lines = [json.loads(line) for line in run("run", "watch", run_id, "--json", "--party", party_file).out.splitlines()]
    assert [line["metrics"]["train.auc"] for line in lines] == [0.7, 0.9, 0.9]
    assert [line["status"]["state"] for line in lines] == ["running", "running", "done"]


def test_changes_wait_for_a_store_that_comes_back(store: Store, run_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_view, "LOOK_EVERY_S", 0.01)
    report, calls = run_view.run_report, iter([False, True, True, False])

    def now_and_then(*arguments: Any) -> dict[str, Any]:
        if next(calls):
            raise StoreUnavailable("restarting")
        return report(*arguments)

    monkeypatch.setattr(run_view, "run_report", now_and_then)
    seen = run_view.changes(store, "bank", run_id)
    next(seen)
    store.runs.change(run_id, state="failed", failure={"code": "RUN_CANCELLED"}, closed_ms=1)
    assert next(seen)["state"] == "failed"


def test_changes_give_a_store_up_that_stays_away(store: Store, run_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_view, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(run_view, "PATIENCE_S", 0.05)
    seen = run_view.changes(store, "bank", run_id)
    next(seen)

    def away(*_: Any) -> dict[str, Any]:
        raise StoreUnavailable("gone")

    monkeypatch.setattr(run_view, "run_report", away)
    with pytest.raises(StoreUnavailable):
        next(seen)


def test_follow_on_a_terminal_redraws_until_the_run_ends(
    store: Store, run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_view, "LOOK_EVERY_S", 0.01)
    screen = io.StringIO()
    terminal = Console(file=screen, force_terminal=True, width=140, height=60)
    monkeypatch.setattr(run_view, "console", lambda: terminal)
    end = threading.Timer(0.3, store.runs.change, [run_id], {"state": "succeeded", "closed_ms": 1})
    end.start()
    assert run_view.follow(store, "bank", run_id, as_json=False) == 0
    end.join()
    assert "━" in screen.getvalue()
    assert "Done with shop" in screen.getvalue()


def test_run_names_are_completed_from_the_store(run: Run, store: Store, run_id: str, party_file: str) -> None:
    enter(store, 3, pipeline="score")
    variables = {"_FEDTASKS_COMPLETE": "complete_bash", "FEDTASKS_PARTY": party_file}
    typed = {"COMP_WORDS": "fedtasks run show ret", "COMP_CWORD": "3"}
    assert complete({**variables, **typed}) == [run_id]


def complete(variables: dict[str, str]) -> list[str]:
    from typer.testing import CliRunner

    from fedtasks.cli import app

    return CliRunner().invoke(app, [], env=variables, prog_name="fedtasks").stdout.split()


@pytest.mark.parametrize(
    ("n_bytes", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (41_000_000, "41 MB"), (2 * 10**12, "2.0 TB")]
)
def test_size_has_few_digits(n_bytes: int, text: str) -> None:
    assert size(n_bytes) == text
