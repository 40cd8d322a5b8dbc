"""The audit of a run between two real gateways, as a third party checks it from either side."""

from __future__ import annotations

import pytest

from fedtasks.checks import Verdict
from fedtasks.clock import now_ms
from fedtasks.reports.audit_bundle import bundle
from fedtasks.reports.audit_proof import prove
from fedtasks.tickets import load_ticket_key
from fedtasks.wire.v1 import run_pb2
from tests.support.gateways import PIPELINE, Pair, grant_ticket
from tests.support.runs import meet, open_run, wait_for_state


@pytest.mark.parametrize("name", ["bank", "shop"])
def test_run_between_two_gateways_is_covered_and_proven_from_either_side(running: Pair, name: str) -> None:
    grant_ticket(running.shop, running.bank)
    with running.bank.client() as bank, running.shop.client() as shop:
        run_id = open_run(bank).run.run_id
        running.bank.airflow.runs[PIPELINE, "manual-1"] = {"state": "running"}
        open_run(shop, run_id, config_json="", peer="", partition="")
        attempt = meet([bank, shop], run_id)
        for client in (bank, shop):
            client.finish(run_id, "train", attempt, outcome={"counts": {"rows": 3}, "digests": {}})
        for client in (bank, shop):
            client.close_run(run_id)
        for client in (bank, shop):
            wait_for_state(client, run_id, run_pb2.STATE_SUCCEEDED)
    members = {member.name: member for member in (running.bank, running.shop)}
    keys = {each.name: load_ticket_key(each.party.gateway.ticket_key) for each in members.values()}
    public = {each: [key.public_key()] for each, key in keys.items()}
    with members[name].store() as store:
        lines = list(bundle(store, name, keys[name], now_ms()))
    (found,) = prove(lines, public)
    assert (found.verdict, found.subject) == (Verdict.OK, f"audit of {name}")
    assert found.text.startswith("1 tickets, 1 runs, ")
    assert run_id in "".join(lines)
    assert not [line for line in lines if line == "" or "\n" in line]
