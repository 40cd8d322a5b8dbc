"""The guide, from an empty folder to a run on both Airflows: new, check, test, deploy, grant, trigger."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fedtasks.laptop.demo_run import wait_for
from fedtasks.laptop.party import LocalParty
from tests.support.two_airflows import World

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

NAME = "my_pipeline"


def fedtasks(folder: Path, party: LocalParty, *arguments: str) -> str:
    environment = {**os.environ, "FEDTASKS_PARTY": str(party.file)}
    argv = [sys.executable, "-m", "fedtasks.cli", *arguments]
    done = subprocess.run(argv, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_new_pipeline_is_checked_tried_and_run_on_both_sides(opened: World, tmp_path: Path) -> None:
    world = opened
    file = f"dags/{NAME}.py"
    fedtasks(tmp_path, world.bank, "dag", "new", NAME)
    fedtasks(tmp_path, world.bank, "dag", "test", file)
    for party in (world.bank, world.shop):
        shutil.copy(tmp_path / file, party.dags)
    grant = ("ticket", "issue", "--to", "bank", "--dataset", "customers", "--pipeline", NAME)
    ticket = re.search(r"Ticket (\S+) is granted", fedtasks(tmp_path, world.shop, *grant))
    assert ticket is not None
    wait_for(lambda: ticket[1] in world.bank.command("ticket", "list", "--json"), 60, "the ticket to arrive")
    fedtasks(tmp_path, world.bank, "ticket", "accept", ticket[1])
    wait_for(lambda: '"accepted"' in world.shop.command("ticket", "show", ticket[1], "--json"), 60, "its acceptance")
    assert ticket[1] in fedtasks(tmp_path, world.bank, "dag", "check", file)
    for party in (world.bank, world.shop):
        party.airflow.wait_for_dag(NAME)
        party.unpause(NAME)
    world.bank.trigger(NAME, "first", {"partition": "2026-11-21"})
    run_id = f"{NAME}.2026-11-21.bank.1"
    wait_for(lambda: world.bank.dag_run(NAME, "first")["state"] in ("success", "failed"), 240, "the bank's DAG run")
    assert world.bank.dag_run(NAME, "first")["state"] == "success", world.bank.dag_run(NAME, "first")["note"]
    wait_for(lambda: world.shop.dag_run(NAME, run_id)["state"] == "success", 60, "the shop's DAG run")
    found = [outcome(party, run_id) for party in (world.bank, world.shop)]
    assert found[0] == found[1]
    assert set(found[0]) == {"bank", "shop"}


def outcome(party: LocalParty, run_id: str) -> dict[str, list[float]]:
    with party.client() as client:
        own = {half.task: json.loads(half.outcome_json) for half in client.get_run(run_id=run_id).own}
    values: dict[str, list[float]] = own["column_means"]["values"]
    return values
