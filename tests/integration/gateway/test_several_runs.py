"""Two runs of one DAG run of the initiator's: each with a DAG run of its own at the peer's, and an end of its own."""

from __future__ import annotations

import pytest

from fedtasks import errors
from fedtasks.gateway import reconciler
from fedtasks.link.client import GatewayClient
from fedtasks.wire.v1 import run_pb2, worker_pb2
from tests.support.gateways import PIPELINE, Pair, grant_ticket
from tests.support.runs import meet, open_run, wait_for, wait_for_state

TREES, NETWORK = f"{PIPELINE}.trees", f"{PIPELINE}.network"


@pytest.fixture
def pair(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> Pair:
    monkeypatch.setattr(reconciler, "GRACE_MS", 300)
    pair.bank.airflow.runs[PIPELINE, "manual-1"] = {"state": "running", "note": None, "conf": {}}
    return pair


def open_both(pair: Pair, bank: GatewayClient) -> tuple[str, str]:
    grant_ticket(pair.shop, pair.bank, pipelines=(TREES, NETWORK), limits={"runs": 10, "concurrent_runs": 2})
    trees, network = (open_run(bank, pipeline=pipeline).run for pipeline in (TREES, NETWORK))
    return trees.run_id, network.run_id


def bank_note(pair: Pair) -> list[str]:
    return str(pair.bank.airflow.runs[PIPELINE, "manual-1"]["note"]).split("\n\n")


def test_each_run_has_a_dag_run_of_its_own_at_the_peers_that_says_which_it_is(running: Pair) -> None:
    with running.bank.client() as bank, running.shop.client() as shop:
        run_ids = open_both(running, bank)
        assert run_ids == (f"{TREES}.2026-11-21.bank.1", f"{NETWORK}.2026-11-21.bank.1")
        assert running.shop.airflow.triggered == list(run_ids)
        for run_id, pipeline in zip(run_ids, (TREES, NETWORK), strict=True):
            conf = running.shop.airflow.runs[PIPELINE, run_id]["conf"]
            assert conf == {"fedtasks": {"run_id": run_id, "pipeline": pipeline}}
            taken = open_run(shop, run_id, pipeline=pipeline, config_json="", peer="", partition="")
            assert taken.opening == worker_pb2.OPENING_RESUMED
        again = open_run(bank, pipeline=NETWORK)
        assert (again.opening, again.run.run_id) == (worker_pb2.OPENING_RESUMED, run_ids[1])
    with running.shop.store() as store:
        assert store.uses.total(again.run.ticket_id) == {"runs": 2}


def test_note_of_the_initiators_dag_run_says_how_each_run_stands(running: Pair) -> None:
    with running.bank.client() as bank, running.shop.client() as shop:
        trees, network = open_both(running, bank)
        wait_for(
            lambda: [" · trees: " in bank_note(running)[0], " · network: " in bank_note(running)[-1]] == [True] * 2
        )
        meet([bank, shop], network)
        wait_for(lambda: "train" in bank_note(running)[-1])
        bank.cancel_run(trees, "a test")
        wait_for(lambda: "CANCELLED" in bank_note(running)[0])
        assert "network: " in bank_note(running)[1]
    assert len(bank_note(running)) == 2


def test_refusal_of_one_run_stands_beside_the_other_in_the_note(running: Pair) -> None:
    with running.bank.client() as bank:
        open_both(running, bank)
        with pytest.raises(errors.TicketScope):
            open_run(bank, pipeline=f"{PIPELINE}.third")
        wait_for(lambda: len(bank_note(running)) == 3)
        notes = bank_note(running)
    assert ["trees: " in notes[0], "network: " in notes[1], "third: " in notes[2]] == [True] * 3
    with running.bank.store() as store:
        refusal = store.refusals.get(PIPELINE, "manual-1", f"{PIPELINE}.third")
        assert refusal is not None
        assert refusal.failure["code"] == "TICKET_SCOPE"
        assert store.refusals.get(PIPELINE, "manual-1", TREES) is None


def test_failed_run_does_not_end_the_dag_run_in_which_another_goes_on(running: Pair) -> None:
    with running.bank.client() as bank, running.shop.client() as shop:
        trees, network = open_both(running, bank)
        shop.cancel_run(trees, "a test")
        wait_for_state(bank, trees, run_pb2.STATE_FAILED)
        # At the shop, whose DAG run is of this run alone, nobody reacts: its gateway fails that.
        wait_for(lambda: running.shop.airflow.runs[PIPELINE, trees]["state"] == "failed")
        assert running.bank.airflow.runs[PIPELINE, "manual-1"]["state"] == "running"
        assert running.shop.airflow.runs[PIPELINE, network]["state"] == "running"
        meet([bank, shop], network)
        bank.cancel_run(network, "a test")
        wait_for(lambda: running.bank.airflow.runs[PIPELINE, "manual-1"]["state"] == "failed")


def test_dag_run_that_is_marked_failed_ends_all_its_runs(running: Pair) -> None:
    with running.bank.client() as bank, running.shop.client() as shop:
        run_ids = open_both(running, bank)
        running.bank.airflow.runs[PIPELINE, "manual-1"]["state"] = "failed"
        for run_id in run_ids:
            wait_for_state(shop, run_id, run_pb2.STATE_FAILED)


def test_task_that_the_peer_repeats_is_cleared_in_its_group_and_dag_run(running: Pair) -> None:
    with running.bank.client() as bank, running.shop.client() as shop:
        _trees, network = open_both(running, bank)
        attempt = meet([bank, shop], network)
        for client in (bank, shop):
            client.finish(network, "train", attempt, outcome={})
        bank.announce(network, "train", "again", 60)
        wait_for(lambda: running.shop.airflow.cleared == [(network, "network.train")])


def test_pipeline_of_another_dag_is_refused(running: Pair) -> None:
    grant_ticket(running.shop, running.bank, pipelines=(TREES,))
    with running.bank.client() as bank, pytest.raises(errors.ConfigError, match="field=dag_id"):
        open_run(bank, pipeline=TREES, dag_id="other")
    assert running.shop.airflow.triggered == []


def test_ticket_for_a_dag_covers_none_of_its_named_runs(running: Pair) -> None:
    grant_ticket(running.shop, running.bank)
    with running.bank.client() as bank, pytest.raises(errors.TicketScope):
        open_run(bank, pipeline=TREES)
