"""A worker compares its effective settings with the bounds of the run's ticket before its half begins."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedtasks.config import load_party
from fedtasks.dataclass_io import to_plain
from fedtasks.errors import ConfigError, DatasetChanged, from_code
from fedtasks.link.mark import read_mark
from fedtasks.logs import About, framed
from fedtasks.runtime.context import Outcome, TaskContext
from fedtasks.runtime.process import run, run_named
from fedtasks.runtime.task_config import FAILURE, MARK, TaskConfig, check_declaration
from fedtasks.shortage import UNWRITTEN
from tests.support.airflow_fakes import PARTY

ROOT = Path(__file__).resolve().parents[3]


def failure_of(folder: Path, kind: str, settings: dict[str, Any], bounds: dict[str, Any]) -> dict[str, Any]:
    """Run a half whose party.yaml is not there: it fails at that, at the latest."""

    def half(_: TaskContext) -> Outcome:
        raise AssertionError("the half has begun")

    task = {"run_id": "credit.day.1", "task": "step", "attempt": 1, "peer": "shop", "leader": "bank", "datasets": {}}
    config = TaskConfig(party=folder / "none.yaml", settings=settings, kind=kind, bounds=bounds, **task)  # type: ignore[arg-type]
    file = folder / "config.json"
    file.write_text(json.dumps(to_plain(config)), encoding="utf-8")
    assert run(half, file) == 1
    failure: dict[str, Any] = json.loads((folder / FAILURE).read_text(encoding="utf-8"))
    return failure


@pytest.mark.parametrize(
    ("kind", "settings", "bounds", "code", "setting"),
    [
        ("psi", {"pad_rows": 999}, {"floor.pad_rows": 1000}, "FLOOR_VIOLATED", "step.pad_rows"),
        ("psi", {}, {"floor.pad_rows": 1000}, "FLOOR_VIOLATED", "step.pad_rows"),
        ("psi", {}, {"outputs.intersection": "client"}, "TICKET_SCOPE", "step.learns"),
        ("secureboost", {"trees": 21}, {"limits.trees": 20}, "TICKET_SCOPE", "step.trees"),
        ("evaluate", {"scores": "both"}, {}, "TICKET_SCOPE", "step.scores"),
        (
            "split_nn",
            {"label_protection": "none", "max_label_leak": 100},
            {},
            "FLOOR_VIOLATED",
            "step.label_protection",
        ),
        ("split_nn", {}, {"floor.label_protection": "label_dp"}, "FLOOR_VIOLATED", "step.label_protection"),
        ("", {"trees": 1}, {"limits.trees": 20}, "TICKET_SCOPE", "step.trees"),
    ],
    ids=str,
)
def test_half_beyond_a_bound_fails_before_it_begins(
    tmp_path: Path, kind: str, settings: dict[str, Any], bounds: dict[str, Any], code: str, setting: str
) -> None:
    failure = failure_of(tmp_path, kind, settings, bounds)
    assert (failure["code"], failure["fields"]["setting"]) == (code, setting)


def test_half_writes_what_only_its_owner_may_read(tmp_path: Path) -> None:
    os.umask(0)
    failure_of(tmp_path, "psi", {}, {})
    assert (tmp_path / FAILURE).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("kind", "settings", "bounds"),
    [
        ("psi", {"pad_rows": 1000}, {"floor.pad_rows": 1000}),
        ("secureboost", {}, {"limits.trees": 20}),
        ("split_nn", {"label_protection": "none", "max_label_leak": 100}, {"floor.label_protection": "none"}),
        ("split_nn", {}, {}),
        ("", {"trees": 10**6}, {"limits.trees": None}),
    ],
    ids=str,
)
def test_half_within_the_bounds_is_not_stopped_by_them(
    tmp_path: Path, kind: str, settings: dict[str, Any], bounds: dict[str, Any]
) -> None:
    failure = failure_of(tmp_path, kind, settings, bounds)
    assert (failure["code"], failure["detail"]) == ("CONFIG_INVALID", "the file does not exist")


def test_half_whose_settings_are_not_valid_says_so_before_it_begins(tmp_path: Path) -> None:
    assert failure_of(tmp_path, "psi", {"pad_rows": 0}, {})["fields"]["field"] == "steps.step"


def test_half_whose_dataset_is_declared_anew_fails_before_it_begins(tmp_path: Path) -> None:
    (tmp_path / "party.yaml").write_text(PARTY)
    party = load_party(tmp_path / "party.yaml")
    digest = party.dataset("loans").declaration_digest
    names = {"run_id": "credit.day.bank.1", "task": "step", "attempt": 1, "peer": "shop", "leader": "bank"}
    config = TaskConfig(party=tmp_path / "party.yaml", datasets={"bank": "loans"}, dataset_digest=digest, **names)  # type: ignore[arg-type]
    check_declaration(config, party)

    for change in (("income: numeric", "income: numeric, town: categorical"), ("loans.parquet", "all.parquet")):
        (tmp_path / "party.yaml").write_text(PARTY.replace(*change))
        with pytest.raises(DatasetChanged, match="`loans` is declared otherwise"):
            check_declaration(config, load_party(tmp_path / "party.yaml"))

    (tmp_path / "config.json").write_text(json.dumps(to_plain(config)), encoding="utf-8")

    def half(_: TaskContext) -> Outcome:
        raise AssertionError("the half has begun")

    assert run(half, tmp_path / "config.json") == 1
    assert json.loads((tmp_path / FAILURE).read_text(encoding="utf-8"))["code"] == "DATA_DECLARED_ANEW"


def fill_the_disk() -> None:
    with open("/dev/full", "wb") as disk:
        disk.write(b"row")


def make_a_folder_on_a_full_disk() -> None:
    try:
        fill_the_disk()
    except OSError as error:
        raise ConfigError("the folder cannot be made") from error


def take_all_memory() -> None:
    bytearray(1 << 62)


def lose_the_mount() -> None:
    raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))


def divide() -> None:
    print(1 / 0)


def leave() -> None:
    sys.exit(3)


def ready(folder: Path) -> Path:
    """Write the configuration of a half, and all that it needs to begin."""
    (folder / "party.yaml").write_text(PARTY)
    (folder / "keys").mkdir(mode=0o700)
    (folder / "keys" / "worker.secret").write_text("0" * 64)
    (folder / "keys" / "worker.secret").chmod(0o600)
    names = {"run_id": "credit.day.bank.1", "task": "step", "attempt": 1, "peer": "shop", "leader": "bank"}
    config = TaskConfig(party=folder / "party.yaml", datasets={"bank": "loans"}, **names)  # type: ignore[arg-type]
    (folder / "config.json").write_text(json.dumps(to_plain(config)), encoding="utf-8")
    return folder / "config.json"


@pytest.mark.parametrize(
    ("work", "code"),
    [
        (fill_the_disk, "DISK_FULL"),
        (make_a_folder_on_a_full_disk, "DISK_FULL"),
        (take_all_memory, "OUT_OF_MEMORY"),
        (lose_the_mount, "STORAGE_UNAVAILABLE"),
        (divide, "PROCESS_FAILED"),
        (leave, "PROCESS_FAILED"),
    ],
    ids=lambda given: getattr(given, "__name__", given),
)
def test_half_that_its_machine_lets_down_says_so(tmp_path: Path, work: Callable[[], None], code: str) -> None:
    def half(_: TaskContext) -> Outcome:
        work()
        raise AssertionError("the half has gone on")

    assert run(half, ready(tmp_path)) == 1
    failure = json.loads((tmp_path / FAILURE).read_text(encoding="utf-8"))
    assert failure["code"] == code
    line = work.__code__.co_firstlineno + 1
    is_mistake = code == "PROCESS_FAILED"  # of the code itself: it comes up again at the same line
    assert failure["where"] == (f"test_process.py:{line}" if is_mistake else "")


def test_half_on_a_full_disk_says_how_much_is_free_and_is_not_tried_again(tmp_path: Path) -> None:
    assert run(lambda _: fill_the_disk(), ready(tmp_path)) == 1  # type: ignore[arg-type, return-value]
    failure = json.loads((tmp_path / FAILURE).read_text(encoding="utf-8"))
    assert re.search(rf"No space left on device; .* are free below {tmp_path.parent}", failure["detail"])
    assert failure["public"] == "A disk is full"
    assert not from_code(failure["code"]).retryable


@pytest.mark.parametrize(
    ("module", "code", "detail"),
    [
        ("raise RuntimeError('row 17 of anna@x')", "PROCESS_FAILED", "RuntimeError; see the log"),
        ("import sys; sys.exit(2)", "PROCESS_FAILED", "SystemExit; see the log"),
        ("import no_such_library", "CONFIG_INVALID", "No module named 'no_such_library'"),
        ("bytearray(1 << 62)", "OUT_OF_MEMORY", ""),
        ("with open('/dev/full', 'wb', 0) as f: f.write(b'x')", "DISK_FULL", "No space left on device"),
    ],
    ids=["bug", "exit", "missing library", "memory", "disk"],
)
def test_half_whose_module_fails_as_it_is_imported_writes_its_failure(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    module: str,
    code: str,
    detail: str,
) -> None:
    (tmp_path / "broken_half.py").write_text(module)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "broken_half", raising=False)
    assert run_named("broken_half:half", ready(tmp_path)) == 1
    failure = json.loads((tmp_path / FAILURE).read_text(encoding="utf-8"))
    assert (failure["code"], detail in failure["detail"]) == (code, True), failure
    assert (failure["where"] == "broken_half.py:1") == (code == "PROCESS_FAILED")
    assert "anna" not in json.dumps(failure)
    assert code == "CONFIG_INVALID" or any(record.exc_info for record in caplog.records)


TALKING = """
import logging, os, warnings

from fedtasks.errors import DataMissing

def half(context):
    logging.getLogger("some.library").warning("two\\nlines")
    print("printed")
    os.write(1, b"by C\\n")
    raise DataMissing("it is gone")
"""


def test_every_line_of_a_half_says_which_run_task_and_attempt_it_is_of(tmp_path: Path) -> None:
    (tmp_path / "talking.py").write_text(TALKING)
    config = ready(tmp_path)
    (tmp_path / "party.yaml").write_text(f"{PARTY}\nlogs: {{format: json}}\n")
    argv = [sys.executable, "-m", "fedtasks.runtime", "talking:half", str(config)]
    done = subprocess.run(
        argv, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": f"{ROOT}:{tmp_path}"}
    )
    assert (done.returncode, done.stderr) == (1, "")
    about = About("bank", "credit.day.bank.1", "step", 1)
    lines = [json.loads(framed(line, about)) for line in done.stdout.splitlines()]
    assert {(line["party"], line["run"], line["task"], line["attempt"]) for line in lines} == {
        ("bank", "credit.day.bank.1", "step", 1)
    }
    assert {"two\nlines", "by C", "printed"} < {line["message"] for line in lines}
    assert [line["code"] for line in lines if line["level"] == "ERROR"] == ["DATA_MISSING"]


def test_half_without_room_for_its_failure_says_so_by_its_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        fill_the_disk()

    config = ready(tmp_path)
    monkeypatch.setattr("fedtasks.runtime.process._write", refuse)
    assert run(lambda _: Outcome(), config) == UNWRITTEN
    assert run(lambda _: divide(), config) == UNWRITTEN  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize(
    ("entry", "late"), [("fedtasks.psi.offline:run", ""), ("mine:half", "late"), ("/dags/mine.py:half", "late")]
)
def test_ready_made_half_ends_at_once_and_one_of_ones_own_as_python_does(entry: str, late: str) -> None:
    program = f"""
import atexit
from fedtasks.runtime.process import end
atexit.register(print, "late")
print("printed")
end({entry!r}, 3)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (3, "")
    assert done.stdout.split() == ["printed", *late.split()]


def test_half_marks_that_it_makes_progress_beside_its_configuration(tmp_path: Path) -> None:
    (tmp_path / "party.yaml").write_text(PARTY)
    secret = tmp_path / "keys" / "worker.secret"
    secret.parent.mkdir()
    secret.write_text("secret")
    secret.chmod(0o600)
    task = {"run_id": "credit.day.1", "task": "step", "attempt": 1, "peer": "shop", "leader": "bank", "datasets": {}}
    file = tmp_path / "config.json"
    file.write_text(json.dumps(to_plain(TaskConfig(party=tmp_path / "party.yaml", **task))), encoding="utf-8")  # type: ignore[arg-type]
    idle_s: list[float] = []

    def half(context: TaskContext) -> Outcome:
        time.sleep(0.6)
        idle_s.append(read_mark(tmp_path / MARK).idle_s)
        context.alive()
        idle_s.append(read_mark(tmp_path / MARK).idle_s)
        return Outcome()

    assert run(half, file) == 0
    assert idle_s[1] < 0.6 <= idle_s[0]
