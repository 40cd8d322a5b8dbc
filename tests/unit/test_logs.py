"""Lines of logs for programs: one record, one line, that says what it is about, and never an id."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtasks.errors import DiskFull, PeerUnreachable
from fedtasks.logs import PRINTED, About, JsonLines, framed, into_file

ABOUT = About("bank", "credit.2026-11-21.bank.1", "psi.send[3]", 2)


def record(message: str, *args: object, level: int = logging.INFO, raised: BaseException | None = None) -> str:
    trace = (type(raised), raised, None) if raised is not None else None
    made = logging.LogRecord("fedtasks.psi", level, "psi.py", 1, message, args, trace)
    return JsonLines(ABOUT).format(made)


def test_record_says_when_who_which_half_what_and_the_code_of_its_error() -> None:
    line = json.loads(record("no connection with %s: %s", "shop", PeerUnreachable("it is away"), level=logging.WARNING))
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "level": "WARNING",
        "logger": "fedtasks.psi",
        "party": "bank",
        "run": "credit.2026-11-21.bank.1",
        "task": "psi.send[3]",
        "attempt": 2,
        "message": f"no connection with shop: {PeerUnreachable('it is away')}",
        "code": "PEER_UNREACHABLE",
    }
    raised = json.loads(record("it has failed", raised=DiskFull("no room")))
    assert (raised["code"], "DiskFull" in raised["exception"]) == ("DISK_FULL", True)


@given(st.text())
def test_record_is_one_line_whatever_it_says_and_reads_back(text: str) -> None:
    line = record("%s", text)
    assert line.splitlines() == [line]
    assert line.isascii()
    assert json.loads(line)["message"] == text
    assert framed(line, About("shop")) == line


@given(st.text() | st.just("{}") | st.just('{"time": 1}'))
def test_what_a_library_prints_becomes_a_record_of_its_half(text: str) -> None:
    found = json.loads(framed(text, ABOUT))
    assert (found["message"], found["logger"], found["run"], found["attempt"]) == (text, PRINTED, ABOUT.run, 2)


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    found = logging.getLogger()
    before = found.handlers[:], found.level
    yield found
    for handler in found.handlers:
        if handler not in before[0]:
            handler.close()
    found.handlers[:], _ = before
    found.setLevel(before[1])


def test_file_is_begun_anew_when_it_is_full_and_so_many_are_kept(root: logging.Logger, tmp_path: Path) -> None:
    into_file(tmp_path / "gateway.log", 1000, 2)
    log = logging.getLogger("fedtasks.test")
    for number in range(100):
        log.info("line %d", number)
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["gateway.log", "gateway.log.1", "gateway.log.2"]
    assert max(file.stat().st_size for file in files) <= 1000
    assert "line 99" in files[0].read_text()
