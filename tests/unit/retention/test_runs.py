"""Which files of runs go, and that nobody finds a part of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fedtasks.data import storage
from fedtasks.data.run_storage import RunStorage
from fedtasks.data.storage import local_path
from fedtasks.errors import DataMissing
from fedtasks.retention import runs
from tests.support.aged import Aged


def test_old_run_goes_and_what_is_young_or_goes_on_stays(aged: Aged) -> None:
    old, young, open_run = aged.add_run(1, 91), aged.add_run(2, 89), aged.add_run(3, None)
    for run in (old, young, open_run):
        aged.publish(run, "align")
    (removal,) = aged.plan()
    assert (removal.kind, removal.what) == ("runs", old.run_id)
    assert removal.n_bytes > 1000
    assert "stays for 90 days" in removal.why
    assert len(aged.remove()) == 1
    assert not any(old.run_id in file for file in aged.files())
    for run in (young, open_run):
        RunStorage(aged.party.storage, run.run_id).published("align").verify()
    found = {run.run_id: run.removed_ms for run in aged.store.runs.list()}
    assert found == {old.run_id: aged.now_ms, young.run_id: None, open_run.run_id: None}
    assert aged.remove() == []


def test_half_of_a_version_that_is_kept_stays_when_its_run_goes(aged: Aged) -> None:
    run = aged.add_run(1, 100)
    aged.add_version(run, 1, 100)
    aged.publish(run, "align")
    half = aged.publish(run, "train", 1, digest="own-1", peer_digest="peer-1")
    aged.publish(run, "train", 2, digest="other", peer_digest="other")  # cleared after it had been published
    aged.publish(run, "train", 3, digest="other", peer_digest="other")
    (removal,) = aged.remove()
    assert "its half of credit 1 stays" in removal.why
    published = list(RunStorage(aged.party.storage, run.run_id).publications("train"))
    assert [each.attempt for each in published] == [3, 1]
    assert published[1].uri == half
    published[1].verify()
    assert aged.remove() == []


def test_files_of_a_version_go_once_it_is_given_up(aged: Aged) -> None:
    old, new = aged.add_run(1, 400), aged.add_run(2, 399)
    for number, run in ((1, old), (2, new)):
        aged.add_version(run, number, 400 - number)
        aged.publish(run, "train", digest=f"own-{number}", peer_digest=f"peer-{number}")
    planned = [(each.kind, each.what) for each in aged.plan()]
    assert planned == [("models", "credit version 1"), ("runs", old.run_id), ("runs", new.run_id)]
    assert [(each.kind, each.what) for each in aged.remove()] == planned
    assert {file.split("/")[1] for file in aged.files() if file.startswith("runs/")} == {new.run_id}


def test_attempts_that_do_not_count_go_a_week_after_the_end(aged: Aged) -> None:
    run, young = aged.add_run(1, 8), aged.add_run(2, 6)
    for each in (run, young):
        aged.publish(each, "align", 1)
        aged.publish(each, "align", 2)
        RunStorage(aged.party.storage, each.run_id).attempt("train", 1)  # nothing was published
    (removal,) = aged.remove()
    assert (removal.kind, removal.what) == ("attempts", f"{run.run_id} align attempt-1")
    RunStorage(aged.party.storage, run.run_id).published("align").verify()
    assert (local_path(aged.party.storage) / "runs" / run.run_id / "train" / "attempt-1").is_dir()


@pytest.mark.parametrize("n_done", range(4))
def test_removal_that_is_interrupted_leaves_nothing_that_reads_as_whole_and_goes_on(
    aged: Aged, monkeypatch: pytest.MonkeyPatch, n_done: int
) -> None:
    run = aged.add_run(1, 91)
    for task in ("align", "psi"):
        aged.publish(run, task)
    left = n_done

    def dying(uri: str) -> None:
        nonlocal left
        if not left:
            raise KeyboardInterrupt
        left -= 1
        storage.remove(uri)

    for module in ("fedtasks.data.run_storage", "fedtasks.retention.runs"):
        monkeypatch.setattr(f"{module}.remove", dying)
    with pytest.raises(KeyboardInterrupt):
        aged.remove()
    monkeypatch.undo()
    # It is removed from when anything of it is: nobody lets it go on.
    assert aged.store.runs.get(run.run_id).removed_ms == aged.now_ms  # type: ignore[union-attr]
    for task in ("align", "psi"):
        try:
            RunStorage(aged.party.storage, run.run_id).published(task).verify()
        except DataMissing:
            continue
    assert [each.what for each in aged.remove()] == [run.run_id]
    assert not any(run.run_id in file for file in aged.files())


def test_files_of_a_run_that_the_store_does_not_know_go_when_nobody_has_touched_them(aged: Aged) -> None:
    for name, days in (("lost.2026-01-01.bank.1", 91), ("lost.2026-01-02.bank.1", 1)):
        folder = local_path(aged.party.storage) / "runs" / name
        (folder / "psi").mkdir(parents=True)
        os.utime(folder, times=(aged.before(days) / 1000,) * 2)
    (removal,) = list(runs.removals(aged.party.storage, aged.store, aged.party.keep, aged.now_ms))
    assert removal.what == "lost.2026-01-01.bank.1"
    assert "this store knows no such run" in removal.why


def test_run_that_goes_on_meanwhile_keeps_its_files(aged: Aged, tmp_path: Path) -> None:
    run = aged.add_run(1, 91)
    aged.publish(run, "align")
    (removal,) = aged.plan()
    aged.store.runs.reopen(run.run_id)
    removal.carry_out()
    RunStorage(aged.party.storage, run.run_id).published("align").verify()
