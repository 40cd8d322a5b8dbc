"""What is written into party.yaml while the gateway runs counts, or is said to wait for a restart, everywhere."""

from __future__ import annotations

import pytest

from fedtasks import errors, tickets
from fedtasks.clock import now_ms
from fedtasks.link.client import GatewayClient
from fedtasks.reports.party import overview
from fedtasks.reports.party_file import READ_AGAIN, outdated
from fedtasks.reports.status import refusal_sentence
from fedtasks.store import Store
from tests.support.command_line import invoke
from tests.support.gateways import PIPELINE, Member, Pair, grant_ticket
from tests.support.runs import open_run, wait_for


def rewrite(member: Member, old: str, new: str) -> None:
    file = member.folder / "party.yaml"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))


def last_told(member: Member, fact: str) -> object:
    with member.store() as store:
        rows = store.audit.list(action=READ_AGAIN, limit=1)
    return rows[0].detail[fact] if rows else None


def test_dataset_that_is_declared_later_lands_without_a_restart(pair: Pair) -> None:
    pair.bank.start()
    rewrite(pair.bank, "name: loans", "name: mortgages")
    with pair.bank.client() as client:
        client.land_partition("mortgages", "2026-11-21", 3)
        with pytest.raises(errors.ConfigError, match="`loans` is not declared"):
            client.land_partition("loans", "2026-11-21", 3)


def test_peer_that_has_changed_is_told_of_everywhere_until_the_restart(running: Pair) -> None:
    bank = running.bank
    grant_ticket(running.shop, bank)
    another = tickets.public_text(tickets.load_ticket_key(bank.party.gateway.ticket_key).public_key())
    known = bank.party.peers[0].ticket_key
    rewrite(bank, known, another)
    wait_for(lambda: last_told(bank, "restart_for") == ["peers"])
    with bank.client() as client, pytest.raises(errors.GatewayOutdated):
        open_run(client)
    with bank.store() as store:
        found = outdated(store)
        assert found is not None
        assert "`peers`" in found.text
        assert found.remedy == errors.GatewayOutdated.advice()
        (refusal,) = store.refusals.list()
        needs = overview(store, bank.party, [PIPELINE], now_ms())["needs"]
    assert refusal_sentence(refusal, "bank").startswith("⛔ bank must act · Refused by bank · GATEWAY_OUTDATED")
    assert ("gateway_outdated", found.text) in [(need["kind"], need["text"]) for need in needs]
    asked = invoke("runs", "--json", "--party", str(bank.folder / "party.yaml"))
    assert (asked.stdout.strip(), "GATEWAY_OUTDATED" in asked.stderr) == ("[]", True)
    rewrite(bank, another, known)
    bank.stop()
    bank.start()
    wait_for(lambda: last_told(bank, "restart_for") == [])
    with bank.store() as store:
        assert outdated(store) is None


def test_broken_file_takes_no_gateway_down_and_is_told_of(pair: Pair) -> None:
    pair.bank.start()
    party, file = pair.bank.party, pair.bank.folder / "party.yaml"
    whole = file.read_text()
    with GatewayClient.of(party) as client:
        file.write_text("name: [")
        client.land_partition("loans", "2026-11-21", 3)
        with Store.open(party.store.url, party.store.password_file) as store:
            wait_for(lambda: (found := outdated(store)) is not None and "party.yaml cannot be used" in found.text)
            file.write_text(whole)
            wait_for(lambda: outdated(store) is None)
