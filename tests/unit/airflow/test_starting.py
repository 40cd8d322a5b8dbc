"""A ready-made half is forked where that can be, and started by itself where not; both end alike."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fedtasks.airflow.starting import Forked, Spawned, Started, environment, start, warming
from fedtasks.pipeline.catalogue import intersect
from fedtasks.pipeline.step import Step
from fedtasks.runtime import warm
from tests.support.processes import running_with


@pytest.fixture
def party(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    file = tmp_path / "party.yaml"
    yield file
    while pid := running_with(str(file)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


async def run(step: Step, party: Path) -> tuple[Started, str, int]:
    """Start a half whose configuration says nothing: it fails at once, and says so."""
    work = Path(tempfile.mkdtemp())
    (work / "config.json").write_text("{}")
    started = await start(step, work / "config.json", party)
    output = await started.output.read()
    code = await started.wait()
    assert "CONFIG_INVALID" in (work / "failure.json").read_text()
    assert (work / "failure.json").stat().st_mode & 0o777 == 0o600
    return started, output.decode(), code


def test_ready_made_half_is_forked_from_the_parent_of_its_party(party: Path) -> None:
    with warming(party):
        pass
    parent = running_with(str(party))
    for _ in range(2):
        started, output, code = asyncio.run(run(intersect(), party))
        assert isinstance(started, Forked)
        assert "CONFIG_INVALID" in output
        assert code == 1
    assert running_with(str(party)) == parent


def test_ready_made_half_starts_the_parent_that_is_not_there(party: Path) -> None:
    started, _, code = asyncio.run(run(intersect(), party))
    assert isinstance(started, Forked)
    assert code == 1


def test_ready_made_half_is_started_by_itself_where_there_can_be_no_parent(
    party: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warm, "launch", lambda *_: subprocess.Popen(["false"]))
    started, output, code = asyncio.run(run(intersect(), party))
    assert isinstance(started, Spawned)
    assert "CONFIG_INVALID" in output
    assert code == 1


def test_function_of_ones_own_is_never_forked(party: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(*_: Any) -> None:
        raise AssertionError("the parent was asked")

    monkeypatch.setattr(warm, "ask", ask)
    started, _, code = asyncio.run(run(Step("mine", "mine:half"), party))
    assert isinstance(started, Spawned)
    assert code == 1


def test_environment_of_the_parent_is_without_airflows_secrets(party: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", "secret")
    with warming(party):
        pass
    given = Path(f"/proc/{running_with(str(party))}/environ").read_bytes()
    assert b"AIRFLOW" not in given
    assert "PYTHONUNBUFFERED" in environment()
    assert b"PYTHONUNBUFFERED=1" in given
