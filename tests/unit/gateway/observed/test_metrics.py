"""The names of metrics follow Prometheus's conventions, and the page and the alerts name those that there are."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml

from fedtasks.errors import leaves
from fedtasks.gateway.observed import metrics
from fedtasks.gateway.observed.metrics import METRICS, STRANGERS, of_active
from fedtasks.gateway.observed.pulse import Now, PeerNow
from fedtasks.reports import status
from fedtasks.tickets.clauses import clauses

ROOT = Path(__file__).resolve().parents[4]
ALERTS = Path(metrics.__file__).with_name("alerts.yaml")
KNOWN = {each.full_name: each for each in METRICS}


def test_metrics_have_names_of_their_own_that_follow_the_conventions() -> None:
    assert len(KNOWN) == len(METRICS) > 20
    for each in METRICS:
        assert re.fullmatch(r"fedtasks_[a-z_]+", each.full_name)
        assert each.text.endswith(".")
        assert not set(each.labels) & {"run", "run_id", "id", "user", "le", "job", "instance"}
        if "timestamp" in each.name:
            assert each.name.endswith("_timestamp_seconds")


def test_page_lists_every_metric_with_its_labels_and_what_it_says() -> None:
    text = (ROOT / "docs" / "monitoring.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `(fedtasks_\w+)` \| (.*?) \| (.*?) \|$", text, re.MULTILINE)
    assert listed == [
        (each.full_name, ", ".join(f"`{label}`" for label in each.labels) or "–", each.text) for each in METRICS
    ]


def test_alerts_ask_for_metrics_labels_and_values_that_there_are() -> None:
    (group,) = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]
    names = [rule["alert"] for rule in group["rules"]]
    assert len(set(names)) == len(names)
    values = {leaf.code for leaf in leaves()} | {status.HALF_BEHIND, status.HALF_NOT_BEGUN, status.NO_PROGRESS}
    for rule in group["rules"]:
        assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["annotations"].keys() == {"summary", "description"}
        assert rule["labels"]["severity"] in ("info", "warning", "critical")
        asked = re.findall(r"(fedtasks_\w+)(?:\{(.*?)\})?", rule["expr"])
        assert asked, rule["alert"]
        labels: set[str] = set()
        for name, selector in asked:
            labels |= set(KNOWN[name].labels)
            for label, value in re.findall(r'(\w+)(?:=|!=|=~)"(.*?)"', selector):
                assert label in KNOWN[name].labels
                assert label != "cause" or value in values
                assert label != "clause" or any(re.fullmatch(value, clause) for clause in clauses())
        told = " ".join(rule["annotations"].values())
        assert set(re.findall(r"\$labels\.(\w+)", told)) <= labels, rule["alert"]


def test_dashboard_shows_metrics_and_labels_that_there_are_and_every_wait() -> None:
    dashboard = json.loads(ALERTS.with_name("dashboard.json").read_text(encoding="utf-8"))
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels)
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"], panel["gridPos"]["w"]) for panel in panels]
    assert all(x + width <= 24 for x, _, width in places)
    shown = set()
    for panel in panels:
        for target in panel["targets"]:
            (name,) = re.findall(r"fedtasks_\w+", target["expr"])
            labels = {*KNOWN[name].labels, "instance"}
            assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= labels, panel["title"]
            shown.add(name)
    assert {"fedtasks_runs_held_up", "fedtasks_store_answer_seconds", "fedtasks_session_bytes_total"} <= shown


def test_who_is_no_peer_is_one_stranger_whatever_the_name() -> None:
    peer = PeerNow(True, 1, 0.0, 0, 0, 0, 0, 1, 2)
    refusals = {("a stranger", "PEER_IDENTITY"): 2, ("gone", "PEER_IDENTITY"): 3, ("shop", "CALLS_EXCEEDED"): 1}
    now = Now({"shop": peer}, 0, 0, 0, refusals, 0, 0, ())
    found = {family.name: family for family in of_active(now, None)}
    counted = {(each.labels["peer"], each.labels["code"]): each.value for each in found["fedtasks_refusals"].samples}
    assert counted == {(STRANGERS, "PEER_IDENTITY"): 5, ("shop", "CALLS_EXCEEDED"): 1}
    assert "fedtasks_store_answer_seconds" not in found
