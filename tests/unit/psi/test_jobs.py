"""A job that comes further keeps its half alive; one that hangs does not."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fedtasks.psi import jobs
from fedtasks.runtime.context import TaskContext


class Job:
    """Says how far it is, as often as it is asked."""

    def __init__(self, *shares: float) -> None:
        self._shares, self._last = list(shares), shares[-1]
        self.was_asked = threading.Event()

    @property
    def share(self) -> float:
        if not self._shares:
            self.was_asked.set()
            return self._last
        return self._shares.pop(0)


@pytest.mark.parametrize(("shares", "signs"), [((0.0, 0.25, 0.25, 0.5), 2), ((0.5, 0.5, 0.5, 0.5), 0)])
def test_half_is_alive_as_often_as_its_job_has_come_further(
    monkeypatch: pytest.MonkeyPatch, shares: tuple[float, ...], signs: int
) -> None:
    job, said = Job(*shares), list[str]()

    @contextmanager
    def opened(*_: object) -> Iterator[Any]:
        yield job

    monkeypatch.setattr(jobs, "open_engine", opened)
    monkeypatch.setattr(jobs, "LOOK_S", 0.001)
    config = SimpleNamespace(run_id="r", half="align")
    context = cast("TaskContext", SimpleNamespace(config=config, party=None, alive=lambda: said.append("alive")))
    with jobs.engine_of(context, "file:///nowhere"):
        assert job.was_asked.wait(10)
    assert len(said) == signs
