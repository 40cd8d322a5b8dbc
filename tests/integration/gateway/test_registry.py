"""Models through two real gateways: published by both halves, put into use by both sides or by neither."""

from __future__ import annotations

import json

import pytest

from fedtasks import errors
from fedtasks.wire.v1 import model_pb2
from tests.support.command_line import invoke
from tests.support.commands import command, listed
from tests.support.gateways import Member, Pair, grant_ticket
from tests.support.runs import PUBLISHED, open_run

TASK = "publish"
OWN, PEER = "a" * 64, "b" * 64


def publish(pair: Pair, number: int, day: str, **changes: object) -> None:
    """Let both sides publish version `number`, learnt from one more day."""
    with pair.bank.client() as bank, pair.shop.client() as shop:
        run_id = open_run(bank, f"scheduled-{day}", partition=day, steps=PUBLISHED).run.run_id
        for member, client in ((pair.bank, bank), (pair.shop, shop)):
            attempt = client.announce(run_id, TASK, "try-1", 60.0).own.attempt
            version = _version(member, number, run_id, **changes)
            consumed = {"loans" if member is pair.bank else "customers": [day]}
            for _ in range(2):
                client.publish_model(run_id, TASK, attempt, version, consumed, {"auc": 0.8})


def _version(member: Member, number: int, run_id: str, **changes: object) -> model_pb2.ModelVersion:
    own, peer = (OWN, PEER) if member.name == "bank" else (PEER, OWN)
    fields = {"model": "credit", "version": number, "parent": number - 1, "run_id": run_id}
    return model_pb2.ModelVersion(**{**fields, "own_digest": own, "peer_digest": peer, **changes})


def champion(member: Member) -> int:
    with member.client() as client:
        return client.get_model("credit").version.version


@pytest.fixture
def published(running: Pair) -> Pair:
    """Both sides hold versions 1 and 2."""
    grant_ticket(running.shop, running.bank)
    publish(running, 1, "2026-11-21")
    publish(running, 2, "2026-11-22")
    return running


def test_publish_on_both_sides_makes_the_champion_of_both(published: Pair) -> None:
    for member, dataset in ((published.bank, "loans"), (published.shop, "customers")):
        with member.client() as client:
            found = client.get_model("credit")
            assert (found.version.version, found.version.parent, found.newest) == (2, 1, 2)
            assert json.loads(found.consumed_json) == {dataset: ["2026-11-21", "2026-11-22"]}
            assert not client.get_model("credit", 3).HasField("version")
            assert client.get_model("unheard-of").newest == 0


@pytest.mark.parametrize(
    ("changes", "error", "field"),
    [
        ({"model": "Not a name"}, errors.ConfigError, "not a name"),
        ({"own_digest": "short"}, errors.ConfigError, "SHA-256"),
        ({"version": 2}, errors.ModelTaken, "MODEL_TAKEN"),
        ({"parent": 9}, errors.ModelUnknown, "MODEL_UNKNOWN"),
    ],
)
def test_publish_of_what_is_wrong_is_refused(
    published: Pair, changes: dict[str, object], error: type[errors.FedtasksError], field: str
) -> None:
    with pytest.raises(error, match=field):
        publish(published, 3, "2026-11-23", **changes)
    assert champion(published.bank) == 2


def test_publish_for_another_run_or_attempt_is_refused(published: Pair) -> None:
    with published.bank.client() as client:
        run_id = open_run(client, "scheduled", partition="2026-11-23", steps=PUBLISHED).run.run_id
        attempt = client.announce(run_id, TASK, "try-1", 60.0).own.attempt
        other = _version(published.bank, 3, "train_split_nn.2026-11-22.bank.1")
        with pytest.raises(errors.ConfigDiffers, match="run_id"):
            client.publish_model(run_id, TASK, attempt, other, {}, {})
        with pytest.raises(errors.AttemptStale):
            client.publish_model(run_id, TASK, attempt + 1, _version(published.bank, 3, run_id), {}, {})


def test_rollback_changes_both_sides_and_its_later_days_are_new_again(published: Pair) -> None:
    with published.shop.client() as client:
        for _ in range(2):
            assert client.change_champion("credit", 1, "the newer one drifts", "ann").champion
    assert (champion(published.bank), champion(published.shop)) == (1, 1)
    with published.bank.client() as client:
        assert json.loads(client.get_model("credit").consumed_json) == {"loans": ["2026-11-21"]}
        assert client.get_model("credit").newest == 2
    for member, actor in ((published.bank, "shop"), (published.shop, "ann")):
        with member.store() as store:
            row = store.audit.list(action="model.champion")[-1]
            assert (row.actor, row.detail["version"], row.detail["reason"]) == (actor, 1, "the newer one drifts")


def test_rollback_to_what_the_peer_does_not_hold_changes_neither_side(published: Pair) -> None:
    with published.bank.client() as client:
        run_id = open_run(client, "scheduled", partition="2026-11-23", steps=PUBLISHED).run.run_id
        attempt = client.announce(run_id, TASK, "try-1", 60.0).own.attempt
        client.publish_model(run_id, TASK, attempt, _version(published.bank, 3, run_id), {}, {})
        with pytest.raises(errors.ChampionDiffers):
            client.change_champion("credit", 3, "a test")
        with pytest.raises(errors.ModelUnknown):
            client.change_champion("credit", 4, "a test")
    assert (champion(published.bank), champion(published.shop)) == (3, 2)
    with published.shop.store() as store:
        assert store.audit.list(action="model.champion")[-1].decision == "refused"


def test_rollback_without_a_ticket_in_force_is_refused(published: Pair) -> None:
    with published.shop.store() as store:
        for row in store.tickets.list():
            store.tickets.put(row.__class__(**{**row.__dict__, "revocation": "revoked"}))
    with published.bank.client() as client, pytest.raises(errors.TicketMissing):
        client.change_champion("credit", 1, "a test")
    assert (champion(published.bank), champion(published.shop)) == (2, 2)


@pytest.mark.usefixtures("impatient")
def test_rollback_while_the_peer_is_away_changes_neither_side(published: Pair) -> None:
    published.shop.stop()
    with published.bank.client() as client, pytest.raises(errors.PeerUnreachable):
        client.change_champion("credit", 1, "a test")
    published.shop.start()
    assert (champion(published.bank), champion(published.shop)) == (2, 2)


def test_commands_show_the_models_and_roll_back_on_both_sides(published: Pair) -> None:
    rows = listed(published.shop, "models")
    assert [(row["version"], row["in_use"], row["parent"], row["quality"]) for row in rows] == [
        (1, False, None, "auc 0.800"),
        (2, True, 1, "auc 0.800"),
    ]
    said = command(published.bank, "models", "rollback", "credit", "1", "--reason", "a test")
    assert said == "Version 1 of credit is in use on both sides\n"
    shown = listed(published.shop, "models", "show", "credit")["versions"]
    assert [(row["in_use"], row["consumed"]) for row in shown] == [
        (True, {"customers": ["2026-11-21"]}),
        (False, {"customers": ["2026-11-22"]}),
    ]
    assert PEER in command(published.shop, "models", "show", "credit")
    command(published.bank, "models", "rollback", "credit", "2", "--reason", "not older", expect=1)
    party_file = str(published.bank.folder / "party.yaml")
    unknown = invoke("models", "rollback", "debit", "1", "--reason", "a test", "--party", party_file)
    assert (unknown.exit_code, unknown.stderr.partition(" · ")[0]) == (1, "MODEL_UNKNOWN")
    assert "no version of `debit` was published" in unknown.stderr
    command(published.bank, "models", "promote", "credit", "2", "--reason", "a test")
    assert (champion(published.bank), champion(published.shop)) == (2, 2)
    command(published.bank, "models", "show", "unheard-of", expect=1)
