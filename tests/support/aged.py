"""A party of which a year has passed: its store, its storage and what lies there."""

from __future__ import annotations

from dataclasses import dataclass, replace

from fedtasks.clock import DAY_MS
from fedtasks.config import Keep, Party
from fedtasks.data.run_storage import RunStorage
from fedtasks.data.storage import local_path, write_atomically
from fedtasks.retention.policy import carry_out, removals
from fedtasks.retention.removal import Removal
from fedtasks.store import ModelRow, RunRow, Store
from tests.support.report_rows import make_run


@dataclass
class Aged:
    """The party that leads, and how long ago things happened."""

    party: Party
    store: Store
    now_ms: int

    def before(self, days: float) -> int:
        """Return an instant so many days ago."""
        return self.now_ms - int(days * DAY_MS)

    def add_run(self, number: int, days: float | None, **changes: object) -> RunRow:
        """Enter a run that ended so many days ago; None: that goes on."""
        ended = {} if days is None else {"state": "succeeded", "closed_ms": self.before(days)}
        run = make_run(number, peer="follower", **{"opened_ms": self.before(400), **ended, **changes})
        assert self.store.runs.add(run)
        return run

    def publish(self, run: RunRow, task: str, attempt: int = 1, **facts: object) -> str:
        """Write an attempt that counts; return its folder's URI."""
        storage = RunStorage(self.party.storage, run.run_id)
        uri = storage.attempt(task, attempt)
        write_atomically(f"{uri}/rows.bin", b"x" * 1000)
        storage.publish(task, attempt, rows=1, facts=facts)
        return uri

    def add_version(self, run: RunRow, number: int, days: float, **changes: object) -> ModelRow:
        """Publish a version of model ``credit`` so many days ago, which is in use from then on."""
        row = ModelRow(
            "credit",
            number,
            "follower",
            run.run_id,
            run.partition,
            None,
            f"own-{number}",
            f"peer-{number}",
            {},
            {},
            False,
            self.before(days),
        )
        return self.store.models.publish(replace(row, **changes), run.pipeline)

    def plan(self, keep: Keep | None = None) -> list[Removal]:
        """Return what would go."""
        return list(removals(self.party, self.store, keep or self.party.keep, self.now_ms))

    def remove(self, keep: Keep | None = None) -> list[Removal]:
        """Remove what goes, and return it."""
        return list(carry_out(self.party, self.store, keep or self.party.keep, self.now_ms))

    def files(self) -> list[str]:
        """Return all files of the storage."""
        root = local_path(self.party.storage)
        return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())
