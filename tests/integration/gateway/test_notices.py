"""What a gateway posts to its party's webhook: each thing once, also over a restart and a webhook that is away."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedtasks import errors
from fedtasks.clock import now_ms
from fedtasks.gateway import notifier
from tests.support.gateways import PIPELINE, Pair, grant_ticket, shared_config
from tests.support.runs import open_run, wait_for
from tests.support.webhook import Webhook


@pytest.fixture
def webhook(pair: Pair, tmp_path: Path) -> Iterator[Webhook]:
    """The shop's webhook; both gateways run."""
    with Webhook(tmp_path) as server:
        file = pair.shop.folder / "party.yaml"
        file.write_text(f"{file.read_text()}\nnotify: {{webhook_url_file: {server.file}}}\n")
        pair.bank.start()
        pair.shop.start()
        yield server


def events(webhook: Webhook) -> list[str]:
    return [taken["event"] for taken in webhook.taken]


def test_notice_is_posted_once_also_over_a_restart_and_after_the_webhook_was_away(pair: Pair, webhook: Webhook) -> None:
    webhook.status = 500
    ticket = grant_ticket(pair.shop, pair.bank, approval="person")  # expires within the hour
    wait_for(lambda: webhook.tried > 0)
    webhook.status = 204
    wait_for(lambda: events(webhook) == ["ticket_expiring"])

    with pair.bank.client() as bank, pair.shop.client() as shop:
        run_id = open_run(bank, reason="<!channel>").run.run_id
        open_run(shop, run_id, config_json="", peer="", partition="")
        shop.announce(run_id, "approve", "s", 60)
        wait_for(lambda: events(webhook) == ["ticket_expiring", "approval_needed"])
        shop.decide_approval(run_id, approved=False, decided_by="evelyn", reason="no")
        wait_for(lambda: events(webhook) == ["ticket_expiring", "approval_needed", "run_failed"])

    pair.shop.stop()
    pair.shop.start()
    other = grant_ticket(pair.shop, pair.bank, ticket_id="t-another")  # the next news, behind which nothing is repeated
    wait_for(lambda: len(webhook.taken) >= 4)
    assert events(webhook) == ["ticket_expiring", "approval_needed", "run_failed", "ticket_expiring"]

    asked, failed = webhook.taken[1:3]
    assert (asked["peer"], asked["pipeline"], asked["partition"]) == ("bank", PIPELINE, "2026-11-21")
    assert asked["link"].startswith(pair.shop.airflow.url)
    assert asked["link"].endswith("/tasks/approve/required_actions")
    assert "APPROVAL_REJECTED" in failed["text"]
    posted = json.dumps(webhook.taken)
    for kept in (ticket, other, "evelyn"):
        assert kept not in posted


def test_dag_run_that_stays_refused_is_told_of(pair: Pair, webhook: Webhook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifier, "REFUSED_FOR_MS", 500)
    with pair.shop.client() as shop, pytest.raises(errors.TicketMissing):
        open_run(shop, "scheduled-1", peer="bank", config_json=shared_config())
    wait_for(lambda: events(webhook) == ["run_failed"])
    (taken,) = webhook.taken
    assert "TICKET_MISSING" in taken["text"]
    assert taken["link"].endswith(f"/dags/{PIPELINE}/runs/scheduled-1/plugin/federated")


def test_own_cancellations_and_old_failures_are_no_news(pair: Pair, webhook: Webhook) -> None:
    grant_ticket(pair.shop, pair.bank, expires_s=now_ms() // 1000 + 30 * 86_400)
    with pair.bank.client() as bank, pair.shop.client() as shop:
        old, own, news = (
            open_run(bank, f"manual-{day}", partition=f"2026-11-{day}").run.run_id for day in (20, 21, 22)
        )
        with pair.shop.store() as store:
            failed = {"state": "failed", "failure": {"code": "PEER_FAILED", "text": "", "party": "bank", "task": ""}}
            store.runs.change(old, closed_ms=now_ms() - 2 * 86_400_000, **failed)
        shop.cancel_run(own, "a test")
        bank.cancel_run(news, "a test")
    wait_for(lambda: len(webhook.taken) > 0)
    assert [taken["partition"] for taken in webhook.taken] == ["2026-11-22"]
