"""Fixtures for tests of one's own pipelines: both halves on sample data, without Airflow and without a network.

Installed with fedtasks, it costs sessions that do not use it nothing: what it needs is imported when a fixture is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from fedtasks.authoring.sample import Pair

RunBoth = Callable[..., dict[str, dict[str, Any]]]


@pytest.fixture
def two_parties(tmp_path: Path) -> Pair:
    """A bank that knows who repaid, a shop that knows what people buy; 300 people are known to both.

    A test may overwrite their files (``two_parties.parties["bank"].datasets[0].uri``) before it runs anything.
    """
    from fedtasks.authoring.sample import sample_pair

    return sample_pair(tmp_path / "parties")


@pytest.fixture
def run_both(two_parties: Pair, tmp_path: Path) -> RunBoth:
    """A function ``run_both(dag_file, conf=None, partition="2026-01-01", pipeline="")`` that runs both halves of steps.

    It returns party → step → outcome. `conf` changes settings as a trigger form would: ``{"train.epochs": 2}``;
    `pipeline` says which one is meant, where the file holds several. What went wrong in a half is raised, and names it;
    a step that cannot run here skips the test.
    """
    from fedtasks.airflow.dagfiles import declared_in
    from fedtasks.authoring.trial import try_out

    def run(
        dag_file: Path, conf: Mapping[str, Any] | None = None, partition: str = "2026-01-01", pipeline: str = ""
    ) -> dict[str, dict[str, Any]]:
        steps = declared_in(dag_file, pipeline=pipeline).steps
        outcomes: dict[str, dict[str, Any]] = {name: {} for name in two_parties.parties}
        for tried in try_out(steps, two_parties, tmp_path, params=conf, partition=partition):
            if tried.left_out:
                pytest.skip(f"{tried.step}: {tried.left_out}")
            for name, side in tried.sides.items():
                outcomes[name][tried.step] = side.outcome
        return outcomes

    return run
