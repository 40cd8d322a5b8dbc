"""A gateway as a monitoring sees it: alive, ready, and why each run waits."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import time

import pytest

from fedtasks.errors import PortInUse, StoreUnavailable
from fedtasks.gateway.observed import endpoint, pulse
from fedtasks.reports.figures import run_figures
from fedtasks.store.identity import IdentityBook
from tests.support.gateways import PIPELINE, Pair, gateway_process, grant_ticket
from tests.support.runs import open_run, wait_for
from tests.support.seen import Seen, let_be_seen

PLACE = {"pipeline": PIPELINE, "peer": "shop", "task": "psi"}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing that was found out count for longer than a moment."""
    for name in ("READY_S", "RUNS_S", "SLOW_S", "RENDERED_S"):
        monkeypatch.setattr(endpoint, name, 0.05)
    monkeypatch.setattr(pulse, "BEAT_S", 0.05)


@pytest.fixture
def seen(pair: Pair, quick: None) -> Seen:
    """The bank's gateway, beside the shop's."""
    found = let_be_seen(pair.bank.folder / "party.yaml")
    pair.bank.start()
    pair.shop.start()
    return found


def test_metrics_tell_why_each_run_waits_and_of_ticket_peer_and_certificates(pair: Pair, seen: Seen) -> None:
    ticket = grant_ticket(pair.shop, pair.bank, limits={"runs": 10})
    with pair.bank.client() as bank:
        run_id = open_run(bank).run.run_id
        pair.bank.airflow.runs[PIPELINE, "manual-1"] = {"state": "running"}
        bank.announce(run_id, "psi", "1", 60)
        wait_for(lambda: seen.causes() == [{**PLACE, "cause": "HALF_NOT_BEGUN"}])
        assert seen.value("fedtasks_runs", state="waiting") == 1
        left = {"ticket": ticket, "peer": "shop", "side": "held", "clause": "limits.runs"}
        assert seen.value("fedtasks_ticket_uses_left", **left) == 9
        assert seen.value("fedtasks_peer_connected", peer="shop") == 1
        assert seen.value("fedtasks_certificate_expiry_timestamp_seconds", party="bank") > time.time()
        pair.shop.stop()
        wait_for(lambda: seen.causes() == [{**PLACE, "cause": "PEER_UNREACHABLE"}], 30)
        assert seen.value("fedtasks_peer_connected", peer="shop") == 0
        bank.cancel_run(run_id, "no more")
        wait_for(lambda: seen.value("fedtasks_runs_ended_last_day", state="failed", code="RUN_CANCELLED") == 1)
        assert seen.causes() == []


def test_store_that_does_not_answer_makes_it_unready_not_dead(
    pair: Pair, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert seen.get("/readyz") == (200, "ok\n")

    def away(_: IdentityBook) -> str:
        raise StoreUnavailable("it is away")

    with monkeypatch.context() as patch:
        patch.setattr(IdentityBook, "get", away)
        wait_for(lambda: seen.get("/readyz") == (503, "the store does not answer\n"))
        assert seen.get("/healthz") == (200, "ok\n")
        wait_for(lambda: seen.value("fedtasks_store_up") == 0)
        assert seen.value("fedtasks_store_answer_seconds") is None
    wait_for(lambda: seen.get("/readyz")[0] == 200)


def test_loop_that_does_not_turn_is_told_from_outside_of_it(
    pair: Pair, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulse, "STUCK_S", 0.5)
    assert pair.bank.gateway is not None
    pair.bank.gateway._loop.call_soon_threadsafe(time.sleep, 2.0)
    wait_for(lambda: seen.get("/healthz") == (503, "the event loop does not turn\n"))
    assert seen.get("/readyz")[0] == 503
    wait_for(lambda: seen.get("/healthz")[0] == 200)
    assert seen.value("fedtasks_loop_lag_seconds") is not None


def test_who_asks_often_slowly_or_wrongly_keeps_nobody_waiting(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[object] = []

    def read(*args: object) -> object:
        reads.append(args)
        return run_figures(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(endpoint, "run_figures", read)
    seen = let_be_seen(pair.bank.folder / "party.yaml")
    pair.bank.start()
    host, port = seen.address.split(":")
    with contextlib.ExitStack() as stack:
        for _ in range(endpoint.MAX_CONNECTIONS - 1):
            stack.enter_context(socket.create_connection((host, int(port)))).sendall(b"GET /metr")
        assert seen.get("/healthz")[0] == 200
        begun_s = time.monotonic()
        for _ in range(50):
            seen.samples()
        assert len(reads) <= 2 + (time.monotonic() - begun_s) / endpoint.RUNS_S
    assert seen.get("/metrics", "POST")[0] == 405
    assert seen.get("/", "GET")[0] == 404
    with socket.create_connection((host, int(port))) as rude:
        rude.sendall(b"x" * 20_000)
        rude.settimeout(10)
        with contextlib.suppress(ConnectionError):
            assert rude.recv(100) == b""


def test_nothing_is_seen_unless_party_yaml_says_where(pair: Pair) -> None:
    pair.bank.start()
    assert pair.bank.party.gateway.observed is None
    seen = let_be_seen(pair.shop.folder / "party.yaml")
    host, port = seen.address.split(":")
    with socket.create_server((host, int(port))), pytest.raises(PortInUse, match=re.escape(seen.address)):
        pair.shop.start()


def test_gateway_logs_one_object_for_each_record_where_party_yaml_says_so(pair: Pair) -> None:
    file = pair.bank.folder / "party.yaml"
    file.write_text(f"{file.read_text()}logs: {{format: json}}\n")
    with gateway_process(pair.bank):
        pass
    lines = [json.loads(line) for line in (pair.bank.folder / "gateway.log").read_text().splitlines()]
    assert {line["party"] for line in lines} == {"bank"}
    assert any("serves its workers" in line["message"] for line in lines)
