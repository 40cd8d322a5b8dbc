"""Two processes that train boosted trees through two gateways; one is killed at any instant, and both begin again."""

from __future__ import annotations

import json
import random
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from fedtasks.data.run_storage import RunStorage
from fedtasks.data.storage import local_path, write_json
from fedtasks.dataclass_io import to_plain
from fedtasks.errors import PeerFailed, ProcessFailed
from fedtasks.link.client import GatewayClient
from fedtasks.models.secureboost import training
from fedtasks.runtime import process as half
from fedtasks.runtime.task_config import TaskConfig
from fedtasks.wire.v1 import run_pb2
from tests.integration.secureboost_case import SEEDS, SETTINGS, write_party
from tests.support.forks import FORKS
from tests.support.gateways import PIPELINE, Member, grant_ticket, make_members, set_address
from tests.support.runs import open_run, wait_for

pytestmark = pytest.mark.timeout(200)

KILLS = 20
QUICK_KILLS = 2
ROLE = {"bank": "leader", "shop": "follower"}
PEER = {"bank": "shop", "shop": "bank"}
BIG = replace(SETTINGS, trees=8)
"""Some three seconds of training."""


class Side:
    """One party: its gateway, and the process of its half."""

    def __init__(self, member: Member, client: GatewayClient, root: Path) -> None:
        self.name = member.name
        self.client = client
        self._folder = root / ROLE[member.name]
        self._party = member.folder / "party.yaml"

    def begin(self, run_id: str, task: str, attempt: int) -> None:
        """Start the half's process."""
        write_json(f"{self.storage(run_id).folder(task)}/initial-seed.json", SEEDS[ROLE[self.name]])
        self._work = self._folder / "work" / task / str(attempt)
        self._work.mkdir(parents=True)
        config = TaskConfig(
            party=self._party,
            run_id=run_id,
            task=task,
            attempt=attempt,
            peer=PEER[self.name],
            leader="bank",
            datasets={"bank": "loans", "shop": "customers"},
            settings=to_plain(BIG),
            shared_digest="s",
        )
        file = self._work / "config.json"
        file.write_text(json.dumps(to_plain(config)))
        self.process = FORKS.Process(target=half.run, args=(training.train, file), daemon=True)
        self.process.start()

    def result(self) -> tuple[dict[str, Any] | None, str]:
        """Return the outcome, if there is one, and the code of the failure, if there is one."""
        found = [
            json.loads((self._work / name).read_text()) if (self._work / name).exists() else None
            for name in (half.OUTCOME, half.FAILURE)
        ]
        return found[0], found[1]["code"] if found[1] else ""

    def storage(self, run_id: str) -> RunStorage:
        return RunStorage(f"file://{self._folder}", run_id)


class Couple:
    """Both sides in one run, each training of which is a task of its own."""

    def __init__(self, sides: dict[str, Side], run_id: str) -> None:
        self.sides, self.run_id = sides, run_id

    def meet(self, task: str, token: str) -> int:
        """Announce both halves anew; return the attempt that they have agreed on."""
        clients = [side.client for side in self.sides.values()]
        for client in clients:
            client.announce(self.run_id, task, token, 60)
        for client in clients:
            wait_for(lambda client=client: client.announce(self.run_id, task, token, 60).ready)  # type: ignore[misc]
        (attempt,) = {client.announce(self.run_id, task, token, 60).own.attempt for client in clients}
        for client in clients:
            client.start(self.run_id, task, attempt)
        return attempt

    def begin(self, task: str, token: str) -> int:
        """Start both halves' processes at the next attempt; the seed of a party is that of its other trainings."""
        attempt = self.meet(task, token)
        for side in self.sides.values():
            side.begin(self.run_id, task, attempt)
        return attempt

    def finish(self, task: str, attempt: int) -> None:
        """Wait for both processes, which must end well and alike."""
        outcomes = []
        for side in self.sides.values():
            side.process.join(60)
            outcome, code = side.result()
            assert (side.process.exitcode, code) == (0, "")
            side.client.finish(self.run_id, task, attempt, outcome=outcome)
            outcomes.append(outcome)
        assert outcomes[0] == outcomes[1]

    def checkpoints(self, task: str) -> dict[str, list[str]]:
        """Return what each side has kept."""
        folders = {
            name: local_path(side.storage(self.run_id).folder(task)) / "checkpoints"
            for name, side in self.sides.items()
        }
        return {name: sorted(file.stem for file in folder.glob("*")) for name, folder in folders.items()}

    def models(self, task: str) -> dict[str, bytes]:
        manifests = {name: side.storage(self.run_id).published(task) for name, side in self.sides.items()}
        return {name: local_path(each.path("model.json")).read_bytes() for name, each in manifests.items()}

    def kill(self, task: str, attempt: int, victim: str) -> bool:
        """Kill one half's process; tell the gateways what its operators would. Return whether it was at work."""
        dead, other = self.sides[victim], self.sides[PEER[victim]]
        dead.process.kill()
        dead.process.join(10)
        was_at_work = dead.result() == (None, "")
        assert not was_at_work or dead.process.exitcode == -signal.SIGKILL
        failure = ProcessFailed("killed")
        dead.client.finish(self.run_id, task, attempt, failure=failure)
        other.process.join(60)
        assert other.process.exitcode == 0
        outcome, code = other.result()
        # It may have had all that it needed before.
        assert code in ("PEER_FAILED", "PEER_RESTARTED") or outcome is not None
        if code:
            other.client.finish(self.run_id, task, attempt, failure=PeerFailed("the other half was killed"))
        return was_at_work


@dataclass(frozen=True)
class Undisturbed:
    couple: Couple
    models: dict[str, bytes]
    seconds: float


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Undisturbed]:
    """A training without interruption, in a run in which others may follow."""
    root = tmp_path_factory.mktemp("kills")
    bank, shop, listen = make_members(root / "members")
    set_address(shop, listen)
    for member in (bank, shop):
        file = member.folder / "party.yaml"
        file.write_text(file.read_text().replace("storage: storage", f"storage: file://{root / ROLE[member.name]}"))
    try:
        for member in (bank, shop):
            member.start()
        grant_ticket(shop, bank)
        with bank.client() as ours, shop.client() as theirs:
            trainings = ["undisturbed", *(f"train-{number}" for number in range(KILLS))]
            steps = [run_pb2.Step(name=name, digest="a") for name in trainings]
            run_id = open_run(ours, steps=steps).run.run_id
            bank.airflow.runs[PIPELINE, "manual-1"] = {"state": "running"}
            open_run(theirs, run_id, config_json="", peer="", partition="", steps=steps)
            for role in ROLE.values():
                write_party(root, role, run_id=run_id, n=400)
            couple = Couple({"bank": Side(bank, ours, root), "shop": Side(shop, theirs, root)}, run_id)
            first = FORKS.Process(target=time.sleep, args=(0,))
            first.start()  # so that the imports do not count
            first.join(60)
            attempt = couple.begin("undisturbed", "1")
            started = time.monotonic()
            for side in couple.sides.values():
                side.process.join(60)
            seconds = time.monotonic() - started
            couple.finish("undisturbed", attempt)
            yield Undisturbed(couple, couple.models("undisturbed"), seconds)
    finally:
        for member in (shop, bank):
            member.close()


@pytest.mark.parametrize(
    "number", [pytest.param(each, marks=[pytest.mark.slow] if each >= QUICK_KILLS else []) for each in range(KILLS)]
)
def test_train_killed_at_any_instant_resumes_to_the_same_bytes(undisturbed: Undisturbed, number: int) -> None:
    couple, task = undisturbed.couple, f"train-{number}"
    victim = ("bank", "shop")[number % 2]
    instant = random.Random(number).uniform(0.0, 0.85 * undisturbed.seconds)  # the first training takes longest
    print(f"{victim} is killed after {instant:.3f} s of {undisturbed.seconds:.3f} s")
    attempt = couple.begin(task, "1")
    time.sleep(instant)
    print("at work" if couple.kill(task, attempt, victim) else "done before")
    print(f"checkpoints: {couple.checkpoints(task)}")
    again = couple.begin(task, "2")
    assert again == attempt + 1
    couple.finish(task, again)
    assert couple.models(task) == undisturbed.models
