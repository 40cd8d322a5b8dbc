"""A gateway that is killed between charging a run and triggering its DAG run."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from typing import Any

from fedtasks.errors import PeerUnreachable
from fedtasks.wire.v1 import worker_pb2
from tests.support.gateways import PIPELINE, Pair, gateway_process, grant_ticket
from tests.support.runs import open_run, wait_for


def test_gateway_killed_between_charge_and_trigger_triggers_after_its_restart(pair: Pair) -> None:
    ticket_id = grant_ticket(pair.shop, pair.bank)
    run_id = f"{PIPELINE}.2026-11-21.bank.1"
    airflow, triggering, goes_on = pair.shop.airflow, threading.Event(), threading.Event()
    answer = airflow.answer

    def answer_once_killed(method: str, path: str, body: Any) -> tuple[int, Any]:
        if method == "POST" and path.endswith("/dagRuns") and not goes_on.is_set():
            triggering.set()
            goes_on.wait(60)
            return 503, {}
        return answer(method, path, body)

    airflow.answer = answer_once_killed  # type: ignore[method-assign]
    pair.bank.airflow.runs[PIPELINE, "manual-1"] = {"state": "running", "note": "", "conf": {}}
    pair.bank.start()
    opened: list[worker_pb2.OpenRunResponse] = []
    with pair.bank.client() as bank:

        def ask() -> None:
            with contextlib.suppress(PeerUnreachable):  # the connection is lost: Airflow tries the task again
                opened.append(open_run(bank))

        with gateway_process(pair.shop) as process:
            wait_for(lambda: bank.peers().peers[0].connected)
            asking = threading.Thread(target=ask)
            asking.start()
            assert triggering.wait(20)
            os.kill(process, signal.SIGKILL)
        goes_on.set()
        with pair.shop.store() as store:
            run = store.runs.get(run_id)
            assert run is not None
            assert (run.state, run.triggered, store.uses.total(ticket_id)) == ("running", False, {"runs": 1})
        pair.shop.start()
        wait_for(lambda: airflow.triggered == [run_id])
        asking.join(60)
        if not opened:
            ask()
    assert opened[0].run.run_id == run_id
    with pair.shop.store() as store:
        run = store.runs.get(run_id)
        assert run is not None
        assert (run.state, run.triggered, store.uses.total(ticket_id)) == ("running", True, {"runs": 1})
    assert airflow.triggered == [run_id]
