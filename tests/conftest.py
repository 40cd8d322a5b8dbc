from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from xdist.scheduler import LoadFileScheduling

from tests.support.parsing_forks import ParsingForks
from tests.support.processes import same_umask

AIRFLOWS = Path(__file__).parent / "e2e"
"""These tests share two Airflows and mostly wait for them."""
POLITE = 5

# How long an example takes depends on what else the machine does.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


class Scheduling(LoadFileScheduling):
    """A worker takes a file at a time; those that share two Airflows are as one file."""

    def _split_scope(self, nodeid: str) -> str:
        folder = f"tests/{AIRFLOWS.name}"
        return folder if nodeid.startswith(f"{folder}/") else str(super()._split_scope(nodeid))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling:
    return Scheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what waits most: whatever else there is to do goes on beside it, in another worker."""
    items.sort(key=lambda item: item.path.parent != AIRFLOWS)


def pytest_collection() -> None:
    """Look for no garbage while tests are collected, all of which stay: it would take a fifth of that."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Leave out what is imported by now when looking for garbage, which would cost a tenth of all tests."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    gc.enable()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Let a worker yield to the one with the two Airflows, whose tests have deadlines as users have them."""
    if "PYTEST_XDIST_WORKER" in os.environ and item.path.parent != AIRFLOWS:
        os.nice(max(0, POLITE - os.nice(0)))


@pytest.fixture(autouse=True)
def umask_before() -> Iterator[None]:
    """Give the umask back: commands and halves change that of their process, which here goes on to other tests."""
    with same_umask():
        yield


@pytest.fixture(scope="module")
def no_saved_models() -> Iterator[None]:
    """Publish halves without SavedModels, which only others serve: writing them takes a third of a training."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fedtasks.models.split_nn.serving.write", lambda *_: None)
        yield


@pytest.fixture(scope="session")
def parsing_forks() -> Iterator[ParsingForks]:
    with ParsingForks() as forks:
        yield forks


@pytest.fixture
def quick_parsing(parsing_forks: ParsingForks, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parse DAG files in forks, which spares each file the import of Airflow."""
    monkeypatch.setattr("fedtasks.airflow.dagfiles.subprocess", parsing_forks)
