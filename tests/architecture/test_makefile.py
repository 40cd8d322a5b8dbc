"""`make help` tells of everything that can be made."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def test_help_lists_every_phony_target() -> None:
    phony = set(re.findall(r"^\.PHONY: (\S+)$", MAKEFILE, re.MULTILINE))
    printed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert set(re.findall(r"^  make (\S+)", printed, re.MULTILINE)) == phony
    assert {"setup", "demo", "test", "test-cluster", "lint", "bench", "protos", "clean"} <= phony


def test_what_installs_is_pinned_and_compared_with_hashes() -> None:
    pin = (ROOT / "uv-pin.txt").read_text(encoding="utf-8")
    requirements = [line for line in pin.splitlines() if line and not line.startswith((" ", "#"))]
    assert [line.partition("==")[0] for line in requirements] == ["uv"]
    assert re.fullmatch(r"uv==\d+\.\d+\.\d+ \\", requirements[0])
    assert len(re.findall(r"--hash=sha256:[0-9a-f]{64}\b", pin)) >= 2
    installs = re.findall(r"pip install .*", MAKEFILE)
    assert installs
    assert all("--require-hashes -r $(UV_PIN)" in line for line in installs)


def test_every_help_text_is_a_sentence() -> None:
    texts = re.findall(r"^[a-z-]+:.*## (.*)$", MAKEFILE, re.MULTILINE)
    assert texts
    assert all(re.fullmatch(r"[A-Z].*\.", text) for text in texts)
