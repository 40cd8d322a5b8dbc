"""`joins`: how far streams are, in words and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fedtasks.config import load_party
from fedtasks.store import JoinRow, JoinWindowRow, MetricRow, Store
from tests.support.command_line import Run
from tests.support.report_rows import NOW_MS, make_run

MINUTE = 60_000
START = NOW_MS - NOW_MS % (60 * MINUTE)


@pytest.fixture
def party_file(shop: Path) -> str:
    """A party that has joined 30 minutes of a stream, of which the last is open."""
    steps = json.dumps([{"name": "join", "digest": "", "kind": "join"}])
    run = make_run(config_json=json.dumps({"steps": {"join": {"stream": "clicks"}}}), steps_json=steps)
    file = shop / "party.yaml"
    with Store.open(load_party(file).store.url) as store:
        assert store.runs.add(run)
        windows = [
            JoinWindowRow(
                "shop", "clicks", 0, START + minute * MINUTE, run.run_id, joined=1200, unmatched=300, lag_ms=3_600_000
            )
            for minute in range(30)
        ]
        store.joins.commit(JoinRow("shop", "clicks", 0, 1, "a" * 64, run.run_id, NOW_MS), windows)
        values = {"watermark_ms": START + 29 * MINUTE, "memory_mb": 12.5, "clock_offset_ms": -1500.0}
        store.metrics.put(
            [MetricRow(run.run_id, "join", f"join.{name}", START, value, NOW_MS) for name, value in values.items()]
        )
    return str(file)


def test_joins_lists_streams_with_commits_watermark_rows_and_rate(run: Run, party_file: str) -> None:
    (found,) = run("joins", "--party", party_file, "--json").json()
    assert (found["stream"], found["peer"], found["commits"], found["join_rate"]) == ("clicks", "shop", 1, 0.8)
    words = run("joins", "--party", party_file).out
    for word in ("clicks", "36,000", "80.0 %", "2025-11-24 16:29:00"):
        assert word in words


def test_joins_show_tells_totals_shards_and_the_newest_windows(run: Run, party_file: str) -> None:
    (found,) = run("joins", "show", "clicks", "--windows", "2", "--party", party_file, "--json").json()
    assert [(each["start_ms"], each["join_rate"]) for each in found["windows"]] == [
        (START + 28 * MINUTE, 0.8),
        (START + 29 * MINUTE, None),
    ]
    words = run("joins", "show", "clicks", "--party", party_file).out
    for word in ("Stream clicks with shop", "event times of shop are 1,500 ms earlier", "12 MB", "3.0 s", "a" * 16):
        assert word in words, word
    rows = [line for line in words.splitlines() if line.startswith(" 2025-11-24 16:")]
    assert len(rows) == 20
    assert "open" in rows[-1]


def test_joins_without_a_stream_names_the_next_act(run: Run, shop: Path) -> None:
    file = str(shop / "party.yaml")
    assert "run a pipeline with a step `join`" in run("joins", "--party", file).out
    assert "CONFIG_INVALID" in run("joins", "show", "clicks", "--party", file, expect=1).err


def test_run_show_has_the_streams_of_the_run(run: Run, party_file: str) -> None:
    (found,) = run("run", "show", make_run().run_id, "--party", party_file, "--json").json()["joins"]
    assert (found["stream"], found["joined"], found["join_rate"]) == ("clicks", 36_000, 0.8)
    words = run("run", "show", make_run().run_id, "--party", party_file).out
    assert "Stream clicks with shop" in words
    assert "80.0 %" in words
