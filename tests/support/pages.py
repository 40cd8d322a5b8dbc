"""The pages of a bank in Airflow's application, as people of three roles see them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from fedtasks.clock import now_ms
from fedtasks.store import HalfRow, MetricRow, RunRow
from tests.support.airflow_application import sign_in
from tests.support.gateways import PIPELINE, Pair, grant_ticket, make_members, set_address
from tests.support.proxy import Proxy

DAG_RUN = "manual-1"


class House:
    """The bank: its pages as people of three roles see them, and both parties' gateways behind them."""

    def __init__(self, client: Any, pair: Pair, run_id: str, ticket_id: str) -> None:
        self.client = client
        self.pair = pair
        self.run_id = run_id
        self.ticket_id = ticket_id
        self._signed_in: dict[str, dict[str, str]] = {}

    def headers(self, user: str) -> dict[str, str]:
        """Sign a user in."""
        if not user:
            return {}
        if user not in self._signed_in:
            self._signed_in[user] = sign_in(self.client, user)
        return self._signed_in[user]

    def get(self, path: str, user: str = "ada", **params: Any) -> Any:
        self.client.cookies.clear()
        return self.client.get(f"/fedtasks/{path}", params=params, headers=self.headers(user))

    def post(self, path: str, body: Any, user: str = "ada", **headers: str) -> Any:
        self.client.cookies.clear()
        sent = {**self.headers(user), "X-Fedtasks": "1", **headers}
        return self.client.post(f"/fedtasks/{path}", json=body, headers=sent)


def make_run(number: int = 1, **changes: Any) -> RunRow:
    """Return a run of the bank's, which leads."""
    steps = [{"name": name, "digest": ""} for name in ("psi", "align", "train", "evaluate")]
    values: dict[str, Any] = {
        "run_id": f"{PIPELINE}.2026-11-21.{number}",
        "pipeline": PIPELINE,
        "partition": "2026-11-21",
        "number": number,
        "peer": "shop",
        "initiated": True,
        "ticket_id": "t-1",
        "config_digest": "",
        "config_json": json.dumps({"leader": "bank", "datasets": {}, "steps": {"train": {"epochs": 3}}}),
        "steps_json": json.dumps(steps),
        "dag_id": PIPELINE,
        "dag_run_id": f"manual-{number}",
        "opened_ms": now_ms(),
    }
    return RunRow(**(values | changes))


@contextmanager
def open_house(app: Any, folder: Path) -> Iterator[House]:
    """Start both parties' gateways in `folder`, with one run that the bank is in the midst of."""
    from airflow import plugins_manager
    from starlette.testclient import TestClient

    shutil.rmtree(folder, ignore_errors=True)  # a party's pages find it where it was before, changed
    bank, shop, listen = make_members(folder)
    proxy = Proxy(listen)
    set_address(shop, proxy.address)
    bank.start()
    shop.start()
    os.environ["FEDTASKS_PARTY"] = str(bank.folder / "party.yaml")
    ticket_id = grant_ticket(shop, bank)
    for member in (bank, shop):
        member.airflow.runs[PIPELINE, DAG_RUN] = {"state": "running"}
    with bank.store() as store:
        run = make_run(ticket_id=ticket_id)
        with shop.store() as theirs:  # first, as in truth: what it does not know when it is told of it is lost to it
            theirs.runs.add(replace(run, peer="bank", initiated=False))
        store.runs.add(run)
        now = now_ms()
        store.halves.put(
            HalfRow(run.run_id, "train", True, 1, "running", "t", now, 0, announced_ms=now, started_ms=now)
        )
        store.metrics.put([MetricRow(run.run_id, "train", "loss", step, 1 / step, now + step) for step in (1, 2, 3)])
    (ours,) = [app for app in plugins_manager.get_fastapi_plugins()[0] if app["name"] == "fedtasks"]
    assert ours["url_prefix"] == "/fedtasks"
    try:
        yield House(TestClient(app), Pair(bank, shop, proxy), run.run_id, ticket_id)
    finally:
        os.environ.pop("FEDTASKS_PARTY")
        shop.close()
        bank.close()
        proxy.close()
