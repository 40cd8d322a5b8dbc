"""Landed partitions through two real gateways: each Airflow learns once of what it may know."""

from __future__ import annotations

import pandas as pd
import pytest

from fedtasks import errors
from tests.support.command_line import invoke
from tests.support.commands import command, listed
from tests.support.gateways import Member, Pair, grant_ticket
from tests.support.runs import wait_for

DAY = "2026-11-21"
ASSETS = ["fedtasks://bank/", "fedtasks://shop/", "fedtasks://shop/customers"]


@pytest.fixture
def listening(running: Pair) -> Pair:
    """The bank holds a ticket for the shop's customers, and its Airflow has a DAG that waits for both."""
    grant_ticket(running.shop, running.bank)
    running.bank.airflow.assets = ASSETS
    return running


def land(member: Member, dataset: str, partition: str = DAY) -> bool:
    with member.client() as client:
        return client.land_partition(dataset, partition, 10)


def is_spread(member: Member) -> bool:
    with member.store() as store:
        return bool(store.landings.list()) and not store.landings.unsynced()


def test_landing_reaches_both_airflows_once(listening: Pair) -> None:
    listening.shop.airflow.assets = ASSETS[1:]
    assert land(listening.shop, "customers")
    assert not land(listening.shop, "customers")
    wait_for(lambda: is_spread(listening.shop) and is_spread(listening.bank))
    expected = [("fedtasks://shop/", DAY), ("fedtasks://shop/customers", DAY)]
    assert listening.shop.airflow.asset_events == expected
    assert listening.bank.airflow.asset_events == expected
    with listening.bank.store() as store:
        (row,) = store.landings.list("shop")
        assert (row.dataset, row.partition, row.rows) == ("customers", DAY, 0)


def test_landing_of_what_no_ticket_names_stays_at_home(listening: Pair) -> None:
    assert land(listening.bank, "loans")
    wait_for(lambda: is_spread(listening.bank))
    assert listening.bank.airflow.asset_events == [("fedtasks://bank/", DAY)]
    with listening.shop.store() as store:
        assert not store.landings.list()


def test_landing_while_peer_and_airflow_are_away_arrives_later_and_once(listening: Pair) -> None:
    listening.bank.stop()
    listening.shop.airflow.assets = ASSETS[1:2]
    assert land(listening.shop, "customers")
    wait_for(lambda: listening.shop.airflow.asset_events == [("fedtasks://shop/", DAY)])
    listening.shop.stop()
    assert not is_spread(listening.shop)
    listening.shop.start()
    listening.bank.start()
    wait_for(lambda: is_spread(listening.shop) and is_spread(listening.bank))
    assert listening.bank.airflow.asset_events == [("fedtasks://shop/", DAY), ("fedtasks://shop/customers", DAY)]
    assert listening.shop.airflow.asset_events == [("fedtasks://shop/", DAY)]


@pytest.mark.parametrize(("dataset", "partition"), [("unheard-of", DAY), ("customers", "../up"), ("customers", "")])
def test_landing_of_what_there_cannot_be_is_refused(listening: Pair, dataset: str, partition: str) -> None:
    with pytest.raises(errors.ConfigError):
        land(listening.shop, dataset, partition)


def test_landing_that_a_peer_makes_up_is_not_entered(listening: Pair) -> None:
    with listening.shop.store() as store:
        for row in store.tickets.list():
            store.tickets.put(row.__class__(**{**row.__dict__, "acceptance": "a forged one"}))
    with listening.bank.store() as store:
        for row in store.tickets.list():
            store.tickets.put(row.__class__(**{**row.__dict__, "revocation": "revoked"}))
    assert land(listening.shop, "customers")
    wait_for(lambda: is_spread(listening.shop))
    with listening.bank.store() as store:
        assert not store.landings.list()


def test_command_lands_a_partition_and_lists_what_has_landed_on_both_sides(listening: Pair) -> None:
    shop = listening.shop
    file = shop.folder / "party.yaml"
    file.write_text(file.read_text().replace("uri: data.parquet", "uri: 'data/{partition}'"))
    folder = shop.folder / "data" / DAY
    command(shop, "data", "land", "customers", DAY, expect=1)
    folder.mkdir(parents=True)
    pd.DataFrame({"customer": ["c1", "c2"], "a": [1.0, 2.0]}).to_parquet(folder / "part.parquet")
    assert command(shop, "data", "land", "customers", DAY) == f"{DAY} of customers has landed with 2 rows\n"
    assert not listed(shop, "data", "land", "customers", DAY)["is_new"]
    wait_for(lambda: bool(listed(listening.bank, "data", "list")))
    for member, rows in ((shop, 2), (listening.bank, None)):
        (row,) = listed(member, "data", "list")
        assert (row["party"], row["dataset"], row["partition"], row["rows"]) == ("shop", "customers", DAY, rows)


def refusal(member: Member, dataset: str, partition: str) -> str:
    """Return what the command says that lands nothing."""
    done = invoke("data", "land", dataset, partition, "--party", str(member.folder / "party.yaml"))
    assert done.exit_code == 1
    return " ".join(done.output.split())


def test_command_without_a_gateway_writes_nothing_and_lands_all_once_it_is_there(
    listening: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = listening.shop
    file = shop.folder / "party.yaml"
    file.write_text(file.read_text().replace("uri: data.parquet", "uri: 'data/{partition}'"))
    folder = shop.folder / "data" / DAY
    folder.mkdir(parents=True)
    shop.stop()
    monkeypatch.setattr("fedtasks.cli.data.PATIENCE_S", 0.2)
    assert "GATEWAY_UNREACHABLE" in refusal(shop, "customers", DAY)
    assert list(folder.iterdir()) == []
    with shop.store() as store:
        assert not store.landings.list()
    shop.start()
    assert command(shop, "data", "land", "customers", DAY) == f"{DAY} of customers has landed with 0 rows\n"
    again = command(shop, "data", "land", "customers", DAY)
    assert again == f"{DAY} of customers had landed before; it now has 0 rows\n"
    assert [path.name for path in folder.iterdir()] == ["_SUCCESS"]
    assert [row["rows"] for row in listed(shop, "data", "list")] == [0]
    assert "known are: customers" in refusal(shop, "clients", DAY)
    assert "there are 2026-11-21" in refusal(shop, "customers", "2026-11-22")
