"""A ticket as its grantor offers it: what is not said is filled in from party.yaml and the clauses."""

from __future__ import annotations

from typing import Any

import pytest

from fedtasks.clock import DAY_S
from fedtasks.config import Party, load_party
from fedtasks.errors import ConfigError, PeerUnknown
from fedtasks.identity import read_card
from fedtasks.setup.party import found
from fedtasks.setup.party_file import with_peer
from fedtasks.tickets import offer
from tests.support.command_line import DATASETS

NOW_S = 1_800_000_000


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Party:
    """A party that knows a bank and declares customers."""
    folder = tmp_path_factory.mktemp("offers")
    made = {
        name: found(name, folder / name, airflow_url="http://127.0.0.1:1", airflow_user="me", airflow_password_file="p")
        for name in ("bank", "shop")
    }
    file = made["shop"].file
    bank = load_party(made["bank"].file)
    (file.parent / "bank.pem").write_bytes(bank.gateway.authority.read_bytes())
    peer = {"name": "bank", "authority": "bank.pem", "ticket_key": read_card(made["bank"].card).ticket_key}
    text = with_peer(file.read_text().replace("datasets: []\n", DATASETS), file, peer)
    file.write_text(text)
    return load_party(file)


def make(shop: Party, **changes: Any) -> Any:
    return offer(shop, **{"to": "bank", "dataset": "customers", "pipelines": ("train",), "now_s": NOW_S, **changes})


def test_offer_says_what_party_yaml_and_clauses_say_where_nothing_is_said(shop: Party) -> None:
    grant = make(shop)
    declared = shop.dataset("customers")
    assert (grant.grantor, grant.holder, grant.roles) == ("shop", "bank", ("leader",))
    assert grant.datasets[0].columns == tuple(declared.features)
    assert grant.datasets[0].schema_digest == declared.schema_digest
    assert (grant.not_before_s, grant.expires_s) == (NOW_S, NOW_S + 30 * DAY_S)
    assert grant.limits["attempts"] == 3


def test_offer_bounds_by_the_names_of_clauses(shop: Party) -> None:
    grant = make(shop, bounds={"limits.runs": 7, "floor.min_intersection": 100}, days=1, columns=("age",))
    assert (grant.limits["runs"], grant.floor["min_intersection"]) == (7, 100)
    assert grant.datasets[0].columns == ("age",)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"to": "mill"}, PeerUnknown),
        ({"dataset": "loans"}, ConfigError),
        ({"bounds": {"limits.wishes": 3}}, ConfigError),
        ({"bounds": {"limits.runs": -1}}, ConfigError),
    ],
)
def test_offer_of_what_is_not_there_is_refused(shop: Party, change: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        make(shop, **change)
