"""Parsers that a peer reaches, fuzzed for a while each; inputs grow by what they cover."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.hostile import TALLY, Outcome
from tests.support.parsers import PARSERS

pytest.importorskip("atheris", reason="libFuzzer has no build for this machine")

SECONDS = int(os.environ.get("FUZZ_SECONDS", "8"))
"""For each parser; with 0 there is no fuzz, so that what runs is the same each time."""
LONGEST_INPUT_S = 5
MEMORY_MB = 2048


@pytest.mark.skipif(not SECONDS, reason="FUZZ_SECONDS is 0")
@pytest.mark.parametrize("name", PARSERS)
def test_parser_raises_errors_of_the_registry_alone(name: str, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(PARSERS[name].seeds()):
        (corpus / f"seed-{number}").write_bytes(seed)
    options = [
        f"-max_total_time={SECONDS}",
        f"-timeout={LONGEST_INPUT_S}",
        f"-rss_limit_mb={MEMORY_MB}",
        f"-artifact_prefix={tmp_path}/",
        "-max_len=16384",
        "-print_final_stats=1",
    ]
    script = Path(__file__).with_name("fuzz_parser.py")
    done = subprocess.run(
        [sys.executable, str(script), name, str(corpus), *options],
        capture_output=True,
        text=True,
        timeout=SECONDS + 120,
    )
    found = re.search(r"stat::number_of_executed_units:\s*(\d+)", done.stderr)
    TALLY.executions += int(found[1]) if found else 0
    if done.returncode:
        TALLY.add(Outcome.HUNG if "timeout" in done.stderr.lower() else Outcome.CRASHED)
    assert done.returncode == 0, done.stdout[-4000:] + "".join(
        line for line in done.stderr.splitlines(keepends=True) if not line.startswith("INFO: Instrumenting")
    )
    assert found
    assert int(found[1]) > 100
