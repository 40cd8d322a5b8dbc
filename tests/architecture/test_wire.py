"""The committed stubs are what protos/ says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_stubs_are_those_of_the_protos(tmp_path: Path) -> None:
    target = tmp_path / "v1"
    subprocess.run([sys.executable, "protos/generate.py", str(target)], cwd=ROOT, check=True)
    committed = ROOT / "fedtasks" / "wire" / "v1"
    generated = {path.name: path.read_text(encoding="utf-8") for path in target.iterdir()}
    present = {path.name: path.read_text(encoding="utf-8") for path in committed.iterdir() if path.is_file()}
    assert generated == present, "run `make protos` and commit the result"
