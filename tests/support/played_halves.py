"""Halves played as operators play them: announced, met, run as processes of their own, reported, tried again."""

from __future__ import annotations

import json
import os
import secrets
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedtasks.dataclass_io import to_plain
from fedtasks.errors import FedtasksError, from_code
from fedtasks.link.client import GatewayClient
from fedtasks.models.secureboost import training
from fedtasks.runtime import process as half
from fedtasks.runtime.task_config import TaskConfig
from tests.support.forks import FORKS

TRIES = 3
"""As federated tasks have them by default."""
_RETRY_S = 5.0
_MEET_S = 600.0
_LOOK_S = 0.2
ROLE = {"bank": "leader", "shop": "follower"}
PEER = {"bank": "shop", "shop": "bank"}


@dataclass
class PlayedHalf:
    """One party's half of a training of boosted trees, as its operator sees it.

    Parameters
    ----------
    party_file, name
        The party.
    client
        Of its gateway.
    run_id, task
        Which half.
    work
        Where its processes keep their configuration and outcomes.
    settings
        Of the training.
    """

    party_file: Path
    name: str
    client: GatewayClient
    run_id: str
    task: str
    work: Path
    settings: Any
    attempts: dict[int, bool] = field(default_factory=dict)
    """Each attempt whose process has ended, and whether it had an outcome."""
    taken: int = 0
    """How many outcomes the gateway has taken."""

    def play(self) -> None:
        """Run the half until it has succeeded; raise what the last try raised."""
        for number in range(1, TRIES + 1):
            try:
                return self._try()
            except FedtasksError as error:
                if number == TRIES or not error.retryable:
                    raise
                time.sleep(_RETRY_S)

    def _try(self) -> None:
        token = secrets.token_hex(8)
        meeting = self.client.announce(self.run_id, self.task, token, _MEET_S)
        deadline = time.monotonic() + _MEET_S
        while not meeting.ready and time.monotonic() < deadline:
            time.sleep(_LOOK_S)
            meeting = self.client.announce(self.run_id, self.task, token, _MEET_S)
        attempt = meeting.own.attempt
        try:
            self.client.start(self.run_id, self.task, attempt)
            outcome = self._run(attempt)
        except FedtasksError as error:
            self.client.finish(self.run_id, self.task, attempt, failure=error)
            raise
        self.client.finish(self.run_id, self.task, attempt, outcome=outcome)
        self.taken += 1

    @property
    def lost(self) -> int:
        """How many outcomes were worked out that no gateway has taken."""
        return sum(self.attempts.values()) - self.taken

    def _run(self, attempt: int) -> dict[str, Any]:
        """Run the half's process and return its outcome; raise its failure."""
        folder = self.work / self.task / str(attempt)
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "config.json"
        file.write_text(json.dumps(to_plain(self._config(attempt))))
        self._work(file)
        done = folder / half.OUTCOME
        self.attempts[attempt] = done.exists()
        if done.exists():
            return dict(json.loads(done.read_text()))
        failure = folder / half.FAILURE
        facts = json.loads(failure.read_text()) if failure.exists() else {"code": "PROCESS_FAILED", "detail": "killed"}
        raise from_code(facts["code"], facts["detail"])

    def _work(self, file: Path) -> None:
        """Run its process until that has ended."""
        process = FORKS.Process(target=_train, args=(file,), daemon=True)
        process.start()
        process.join()

    def _config(self, attempt: int) -> TaskConfig:
        return TaskConfig(
            party=self.party_file,
            run_id=self.run_id,
            task=self.task,
            attempt=attempt,
            peer=PEER[self.name],
            leader="bank",
            datasets={"bank": "loans", "shop": "customers"},
            settings=to_plain(self.settings),
            shared_digest="s",
        )


def _train(file: Path) -> None:
    """Run a half as `fedtasks.runtime` does; what it says goes beside its configuration."""
    log = os.open(file.with_name("half.log"), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    for stream in (1, 2):
        os.dup2(log, stream)
    half.run(training.train, file)
