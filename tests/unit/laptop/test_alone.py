"""One demo of a user runs at a time, and whoever starts another reads where the first one is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from fedtasks.errors import DemoRunning
from fedtasks.laptop import alone as one
from fedtasks.laptop.alone import alone
from fedtasks.laptop.demo import MARK, stage

HOLDER = """
import sys, time
from pathlib import Path
from fedtasks.laptop.alone import alone

with alone(Path(sys.argv[1]), Path(sys.argv[2])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_second_demo_refuses_and_names_the_first_one(tmp_path: Path) -> None:
    with alone(tmp_path / "one", tmp_path / "room"):
        with pytest.raises(DemoRunning) as caught, alone(tmp_path / "two", tmp_path / "room"):
            pytest.fail("two demos run")
        assert f"process {os.getpid()} runs one in {tmp_path / 'one'} since " in str(caught.value)
    with alone(tmp_path / "two", tmp_path / "room"):
        pass


def test_killed_demo_keeps_nobody_out(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", HOLDER, str(tmp_path / "one"), str(tmp_path / "room")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(DemoRunning, match=f"process {holder.pid} runs one in {tmp_path / 'one'}"):
            alone(tmp_path / "two", tmp_path / "room").__enter__()
        holder.send_signal(signal.SIGKILL)
    with alone(tmp_path / "two", tmp_path / "room"):
        pass


def test_stage_leaves_the_running_demos_folder_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one.tempfile, "gettempdir", lambda: str(tmp_path / "tmp"))
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / MARK).touch()
    with alone(tmp_path / "demo"), pytest.raises(DemoRunning), stage(tmp_path / "demo", Console()):
        pytest.fail("two demos run")
    assert (tmp_path / "demo" / MARK).exists()


@pytest.mark.parametrize("left", ["", "{}", '{"pid": "x"}', "[]"])
def test_garbage_beside_the_lock_is_no_obstacle_to_the_sentence(tmp_path: Path, left: str) -> None:
    with alone(tmp_path / "one", tmp_path / "room"):
        (tmp_path / "room" / "demo.json").write_text(left)
        with pytest.raises(DemoRunning, match="it has just begun"):
            alone(tmp_path / "two", tmp_path / "room").__enter__()
