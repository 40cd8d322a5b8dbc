from __future__ import annotations

import pytest

from fedtasks.errors import PeerFailed
from fedtasks.reports.figures import OTHER, Place, Wait, known_code, run_figures
from fedtasks.reports.status import HALF_BEHIND, HALF_NOT_BEGUN, NO_PROGRESS
from fedtasks.store import PeerRow, RefusalRow, Store
from tests.support.report_rows import NOW_MS, Clock, make_half, make_run

DAY_MS = 86_400_000


def waits(store: Store) -> dict[tuple[str, str], int]:
    found = run_figures(store, "bank", NOW_MS).waits
    return {(wait.place.task, wait.cause): held.runs for wait, held in found.items()}


@pytest.mark.parametrize(
    ("own", "peer", "expected"),
    [
        ({"state": "waiting"}, None, HALF_NOT_BEGUN),
        ({"state": "waiting", "attempt": 2}, {"state": "running"}, HALF_BEHIND),
        (
            {"state": "waiting", "attempt": 2},
            {"state": "failed", "failure": {"code": "OUT_OF_MEMORY"}},
            "OUT_OF_MEMORY",
        ),
        ({"state": "waiting", "attempt": 2}, {"state": "failed", "failure": {"code": "123-45-6789"}}, OTHER),
        ({"state": "failed", "failure": {"code": "LINK_LOST"}}, None, "LINK_LOST"),
        ({"state": "running", "quiet_since_ms": NOW_MS}, {"state": "running"}, NO_PROGRESS),
        ({"state": "running"}, {"state": "running"}, None),
    ],
)
def test_what_holds_up_a_run_is_a_word_of_this_release(
    store: Store, own: dict[str, object], peer: dict[str, object] | None, expected: str | None
) -> None:
    store.runs.add(make_run())
    store.halves.put(make_half("psi.send[3]", **own))  # type: ignore[arg-type]
    if peer is not None:
        store.halves.put(make_half("psi.send[3]", own=False, **peer))  # type: ignore[arg-type]
    assert waits(store) == ({} if expected is None else {("psi", expected): 1})


def test_runs_that_wait_for_the_same_are_counted_together_since_the_first(store: Store) -> None:
    store.peers.put_state(PeerRow("shop", False, "", 0.0, None, NOW_MS - 9, NOW_MS))
    for number in (1, 2):
        run = make_run(number)
        store.runs.add(run)
        store.halves.put(make_half("train", "waiting", run_id=run.run_id, since_ms=NOW_MS + number))
    failure = {"code": "TICKET_BUSY", "text": "", "party": "shop", "task": "", "at_ms": NOW_MS}
    failure["waits"] = {"since_ms": NOW_MS, "until_ms": NOW_MS + 1}  # type: ignore[assignment]
    store.refusals.put(RefusalRow("credit", "manual-9", "credit", "2026-11-22", "shop", failure, NOW_MS))
    found = run_figures(store, "bank", NOW_MS)
    held = found.waits[Wait(Place("credit", "shop", "train"), "PEER_UNREACHABLE")]
    assert (held.runs, held.since_ms) == (2, NOW_MS + 1)
    assert waits(store)["open_run", "TICKET_BUSY"] == 1
    assert found.going_on == {"waiting": 2}
    assert found.untold == {"shop": 2}


def test_runs_that_ended_within_a_day_are_counted_by_code(store: Store, clock: Clock) -> None:
    endings = [("failed", "DISK_FULL", 1), ("failed", "invented by a peer", 1), ("succeeded", "", 1), ("failed", "", 2)]
    for number, (state, code, days) in enumerate(endings):
        failure = {"code": code} if code else None
        closed_ms = NOW_MS - days * DAY_MS + 1
        store.runs.add(make_run(number, state=state, failure=failure, closed_ms=closed_ms))
    ended = run_figures(store, "bank", NOW_MS).ended
    assert ended == {("failed", "DISK_FULL"): 1, ("failed", OTHER): 1, ("succeeded", ""): 1}


def test_rows_that_halves_pass_are_added_up_over_the_shards_of_a_step(store: Store) -> None:
    store.runs.add(make_run())
    for shard in (0, 1):
        progress = {"phase": "train", "rows_per_s": 100, "left_s": 9}
        store.halves.put(make_half(f"train.work[{shard}]", "running", progress=progress, started_ms=NOW_MS))
    assert run_figures(store, "bank", NOW_MS).rows_per_s == {Place("credit", "shop", "train"): 200}


def test_code_of_the_registry_names_a_figure_and_no_other() -> None:
    assert known_code(PeerFailed.code) == PeerFailed.code
    assert known_code("") == ""
    assert known_code("a@b.example") == OTHER
