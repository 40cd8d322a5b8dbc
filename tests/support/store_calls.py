"""Every call of every book of a store, and a store in which each may be repeated."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pyarrow as pa

from fedtasks.store import (
    ApprovalRow,
    DisclosureRow,
    HalfRow,
    JoinRow,
    JoinWindowRow,
    Labels,
    LabelSpendRow,
    LandingRow,
    MetricRow,
    ModelRow,
    PeerRow,
    RefusalRow,
    RunCharge,
    Store,
    TicketRequestRow,
)
from tests.support.stores import NOW, RUN, TICKET, run_row

HALF = HalfRow(RUN, "train", True, 1, "waiting", "try")
APPROVAL = ApprovalRow(RUN, "asked", "approval", NOW, 0)
MODEL = ModelRow("scores", 1, "shop", RUN, "2026-11-21", None, "a" * 64, "b" * 64, None, {}, False, NOW)
JOIN = JoinRow("shop", "clicks", 0, 1, "c" * 64, RUN, NOW)
JOIN_WINDOW = JoinWindowRow("shop", "clicks", 0, NOW, RUN, joined=3)
LANDING = LandingRow("bank", "loans", "2026-11-21", 3, NOW)
REFUSAL = RefusalRow("credit", "manual__1", "credit", "2026-11-21", "shop", {"code": "X"}, NOW)
PEER = PeerRow("shop", True, "1", 0.0, None, NOW, NOW, [], NOW)
LABELS = Labels("shop", "loans", "defaulted")
LABEL_SPEND = LabelSpendRow(LABELS, "part 1", 1_000, RUN, "train")
REQUEST = TicketRequestRow("r-1", "shop", True, {"pipelines": ["credit"]}, "open", NOW)


def _tags() -> Iterator[pa.RecordBatch]:
    yield pa.RecordBatch.from_pydict({"id": ["a", "b"], "tag": pa.array([b"1" * 16, b"2" * 16], pa.binary())})


def _answers() -> Iterator[pa.RecordBatch]:
    yield pa.RecordBatch.from_pydict({"id": ["a"], "answer": ["{}"]})


def _load(store: Store) -> object:
    return store.tags.load("people", "k", "g", _tags(), columns=["x"], answers=_answers())


CALLS: dict[str, Callable[[Store], object]] = {
    "tickets.get": lambda store: store.tickets.get("t-1"),
    "tickets.list": lambda store: store.tickets.list(),
    "tickets.put": lambda store: store.tickets.put(TICKET),
    "tickets.remove": lambda store: store.tickets.remove(["none"]),
    "tickets.unsynced": lambda store: store.tickets.unsynced("shop"),
    "tickets.mark_synced": lambda store: store.tickets.mark_synced("t-1", TICKET),
    "tickets.mark_unsynced": lambda store: store.tickets.mark_unsynced("shop"),
    "ticket_requests.list": lambda store: store.ticket_requests.list(),
    "ticket_requests.add": lambda store: store.ticket_requests.add(REQUEST),
    "ticket_requests.settle": lambda store: store.ticket_requests.settle("r-1", "granted"),
    "uses.count": lambda store: store.uses.count("t-1", RUN, "ids_blinded", 3, 9),
    "uses.count_items": lambda store: store.uses.count_items("t-1", RUN, "ids_blinded", {"a": 1, "b": 2}, 9, 9),
    "uses.add": lambda store: store.uses.add("t-1", RUN, "lookups", 1, None),
    "uses.of_run": lambda store: store.uses.of_run("t-1", RUN),
    "uses.total": lambda store: store.uses.total("t-1"),
    "uses.release": lambda store: store.uses.release("t-1", "none"),
    "label_spends.spend": lambda store: store.label_spends.spend(LABEL_SPEND, 60),
    "label_spends.total": lambda store: store.label_spends.total(LABELS),
    "label_spends.told_once": lambda store: store.label_spends.told_once(LABELS, "part"),
    "label_spends.list": lambda store: store.label_spends.list(),
    "runs.get": lambda store: store.runs.get(RUN),
    "runs.of_dag_run": lambda store: store.runs.of_dag_run("credit", "manual__1", "credit"),
    "runs.list_of_dag_run": lambda store: store.runs.list_of_dag_run("credit", "manual__1"),
    "runs.list": lambda store: store.runs.list(),
    "runs.pipelines": lambda store: store.runs.pipelines("credit"),
    "runs.of_partition": lambda store: store.runs.of_partition("credit", "2026-11-21"),
    "runs.active": lambda store: store.runs.active(),
    "runs.unsettled": lambda store: store.runs.unsettled(0, 0),
    "runs.unacked": lambda store: store.runs.unacked("shop"),
    "runs.remembered": lambda store: store.runs.remembered("shop", NOW),
    "runs.known_to": lambda store: store.runs.known_to("shop", after="", limit=10),
    "runs.total_known_to": lambda store: store.runs.total_known_to("shop"),
    "runs.total_with": lambda store: store.runs.total_with("shop"),
    "runs.overtake": lambda store: store.runs.overtake(RUN, 3),
    "runs.total": lambda store: store.runs.total("t-1"),
    "runs.add": lambda store: store.runs.add(run_row(2), replace(APPROVAL, run_id=run_row(2).run_id), RunCharge(9, 9)),
    "runs.reopen": lambda store: store.runs.reopen(run_row(3).run_id, charge=RunCharge(9, 9), ask=True),
    "runs.acknowledge": lambda store: store.runs.acknowledge(RUN, 1),
    "runs.change": lambda store: store.runs.change(RUN, bump=True, note="x"),
    "approvals.get": lambda store: store.approvals.get(RUN),
    "approvals.asked": lambda store: store.approvals.asked(),
    "approvals.earlier": lambda store: store.approvals.earlier(run_row()),
    "approvals.change": lambda store: store.approvals.change(RUN, state="approved"),
    "refusals.get": lambda store: store.refusals.get("credit", "manual__1", "credit"),
    "refusals.of_dag_run": lambda store: store.refusals.of_dag_run("credit", "manual__1"),
    "refusals.list": lambda store: store.refusals.list(),
    "refusals.put": lambda store: store.refusals.put(REFUSAL),
    "refusals.remove": lambda store: store.refusals.remove("credit", "manual__1", "credit"),
    "halves.get": lambda store: store.halves.get(RUN, "train", True),
    "halves.list": lambda store: store.halves.list(RUN),
    "halves.of_runs": lambda store: store.halves.of_runs([RUN]),
    "halves.put": lambda store: store.halves.put(HALF, bump=True),
    "halves.learn": lambda store: store.halves.learn(RUN, [replace(HALF, own=False)]),
    "halves.leased": lambda store: store.halves.leased(),
    "halves.announce": lambda store: store.halves.announce(RUN, "psi", "try", NOW),
    "metrics.list": lambda store: store.metrics.list(RUN),
    "metrics.last_of_runs": lambda store: store.metrics.last_of_runs([RUN]),
    "metrics.put": lambda store: store.metrics.put([MetricRow(RUN, "train", "loss", 1, 0.5, NOW)]),
    "disclosures.list": lambda store: store.disclosures.list(RUN),
    "disclosures.put": lambda store: store.disclosures.put([DisclosureRow(RUN, "train", 1, "x", 1, 1, 1)]),
    "traffic.add": lambda store: store.traffic.add(RUN, "train", 0, 1, 3, 4),
    "traffic.total": lambda store: store.traffic.total(RUN),
    "peers.get": lambda store: store.peers.get("shop"),
    "peers.list": lambda store: store.peers.list(),
    "peers.put_state": lambda store: store.peers.put_state(PEER),
    "peers.put_checks": lambda store: store.peers.put_checks(PEER),
    "peers.put_store": lambda store: store.peers.put_store(PEER),
    "landings.list": lambda store: store.landings.list(),
    "landings.add": lambda store: store.landings.add(LANDING),
    "landings.unsynced": lambda store: store.landings.unsynced(),
    "landings.mark_synced": lambda store: store.landings.mark_synced(LANDING),
    "models.get": lambda store: store.models.get("scores", 1),
    "models.champion": lambda store: store.models.champion("scores"),
    "models.list": lambda store: store.models.list(),
    "models.consumed": lambda store: store.models.consumed("scores", 1),
    "models.publish": lambda store: store.models.publish(MODEL, "credit"),
    "models.make_champion": lambda store: store.models.make_champion("scores", 1),
    "joins.get": lambda store: store.joins.get("shop", "clicks", 0),
    "joins.list": lambda store: store.joins.list(),
    "joins.commit": lambda store: store.joins.commit(JOIN, [JOIN_WINDOW]),
    "joins.windows": lambda store: store.joins.windows(stream="clicks", width_ms=60_000),
    "joins.newest_windows": lambda store: store.joins.newest_windows("shop", "clicks", 0, 9),
    "joins.span": lambda store: store.joins.span("shop", "clicks", RUN),
    "joins.of_run": lambda store: store.joins.of_run(RUN),
    "tags.get": lambda store: store.tags.get("people", "k"),
    "tags.load": _load,
    "tags.tags_of": lambda store: store.tags.tags_of("people", "k", ["a"]),
    "tags.matches_of": lambda store: store.tags.matches_of("people", "k", [b"1" * 16]),
    "tags.remove": lambda store: store.tags.remove("people", "other"),
    "identity.get": lambda store: store.identity.get(),
    "lost_runs.get": lambda store: store.lost_runs.get("none"),
    "lost_runs.by_peer": lambda store: store.lost_runs.by_peer(),
    "lost_runs.total": lambda store: store.lost_runs.total("shop"),
    "lost_runs.add": lambda store: store.lost_runs.add("lost.1.1", "shop", "t-1", NOW, charge=True),
    "audit.list": lambda store: store.audit.list(),
    "audit.add": lambda store: store.audit.add("bank", "test", "noted"),
    "audit.verify": lambda store: store.audit.verify(),
    "audit.walk": lambda store: list(store.audit.walk()),
    "audit.total_before": lambda store: store.audit.total_before(NOW + 1),
    "audit.cut": lambda store: store.audit.cut("bank", NOW + 1, lambda said: f"signed {said['until']}"),
    "joins.total_windows": lambda store: store.joins.total_windows(NOW),
    "joins.remove_windows": lambda store: store.joins.remove_windows(NOW),
    "metrics.of_runs_ended": lambda store: store.metrics.of_runs_ended(NOW + 1),
    "metrics.remove": lambda store: store.metrics.remove(RUN),
    "models.mark_removed": lambda store: store.models.mark_removed("scores", 1),
    "refusals.total": lambda store: store.refusals.total(NOW + 1),
    "refusals.remove_old": lambda store: store.refusals.remove_old(NOW + 1),
    "runs.mark_removed": lambda store: store.runs.mark_removed(run_row(3).run_id),
    "runs.total_ended": lambda store: store.runs.total_ended(NOW),
    "runs.total_unacked": lambda store: store.runs.total_unacked(),
    "runs.walk": lambda store: list(store.runs.walk()),
    "tags.list": lambda store: store.tags.list(),
    "terms.get": lambda store: store.terms.get(),
    "terms.begin": lambda store: store.terms.begin("bank", {"workers": "127.0.0.1:7401"}),
}
"""Every call of every book."""


def fill(store: Store) -> None:
    """Enter what the calls are about."""
    store.tickets.put(TICKET)
    store.runs.add(run_row(), APPROVAL)
    ended = run_row(3)
    store.runs.add(ended, replace(APPROVAL, run_id=ended.run_id))
    store.runs.change(ended.run_id, state="succeeded", closed_ms=NOW)
    store.halves.put(HALF)
    store.models.publish(MODEL, "credit")
