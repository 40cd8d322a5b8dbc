"""A run between two parties whose gateways and halves are processes, as operators run them; only Airflow is played."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fedtasks.airflow.execution import read_outcome, run_process, write_private
from fedtasks.airflow.meetings import obstacle, watch
from fedtasks.airflow.starting import spawn
from fedtasks.crypto.scheme import generate_key
from fedtasks.crypto.schemes import Scheme
from fedtasks.dataclass_io import to_plain
from fedtasks.digests import canonical, digest
from fedtasks.errors import FedtasksError
from fedtasks.link.client import GatewayClient
from fedtasks.pipeline.step import Step
from fedtasks.runtime.task_config import TaskConfig, read_reached
from fedtasks.wire.v1 import run_pb2
from tests.support.gateways import PIPELINE, Member, gateway_process, grant_ticket, make_members, set_address
from tests.support.processes import process_of
from tests.support.runs import meet, open_run

LEADER, FOLLOWER = "bank", "shop"
DATASETS = {LEADER: "loans", FOLLOWER: "customers"}
_LOOK_S = 0.05


@dataclass(frozen=True)
class Kill:
    """A half that is killed, by SIGKILL, once it has kept so many steps of its work, such as epochs."""

    party: str
    after: int


@dataclass(frozen=True)
class Ended:
    """How a half ended: with an outcome or with an error; and how many steps of its work it had kept."""

    outcome: Mapping[str, Any] | None
    error: FedtasksError | None
    reached: int


class Pipeline:
    """An open run, whose steps are run one after the other."""

    def __init__(
        self,
        members: Mapping[str, Member],
        clients: Mapping[str, GatewayClient],
        steps: Sequence[Step],
        run_id: str,
        folder: Path,
    ) -> None:
        self.members, self.run_id = members, run_id
        self._clients, self._folder = clients, folder
        self._steps = {step.name: step for step in steps}
        self._tries = 0

    def run(self, name: str, kill: Kill | None = None) -> dict[str, Ended]:
        """Run both halves of a step at the same time; return how each ended, by party."""
        self._tries += 1
        attempt = meet(list(self._clients.values()), self.run_id, name, str(self._tries))
        return asyncio.run(self._run(self._steps[name], attempt, kill))

    async def _run(self, step: Step, attempt: int, kill: Kill | None) -> dict[str, Ended]:
        ended = await asyncio.gather(
            *(self._half(party, step, attempt, kill if kill and kill.party == party else None) for party in DATASETS)
        )
        return dict(zip(DATASETS, ended, strict=True))

    async def _half(self, party: str, step: Step, attempt: int, kill: Kill | None) -> Ended:
        """Run one half under a guard until it ends or its meeting stops it, and tell this party's gateway."""
        client, file = self._clients[party], self.members[party].folder / "party.yaml"
        folder = self._folder / f"{party}-{self._tries}-{step.name}"
        folder.mkdir()
        config = folder / "config.json"
        meeting = await asyncio.to_thread(client.start, self.run_id, step.name, attempt)
        write_private(config, to_plain(self._config(party, file, step, meeting)))
        killing = asyncio.create_task(_kill(step.command(config), folder, kill)) if kill else None
        known = {"run_id": self.run_id, "task": step.name, "attempt": attempt}
        outcome, failure = None, None
        try:
            with (folder / "half.log").open("w", encoding="utf-8") as log:
                code = await run_process(
                    partial(spawn, step.command(config), folder),
                    meetings=watch(file, self.run_id, step.name),
                    stop_reason=lambda now: obstacle(now, attempt),
                    on_line=lambda line: print(line, file=log, flush=True),
                    on_start=lambda stop: None,
                )
            outcome = read_outcome(folder, code)
        except FedtasksError as error:
            failure = error
        finally:
            if killing is not None:
                killing.cancel()
        await asyncio.to_thread(client.finish, **known, outcome=outcome, failure=failure)
        return Ended(outcome, failure, read_reached(folder))

    def _config(self, party: str, file: Path, step: Step, meeting: run_pb2.Meeting) -> TaskConfig:
        shared = json.loads(meeting.run.config_json)
        return TaskConfig(
            party=file,
            run_id=self.run_id,
            task=step.name,
            attempt=meeting.own.attempt,
            peer=FOLLOWER if party == LEADER else LEADER,
            leader=shared["leader"],
            datasets=shared["datasets"],
            settings=shared["steps"][step.name],
            kind=step.kind,
            kinds=tuple(each.kind for each in meeting.run.steps),
            bounds=json.loads(meeting.bounds_json),
            dataset_digest=meeting.dataset_digest,
            shared_digest=digest(shared),
            partition=meeting.run.partition,
        )


async def _kill(argv: Sequence[str], folder: Path, kill: Kill) -> None:
    while read_reached(folder) < kill.after:
        await asyncio.sleep(_LOOK_S)
    os.kill(process_of(argv), signal.SIGKILL)


@contextmanager
def pipeline(
    folder: Path, datasets: Mapping[str, str], networks: Mapping[str, Mapping[str, Path]], steps: Sequence[Step]
) -> Iterator[Pipeline]:
    """Start both gateways and open a run; the bank holds the label.

    Parameters
    ----------
    datasets
        Party → what party.yaml says of its dataset beside its name, YAML with an indent of four spaces.
    networks
        Party → its model files by name.
    steps
        The run's.
    """
    with ExitStack() as stack:
        bank, shop, listen = make_members(folder)
        members = {LEADER: bank, FOLLOWER: shop}
        set_address(shop, listen)
        generate_key(Scheme.OPRF, shop.folder / "keys" / "psi-oprf.key", None)
        for party, member in members.items():
            file = member.folder / "party.yaml"
            declared = f"datasets:\n  - name: {DATASETS[party]}\n{datasets[party]}"
            files = "".join(f"  {name}: {path}\n" for name, path in networks[party].items())
            text = f"{file.read_text().partition('datasets:')[0]}{declared}networks:\n{files}"
            file.write_text(text + ("psi_oprf_key: keys/psi-oprf.key\n" if member is shop else ""))
        grant_ticket(shop, bank, limits={"runs": 1, "concurrent_runs": 1, "label_leak": 100})
        for member in members.values():
            stack.callback(member.close)
            stack.enter_context(gateway_process(member))
        clients = {party: stack.enter_context(member.client()) for party, member in members.items()}
        bank.airflow.runs[PIPELINE, "manual-1"] = {"state": "running"}
        shared = {"leader": LEADER, "datasets": DATASETS, "steps": {step.name: dict(step.settings) for step in steps}}
        told = [run_pb2.Step(name=step.name, digest=step.digest, kind=step.kind) for step in steps]
        run_id = open_run(clients[LEADER], steps=told, config_json=canonical(shared)).run.run_id
        (folder / "halves").mkdir()
        yield Pipeline(members, clients, steps, run_id, folder / "halves")
