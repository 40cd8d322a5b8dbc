"""`predictions export`: which run, which task, and what it says."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fedtasks.config import load_party
from fedtasks.data.run_storage import RunStorage
from fedtasks.data.storage import local_path
from fedtasks.store import Store
from tests.support.command_line import Run
from tests.support.report_rows import make_run

TAGS = [bytes([number]) * 16 for number in range(3)]
PEOPLE = {"tag": pa.array(TAGS, pa.binary(16)), "id": ["anna", "bert", "carl"]}
SCORES = {"tag": pa.array(TAGS[1:], pa.binary(16)), "score": [0.25, 0.75]}


@pytest.fixture
def run_id(shop: Path) -> str:
    """A run of the shop's that has scored two of three shared people, in tasks called otherwise than by default."""
    party = load_party(shop / "party.yaml")
    steps = [
        {"name": "people", "kind": "psi"},
        {"name": "rows", "kind": "align"},
        {"name": "scored", "kind": "predict"},
    ]
    settings = {"people": {}, "rows": {"psi_task": "people"}, "scored": {"rows_task": "rows"}}
    config = {"leader": "shop", "datasets": {"shop": "customers", "bank": "loans"}, "steps": settings}
    row = make_run(config_json=json.dumps(config), steps_json=json.dumps(steps))
    with Store.open(party.store.url) as store:
        assert store.runs.add(row, None)
    storage = RunStorage(party.storage, row.run_id)
    for task, name, columns in (("people", "people-00000", PEOPLE), ("scored", "predictions", SCORES)):
        folder = local_path(storage.attempt(task, 1))
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")
        storage.publish(task, 1, rows=len(columns["tag"]), facts={})
    return row.run_id


def test_export_writes_ids_beside_scores(run: Run, shop: Path, run_id: str) -> None:
    party = ("--party", str(shop / "party.yaml"))
    done = run("predictions", "export", run_id, "--to", "scores.csv", *party, "--json").json()
    assert done == {"run_id": run_id, "task": "scored", "file": "scores.csv", "rows": 2}
    assert Path("scores.csv").read_text() == '"person","score"\n"bert",0.25\n"carl",0.75\n'
    assert "is there already" in run("predictions", "export", run_id, "--to", "scores.csv", *party, expect=1).err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("nothing.2026-11-21.1",), "`fedtasks runs` lists those that are"),
        (("{run}", "--task", "evaluate"), "has published nothing"),
    ],
)
def test_export_of_what_there_is_not_says_what_to_do(
    run: Run, shop: Path, run_id: str, arguments: tuple[str, ...], told: str
) -> None:
    given = [each.format(run=run_id) for each in arguments]
    failed = run("predictions", "export", *given, "--to", "a.csv", "--party", str(shop / "party.yaml"), expect=1)
    assert told in failed.err
    assert not Path("a.csv").exists()
