"""Opening runs through two real gateways: who may, what is refused, and that asking twice starts once."""

from __future__ import annotations

import itertools
import json
import socket
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fedtasks import errors, tickets
from fedtasks.clock import now_ms
from fedtasks.config import load_party
from fedtasks.gateway import admission, asked, notes
from fedtasks.link.client import GatewayClient
from fedtasks.link.doorway import WorkerSide
from fedtasks.store import RefusalRow
from fedtasks.tickets.clauses import clauses
from fedtasks.wire.v1 import run_pb2, worker_pb2
from tests.support.gateways import PIPELINE, Member, Pair, grant_ticket, shared_config
from tests.support.runs import PREDICT, STEPS, TREES, open_run, wait_for, wait_for_state


def refusals(member: Member) -> list[dict[str, object]]:
    with member.store() as store:
        return [row.detail for row in store.audit.list() if row.decision == "refused"]


def test_open_run_with_ticket_starts_the_peers_dag(running: Pair) -> None:
    grant_ticket(running.shop, running.bank)
    with running.bank.client() as client:
        response = open_run(client)
        assert response.opening == worker_pb2.OPENING_STARTED
        assert response.run.run_id == f"{PIPELINE}.2026-11-21.bank.1"
        assert (response.run.initiator, response.run.responder) == ("bank", "shop")
    assert running.shop.airflow.triggered == [response.run.run_id]
    with running.shop.client() as client:
        taken = open_run(client, response.run.run_id, config_json="", peer="", partition="")
        assert taken.opening == worker_pb2.OPENING_RESUMED
        assert taken.run.config_json == shared_config()


WITHOUT_DATASET = json.dumps({**json.loads(shared_config()), "datasets": {"bank": "loans"}})


def test_open_run_without_the_peers_dataset_takes_the_one_of_the_ticket(running: Pair) -> None:
    grant_ticket(running.shop, running.bank)
    with running.bank.client() as client:
        assert open_run(client, config_json=WITHOUT_DATASET).run.config_json == shared_config()


def test_open_run_without_the_peers_dataset_names_those_to_choose_from(running: Pair) -> None:
    grant_ticket(running.shop, running.bank)
    other = tickets.DatasetScope("visitors", "0" * 64, ("a",))
    grant_ticket(running.shop, running.bank, datasets=(other,))
    with running.bank.client() as client, pytest.raises(errors.ConfigError, match="customers, visitors"):
        open_run(client, config_json=WITHOUT_DATASET)


def test_open_run_without_dataset_and_ticket_is_refused_on_the_granting_side(running: Pair) -> None:
    with running.bank.client() as client, pytest.raises(errors.TicketMissing):
        open_run(client, config_json=WITHOUT_DATASET)
    assert refusals(running.shop)[-1]["code"] == "TICKET_MISSING"


def test_open_run_twice_starts_once(running: Pair) -> None:
    grant_ticket(running.shop, running.bank)
    with running.bank.client() as client:
        first = open_run(client)
        again = open_run(client)
        other = open_run(client, "manual-2")
    assert again.opening == worker_pb2.OPENING_RESUMED
    assert other.opening == worker_pb2.OPENING_ALREADY_RUNNING
    assert {again.run.run_id, other.run.run_id} == {first.run.run_id}
    assert running.shop.airflow.triggered == [first.run.run_id]
    with running.shop.store() as store:
        assert store.uses.total(first.run.ticket_id) == {"runs": 1}


def test_open_run_after_a_failure_takes_the_next_number(running: Pair) -> None:
    grant_ticket(running.shop, running.bank)
    with running.bank.client() as client:
        first = open_run(client)
        client.cancel_run(first.run.run_id, "a test")
        second = open_run(client, "manual-2")
    assert second.run.run_id == f"{PIPELINE}.2026-11-21.bank.2"
    assert running.shop.airflow.triggered == [first.run.run_id, second.run.run_id]


def revoke(pair: Pair) -> None:
    ticket_id = grant_ticket(pair.shop, pair.bank)
    key = tickets.load_ticket_key(pair.shop.party.gateway.ticket_key)
    with pair.shop.store() as store:
        row = store.tickets.get(ticket_id)
        assert row is not None
        revocation = tickets.revoke(ticket_id, key, now_ms() // 1000, "a test")
        store.tickets.put(row.__class__(**{**row.__dict__, "revocation": revocation}))


def expired(pair: Pair) -> None:
    now_s = now_ms() // 1000
    grant_ticket(pair.shop, pair.bank, not_before_s=now_s - 100, expires_s=now_s - 50)


def exhausted(pair: Pair) -> None:
    ticket_id = grant_ticket(pair.shop, pair.bank, limits={"runs": 1, "concurrent_runs": 5})
    with pair.shop.store() as store:
        store.uses.count(ticket_id, "earlier", "runs", 1, 1)


def busy(pair: Pair) -> None:
    grant_ticket(pair.shop, pair.bank, limits={"runs": None, "concurrent_runs": 1})
    with pair.bank.client() as client:
        open_run(client, "other", partition="2026-11-20")
    pair.shop.airflow.triggered.clear()


def grant_outputs(intersection: str) -> Callable[[Pair], object]:
    outputs = {"intersection": intersection}
    return lambda pair: grant_ticket(pair.shop, pair.bank, outputs=outputs)


def config_of(**steps: object) -> str:
    return json.dumps({**json.loads(shared_config()), "steps": steps})


CASES = {
    "no ticket": (lambda pair: None, {}, "TICKET_MISSING", "ticket"),
    "not accepted": (
        lambda pair: grant_ticket(pair.shop, pair.bank, accept=False, ticket_id="t-open"),
        {"ticket_id": "t-open"},
        "TICKET_NOT_ACCEPTED",
        "acceptance",
    ),
    "expired": (expired, {}, "TICKET_EXPIRED", "expires"),
    "revoked": (revoke, {}, "TICKET_REVOKED", "revocation"),
    "other dataset": (
        lambda pair: grant_ticket(pair.shop, pair.bank),
        {"config_json": shared_config("secrets")},
        "TICKET_SCOPE",
        "datasets",
    ),
    "other pipeline": (
        lambda pair: grant_ticket(pair.shop, pair.bank, pipelines=("another",)),
        {},
        "TICKET_SCOPE",
        "pipelines",
    ),
    "other role": (lambda pair: grant_ticket(pair.shop, pair.bank, roles=("follower",)), {}, "TICKET_SCOPE", "roles"),
    "both would learn": (
        grant_outputs("client"),
        {"config_json": shared_config(learns="both")},
        "TICKET_SCOPE",
        "outputs.intersection",
    ),
    "both would learn by default": (grant_outputs("size"), {}, "TICKET_SCOPE", "outputs.intersection"),
    "the client would learn": (
        grant_outputs("size"),
        {"config_json": shared_config(learns="client")},
        "TICKET_SCOPE",
        "outputs.intersection",
    ),
    "somebody would learn": (
        grant_outputs("both"),
        {"config_json": shared_config(learns=["size"])},
        "CONFIG_INVALID",
        "",
    ),
    "both would learn the scores": (
        lambda pair: grant_ticket(pair.shop, pair.bank),
        {"config_json": config_of(predict={"scores": "both"}), "steps": PREDICT},
        "TICKET_SCOPE",
        "outputs.scores",
    ),
    "one tree too many": (
        lambda pair: grant_ticket(pair.shop, pair.bank, limits={"trees": 20}),
        {"config_json": config_of(train={"trees": 21}), "steps": TREES},
        "TICKET_SCOPE",
        "limits.trees",
    ),
    "leaves of any size": (
        lambda pair: grant_ticket(pair.shop, pair.bank, floor={"min_leaf_rows": 30}),
        {"config_json": config_of(train={"trees": 20}), "steps": TREES},
        "FLOOR_VIOLATED",
        "floor.min_leaf_rows",
    ),
    "sizes as they are": (
        lambda pair: grant_ticket(pair.shop, pair.bank, floor={"pad_rows": 1000}),
        {},
        "FLOOR_VIOLATED",
        "floor.pad_rows",
    ),
    "a step of no known kind": (
        lambda pair: grant_ticket(pair.shop, pair.bank, limits={"epochs": 20}),
        {"steps": [STEPS[0], run_pb2.Step(name="train", digest="b", kind="of_another_release")]},
        "TICKET_SCOPE",
        "limits.epochs",
    ),
    "labels that anybody reads": (
        lambda pair: grant_ticket(pair.shop, pair.bank, floor={"label_protection": "any"}),
        {"config_json": config_of(train={"label_protection": "none", "max_label_leak": 100})},
        "FLOOR_VIOLATED",
        "floor.label_protection",
    ),
    "one run too many": (exhausted, {}, "TICKET_EXHAUSTED", "limits.runs"),
    "too many at once": (busy, {}, "TICKET_BUSY", "limits.concurrent_runs"),
}


@pytest.mark.parametrize("case", CASES)
def test_open_run_outside_the_ticket_is_refused_with_its_clause(running: Pair, case: str) -> None:
    prepare, changes, code, clause = CASES[case]
    prepare(running)  # type: ignore[no-untyped-call]
    with running.bank.client() as client, pytest.raises(errors.FedtasksError) as caught:
        open_run(client, **changes)  # type: ignore[arg-type]
    assert caught.value.code == code
    assert clause in str(caught.value)
    assert running.shop.airflow.triggered == []
    row = refusals(running.shop)[-1]
    assert row["code"] == code
    assert str(row["clause"]).startswith(clause)


@pytest.mark.parametrize(("granted", "learns"), [("client", "size"), ("size", "size"), ("both", "client")])
def test_open_run_that_reveals_no_more_than_the_ticket_says_starts(running: Pair, granted: str, learns: str) -> None:
    grant_outputs(granted)(running)
    with running.bank.client() as client:
        assert (
            open_run(client, config_json=shared_config(learns=learns, scheme="oprf")).opening
            == worker_pb2.OPENING_STARTED
        )


@pytest.mark.parametrize(
    ("dag", "code"),
    [
        (None, "PEER_DAG_MISSING"),
        ({"is_paused": True}, "PEER_PAUSED"),
        ({"is_paused": False, "has_import_errors": True}, "PEER_DAG_BROKEN"),
    ],
)
def test_open_run_when_the_peers_dag_cannot_run_is_refused(
    running: Pair, dag: dict[str, bool] | None, code: str
) -> None:
    grant_ticket(running.shop, running.bank)
    running.shop.airflow.dags = {PIPELINE: dag} if dag else {}
    running.bank.airflow.runs[PIPELINE, "manual-1"] = {"state": "running"}
    with running.bank.client() as client, pytest.raises(errors.FedtasksError) as caught:
        open_run(client)
    assert caught.value.code == code
    assert running.shop.airflow.triggered == []
    assert code in running.bank.airflow.runs[PIPELINE, "manual-1"]["note"]
    with running.shop.store() as store:
        assert all(not store.uses.total(row.ticket_id) for row in store.tickets.list())


def test_open_run_when_the_peers_airflow_is_down_gives_the_use_back(running: Pair) -> None:
    grant_ticket(running.shop, running.bank)
    running.shop.airflow.close()
    with running.bank.client() as client, pytest.raises(errors.PeerAirflowUnreachable):
        open_run(client)
    with running.shop.store() as store:
        assert all(not store.uses.total(row.ticket_id) for row in store.tickets.list())


def test_open_run_with_another_pipeline_on_the_responder_names_the_step(running: Pair) -> None:
    grant_ticket(running.shop, running.bank)
    with running.bank.client() as bank, running.shop.client() as shop:
        run_id = open_run(bank).run.run_id
        changed = [STEPS[0], run_pb2.Step(name="train", digest="other", kind="split_nn")]
        with pytest.raises(errors.ConfigDiffers, match=r"steps\.train"):
            open_run(shop, run_id, steps=changed)
        wait_for_state(bank, run_id, run_pb2.STATE_FAILED)


def test_open_run_whose_initiator_named_another_kind_of_step_is_refused_at_the_responder(running: Pair) -> None:
    grant_ticket(running.shop, running.bank, limits={"trees": 20})
    lie = [TREES[0], run_pb2.Step(name="train", digest="b")]  # with the digest of the truth
    with running.bank.client() as bank, running.shop.client() as shop:
        run_id = open_run(bank, config_json=config_of(), steps=lie).run.run_id
        with pytest.raises(errors.ConfigDiffers, match=r"steps\.train\.kind, ours=secureboost, theirs=none"):
            open_run(shop, run_id, steps=TREES)
        wait_for_state(bank, run_id, run_pb2.STATE_FAILED)


def test_open_run_with_a_step_that_stands_twice_is_refused(running: Pair) -> None:
    grant_ticket(running.shop, running.bank, limits={"trees": 20})
    with running.bank.client() as bank, pytest.raises(errors.ConfigError, match="field=steps"):
        open_run(bank, config_json=config_of(), steps=[*TREES, run_pb2.Step(name="train", digest="c")])


@pytest.mark.parametrize("honest", [True, False], ids=["initiator", "responder"])
def test_open_run_that_could_not_be_shown_whole_is_refused_by_the_name_of_what_is_too_long(
    running: Pair, monkeypatch: pytest.MonkeyPatch, honest: bool
) -> None:
    grant_ticket(running.shop, running.bank)
    calls: list[str] = []

    def check(config: Mapping[str, Any], reason: str) -> None:
        calls.append(reason)
        if honest or len(calls) > 1:  # a hostile initiator does not look
            tickets.check_readable(config, reason)

    monkeypatch.setattr(asked, "check_readable", check)
    with running.bank.client() as bank, pytest.raises(errors.ConfigError) as caught:
        open_run(bank, config_json=shared_config(note="x" * 1001))
    assert len(calls) == (1 if honest else 2)
    if honest:
        assert caught.value.fields["field"] == "steps.psi.note"
    else:
        assert [refused["code"] for refused in refusals(running.shop)] == ["CONFIG_INVALID"]


def test_task_that_starts_is_told_the_bounds_of_the_runs_ticket_on_both_sides(running: Pair) -> None:
    grant_ticket(running.shop, running.bank, floor={"pad_rows": 10})
    with running.bank.client() as bank, running.shop.client() as shop:
        run_id = open_run(bank, config_json=shared_config(pad_rows=10)).run.run_id
        open_run(shop, run_id)
        for client in (bank, shop):
            client.announce(run_id, "psi", "a", 60)
        for client in (bank, shop):
            wait_for(lambda client=client: client.start(run_id, "psi", 1).ready)  # type: ignore[misc]
            bounds = json.loads(client.start(run_id, "psi", 1).bounds_json)
            assert bounds.keys() == clauses().keys()
            assert (bounds["floor.pad_rows"], bounds["limits.trees"]) == (10, None)


def test_open_run_with_clocks_apart_is_refused(pair: Pair) -> None:
    pair.bank.start()
    pair.shop.start(clock=lambda: now_ms() + 600_000)
    grant_ticket(pair.shop, pair.bank)
    with pair.bank.client() as client, pytest.raises(errors.ClockSkew):
        open_run(client)
    assert pair.shop.airflow.triggered == []


def test_refusal_is_noted_as_it_is_kept_by_a_clock_that_never_stands_still(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted: list[RefusalRow] = []

    def keep(refusal: RefusalRow, party: str, link: str) -> str:
        noted.append(refusal)
        return notes.refused(refusal, party, link)

    monkeypatch.setattr(admission, "refused", keep)
    pair.bank.airflow.runs[PIPELINE, "manual-1"] = {"state": "running"}
    ticks = itertools.count(now_ms())
    pair.bank.start(clock=lambda: next(ticks))
    with pair.bank.client() as client, pytest.raises(errors.PeerUnknown):
        open_run(client, peer="bakery")
    with pair.bank.store() as store:
        assert noted == [store.refusals.get(PIPELINE, "manual-1", PIPELINE)]
    assert noted[0].failure["at_ms"] == noted[0].at_ms
    assert "PEER_UNKNOWN" in pair.bank.airflow.runs[PIPELINE, "manual-1"]["note"]


@pytest.mark.usefixtures("impatient")
def test_open_run_without_a_peer_says_so(pair: Pair) -> None:
    pair.bank.start()
    grant_ticket(pair.shop, pair.bank)
    with pair.bank.client() as client, pytest.raises(errors.PeerUnreachable):
        open_run(client)


def test_gateway_on_a_taken_port_names_the_field(pair: Pair) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        file = pair.bank.folder / "party.yaml"
        listen = load_party(file).gateway.listen
        assert listen is not None
        file.write_text(file.read_text().replace(listen, f"127.0.0.1:{taken.getsockname()[1]}"))
        with pytest.raises(errors.PortInUse, match=r"gateway\.listen"):
            pair.bank.start()


def test_worker_without_the_secret_is_refused(running: Pair) -> None:
    guessing = replace(WorkerSide.of(running.bank.party), secret="guessed")
    with GatewayClient(guessing) as client, pytest.raises(errors.SecretRejected):
        client.peers()


def test_peer_with_a_certificate_of_its_own_making_is_refused(running: Pair, tmp_path: Path) -> None:
    from fedtasks import identity

    identity.create_identity(tmp_path / "mallory", "shop")
    keys = running.shop.folder / "keys"
    for name in (identity.CERTIFICATE, identity.CERTIFICATE_KEY):
        (keys / name).write_bytes((tmp_path / "mallory" / name).read_bytes())
    running.shop.stop()
    with running.bank.client() as client:
        wait_for(lambda: not client.peers().peers[0].connected)
        running.shop.start()
        with running.shop.client() as shop:
            wait_for(lambda: shop.peers().peers[0].failure.code == "PEER_UNREACHABLE")
        assert not client.peers().peers[0].connected


def test_ticket_offered_and_accepted_travels_between_the_gateways(running: Pair) -> None:
    ticket_id = grant_ticket(running.shop, running.bank, accept=False)
    with running.bank.store() as bank, running.shop.store() as shop:
        row = shop.tickets.get(ticket_id)
        assert row is not None
        shop.tickets.put(row.__class__(**{**row.__dict__, "synced": False}))
        wait_for(lambda: bank.tickets.get(ticket_id) is not None)
        held = bank.tickets.get(ticket_id)
        assert held is not None
        key = tickets.load_ticket_key(running.bank.party.gateway.ticket_key)
        acceptance = tickets.accept(held.grant, key, "bank", now_ms() // 1000)
        bank.tickets.put(held.__class__(**{**held.__dict__, "acceptance": acceptance, "synced": False}))
        wait_for(lambda: getattr(shop.tickets.get(ticket_id), "acceptance", None) == acceptance)


def test_peer_port_speaks_tls_with_client_certificates_only(running: Pair) -> None:
    listen = running.bank.party.gateway.listen
    shown = subprocess.run(
        ["openssl", "s_client", "-connect", str(listen), "-alpn", "h2"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert "TLSv1.3" in shown.stdout
    assert "Acceptable client certificate CA names" in shown.stdout or "Verification error" in shown.stdout
