"""What another user of the machine finds in a party's folder: nothing, whatever the umask was."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.other_user import found_by_another_user, needs_root

PARTIES = """
import os, sys
from pathlib import Path
from fedtasks.data.run_storage import RunStorage
from fedtasks.data.storage import make_private, write_json
from fedtasks.laptop import demo

bank, shop = demo.prepare(Path(sys.argv[1]))
demo.introduce(bank, shop)
bank.start_gateway()
bank.command("ticket", "list")
bank.stop_gateway()
os.umask(int(sys.argv[2], 8))  # what an Airflow worker of this umask writes
storage = RunStorage(bank.party().storage, "train.2026-11-21.1")
write_json(storage.attempt("psi", 1) + "/part.json", {"ids": [1]})
write_json(storage.folder("psi") + "/state.json", {})
storage.publish("psi", 1, rows=1, facts={})
make_private(bank.party().storage + "/tags/loans")
shop.command("store", "migrate")
"""


@needs_root
@pytest.mark.parametrize("umask", ["000", pytest.param("022", marks=pytest.mark.slow)])
def test_party_has_nothing_that_another_user_may_read(tmp_path: Path, umask: str) -> None:
    subprocess.run(
        [sys.executable, "-c", PARTIES, str(tmp_path / "demo"), umask], umask=int(umask, 8), check=True, timeout=120
    )
    assert (tmp_path / "demo" / "bank" / "storage" / "runs").is_dir()
    for party in ("bank", "shop"):
        assert (tmp_path / "demo" / party / "store.db").exists()
        assert found_by_another_user(tmp_path / "demo" / party) == []
    assert found_by_another_user(tmp_path / "demo") == []


@needs_root
def test_another_user_is_seen_to_find_what_is_open(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir(mode=0o755)
    for place, mode in (("closed.txt", 0o600), ("open.txt", 0o644), ("open/deep.txt", 0o644)):
        (tmp_path / place).touch()
        (tmp_path / place).chmod(mode)
    assert found_by_another_user(tmp_path) == ["./open", "./open.txt", "./open/deep.txt"]
