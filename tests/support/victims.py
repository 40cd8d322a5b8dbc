"""Processes of a party on this machine, found by what they are, so that a test can kill one of them by its id."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from fedtasks.laptop.party import LocalParty

_JVM = "org.apache.spark"
_GUARD = "supervisor.py"


def algorithms(run_id: str, party: LocalParty | None = None) -> dict[int, dict[str, Any]]:
    """Return the algorithms at work for a run with their configuration, found by the file that each is given."""
    found = {}
    for pid, words in _commands():
        if not words[-1].endswith("config.json") or any(word.endswith(_GUARD) for word in words):
            continue
        try:
            config = json.loads(Path(words[-1]).read_text())
        except OSError:  # it has ended meanwhile
            continue
        if config["run_id"] == run_id and (party is None or config["party"] == str(party.file)):
            found[pid] = config
    return found


def workers(party: LocalParty) -> list[int]:
    """Return what runs tasks of a party's Airflow now: the tasks' processes and those that watch over them."""
    # By their descent: a process that has given itself a title has no environment left to be looked at.
    ours = set(_descendants(component(party, "scheduler")))
    return [
        pid
        for pid, words in _commands()
        if pid in ours and words[:3] == ["airflow", "worker", "--"] and "<idle>" not in words
    ]


def java_machines(party: LocalParty) -> list[int]:
    """Return the JVMs of a party's jobs on Spark."""
    return [pid for pid, words in _commands() if any(_JVM in word for word in words) and _is_of(pid, party)]


def component(party: LocalParty, name: str) -> int:
    """Return the process of a component of a party's Airflow, such as ``scheduler``."""
    return int((party.airflow.logs / f"{name}.pid").read_text())


def kill(pid: int) -> None:
    """End a process and all that it has started, at once, as when their machine is lost."""
    for one in (pid, *_descendants(pid)):
        with suppress(ProcessLookupError):
            os.kill(one, signal.SIGKILL)


def _commands() -> Iterator[tuple[int, list[str]]]:
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended meanwhile
            # One that was forked has a title, whose words are apart by spaces.
            words = place.read_text(errors="replace").replace("\0", " ").split()
            if words:
                yield int(place.parent.name), words


def _is_of(pid: int, party: LocalParty) -> bool:
    """Whether a process was started for a party: its environment says so, whoever started it."""
    with suppress(OSError):
        return f"FEDTASKS_PARTY={party.file}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return False


def _descendants(pid: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for place in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # The name of the program, in brackets, may itself hold spaces.
            parent = int(place.read_text(errors="replace").rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(place.parent.name))
    found = [pid]
    for one in found:
        found += children.get(one, [])
    return found[1:]
