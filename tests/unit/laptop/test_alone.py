"""One demo of a user runs at a time, and whoever starts another reads where the first one is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
from rich.console import Console

from fedtasks.errors import DemoRunning
from fedtasks.laptop import alone as one
from fedtasks.laptop.alone import alone
from fedtasks.laptop.demo import MARK, stage
from tests.support import demo_cluster

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


@pytest.fixture
def own_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Look for other demos where only this test's are, wherever demos look by default."""
    monkeypatch.setattr(one.tempfile, "gettempdir", lambda: str(tmp_path / "tmp"))


@pytest.mark.usefixtures("own_room")
def test_stage_leaves_the_running_demos_folder_alone(tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / MARK).touch()
    with alone(tmp_path / "demo"), pytest.raises(DemoRunning), stage(tmp_path / "demo", Console()):
        pytest.fail("two demos run")
    assert (tmp_path / "demo" / MARK).exists()


@pytest.mark.usefixtures("own_room")
@pytest.mark.parametrize(("running", "code"), [(True, "DEMO_RUNNING"), (False, "CONFIG_INVALID")])
def test_demo_on_a_cluster_refuses_before_the_cluster_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, running: bool, code: str
) -> None:
    started: list[str] = []
    monkeypatch.setattr(demo_cluster, "java", lambda: "java")
    for cluster in ("HdfsCluster", "SparkCluster"):
        monkeypatch.setattr(demo_cluster, cluster, lambda *_, cluster=cluster: started.append(cluster))
    (tmp_path / "letters").write_text("dear")
    with (
        alone(tmp_path / "one") if running else nullcontext(),
        pytest.raises(SystemExit, match=rf"^{code} · .* · .*") as caught,
    ):
        demo_cluster.main(tmp_path, keep=False)
    assert started == []
    assert caught.value.code not in (None, 0)
    assert (tmp_path / "letters").read_text() == "dear"


@pytest.mark.parametrize("left", ["", "{}", '{"pid": "x"}', "[]"])
def test_garbage_beside_the_lock_is_no_obstacle_to_the_sentence(tmp_path: Path, left: str) -> None:
    with alone(tmp_path / "one", tmp_path / "room"):
        (tmp_path / "room" / "demo.json").write_text(left)
        with pytest.raises(DemoRunning, match="it has just begun"):
            alone(tmp_path / "two", tmp_path / "room").__enter__()
