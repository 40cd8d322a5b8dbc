"""A secret for each worker: what it may do, who it was, and its end, all while the gateway runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from fedtasks.config import load_party
from fedtasks.config.workers import May
from fedtasks.errors import SecretRejected, WorkerForbidden
from fedtasks.link.client import GatewayClient
from fedtasks.setup.workers import add_worker, revoke_worker, rotate_worker
from tests.support.gateways import Member, Pair, grant_ticket
from tests.support.runs import open_run


@contextmanager
def acting_as(member: Member, secret: str) -> Iterator[GatewayClient]:
    """Come with a secret of its own, as a worker does whose party.yaml names it."""
    file = member.folder / f"party-{secret}.yaml"
    file.write_text((member.folder / "party.yaml").read_text().replace("keys/worker.secret", secret))
    with GatewayClient.of(load_party(file)) as client:
        yield client


def test_identity_works_as_itself_until_it_is_revoked(running: Pair) -> None:
    bank, file = running.bank, running.bank.folder / "party.yaml"
    ticket = grant_ticket(running.shop, bank)
    add_worker(file, "airflow", May.WORK, bank.folder / "airflow.secret")
    with acting_as(bank, "airflow.secret") as client:
        run_id = open_run(client).run.run_id
        with pytest.raises(WorkerForbidden) as caught:
            client.revoke_ticket(ticket, "no more")
        assert "`airflow` may work" in caught.value.detail
        rotate_worker(file, "airflow", bank.folder / "airflow-2.secret")
        assert client.get_run(run_id).run.run_id == run_id
        revoke_worker(file, "airflow", only_old=True)
        with pytest.raises(SecretRejected):
            client.get_run(run_id)
    with acting_as(bank, "airflow-2.secret") as client:
        assert client.get_run(run_id).run.run_id == run_id
        revoke_worker(file, "airflow")
        with pytest.raises(SecretRejected):
            client.get_run(run_id)
    with bank.client() as client:
        client.cancel_run(run_id, "enough")
    with bank.store() as store:
        acting = {row.action: row.detail.get("worker") for row in store.audit.list() if row.actor == "bank"}
    assert acting["run.open"] == "airflow"
    assert acting["run.end"] is None  # this machine's own secret


def test_identity_that_may_read_sees_and_changes_nothing(running: Pair) -> None:
    bank = running.bank
    grant_ticket(running.shop, bank)
    add_worker(bank.folder / "party.yaml", "watcher", May.READ, bank.folder / "watcher.secret")
    with acting_as(bank, "watcher.secret") as client:
        assert not client.list_runs().runs
        assert client.peers().party == "bank"
        with pytest.raises(WorkerForbidden):
            open_run(client)
