"""Runs in every state that a page can show, written into a party's store as its gateway would have left them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from fedtasks import __version__
from fedtasks.clock import DAY_MS, now_ms
from fedtasks.laptop.demo_run import PIPELINE
from fedtasks.store import (
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
    RunRow,
    Store,
    TicketRequestRow,
)

MARKUP = '<img src=x onerror="document.title=`broken in`">'
"""What a peer may write, and no page may ever read as markup."""
EXHAUSTED = "limits.runs: 20 of 20 are used"
MISSING = "customers has no partition 2026-11-20"

TASKS = ("psi", "align", "train", "evaluate")
EPOCHS = 8
MINUTE_MS = 60_000
JOIN_DAG = "stream_join"
HOUR_MS = 60 * MINUTE_MS
BINS = ((0.9, 40, 2), (0.8, 30, 6), (0.6, 20, 20), (0.4, 8, 60), (0.2, 2, 112))
GROUPS = (
    {"rows": 150, "lowest": 0.2, "mean_score": 0.31, "mean_label": 0.25},
    {"rows": 150, "lowest": 0.6, "mean_score": 0.715, "mean_label": 0.825},
)


def seed(store: Store, ticket_id: str) -> None:
    """Write one run for each state; the DAG run of a state is called as the state is."""
    now = now_ms()
    before = _done(ticket_id, now - DAY_MS, "before")
    made = (before, _waiting(ticket_id, now), _running(ticket_id, now), _failed(ticket_id, now), _done(ticket_id, now))
    for run in made:
        store.runs.add(run)
        store.runs.change(run.run_id, acked_version=1)
    _seed_halves(store, now)
    _seed_learning(store, "running", EPOCHS // 2, now)
    _seed_learning(store, "done", EPOCHS, now - 5 * HOUR_MS)
    _seed_evaluation(store, "done", now - 5 * HOUR_MS)
    _seed_evaluation(store, "before", now - DAY_MS, auc=0.9021, ks=0.6412, accuracy=0.84, champion_auc=0.8873)
    told = LabelSpendRow(Labels("shop", "loans", "defaulted"), "part 1", 10_000, run_id_of("done"), "train")
    store.label_spends.spend(told, None)
    store.refusals.put(
        RefusalRow(
            dag_id=PIPELINE,
            dag_run_id="refused",
            pipeline=PIPELINE,
            partition="2026-11-24",
            peer="shop",
            failure={
                "code": "TICKET_EXHAUSTED",
                "text": EXHAUSTED,
                "party": "shop",
                "task": "",
                "at_ms": now - 2 * MINUTE_MS,
            },
            at_ms=now - 2 * MINUTE_MS,
        )
    )
    held = {"ticket": ticket_id, "runs": [run_id_of("running")]}
    waits = {"since_ms": now - MINUTE_MS, "until_ms": now + HOUR_MS, **held}
    busy = {"code": "TICKET_BUSY", "text": "", "party": "bank", "task": "open_run", "at_ms": now, "waits": waits}
    store.refusals.put(RefusalRow(PIPELINE, "opening", PIPELINE, "2026-11-25", "shop", busy, now))
    _seed_party(store, now)


def seed_joins(store: Store) -> None:
    """Write a run that joins a stream, whose join rate has halved, and one that joins and has committed nothing."""
    now = now_ms()
    steps = json.dumps([{"name": "join", "digest": "", "kind": "join"}])
    config = json.dumps({"leader": "bank", "datasets": {}, "steps": {"join": {"stream": "clicks", "shards": 2}}})
    for number, name in enumerate(("joining", "begun"), 1):
        run_id = f"{JOIN_DAG}.2026-11-2{number}.bank.1"
        opened: dict[str, Any] = {
            "opened_ms": now - 3 * HOUR_MS,
            "partition": f"2026-11-2{number}",
            "config_json": config,
        }
        place: dict[str, Any] = {"pipeline": JOIN_DAG, "dag_id": JOIN_DAG, "dag_run_id": name, "steps_json": steps}
        run = replace(_running("t-join", now), run_id=run_id, **opened, **place)
        store.runs.add(run)
        for shard in range(2):
            half = HalfRow(run_id, f"join.work[{shard}]", True, 1, "running", "t", now - 3 * HOUR_MS)
            for each in (half, replace(half, own=False)):
                store.halves.put(replace(each, announced_ms=half.since_ms, started_ms=half.since_ms))
        if name == "joining":
            _seed_windows(store, run_id, now)


def _seed_windows(store: Store, run_id: str, now: int) -> None:
    first = now - now % MINUTE_MS - 90 * MINUTE_MS
    for shard in range(2):
        windows, metrics = list[JoinWindowRow](), list[MetricRow]()
        for minute in range(90):
            start, found = first + minute * MINUTE_MS, 440 if minute < 60 else 180
            counts = {"joined": found + minute % 7, "unmatched": 500 - found if minute < 80 else 0, "late": minute % 5}
            more = {"too_late": minute % 3, "duplicates": 4, "rejected": 1, "corrected": 3, "lag_ms": 2_600 * found}
            windows.append(JoinWindowRow("shop", "clicks", shard, start, run_id, **counts, **more))
            spilled = float(max(0, minute - 70))
            values = {"memory_mb": min(20.0 + minute, 90.0), "spilled_mb": spilled, "clock_offset_ms": -184_000.0}
            values["watermark_ms"] = float(start - 9 * MINUTE_MS)
            task = f"join.work[{shard}]"
            metrics += [MetricRow(run_id, task, f"join.{name}", start, value, now) for name, value in values.items()]
        store.joins.commit(JoinRow("shop", "clicks", shard, 1, "a" * 64, run_id, now), windows)
        store.metrics.put(metrics)


def spoil(store: Store) -> None:
    """Let the peer have written markup wherever it may write."""
    run = store.runs.get(run_id_of("failed"))
    refusal = store.refusals.get(PIPELINE, "refused", PIPELINE)
    assert run is not None
    assert refusal is not None
    store.runs.change(run.run_id, failure=_spoilt(run.failure), reason=f"{run.reason} {MARKUP}")
    for half in store.halves.list(run.run_id):
        if half.failure is not None:
            store.halves.put(replace(half, failure=_spoilt(half.failure)))
    store.refusals.put(replace(refusal, failure=_spoilt(refusal.failure)))
    store.ticket_requests.add(_request("q-2", f"new season {MARKUP}", now_ms()))
    store.audit.add("shop", "run.open", "refused", code="TICKET_EXHAUSTED", text=f"{EXHAUSTED} {MARKUP}")


def _spoilt(failure: Mapping[str, Any] | None) -> dict[str, Any]:
    assert failure is not None
    return {**failure, "text": f"{failure['text']} {MARKUP}"}


def add_epoch(store: Store, epoch: int) -> None:
    """Store what the run that goes on learns in one more epoch."""
    store.metrics.put(list(_epoch(run_id_of("running"), epoch, now_ms())))


def see_peer(store: Store, *, connected: bool = True, why: str = "connection refused") -> None:
    """Write how the gateway sees the shop, and why it is away if it is."""
    now = now_ms()
    failure = {
        "code": "PEER_UNREACHABLE",
        "text": why,
        "party": "shop",
        "task": "",
        "at_ms": now,
    }
    store.peers.put_state(
        PeerRow("shop", connected, __version__, 0.2, None if connected else failure, now - HOUR_MS, now + HOUR_MS)
    )


def run_id_of(state: str) -> str:
    """Return the run of a state."""
    return f"{PIPELINE}.{_DAYS[state]}.bank.1"


_DAYS = {
    "waiting": "2026-11-23",
    "running": "2026-11-22",
    "failed": "2026-11-20",
    "done": "2026-11-19",
    "before": "2026-11-18",
}


def _run(which: str, ticket_id: str, opened_ms: int, **changes: Any) -> RunRow:
    settings = {
        "leader": "bank",
        "datasets": {"bank": "loans", "shop": "customers"},
        "steps": {"train": {"epochs": EPOCHS}},
    }
    row = RunRow(
        run_id=run_id_of(which),
        pipeline=PIPELINE,
        partition=_DAYS[which],
        number=1,
        peer="shop",
        initiated=True,
        ticket_id=ticket_id,
        config_digest="",
        config_json=json.dumps(settings),
        steps_json=json.dumps([{"name": name, "digest": ""} for name in TASKS]),
        dag_id=PIPELINE,
        dag_run_id=which,
        opened_ms=opened_ms,
    )
    return replace(row, **changes)


def _waiting(ticket_id: str, now: int) -> RunRow:
    return _run("waiting", ticket_id, now - 20 * MINUTE_MS)


def _running(ticket_id: str, now: int) -> RunRow:
    return _run("running", ticket_id, now - 30 * MINUTE_MS)


def _failed(ticket_id: str, now: int) -> RunRow:
    failure = {
        "code": "DATA_MISSING",
        "text": MISSING,
        "party": "shop",
        "task": "align",
        "at_ms": now - HOUR_MS,
    }
    return _run(
        "failed",
        ticket_id,
        now - 2 * HOUR_MS,
        state="failed",
        peer_state="failed",
        failure=failure,
        closed_ms=now - HOUR_MS,
        reason="monthly review",
    )


def _done(ticket_id: str, now: int, which: str = "done") -> RunRow:
    return _run(
        which,
        ticket_id,
        now - 6 * HOUR_MS,
        state="succeeded",
        peer_state="succeeded",
        closed_ms=now - 5 * HOUR_MS,
        receipt="eyJhbGciOiJFZERTQSJ9.b3du.c2lnbmVk",
        peer_receipt="eyJhbGciOiJFZERTQSJ9.cGVlcg.c2lnbmVk",
    )


def _seed_halves(store: Store, now: int) -> None:
    waits = HalfRow(run_id_of("waiting"), "align", True, 2, "waiting", "t", now - 19 * MINUTE_MS, now + 3 * HOUR_MS)
    works = {"phase": "epoch", "done": EPOCHS // 2, "of": EPOCHS, "checkpoint": "epoch 4"}
    failure = {"code": "DATA_MISSING", "text": MISSING, "party": "shop", "task": "align", "at_ms": now - HOUR_MS}
    rows = [
        *_both("waiting", "psi", now - 20 * MINUTE_MS),
        replace(waits, announced_ms=waits.since_ms),
        *_both("running", "psi", now - 29 * MINUTE_MS),
        *_both("running", "align", now - 25 * MINUTE_MS),
        *(
            replace(half, state="running", since_ms=half.started_ms, progress=works, outcome=None)
            for half in _both("running", "train", now - 4 * MINUTE_MS)
        ),
        *_both("failed", "psi", now - 2 * HOUR_MS),
        *(replace(half, state="failed", failure=failure) for half in _both("failed", "align", now - HOUR_MS)),
        *(
            half
            for index, task in enumerate((*TASKS, "close_run"))
            for half in _both("done", task, now - 6 * HOUR_MS + 9 * index * MINUTE_MS)
        ),
    ]
    for row in rows:
        store.halves.put(row)


def _both(state: str, task: str, ended_ms: int) -> list[HalfRow]:
    """Return both halves of a task that is done; the shop's comes later, so that the bank has waited."""
    run_id = run_id_of(state)
    counts = {"counts": {"people_shared": 3_000, "rows_used": 2_961}}
    started_ms = ended_ms - 3 * MINUTE_MS
    own = HalfRow(run_id, task, True, 1, "succeeded", "t", ended_ms, outcome=counts if task == "psi" else {})
    return [
        replace(own, announced_ms=started_ms - 4 * MINUTE_MS, started_ms=started_ms),
        replace(own, own=False, outcome={}, announced_ms=started_ms, started_ms=started_ms),
    ]


def _seed_learning(store: Store, state: str, epochs: int, at_ms: int) -> None:
    run_id = run_id_of(state)
    for epoch in range(1, epochs + 1):
        store.metrics.put(list(_epoch(run_id, epoch, at_ms - (epochs - epoch) * MINUTE_MS)))
    store.disclosures.put(
        [
            DisclosureRow(run_id, "psi", 1, "blinded", 4, 4_011, 1_033_216),
            DisclosureRow(run_id, "train", 1, "gradient", epochs * 24, epochs * 2_961, epochs * 1_516_032),
        ]
    )
    store.traffic.add(run_id, "train", 0, 1, 1_033_216 + epochs * 1_516_032, 377_000_000)


def _epoch(run_id: str, epoch: int, at_ms: int) -> Iterator[MetricRow]:
    for name, value in (("loss", 0.7 / epoch**0.5), ("auc", 0.9 - 0.3 / epoch)):
        yield MetricRow(run_id, "train", name, epoch, value, at_ms)


def _seed_evaluation(store: Store, state: str, at_ms: int, **figures: float) -> None:
    run_id = run_id_of(state)
    scalars = {"auc": 0.9113, "ks": 0.6785, "accuracy": 0.85, "champion_auc": 0.9021} | figures
    store.metrics.put([MetricRow(run_id, "evaluate", name, 0, value, at_ms) for name, value in scalars.items()])
    for step, (threshold, positives, negatives) in enumerate(BINS):
        values = {"threshold": threshold, "positives": positives, "negatives": negatives}
        store.metrics.put(
            [MetricRow(run_id, "evaluate", f"bin.{name}", step, value, at_ms) for name, value in values.items()]
        )
    for step, group in enumerate(GROUPS):
        store.metrics.put(
            [MetricRow(run_id, "evaluate", f"group.{name}", step, value, at_ms) for name, value in group.items()]
        )


def _seed_party(store: Store, now: int) -> None:
    see_peer(store)
    store.ticket_requests.add(_request("q-1", "new season", now - HOUR_MS))
    for day in ("2026-11-22", "2026-11-23"):
        store.landings.add(LandingRow("bank", "loans", day, 5_000, now - HOUR_MS))
    store.landings.add(LandingRow("shop", "customers", "2026-11-22", 0, now - HOUR_MS))
    version = ModelRow(
        model="credit_default",
        version=1,
        peer="shop",
        run_id=run_id_of("done"),
        partition=_DAYS["done"],
        parent=None,
        own_digest="a" * 64,
        peer_digest="b" * 64,
        metrics={"auc": 0.9113, "ks": 0.6785},
        consumed={"loans": []},
        champion=True,
        published_ms=now - 5 * HOUR_MS,
    )
    store.models.publish(version, PIPELINE)
    store.models.publish(replace(version, version=2, parent=1, run_id=run_id_of("waiting")), PIPELINE)
    store.audit.add("admin", "run.open", "allowed", run_id=run_id_of("done"), peer="shop")
    store.audit.add("shop", "run.open", "refused", code="TICKET_EXHAUSTED", text=EXHAUSTED)


def _request(request_id: str, reason: str, at_ms: int) -> TicketRequestRow:
    asked = {"pipelines": [PIPELINE], "dataset": "loans", "role": "follower", "days": 30, "reason": reason}
    return TicketRequestRow(request_id, "shop", False, asked, "open", at_ms)
