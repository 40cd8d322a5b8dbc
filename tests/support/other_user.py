"""Another user of the same machine, who looks around."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

NOBODY = 65534

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can look as another user")


def found_by_another_user(folder: Path) -> list[str]:
    """Return what another user may read or enter below `folder`, which is opened to everybody for that moment."""
    before = stat.S_IMODE(folder.stat().st_mode)
    folder.chmod(0o755)
    # The shell begins in the folder, so that closed folders above it hide nothing of what is asked.
    look = ["find", ".", "-mindepth", "1", "(", "-readable", "-o", "-type", "d", "-executable", ")", "-print"]
    try:
        done = subprocess.run(
            look, cwd=folder, user=NOBODY, group=NOBODY, extra_groups=[], capture_output=True, text=True, check=False
        )
    finally:
        folder.chmod(before)
    problems = [line for line in done.stderr.splitlines() if "Permission denied" not in line]
    assert problems == []
    return sorted(done.stdout.splitlines())
