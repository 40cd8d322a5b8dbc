"""A run under way: halves meet, sessions survive cuts and restarts, an end on one side ends the other."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest

from fedtasks import errors, tickets
from fedtasks.clock import now_ms
from fedtasks.gateway import reconciler
from fedtasks.identity import renew_certificate
from fedtasks.laptop.ports import free_ports
from fedtasks.link import session
from fedtasks.link.client import GatewayClient
from fedtasks.link.grpc_link import GrpcLink
from fedtasks.reports.tickets import ticket_reports
from fedtasks.wire.v1 import run_pb2
from tests.support.gateways import PIPELINE, Member, Pair, grant_ticket
from tests.support.runs import meet, open_run, wait_for, wait_for_state

TASK = "train"

Taken = Callable[[], bool]


@pytest.fixture(params=["grpc", "tunnel"])
def is_taken(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> Iterator[Taken]:
    """Let sessions stay on gRPC, or go on in tunnels at once; says whether both halves have taken that path."""
    is_tunnelled = request.param == "tunnel"
    monkeypatch.setattr(session, "BUSY_BYTES", 0 if is_tunnelled else 1 << 60)
    with caplog.at_level("INFO", logger="fedtasks.link.session"):
        yield lambda: caplog.text.count("goes through a tunnel") >= 2 if is_tunnelled else "tunnel" not in caplog.text


@pytest.fixture
def opened(running: Pair) -> tuple[Pair, str]:
    return running, open_on_both(running)


def open_on_both(running: Pair) -> str:
    """Open a run under a ticket, and take it up on the other side."""
    grant_ticket(running.shop, running.bank)
    with running.bank.client() as bank, running.shop.client() as shop:
        run_id = open_run(bank).run.run_id
        running.bank.airflow.runs[PIPELINE, "manual-1"] = {"state": "running"}
        open_run(shop, run_id, config_json="", peer="", partition="")
    return run_id


def finish(clients: list[GatewayClient], run_id: str, attempt: int, task: str = TASK) -> None:
    """End both halves alike."""
    for client in clients:
        client.finish(run_id, task, attempt, outcome={"counts": {"rows": 3}, "digests": {}})


def succeed(clients: list[GatewayClient], run_id: str, attempt: int) -> None:
    """End both halves alike and close the run on both sides."""
    finish(clients, run_id, attempt)
    for client in clients:
        client.close_run(run_id)
    for client in clients:
        wait_for_state(client, run_id, run_pb2.STATE_SUCCEEDED)


def link(member: Member, peer: str, run_id: str, attempt: int, **options: float) -> GrpcLink:
    client = member.client()
    return GrpcLink(client, peer=peer, run_id=run_id, task=TASK, shard=0, attempt=attempt, facts={}, **options)


def both(first: Callable[[], object], second: Callable[[], object]) -> list[object]:
    with ThreadPoolExecutor(2) as pool:
        return [future.result(timeout=120) for future in (pool.submit(first), pool.submit(second))]


def exchange(opened: tuple[Pair, str], disturb: Callable[[Pair], None], rounds: int = 200) -> None:
    """Send `rounds` arrays both ways while `disturb` runs; every one must arrive once, in order."""
    pair, run_id = opened
    with pair.bank.client() as bank, pair.shop.client() as shop:
        attempt = meet([bank, shop], run_id)
    half_way = threading.Event()

    def half(member: Member, peer: str, scale: float) -> None:
        with link(member, peer, run_id, attempt) as conversation:
            for number in range(rounds):
                conversation.send("array", np.full(50_000, number * scale))
                got = conversation.receive("array", timeout_s=90)
                assert isinstance(got, np.ndarray)
                assert got[0] == got[-1] == number * (3.0 - scale)
                if number == rounds // 2:
                    half_way.set()
                    disturbed.wait(60)

    disturbed = threading.Event()

    def disturbance() -> None:
        assert half_way.wait(60)
        disturb(pair)
        disturbed.set()

    thread = threading.Thread(target=disturbance)
    thread.start()
    both(lambda: half(pair.bank, "shop", 1.0), lambda: half(pair.shop, "bank", 2.0))
    thread.join()
    with pair.bank.client() as bank:
        answer = bank.get_run(run_id=run_id)
        assert answer.bytes_sent >= rounds * 400_000
        assert answer.bytes_received >= rounds * 400_000
        assert answer.run.state == run_pb2.STATE_RUNNING


def test_session_undisturbed_delivers_everything(opened: tuple[Pair, str], is_taken: Taken) -> None:
    exchange(opened, lambda pair: None)
    assert is_taken()


def test_session_resumes_after_a_cut(opened: tuple[Pair, str], is_taken: Taken) -> None:
    def cut(pair: Pair) -> None:
        pair.proxy.cut()
        threading.Event().wait(3.0)
        pair.proxy.mend()

    exchange(opened, cut)
    assert is_taken()


@pytest.mark.parametrize("is_taken", ["tunnel"], indirect=True)
def test_workers_at_a_port_go_on_in_tunnels_too(pair: Pair, is_taken: Taken) -> None:
    for member in (pair.bank, pair.shop):
        file = member.folder / "party.yaml"
        address = f"127.0.0.1:{free_ports(1)[0]}"
        file.write_text(file.read_text().replace("gateway:\n", f"gateway:\n  workers: {address}\n"))
        member.start()
    exchange((pair, open_on_both(pair)), lambda pair: None)
    assert is_taken()


@pytest.mark.parametrize("which", ["bank", "shop"])
def test_session_resumes_after_a_gateway_restart(opened: tuple[Pair, str], is_taken: Taken, which: str) -> None:
    def restart(pair: Pair) -> None:
        member: Member = getattr(pair, which)
        member.stop()
        member.start()

    exchange(opened, restart)
    assert is_taken()


def test_session_resumes_after_both_gateways_restart_with_new_certificates(
    opened: tuple[Pair, str], is_taken: Taken
) -> None:
    def renew(pair: Pair) -> None:
        for member in (pair.bank, pair.shop):
            before = member.party.gateway.certificate.read_bytes()
            renew_certificate(member.folder / "keys", member.name)
            assert member.party.gateway.certificate.read_bytes() != before
            member.stop()
            member.start()

    exchange(opened, renew)
    assert is_taken()
    pair, run_id = opened
    with pair.bank.client() as bank, pair.shop.client() as shop:
        succeed([bank, shop], run_id, 1)


def test_worker_secret_that_is_changed_as_the_page_says_ends_nothing(running: Pair) -> None:
    def run_to_its_end(dag_run_id: str, partition: str) -> None:
        with running.bank.client() as bank, running.shop.client() as shop:
            run_id = open_run(bank, dag_run_id, partition=partition).run.run_id
            running.bank.airflow.runs[PIPELINE, dag_run_id] = {"state": "running"}
            open_run(shop, run_id, config_json="", peer="", partition="")
            succeed([bank, shop], run_id, meet([bank, shop], run_id))

    grant_ticket(running.shop, running.bank)
    with running.shop.client() as of_before:
        run_to_its_end("before", "2026-11-20")
        running.shop.stop()
        running.shop.party.gateway.worker_secret_file.write_text("another secret")
        running.shop.start()
        run_to_its_end("after", "2026-11-21")
        with pytest.raises(errors.SecretRejected):
            of_before.peers()


def test_half_that_attaches_again_ends_the_one_before(opened: tuple[Pair, str], is_taken: Taken) -> None:
    pair, run_id = opened
    with pair.bank.client() as bank, pair.shop.client() as shop:
        attempt = meet([bank, shop], run_id)
    older, other = both(
        lambda: link(pair.bank, "shop", run_id, attempt), lambda: link(pair.shop, "bank", run_id, attempt)
    )
    assert isinstance(older, GrpcLink)
    assert isinstance(other, GrpcLink)
    wait_for(is_taken)
    with ThreadPoolExecutor(2) as pool:
        waiting = pool.submit(older.receive, "never", timeout_s=60)
        newer = pool.submit(link, pair.bank, "shop", run_id, attempt, connect_timeout_s=20)
        with pytest.raises(errors.AttemptStale, match="attached again"):
            waiting.result(timeout=30)
        with pytest.raises(errors.PeerRestarted):
            other.receive("never", timeout_s=60)
        other.abort()
        older.abort()
        newer.result(timeout=30).abort()


def test_run_cancelled_on_one_side_ends_the_other_with_the_reason(opened: tuple[Pair, str], is_taken: Taken) -> None:
    pair, run_id = opened
    with pair.bank.client() as bank, pair.shop.client() as shop:
        attempt = meet([bank, shop], run_id)

        def wait_in_vain() -> None:
            with link(pair.bank, "shop", run_id, attempt) as conversation:
                conversation.receive("never", timeout_s=60)

        def idle() -> None:
            with link(pair.shop, "bank", run_id, attempt) as conversation:
                conversation.receive("never", timeout_s=60)

        with ThreadPoolExecutor(2) as pool:
            waiting, idling = pool.submit(wait_in_vain), pool.submit(idle)
            wait_for(lambda: bank.get_run(run_id=run_id).own[0].state == run_pb2.STATE_RUNNING and is_taken())
            shop.cancel_run(run_id, "wrong day")
            with pytest.raises(errors.PeerCancelled, match="wrong day"):
                waiting.result(timeout=30)
            with pytest.raises(errors.RunCancelled):
                idling.result(timeout=30)
        run = wait_for_state(bank, run_id, run_pb2.STATE_FAILED)
        assert (run.failure.code, run.failure.party) == ("PEER_CANCELLED", "shop")


def test_dag_run_marked_failed_ends_both_sides(opened: tuple[Pair, str]) -> None:
    pair, run_id = opened
    with pair.bank.client() as bank, pair.shop.client() as shop:
        meet([bank, shop], run_id)
        # The note is changed by the gateway's own user; who has changed the state is another.
        told = {"run_id": "manual-1", "event": "patch_dag_run"}
        by_gateway = {**told, "owner": "admin", "extra": '{"note": "x"}'}
        pair.bank.airflow.event_logs = [by_gateway, {**told, "owner": "eve", "extra": '{"state": "failed"}'}]
        pair.bank.airflow.runs[PIPELINE, "manual-1"]["state"] = "failed"
        run = wait_for_state(shop, run_id, run_pb2.STATE_FAILED)
        assert (run.failure.code, run.failure.party) == ("PEER_CANCELLED", "bank")
        wait_for(lambda: "PEER_CANCELLED" in _note(pair.shop, run_id))
        what = "the DAG run was marked failed in bank's Airflow"
        assert what in _note(pair.shop, run_id)
        assert "eve" not in f"{run.failure} {_note(pair.shop, run_id)}"
        wait_for(lambda: f"{what}\\) · by eve in bank's Airflow" in _note(pair.bank, "manual-1"))
        # Nobody on the shop's side reacts, so its gateway fails its DAG run.
        wait_for(lambda: pair.shop.airflow.runs[PIPELINE, run_id]["state"] == "failed", 30)


def test_run_that_has_ended_cannot_be_cancelled_and_says_so(opened: tuple[Pair, str]) -> None:
    pair, run_id = opened
    with pair.bank.client() as bank:
        attempt = bank.announce(run_id, "psi", "1", 600).own.attempt
        bank.finish(run_id, "psi", attempt, failure=errors.ColumnMissing("Age"), final=True)
        with pytest.raises(errors.RunEnded, match="nothing was cancelled: the run has failed at"):
            bank.cancel_run(run_id, "wrong day")


def test_run_that_was_cancelled_may_be_cancelled_again(opened: tuple[Pair, str]) -> None:
    pair, run_id = opened
    with pair.bank.client() as bank:
        first = bank.cancel_run(run_id, "wrong day")
        assert bank.cancel_run(run_id, "another") == first


def test_dag_run_marked_as_done_before_the_run_is_ends_both_sides(
    opened: tuple[Pair, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciler, "GRACE_MS", 1_000)
    pair, run_id = opened
    with pair.bank.client() as bank, pair.shop.client() as shop:
        meet([bank, shop], run_id)
        pair.bank.airflow.runs[PIPELINE, "manual-1"]["state"] = "success"
        run = wait_for_state(shop, run_id, run_pb2.STATE_FAILED)
        assert (run.failure.code, run.failure.party) == ("PEER_CANCELLED", "bank")


def test_ticket_revoked_in_mid_run_ends_both_sides(opened: tuple[Pair, str]) -> None:
    pair, run_id = opened
    with pair.bank.client() as bank, pair.shop.client() as shop, pair.shop.store() as store:
        meet([bank, shop], run_id)
        row = store.tickets.list()[0]
        key = tickets.load_ticket_key(pair.shop.party.gateway.ticket_key)
        revocation = tickets.revoke(row.ticket_id, key, now_ms() // 1000, "a test")
        store.tickets.put(row.__class__(**{**row.__dict__, "revocation": revocation, "synced": False}))
        for client in (bank, shop):
            assert wait_for_state(client, run_id, run_pb2.STATE_FAILED).failure.code == "TICKET_REVOKED"
    wait_for(lambda: "reason=a test" in _note(pair.bank, "manual-1"))
    with pair.bank.store() as store:
        assert [each["because"] for each in ticket_reports(store, "bank", now_ms())["held"]] == ["a test"]
        wait_for(lambda: store.tickets.list()[0].revocation == revocation)


def test_final_failure_of_a_task_is_the_peers_reason(opened: tuple[Pair, str]) -> None:
    pair, run_id = opened
    with pair.bank.client() as bank, pair.shop.client() as shop:
        attempt = meet([bank, shop], run_id)
        shop.finish(run_id, TASK, attempt, failure=errors.ColumnMissing("file.parquet lacks `Age`"), final=True)
        run = wait_for_state(bank, run_id, run_pb2.STATE_FAILED)
        assert (run.failure.code, run.failure.task) == ("PEER_FAILED", TASK)
        assert "DATA_COLUMN_MISSING" in run.failure.text
        assert "Age" not in run.failure.text


def test_half_waits_with_a_sentence_and_a_deadline(opened: tuple[Pair, str]) -> None:
    pair, run_id = opened
    with pair.bank.client() as bank:
        bank.announce(run_id, "psi", "1", 600)
        wait_for(lambda: "Waiting for shop · psi" in _note(pair.bank, "manual-1"))
        note = _note(pair.bank, "manual-1")
        assert "since" in note
        assert "gives up" in note
        assert run_id in note


def test_retry_of_one_half_meets_the_other_as_a_new_attempt(opened: tuple[Pair, str]) -> None:
    pair, run_id = opened
    with pair.bank.client() as bank, pair.shop.client() as shop:
        assert meet([bank, shop], run_id) == 1
        bank.finish(run_id, TASK, 1, failure=errors.LinkLost(), final=False)
        wait_for(lambda: shop.get_run(run_id=run_id).peer[0].state == run_pb2.STATE_FAILED)
        shop.finish(run_id, TASK, 1, failure=errors.PeerRestarted(), final=False)
        assert meet([bank, shop], run_id, token="2") == 2
        with pytest.raises(errors.AttemptStale):
            bank.start(run_id, TASK, 1)


def has_come_or_ended(client: GatewayClient, run_id: str, attempt: int) -> bool:
    """Whether the peer's half is at an attempt, or the run has ended."""
    found = client.get_run(run_id=run_id)
    return found.run.state != run_pb2.STATE_RUNNING or any(half.attempt == attempt for half in found.peer)


@pytest.mark.parametrize("renewed", [True, False])
def test_outages_of_a_training_that_goes_on_from_what_it_has_kept_end_no_run(
    opened: tuple[Pair, str], renewed: bool
) -> None:
    pair, run_id = opened
    with pair.bank.client() as bank, pair.shop.client() as shop:
        for attempt in range(1, 6):
            # Whoever comes first has the other one repeated, as far as that one can tell.
            first, second = (bank, shop) if attempt % 2 else (shop, bank)
            first.announce(run_id, TASK, f"try.{attempt}", 60, renewed=renewed and attempt > 1)
            wait_for(partial(has_come_or_ended, second, run_id, attempt))
            if second.get_run(run_id=run_id).run.state != run_pb2.STATE_RUNNING:
                break
            second.announce(run_id, TASK, f"try.{attempt}", 60, renewed=renewed and attempt > 1)
            assert meet([bank, shop], run_id, token=f"try.{attempt}") == attempt
            for client in (bank, shop):
                client.finish(run_id, TASK, attempt, failure=errors.LinkLost(), final=False)
        for client in (bank, shop):
            run = wait_for_state(client, run_id, run_pb2.STATE_RUNNING if renewed else run_pb2.STATE_FAILED)
            assert run.failure.code == ("" if renewed else "ATTEMPTS_EXHAUSTED")


def test_task_repeated_on_one_side_is_cleared_on_the_other(opened: tuple[Pair, str]) -> None:
    pair, run_id = opened
    with pair.bank.client() as bank, pair.shop.client() as shop:
        attempt = meet([bank, shop], run_id)
        finish([bank, shop], run_id, attempt)
        bank.announce(run_id, TASK, "again", 60)
        wait_for(lambda: pair.shop.airflow.cleared == [(run_id, TASK)])


def test_task_that_is_to_run_again_by_itself_is_not_cleared(opened: tuple[Pair, str]) -> None:
    pair, run_id = opened
    pair.shop.airflow.tasks[TASK] = None  # cleared with one that comes before it
    with pair.bank.client() as bank, pair.shop.client() as shop:
        attempt = meet([bank, shop], run_id)
        finish([bank, shop], run_id, attempt)
        bank.announce(run_id, TASK, "again", 60)
        wait_for(lambda: shop.get_run(run_id=run_id).peer[0].attempt == 2)
        time.sleep(2 * reconciler.PASS_S)  # so that it could, not a wait for something
        assert pair.shop.airflow.cleared == []
        assert meet([bank, shop], run_id, token="again") == 2


def test_shard_repeated_on_one_side_is_cleared_alone_on_the_other(opened: tuple[Pair, str]) -> None:
    pair, run_id = opened
    with pair.bank.client() as bank, pair.shop.client() as shop:
        for shard in range(2):
            attempt = meet([bank, shop], run_id, f"psi.send[{shard}]")
            finish([bank, shop], run_id, attempt, f"psi.send[{shard}]")
        bank.announce(run_id, "psi.send[1]", "again", 60)
        wait_for(lambda: pair.shop.airflow.cleared == [(run_id, ["psi.send", 1])])


def fail_for_good(pair: Pair, run_id: str, bank: GatewayClient, shop: GatewayClient) -> None:
    """Let the shop's half fail, and both DAG runs end as Airflow would end them."""
    attempt = meet([bank, shop], run_id)
    shop.finish(run_id, TASK, attempt, failure=errors.IdNull("3 rows"), final=True)
    wait_for_state(bank, run_id, run_pb2.STATE_FAILED)
    with pytest.raises(errors.PeerFailed):
        bank.announce(run_id, TASK, "a try of Airflow's own", 60)
    for member, dag_run_id in ((pair.bank, "manual-1"), (pair.shop, run_id)):
        member.airflow.runs[PIPELINE, dag_run_id]["state"] = "failed"


def clear(member: Member, client: GatewayClient, run_id: str, dag_run_id: str) -> None:
    """Clear the task as a person would in Airflow, once the gateway has seen the DAG run's end."""
    wait_for(lambda: (dag_run_id, "failed") in member.airflow.seen)
    member.airflow.runs[PIPELINE, dag_run_id]["state"] = "running"

    def announced() -> bool:
        try:
            client.announce(run_id, TASK, "cleared", 60)
        except errors.PeerFailed:  # seen, but not noted yet
            return False
        return True

    wait_for(announced)


def test_task_cleared_in_a_failed_run_goes_on_on_both_sides(opened: tuple[Pair, str]) -> None:
    pair, run_id = opened
    with pair.bank.client() as bank, pair.shop.client() as shop:
        fail_for_good(pair, run_id, bank, shop)
        with pair.bank.store() as store:
            wait_for(lambda: store.runs.get(run_id).at_rest)  # type: ignore[union-attr]
        pair.bank.stop()
        pair.bank.airflow.runs[PIPELINE, "manual-1"]["state"] = "running"  # somebody clears it while nobody looks
        pair.bank.start()
        clear(pair.bank, bank, run_id, "manual-1")
        wait_for(lambda: pair.shop.airflow.cleared == [(run_id, TASK)])
        attempt = meet([bank, shop], run_id, token="cleared")
        assert attempt == 2
        succeed([bank, shop], run_id, attempt)
        with pair.shop.store() as store:
            assert store.uses.total(store.tickets.list()[0].ticket_id) == {"runs": 2}  # one more for going on


def test_task_cleared_without_a_run_left_stays_refused_and_the_holder_reads_the_clause(running: Pair) -> None:
    grant_ticket(running.shop, running.bank, limits={"runs": 1})
    with running.bank.client() as bank, running.shop.client() as shop:
        run_id = open_run(bank).run.run_id
        running.bank.airflow.runs[PIPELINE, "manual-1"] = {"state": "running"}
        open_run(shop, run_id, config_json="", peer="", partition="")
        attempt = meet([bank, shop], run_id)
        succeed([bank, shop], run_id, attempt)
        bank.announce(run_id, TASK, "cleared", 60)
        run = wait_for_state(bank, run_id, run_pb2.STATE_FAILED)
        assert (run.failure.code, run.failure.party) == ("TICKET_EXHAUSTED", "shop")
        assert "clause=limits.runs" in run.failure.text
        assert shop.get_run(run_id=run_id).run.state == run_pb2.STATE_SUCCEEDED
        assert running.shop.airflow.cleared == []


def test_run_whose_files_one_side_has_removed_is_told_so_wherever_it_is_cleared(opened: tuple[Pair, str]) -> None:
    pair, run_id = opened
    with pair.bank.client() as bank, pair.shop.client() as shop:
        succeed([bank, shop], run_id, meet([bank, shop], run_id))
        with pair.shop.store() as store:
            assert store.runs.mark_removed(run_id)
        with pytest.raises(errors.RunRemoved):
            shop.announce(run_id, TASK, "cleared", 60)
        bank.announce(run_id, TASK, "cleared", 60)
        run = wait_for_state(bank, run_id, run_pb2.STATE_FAILED)
        assert (run.failure.code, run.failure.party) == ("RUN_REMOVED", "shop")
        assert shop.get_run(run_id=run_id).run.state == run_pb2.STATE_SUCCEEDED
        assert pair.shop.airflow.cleared == []


def test_task_cleared_by_the_holder_waits_for_the_person_whom_the_ticket_asks_for(running: Pair) -> None:
    grant_ticket(running.shop, running.bank, approval="person")
    airflow = running.shop.airflow
    with running.bank.client() as bank, running.shop.client() as shop:
        run_id = open_run(bank).run.run_id
        running.bank.airflow.runs[PIPELINE, "manual-1"] = {"state": "running"}
        open_run(shop, run_id, config_json="", peer="", partition="")

        def approve(token: str) -> None:
            attempt = shop.announce(run_id, "approve", token, 60).own.attempt
            shop.decide_approval(run_id, approved=True, decided_by="eve", reason="")
            shop.finish(run_id, "approve", attempt)

        bank.announce(run_id, "approve", "b", 60)
        approve("s1")
        wait_for(lambda: bank.announce(run_id, "approve", "b", 60).ready)
        bank.finish(run_id, "approve", 1)
        attempt = meet([bank, shop], run_id)
        succeed([bank, shop], run_id, attempt)

        bank.announce(run_id, TASK, "cleared", 60)
        wait_for(lambda: airflow.cleared == [(run_id, "approve")])
        assert shop.get_run(run_id=run_id).run.approval.state == "asked"
        with pytest.raises(errors.ApprovalPending):
            shop.announce(run_id, TASK, "cleared", 60)
        approve("s2")
        wait_for(lambda: airflow.cleared == [(run_id, "approve"), (run_id, TASK)])
        assert meet([bank, shop], run_id, token="cleared") == 2
        assert running.bank.airflow.cleared == []


def test_ticket_that_expires_in_mid_run_ends_both_sides_and_their_sessions(pair: Pair, is_taken: Taken) -> None:
    ahead_ms = 0

    def clock() -> int:
        return now_ms() + ahead_ms

    for member in (pair.bank, pair.shop):
        member.start(clock)
    grant_ticket(pair.shop, pair.bank, expires_s=now_ms() // 1000 + 3600)
    with pair.bank.client() as bank, pair.shop.client() as shop:
        run_id = open_run(bank).run.run_id
        pair.bank.airflow.runs[PIPELINE, "manual-1"] = {"state": "running"}
        open_run(shop, run_id, config_json="", peer="", partition="")
        attempt = meet([bank, shop], run_id)

        def wait_in_vain(member: Member, peer: str) -> None:
            with link(member, peer, run_id, attempt) as conversation:
                conversation.receive("never", timeout_s=60)

        with ThreadPoolExecutor(2) as pool:
            halves = [pool.submit(wait_in_vain, *half) for half in ((pair.bank, "shop"), (pair.shop, "bank"))]
            wait_for(lambda: bank.get_run(run_id=run_id).bytes_sent > 0 and is_taken())  # they have met
            ahead_ms = 3_600_000
            for half in halves:
                with pytest.raises(errors.TicketExpired):
                    half.result(timeout=30)
        for client in (bank, shop):
            assert wait_for_state(client, run_id, run_pb2.STATE_FAILED).failure.code == "TICKET_EXPIRED"


def test_task_cleared_in_a_run_that_has_just_succeeded_goes_on_on_both_sides(opened: tuple[Pair, str]) -> None:
    pair, run_id = opened
    with pair.bank.client() as bank, pair.shop.client() as shop:
        attempt = meet([bank, shop], run_id)
        succeed([bank, shop], run_id, attempt)
        shop.announce(run_id, TASK, "cleared", 60)  # its DAG run still runs
        wait_for(lambda: pair.bank.airflow.cleared == [("manual-1", TASK)])
        assert meet([bank, shop], run_id, token="cleared") == 2


def test_task_cleared_after_the_ticket_was_revoked_stays_refused(opened: tuple[Pair, str]) -> None:
    pair, run_id = opened
    with pair.bank.client() as bank, pair.shop.client() as shop, pair.shop.store() as store:
        fail_for_good(pair, run_id, bank, shop)
        row = store.tickets.list()[0]
        key = tickets.load_ticket_key(pair.shop.party.gateway.ticket_key)
        revocation = tickets.revoke(row.ticket_id, key, now_ms() // 1000, "a test")
        store.tickets.put(row.__class__(**{**row.__dict__, "revocation": revocation, "synced": True}))
        clear(pair.bank, bank, run_id, "manual-1")  # the holder does not know yet
        wait_for(lambda: bank.get_run(run_id=run_id).run.failure.code == "TICKET_REVOKED")
        assert pair.shop.airflow.cleared == []


@pytest.mark.parametrize("rows", [3, 4])
def test_close_run_compares_both_receipts(opened: tuple[Pair, str], rows: int) -> None:
    pair, run_id = opened
    with pair.bank.client() as bank, pair.shop.client() as shop:
        attempt = meet([bank, shop], run_id)
        bank.finish(run_id, TASK, attempt, outcome={"counts": {"rows": 3}, "digests": {"row_order": "d"}})
        shop.finish(run_id, TASK, attempt, outcome={"counts": {"rows": rows}, "digests": {"row_order": "d"}})
        bank.close_run(run_id)
        shop.close_run(run_id)
        state = run_pb2.STATE_SUCCEEDED if rows == 3 else run_pb2.STATE_FAILED
        for client in (bank, shop):
            run = wait_for_state(client, run_id, state)
            assert run.receipt
            assert run.peer_receipt
            if rows == 4:
                assert run.failure.code == "RECEIPTS_DIFFER"
                assert "tasks.train.counts.rows" in run.failure.text
        if rows == 3:
            again = open_run(bank, "manual-9")
            assert again.run.run_id == run_id
            assert "Nothing to do" not in _note(pair.bank, "manual-1")
            wait_for(lambda: "Done with shop" in _note(pair.bank, "manual-1"))


def _note(member: Member, dag_run_id: str) -> str:
    return str(member.airflow.runs[PIPELINE, dag_run_id].get("note"))


def test_note_names_what_keeps_the_peers_half_from_beginning(
    opened: tuple[Pair, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciler, "OBSTACLE_MS", 100)
    pair, run_id = opened
    pair.shop.airflow.dags[PIPELINE] = {"is_paused": True}
    with pair.bank.client() as bank:
        bank.announce(run_id, "psi", "b", 60)
        wait_for(lambda: f"{PIPELINE} is paused in shop's Airflow" in _note(pair.bank, "manual-1"))
        assert "PEER_PAUSED" in _note(pair.bank, "manual-1")
        with pair.shop.client() as shop:
            shop.announce(run_id, "psi", "s", 60)
        wait_for(lambda: "is paused" not in _note(pair.bank, "manual-1"))


def test_note_says_what_a_half_has_remarked_to_its_own_party_alone(opened: tuple[Pair, str]) -> None:
    pair, run_id = opened
    with pair.bank.client() as bank, pair.shop.client() as shop:
        attempt = meet([bank, shop], run_id)
        bank.report(run_id, TASK, attempt, step=attempt, metrics={"remark.no_split": 4.0})
        for client in (bank, shop):
            client.finish(run_id, TASK, attempt, outcome={"counts": {"rows": 3}, "digests": {}})
        for client in (bank, shop):
            client.close_run(run_id)
        wait_for(lambda: "no split was found in 4 trees" in _note(pair.bank, "manual-1"))
        wait_for(lambda: "Done with bank" in _note(pair.shop, run_id))
        assert "⚠" not in _note(pair.shop, run_id)


def test_note_says_at_the_leader_alone_how_many_labels_the_follower_can_read(opened: tuple[Pair, str]) -> None:
    pair, run_id = opened
    leak = {"label_leak_spectral_auc": 1.0, "label_leak_auc": 1.0, "label_leak_accuracy": 1.0}
    with pair.bank.client() as bank, pair.shop.client() as shop:
        attempt = meet([bank, shop], run_id)
        bank.report(run_id, TASK, attempt, step=2, metrics=leak)
        for client in (bank, shop):
            client.finish(run_id, TASK, attempt, outcome={"counts": {"rows": 3}, "digests": {}})
        for client in (bank, shop):
            client.close_run(run_id)
        said = "shop can read 100 % of the labels of train rows from the gradients"
        wait_for(lambda: said in _note(pair.bank, "manual-1"))
        wait_for(lambda: "Done with bank" in _note(pair.shop, run_id))
        assert "can read" not in _note(pair.shop, run_id)
