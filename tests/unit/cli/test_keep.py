"""`gc`: what goes, in words and as JSON."""

from __future__ import annotations

from pathlib import Path

from fedtasks.config import load_party
from fedtasks.data.run_storage import RunStorage
from fedtasks.data.storage import write_atomically
from fedtasks.store import Store
from tests.support.command_line import Run
from tests.support.report_rows import NOW_MS, make_run


def test_gc_says_what_goes_and_why_removes_it_and_the_run_is_told_as_removed(run: Run, bank: Path) -> None:
    file = bank / "party.yaml"
    party, old = (
        load_party(file),
        make_run(state="failed", closed_ms=NOW_MS, failure={"code": "RUN_FAILED", "text": "x"}),
    )
    with Store.open(party.store.url) as store:
        assert store.runs.add(old)
    storage = RunStorage(party.storage, old.run_id)
    write_atomically(f"{storage.attempt('align', 1)}/rows.bin", b"x" * 1000)
    storage.publish("align", 1, rows=1, facts={})

    dry = run("gc", "--dry-run", "--party", str(file), "--json").json()
    assert (dry["dry_run"], [line["what"] for line in dry["removed"]]) == (True, [old.run_id])
    assert dry["bytes"] == dry["removed"][0]["bytes"] > 1000
    storage.published("align").verify()

    words = run("gc", "--party", str(file)).out
    for word in (old.run_id, "ended on 2025-11-24, and stays for 90 days", "Freed"):
        assert word in words, word
    assert "Nothing is old enough" in run("gc", "--party", str(file)).out
    status = run("runs", "--party", str(file)).out
    assert "its files were removed on" in status
    assert "must act" not in status
