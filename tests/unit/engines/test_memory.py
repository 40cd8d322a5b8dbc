"""Memory that is freed goes back to the system."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import numpy as np
import pyarrow as pa
from fedtasks.engines.memory import give_back_freed

def resident_mb():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) // 1000

def work(_):
    column = pa.array(np.random.default_rng(1).integers(0, 9, 2_000_000))
    return len(column.take(pa.array(np.arange(2_000_000))[::-1]))

if sys.argv[1:]:
    give_back_freed()
before = resident_mb()
with ThreadPoolExecutor(4) as pool:
    list(pool.map(work, range(8)))
print(resident_mb() - before)
"""


def left_mb(*arguments: str) -> int:
    root = Path(__file__).resolve().parents[3]
    run = subprocess.run([sys.executable, "-c", CODE, *arguments], cwd=root, capture_output=True, text=True, check=True)
    return int(run.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
def test_what_threads_have_freed_goes_back() -> None:
    assert left_mb("give back") < 100
