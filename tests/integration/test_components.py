"""An Airflow's components as forks of one process: real ones, of which one ends at once."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from fedtasks.supervisor import command

RUN = """
import sys
from pathlib import Path
from fedtasks.airflow import components

components.COMPONENTS = {"triggerer": ("triggerer", "--skip-serve-logs"), "short": ("version",)}
sys.exit(components.main(Path(sys.argv[1])))
"""
KEPT = """
import sys
from pathlib import Path
from fedtasks.airflow import components

components.COMPONENTS = {"short": ("version",)}
sys.exit(components.main(Path(sys.argv[1]), restart_s=0.1))
"""


def run(folder: Path, database: str) -> subprocess.CompletedProcess[str]:
    argv = command([sys.executable, "-c", RUN, str(folder)], grace_s=5)
    return subprocess.run(
        argv, env=environment(folder, database), capture_output=True, text=True, timeout=200, check=False
    )


def environment(folder: Path, database: str) -> dict[str, str]:
    return {
        **{name: os.environ[name] for name in ("PATH", "PYTHONPATH", "HOME") if name in os.environ},
        "AIRFLOW_HOME": str(folder),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database,
    }


@pytest.mark.timeout(240)
def test_components_all_end_when_one_does_and_say_which(tmp_path: Path) -> None:
    done = run(tmp_path, f"sqlite:///{tmp_path}/airflow.db")
    assert done.returncode == 1
    assert f"the short ended with 0; see {tmp_path}/short.log" in done.stdout
    logs = {path.name: path for path in tmp_path.glob("*.log")}
    assert set(logs) == {"migrate.log", "short.log", "triggerer.log"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in logs.values()} == {0o600}
    assert "3." in logs["short.log"].read_text()
    assert (tmp_path / "airflow.db").read_bytes()[18:20] == b"\x02\x02"  # SQLite's mark of a write-ahead log


@pytest.mark.timeout(240)
def test_components_do_not_start_when_the_database_cannot_be_migrated(tmp_path: Path) -> None:
    done = run(tmp_path, f"sqlite:///{tmp_path}/missing/airflow.db")
    assert done.returncode == 1
    assert f"cannot be migrated; see {tmp_path}/migrate.log" in done.stdout
    assert not (tmp_path / "triggerer.log").exists()


@pytest.mark.timeout(240)
def test_component_that_ends_is_started_again_where_that_is_asked_until_all_are_told_to_end(tmp_path: Path) -> None:
    argv = command([sys.executable, "-c", KEPT, str(tmp_path)], grace_s=5)
    database = f"sqlite:///{tmp_path}/airflow.db"
    with subprocess.Popen(argv, env=environment(tmp_path, database), stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        said = "the short ended with 0"
        ended: list[str] = []
        while len(ended) < 2:
            line = running.stdout.readline()
            assert line, "it ended by itself"
            if said in line:
                ended.append((tmp_path / "short.pid").read_text())
        running.terminate()
        assert running.wait(60) == 0
    assert len(set(ended)) == 2  # another process each time
