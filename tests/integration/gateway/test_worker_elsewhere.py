"""A worker on another host: it trains through its party's gateway, which it knows by its certificate."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from fedtasks.config.workers import May
from fedtasks.laptop.ports import free_ports
from fedtasks.models.secureboost import training
from fedtasks.setup.workers import add_worker
from fedtasks.wire.v1 import run_pb2
from tests.integration.secureboost_case import SETTINGS, model_file, write_party
from tests.support.gateways import PIPELINE, ROOT, gateway_process, grant_ticket, make_members, set_address
from tests.support.namespaces import HERE, OtherHost, other_host
from tests.support.played_halves import ROLE, PlayedHalf
from tests.support.runs import open_run, wait_for, wait_for_state

STEPS = [run_pb2.Step(name="train", digest="a")]


@dataclass
class HalfElsewhere(PlayedHalf):
    """A half whose process runs on another host."""

    host: OtherHost = field(kw_only=True)

    def _work(self, file: Path) -> None:
        entry = f"{training.__name__}:{training.train.__name__}"
        command = self.host.command(sys.executable, "-m", "fedtasks.runtime", entry, str(file))
        subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": str(ROOT)})


@pytest.mark.slow
def test_worker_on_another_host_trains_over_tls_as_itself(tmp_path: Path) -> None:
    with ExitStack() as stack:
        host = stack.enter_context(other_host())
        bank, shop, listen = make_members(tmp_path / "members")
        set_address(shop, listen)
        workers, tunnels = (f"{HERE}:{port}" for port in free_ports(2))
        for member in (bank, shop):
            stack.callback(member.airflow.close)
            file = member.folder / "party.yaml"
            place = f"storage: file://{tmp_path}/{ROLE[member.name]}"
            file.write_text(file.read_text().replace("storage: storage", place))
        file = bank.folder / "party.yaml"
        places = f"gateway:\n  workers: {workers}\n  worker_tunnels: {tunnels}\n"
        file.write_text(file.read_text().replace("gateway:\n", places))
        add_worker(file, "pod", May.WORK, bank.folder / "pod.secret")
        there = bank.folder / "party-there.yaml"
        there.write_text(file.read_text().replace("keys/worker.secret", "pod.secret"))
        grant_ticket(shop, bank)
        for member in (bank, shop):
            stack.enter_context(gateway_process(member))
        clients = {member.name: stack.enter_context(member.client()) for member in (bank, shop)}
        bank.airflow.runs[PIPELINE, "manual-1"] = {"state": "running"}
        run_id = open_run(clients["bank"], steps=STEPS).run.run_id
        wait_for(lambda: (PIPELINE, run_id) in shop.airflow.runs)
        open_run(clients["shop"], run_id, config_json="", peer="", partition="", steps=STEPS)
        for role in ROLE.values():
            write_party(tmp_path, role, run_id=run_id)

        work = tmp_path / "work"
        settings = replace(SETTINGS, trees=2)
        far = HalfElsewhere(there, "bank", clients["bank"], run_id, "train", work / "far", settings, host=host)
        near_file = shop.folder / "party.yaml"
        near = PlayedHalf(near_file, "shop", clients["shop"], run_id, "train", work / "near", settings)
        with ThreadPoolExecutor(2) as sides:
            for done in [sides.submit(each.play) for each in (far, near)]:
                done.result()
        assert far.attempts == near.attempts == {1: True}
        for client in clients.values():
            client.close_run(run_id)
        for client in clients.values():
            wait_for_state(client, run_id, run_pb2.STATE_SUCCEEDED)
        for role in ROLE.values():
            assert model_file(tmp_path, role, run_id).exists()
